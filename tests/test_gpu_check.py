"""`make gpu-check`, rehearsed on the CPU; and what counts as right."""

import importlib
import json
import subprocess
import sys

import pytest

from lsce.machine import paths

FOLDER = paths.ROOT / "benchmarks"


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu_check")


@pytest.mark.slow
def test_a_rehearsal_on_the_cpu_goes_through_and_says_what_it_lacks(tmp_path):
    """Everything but capturing, which needs CUDA, is as it should be."""
    out = tmp_path / "check.json"
    command = [sys.executable, str(FOLDER / "gpu_check.py"), "--device", "cpu"]
    command += ["--models", "resnet6", "--seconds", "120", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    found = json.loads(out.read_text())
    assert not found["failed"], found["failed"]
    right = {name for name, right in found["passed"].items() if right}
    assert right >= {"loss", "network resnet6", "eager steps", "recording"}
    assert found["steps"]["captured"]["fallbacks"] and "captured steps" not in right
    assert done.returncode == 1 and "captured steps" in done.stdout.splitlines()[-1]
    assert found["throughput"]["resnet6"]["images a second"] > 0
    assert 0 < found["throughput"]["resnet6"]["share of the matrix rate"] < 1.5
    assert found["recording"]["runs"] > 0


def test_what_differs_is_not_passed(check):
    found = {
        "loss": {"a": 1e-15, "b": 1e-3},
        "networks": {"one": {"float64": 1e-12}, "two": {"float64": 1e-6}},
        "steps": {
            "compiled": {"mode": "compiled", "difference": 1e-6},
            "captured": {"mode": "compiled", "difference": 0.0},
        },
        "recording": {"runs": 3, "difference": 0.01},
    }
    assert check.passed(found) == {
        "loss": False,
        "network one": True,
        "network two": False,
        "compiled steps": True,
        "captured steps": False,
        "recording": True,
    }


def test_without_a_gpu_it_says_so(check, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    monkeypatch.setattr(check.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU here that PyTorch can use; --device cpu"):
        check.main()
