"""`make gpu-check`, rehearsed on the CPU; and what counts as right."""

import importlib
import json
import shutil
import sys

import pytest
import torch

from lsce.commands import record
from lsce.machine import paths
from lsce.sweeps import sweep
from lsce.sweeps.workers import Workers
from lsce.training import networks, precision, train

pytestmark = pytest.mark.slow

FOLDER = paths.ROOT / "benchmarks"


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu_check")


def one_layer(classes: int) -> networks.ImageClassifier:
    """Compiled in seconds, as the real ones are not."""
    return networks.ImageClassifier(networks.ConvBN(3, 8, 8, stride=8), 8, classes)


def test_a_rehearsal_on_the_cpu_goes_through_and_says_what_it_lacks(
    check, monkeypatch, tmp_path, capsys
):
    """Everything but capturing, which needs CUDA, is as it should be."""
    wanted = record.wanted
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(record, "wanted", lambda profile: dict(list(wanted(profile).items())[:1]))
    monkeypatch.setattr(sweep, "Workers", lambda count, processes: Workers(count, processes=False))
    monkeypatch.setattr(precision, "of", lambda *_: "float32")
    monkeypatch.setitem(networks.NETWORKS, "one-layer", one_layer)
    out = tmp_path / "check.json"
    command = ["gpu_check.py", "--device", "cpu", "--networks", "one-layer"]
    monkeypatch.setattr(sys, "argv", [*command, "--seconds", "600", "--out", str(out)])
    with train.one_thread(torch.device("cpu")), pytest.raises(SystemExit) as left:
        check.main()
    found = json.loads(out.read_text())
    assert not found["failed"], found["failed"]
    right = {name for name, right in found["passed"].items() if right}
    assert right >= {"loss", "network one-layer", "eager steps", "recording"}
    if shutil.which("c++"):
        assert "compiled steps" in right, found["steps"]["compiled"]
        assert all(each["captured"]["difference"] < 2e-3 for each in found["methods"].values())
    assert found["steps"]["captured"]["fallbacks"] and "captured steps" not in right
    assert left.value.code == 1
    assert "captured steps" in capsys.readouterr().out.splitlines()[-1]
    assert found["throughput"]["one-layer"]["images a second"] > 0
    assert found["throughput"]["one-layer"]["share of the matrix rate"] > 0
    assert found["recording"]["runs"] == 1


def test_what_differs_is_not_passed(check):
    found = {
        "loss": {"a": 1e-15, "b": 1e-3},
        "networks": {"one": {"float64": 1e-12}, "two": {"float64": 1e-6}},
        "steps": {
            "compiled": {"mode": "compiled", "difference": 1e-6},
            "captured": {"mode": "compiled", "difference": 0.0},
        },
        "methods": {"MbLS": {"captured": {"mode": "captured", "difference": 0.1}}},
        "recording": {"runs": 3, "difference": 0.01},
    }
    assert check.passed(found) == {
        "loss": False,
        "network one": True,
        "network two": False,
        "compiled steps": True,
        "captured steps": False,
        "captured steps, MbLS": False,
        "recording": True,
    }


def test_without_a_gpu_it_says_so(check, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    monkeypatch.setattr(check.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU here that PyTorch can use; --device cpu"):
        check.main()
