"""The records of a machine: what comes back, what is missing, what is damaged."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import run_of, tiny, trial
from tiny_dataset import registered

from lsce.results.recorded import MANIFEST, SAMPLES
from lsce.results.run import Run
from lsce.results.store import Store
from lsce.training.spec import Task


@pytest.fixture(scope="module", autouse=True)
def _data_set():
    with registered():
        yield


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def save(store: Store, task: Task, status: str = "completed") -> Run:
    tensors = {"outputs": {"test_logits": torch.rand(3, 4)}, "weights": {"w": torch.rand(2)}}
    return store.save(run_of(task, status, images=100), {} if status == "diverged" else tensors)


def test_a_record_comes_back_as_it_was_saved(store):
    spec = tiny(keep=("features", "selective"))
    assert spec not in store
    saved, run = save(store, spec), run_of(spec, images=100)
    for back in (saved, store.load(spec)):
        assert back.spec.id == spec.id and back.kept == spec.keep and not back.diverged
        assert back.scalars == run.scalars and back.origin == run.origin
        pd.testing.assert_frame_equal(back.history, run.history, check_dtype=False)
        pd.testing.assert_frame_equal(back.details, run.details, check_dtype=False, rtol=1e-6)
        assert (back.samples["correct"] == run.samples["correct"]).all()
        assert (back.counts["gap"] == run.counts["gap"]).all()
        assert np.array_equal(back.projections["similar.train"], run.projections["similar.train"])
    assert store.tensors(spec, "outputs")["test_logits"].shape == (3, 4)
    assert store.tensors(spec, "features") == {}


def test_a_run_that_diverged_has_a_history_and_nothing_else(store):
    save(store, tiny(keep=("features",)), "diverged")
    run = store.load(tiny(keep=("features",)))
    assert run.diverged and len(run.history) == 2 and store.tensors(tiny(), "outputs") == {}
    assert run.scalars == run.counts == run.samples == run.projections == {}


def test_an_evaluation_comes_back_with_its_run(store):
    tried = trial(tiny(), source=tiny(seed=1))
    save(store, tried)
    assert tried not in store
    save(store, tiny(keep=("selective",)))
    found, run, alone = store.load(tried), store.load(tiny()), store.read(tried)
    assert tried in store and found.task.id == tried.id and found.spec.id == tiny().id
    assert found.scalars == run.scalars | alone.scalars and "worst_error" in found.scalars
    assert len(found.history) == len(run.history) and found.counts.keys() == run.counts.keys()
    assert len(found.details) == len(run.details) + len(alone.details) > 0
    assert found.origin["seconds"] == {"training": 1.0, "total": 2.0}
    assert set(alone.samples) == {name for name in alone.samples if name.startswith("survived_")}
    assert set(found.samples) > set(alone.samples) and alone.history.empty
    assert trial(tiny(keep=("features",)), tiny(seed=1)) not in store  # its run has none


def test_a_write_that_fails_leaves_nothing(store, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for name in ("lsce.results.store.save_file", "pathlib.Path.write_bytes"):
        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
            patched.setattr(name, full)
            save(store, tiny())
        assert tiny() not in store and list(store.root.iterdir()) == []


def test_missing_names_each_run_once_and_unites_what_is_kept(store):
    save(store, tiny(seed=1))
    keeping, more = tiny(keep=("features",)), tiny(keep=("selected",))
    missing = store.missing([tiny(), keeping, more, tiny(seed=1), tiny(seed=2)])
    assert missing == [tiny(keep=("features", "selected")), tiny(seed=2)]


def test_a_record_that_lacks_something_is_made_anew_with_what_it_holds(store):
    save(store, tiny(keep=("features",)))
    assert tiny() in store and tiny(keep=("weights",)) not in store
    assert store.missing([tiny(keep=("weights",))]) == [tiny(keep=("features", "weights"))]


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"format": 2}'])
def test_a_damaged_manifest_is_a_missing_record(store, text):
    save(store, tiny())
    (store.root / tiny().id / MANIFEST).write_text(text)
    assert tiny() not in store and store.missing([tiny()]) == [tiny()]
    save(store, tiny())
    assert store.load(tiny()).scalars


def test_a_record_that_is_damaged_or_holds_another_run_is_named(store):
    save(store, tiny())
    save(store, tiny(seed=1))
    (store.root / tiny().id / SAMPLES).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{tiny().id} is damaged .*{SAMPLES} is damaged"):
        store.load(tiny())
    manifest = store.root / tiny(seed=1).id / MANIFEST
    fields = json.loads(manifest.read_text())
    fields["runs"][tiny(seed=1).id]["task"]["seed"] = 2
    manifest.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=f"{tiny(seed=1).id} is damaged .*{tiny(seed=2).id}"):
        store.load(tiny(seed=1))


def test_a_task_without_a_record_is_named(store):
    with pytest.raises(KeyError, match=f"no record of run {tiny().id}"):
        store.load(tiny())
