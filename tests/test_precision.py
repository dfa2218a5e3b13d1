"""The precision of a network on a CPU is measured once and kept."""

import json

import pytest
import torch

from lsce.machine import paths, provenance
from lsce.training import networks, precision

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A CPU with AMX, on which nothing has been measured."""
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(provenance, "fast_bfloat16", lambda: "AMX")
    monkeypatch.setattr(provenance, "device_name", lambda kind: "a CPU, AMX")
    measured = []

    def measure(name):
        measured.append(name)
        return {"bf16": 150.0 if name == "resnet18" else 110.0, "float32": 100.0}

    monkeypatch.setattr(precision, "measure", measure)
    return measured


def test_bfloat16_is_used_where_it_pays_and_measured_once(machine):
    for _ in range(2):
        assert precision.of("resnet18", CPU) == "bf16"
        assert precision.of("resnet6", CPU) == "float32"
    assert machine == ["resnet18", "resnet6"]
    (kept,) = json.loads((paths.CACHE / precision.KEPT).read_text()).values()
    assert kept["resnet6"] == {"bf16": 110.0, "float32": 100.0}


def test_another_machine_is_measured_anew(machine, monkeypatch):
    precision.of("resnet6", CPU)
    monkeypatch.setattr(provenance, "device_name", lambda kind: "another CPU, AVX-512 BF16")
    precision.of("resnet6", CPU)
    assert machine == ["resnet6", "resnet6"]


def test_a_damaged_file_is_measured_again(machine):
    precision.of("resnet6", CPU)
    (paths.CACHE / precision.KEPT).write_text('{"a CPU')
    assert precision.of("resnet18", CPU) == "bf16" and machine == ["resnet6", "resnet18"]


def test_without_instructions_for_it_nothing_is_measured(machine, monkeypatch):
    monkeypatch.setattr(provenance, "fast_bfloat16", lambda: None)
    assert precision.of("resnet18", CPU) == "float32" and not machine


def test_a_timing_gives_both_rates_and_leaves_threads_and_generator_alone():
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    rates = precision.measure("resnet6-half")
    assert set(rates) == {"bf16", "float32"} and min(rates.values()) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_network_is_run_in_its_own_precision():
    network = networks.build("resnet6-half", 10)
    product = torch.ones(2, 2) @ torch.ones(2, 2)
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        network.precision = name
        with precision.autocast(network, CPU):
            assert (product @ product).dtype == dtype
