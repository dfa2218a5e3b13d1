"""The records of one machine."""

import pytest
import torch
from made_up import run_of, spec
from test_spec import protocol

from lsce.results.recorded import MANIFEST
from lsce.results.store import Store
from lsce.training.spec import Evaluation

IMAGES = 10_000


def save(store: Store, task):
    run = run_of(task, images=IMAGES)
    tensors = {name: {"x": torch.rand(3, 4)} for name in ("outputs", *task.keep)}
    return store.save(run, tensors)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def test_a_record_comes_back_as_it_was_saved(store):
    kept = spec(keep=("features",))
    assert kept not in store and spec() not in store
    save(store, kept)
    run, made = store.load(kept), run_of(kept, images=IMAGES)
    assert run.task == kept.model_copy(update={"keep": frozenset()}) and not run.diverged
    assert run.scalars == made.scalars and run.origin == made.origin
    assert list(run.history["train_nll"]) == [1.25, 1.25]
    assert store.tensors(kept, "features")["x"].shape == (3, 4)
    assert store.tensors(kept, "weights") == {}
    with pytest.raises(KeyError, match=f"no record of run {spec(seed=1).id}"):
        store.load(spec(seed=1))


def test_an_evaluation_is_its_run_with_what_was_found(store):
    task = Evaluation(run=spec(), source=spec(seed=9), protocol=protocol())
    save(store, task)
    assert task not in store  # its run is not there
    save(store, spec())
    run = store.load(task)
    assert run.task == task and run.scalars["worst_error"] == 0.8
    assert run.scalars["top1_error"] == store.load(spec()).scalars["top1_error"]
    assert run.origin["seconds"] == {"training": 1.0, "total": 2.0}


def test_a_write_that_fails_leaves_nothing(store, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lsce.results.store.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(store, spec())
    assert spec() not in store
    assert list(store.root.iterdir()) == []


def test_missing_names_each_run_once_and_unites_what_is_kept(store):
    save(store, spec(seed=1))
    keeping = spec(keep=("features",))
    missing = store.missing([spec(), keeping, spec(seed=1), spec(seed=2)])
    assert missing == [keeping, spec(seed=2)]


def test_a_record_that_lacks_something_is_made_anew_with_what_it_holds(store):
    save(store, spec(keep=("features",)))
    assert spec() in store
    (missing,) = store.missing([spec(keep=("weights",))])
    assert missing.keep == {"features", "weights"}


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"format": 2}'])
def test_a_damaged_manifest_is_a_missing_record(store, text):
    save(store, spec())
    (store.root / spec().id / MANIFEST).write_text(text)
    assert spec() not in store and store.missing([spec()]) == [spec()]


def test_a_damaged_file_is_named(store):
    save(store, spec())
    (store.root / spec().id / "runs.csv").write_text("run\n")
    with pytest.raises(ValueError, match=f"{spec().id} is damaged .*runs.csv .*; delete it"):
        store.load(spec())
