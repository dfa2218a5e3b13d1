"""The worked examples of CONTRIBUTING.md work."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_dataset import registered

from lsce import data, studies
from lsce.data import datasets
from lsce.judging import rule
from lsce.machine import paths
from lsce.results.run import Run
from lsce.results.store import Store
from lsce.studies import evidence
from lsce.studies.parameters import Regime
from lsce.sweeps.workers import perform
from lsce.training import methods, networks
from lsce.training.methods import Method, Smoothing
from lsce.training.spec import task_of

GUIDE = (paths.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

#: What the example of a study imports, as the studies beside it do.
IMPORTS = """
import itertools
from collections.abc import Iterator
from typing import Annotated
from pydantic import Strict
from lsce.judging.claims import MAIN
from lsce.studies.parameters import GridParameters, parameter
from lsce.studies.study import Labelled, Study
"""


def example(name: str) -> str:
    found = re.search(rf"^```\w+ {name}\n(.*?)^```$", GUIDE, re.M | re.S)
    assert found
    return found[1]


def executed(name: str, module: Any, **more: Any) -> dict[str, Any]:
    """The names of an example that is written into a module."""
    names = vars(module) | {"__name__": module.__name__} | more
    exec(compile(example(name), f"CONTRIBUTING.md, {name}", "exec"), names)
    return names


@pytest.fixture
def tiny() -> Iterator[data.Entry]:
    with registered() as entry:
        yield entry


def trained(folder: Path, entry: data.Entry, method: Method, network: str = "resnet6") -> Run:
    regime = Regime(network=network, train_size=100, epochs=1)
    spec = regime.spec(entry.name, 0, method)
    assert task_of(spec.model_dump(mode="json", exclude_none=True)).id == spec.id
    perform(spec, store := Store(folder))
    return store.load(spec)


def test_a_method(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Method, "kinds", dict(Method.kinds))
    poly = executed("method", methods)["Poly"](coefficient=1.0)
    run = trained(tmp_path, tiny, poly)
    assert (run.spec.method.name, run.spec.method.words) == ("PolyLoss", "PolyLoss, ε₁ = 1")
    assert run.status == "completed" and 0 <= run.scalars["test_accuracy"] <= 1


def test_a_network(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))
    executed("network", networks)
    run = trained(tmp_path, tiny, Smoothing(epsilon=0.1), "plain")
    assert run.status == "completed" and networks.width("plain") == 32


def test_a_data_set(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(datasets, "_ENTRIES", dict(datasets._ENTRIES))
    executed("dataset", datasets, torch=torch)
    run = trained(tmp_path, data.entry("greys"), Smoothing(epsilon=0.1))
    assert run.spec.num_classes == 4 and run.counts["gap"].sum() == 160


def test_a_page(tiny, tmp_path, monkeypatch):
    (tmp_path / "batch_size.py").write_text(IMPORTS + example("study"), encoding="utf-8")
    (tmp_path / "batch_size.yaml").write_text(example("claims"), encoding="utf-8")
    monkeypatch.setattr(studies, "__path__", [*studies.__path__, str(tmp_path)])
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    study = studies.of("13_batch_size")
    regime = {"few": {"network": "resnet6", "train_size": 100, "epochs": 1}}
    given = {"data_name": tiny.name, "regimes": regime, "epsilons": [0, 0.1], "seeds": [0, 1]}
    asked = study(study.Parameters(**given, batch_sizes=[20, 50]))
    for task in asked.tasks:
        perform(task, Store())
    shown = evidence.gather(asked, profile="mine")
    assert shown.regimes == ["few, batches of 20", "few, batches of 50"]
    assert len(shown.table) == 8
    (judged,) = shown.judgements.values()
    assert [each.effect.n for each in judged] == [2, 2]
    assert all(each.verdict in rule.VERDICTS for each in judged)
    del sys.modules["lsce.studies.batch_size"]
    studies.of.cache_clear()
    studies.claims_of.cache_clear()
