"""The files of recorded results: what comes back, what is refused."""

import contextlib
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import run_of, spec, tiny, trial
from tiny_dataset import registered

from lsce.commands.record import wanted
from lsce.machine import paths
from lsce.results import recorded
from lsce.results.recorded import MANIFEST, Recorded
from lsce.results.run import Run
from lsce.studies import profiles
from lsce.training.methods import Smoothing
from lsce.training.spec import Evaluation, NoisyLabels, SomeClasses


@pytest.fixture(scope="module", autouse=True)
def _data_set():
    with registered():
        yield


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Two on the tiny data set, of which the second has no samples and no refinement by epoch, one
    whose posterior is known, one that diverged, and an evaluation of the first."""
    first, second, known = (run_of(tiny(seed=seed), images=100) for seed in (0, 1, 2))
    known.samples["true_probability"] = np.linspace(0, 1, 100)
    diverged = run_of(tiny(method=Smoothing(epsilon=0.9)), status="diverged")
    tried = run_of(trial(tiny(), source=tiny(seed=1)))
    older = second.history.drop(columns="validation_refinement")
    return [first, replace(second, samples={}, history=older), known, diverged, tried]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(back: Run, run: Run) -> None:
    assert (back.task.id, back.status, back.origin) == (run.task.id, run.status, run.origin)
    assert back.kept == run.kept and back.scalars == run.scalars
    for name in ("history", "details"):
        one, other = getattr(back, name), getattr(run, name)
        assert len(one) == len(other)
        if len(one):
            pd.testing.assert_frame_equal(one, other, check_dtype=False, rtol=1e-6)
    for name in ("counts", "projections"):
        one, other = getattr(back, name), getattr(run, name)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[quantity], other[quantity]) for quantity in other)
    assert back.samples.keys() == run.samples.keys()
    for name, values in run.samples.items():
        assert back.samples[name].shape == values.shape
        error = np.abs(back.samples[name] - values.astype(float))
        assert (error <= 0.5 / 65535 + 1e-12).all(), name  # half a unit


def test_what_is_written_comes_back(runs, tmp_path):
    recorded.write(runs, tmp_path / "some")
    found = Recorded(tmp_path / "some")
    assert len(found) == len(runs) and found.devices == ["an abacus"]
    for back, run in zip(found, sorted(runs, key=lambda run: run.task.id), strict=True):
        recorded.check(back)
        same(back, run)
        assert run.task in found
    tried = runs[-1].task
    whole = found.load(tried)
    assert whole.spec.id == tried.run.id and whole.scalars == runs[0].scalars | runs[-1].scalars
    assert whole.samples.keys() == runs[0].samples.keys() | runs[-1].samples.keys()


@pytest.mark.parametrize("kills", range(14))
def test_a_writer_that_is_killed_leaves_what_was_there_or_what_is_new(
    runs, tmp_path, monkeypatch, kills
):
    """Killed before each of its writes and renames in turn."""
    recorded.write(runs[:2], tmp_path)
    old = contents(tmp_path)
    calls = itertools.count()

    def dies_at(function):
        def call(*args):
            if next(calls) == kills:
                raise KeyboardInterrupt
            return function(*args)

        return call

    with monkeypatch.context() as patched:
        for name in ("write_bytes", "replace", "unlink"):
            patched.setattr(Path, name, dies_at(getattr(Path, name)))
        with contextlib.suppress(KeyboardInterrupt):
            recorded.write(runs, tmp_path)
    found = {run.task.id for run in Recorded(tmp_path)}
    assert found in ({run.task.id for run in runs[:2]}, {run.task.id for run in runs})
    again = {run.task.id for run in Recorded(tmp_path)}  # mended for good
    assert again == found and (kills or contents(tmp_path) == old)
    recorded.write(runs, tmp_path)  # and nothing of the killed one is left then
    recorded.write(runs, tmp_path / "fresh")
    fresh = contents(tmp_path / "fresh")
    shutil.rmtree(tmp_path / "fresh")
    assert contents(tmp_path) == fresh


def test_a_run_takes_little_room(tmp_path):
    """Thousands of runs, the main ones image by image, must stay below 12 MB."""
    full = run_of(spec(), images=10_000)
    bare = replace(full, task=spec(seed=1), samples={})
    recorded.write([full, bare], tmp_path)
    files = contents(tmp_path)
    assert len(files["samples.safetensors"]) < 82_000
    assert sum(map(len, files.values())) - len(files["samples.safetensors"]) < 30_000


def test_what_only_some_runs_have_comes_back_with_them(runs, tmp_path):
    kept = tiny(seed=2, keep=("features", "information"))
    noisy = tiny(labels=NoisyLabels(noise="symmetric", rate=0.4), keep=("selected",))
    fewer = tiny(sample=SomeClasses(classes=8, train_size=80), monitor_size=80)
    sure = tiny(seed=3, keep=("selective",))
    more = [run_of(each, images=each.images_of("test")) for each in (kept, noisy, fewer, sure)]
    assert len(more[-1].details) == 60 and more[-1].scalars["excess_aurc"] > 0
    every = [*runs[:2], *runs[3:], *more]
    recorded.write(every, tmp_path / "some")
    found = Recorded(tmp_path / "some")
    for run in every:
        back = next(each for each in found if each.task.id == run.task.id)
        recorded.check(back)
        same(back, run)
    assert kept in found and noisy.keeping("features") not in found
    assert runs[3].spec.keeping("features") in found  # it diverged: there is nothing to keep
    recorded.write(found, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "some")


def test_an_evaluation_without_its_run_is_missing(runs, tmp_path):
    recorded.write(runs[-1:], tmp_path)
    tried, found = runs[-1].task, Recorded(tmp_path)
    assert len(found) == 1 and tried not in found and found.missing([tried]) == [tried]
    with pytest.raises(KeyError):
        found.load(tried)


def test_single_images_of_an_evaluation_take_little_room_and_old_ones_have_none(tmp_path):
    """The images of its protocol, whatever the test split has; at most 2 kB."""
    task = trial(tiny(), source=tiny(seed=1))
    sizes = {"corrupted_images": 100, "attacked_images": 90, "radii": (1.0, 2.0, 4.0, 8.0)}
    task = task.model_copy(update={"protocol": task.protocol.model_copy(update=sizes)})
    run = run_of(task)
    recorded.write([run, run_of(tiny(), images=100)], tmp_path / "new")
    back = Recorded(tmp_path / "new").load(task)
    assert back.samples["survived_worst"].shape == (4, 90)
    for name, values in run.samples.items():
        assert back.samples[name].dtype == values.dtype
        assert np.array_equal(back.samples[name], values)
    packed = recorded._samples([run]).values()
    assert sum(values.nbytes for values in packed) == 2 * 4 * 90 / 8 + 100
    old = replace(run, samples={})
    recorded.write([old], tmp_path / "old")
    (found,) = Recorded(tmp_path / "old")
    recorded.check(found)
    assert not found.samples
    # Of the two the one that has them stays.
    recorded.merge([tmp_path / "old", tmp_path / "new"], tmp_path / "both")
    assert Recorded(tmp_path / "both").load(task).samples.keys() == back.samples.keys()


def test_an_evaluation_of_other_images_than_its_protocol_is_refused(tmp_path):
    run = run_of(trial(tiny(), source=tiny(seed=1)))
    run.samples["survived_corruptions"] = np.zeros(11, dtype=np.uint8)
    recorded.write([run], tmp_path / "bad")
    with pytest.raises(ValueError, match=r"survived_corruptions has the shape \(11,\) instead"):
        recorded.merge([tmp_path / "bad"], tmp_path / "into")


def test_nothing_recorded_is_an_empty_set(tmp_path):
    assert len(Recorded(tmp_path / "nowhere")) == 0
    missing = Recorded(tmp_path / "nowhere").missing([spec(), spec(), spec(seed=1)])
    assert missing == [spec(), spec(seed=1)]


# ---- merging ----


def test_of_two_records_of_a_run_the_one_with_more_scalars_stays(tmp_path):
    for name, keep in (("a", ()), ("b", ("selected",))):
        recorded.write([run_of(tiny(keep=keep), images=100)], tmp_path / name)
    for order in (("a", "b"), ("b", "a")):
        into = tmp_path / "-".join(order)
        recorded.merge([tmp_path / name for name in order], into)
        assert tiny(keep=("selected",)) in Recorded(into)


def test_merging_into_a_folder_that_lost_its_manifest_changes_nothing(runs, tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    recorded.write(runs, mine)
    recorded.write(runs, other)
    (mine / MANIFEST).unlink()
    before = contents(mine)
    with pytest.raises(ValueError, match="or hold recorded runs, with their manifest.json"):
        recorded.merge([other], mine)
    assert contents(mine) == before


def test_merging_gives_the_same_bytes_in_any_order_and_any_number_of_times(runs, tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    recorded.write(runs[:2], a)
    recorded.write(runs[1:], b)
    assert len(recorded.merge([a, b], tmp_path / "one")) == 5
    assert len(recorded.merge([b], tmp_path / "two")) == 4
    assert [run.task.id for run in recorded.merge([a], tmp_path / "two")] == [runs[0].task.id]
    assert recorded.merge([a, b, a], tmp_path / "two") == []
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_of_two_records_of_a_run_the_one_with_samples_stays_then_the_earlier(runs, tmp_path):
    first = runs[0]
    later = replace(first, origin=first.origin | {"finished": "2027-01-01T00:00:00+00:00"})
    bare = replace(first, samples={})
    for name, run in (("first", first), ("later", later), ("bare", bare)):
        recorded.write([run], tmp_path / name)
    for order in (("later", "bare", "first"), ("first", "later"), ("bare", "first")):
        into = tmp_path / "-".join(order)
        recorded.merge([tmp_path / name for name in order], into)
        kept = Recorded(into).load(first.spec)
        assert kept.samples and kept.origin == first.origin


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: {"task": r.spec.changed(data_checksum="abc")}, "data_checksum is abc…"),
        (lambda r: {"history": r.history.head(1)}, "history has 1 epochs instead of 2"),
        (lambda r: {"scalars": {"test_nll": 1.0}}, "its debiased_ce is missing"),
        (lambda r: {"counts": {"gap": r.counts["gap"]}}, "histogram of confidence is missing"),
        (lambda r: {"counts": r.counts | {"gap": np.array([3])}}, "is of 3 test images"),
        (lambda r: {"status": "half"}, "status is 'half'"),
        (lambda r: {"task": trial(r.spec, r.spec)}, "its corrupted_error is missing"),
    ],
)
def test_an_incomplete_run_is_refused_and_nothing_is_written(runs, tmp_path, change, words):
    recorded.write([replace(runs[0], **change(runs[0]))], tmp_path / "bad")
    recorded.write(runs[1:], tmp_path / "good")
    with pytest.raises(ValueError, match=rf"bad, run \w{{16}}: .*{words}"):
        recorded.merge([tmp_path / "good", tmp_path / "bad"], tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no recorded results: it has no manifest.json"):
        recorded.merge([tmp_path], tmp_path / "into")


# ---- what is damaged ----


@pytest.mark.parametrize("name", ["runs.csv", "histories.parquet", "samples.safetensors"])
def test_a_damaged_or_missing_file_is_named(runs, tmp_path, name):
    recorded.write(runs, tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{name} is damaged: its SHA-256 is"):
        Recorded(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        Recorded(tmp_path)


def test_a_manifest_that_does_not_fit_is_refused(runs, tmp_path):
    recorded.write(runs, tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    run = runs[0].task.id
    manifest["runs"][run]["task"]["seed"] = 7
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=f"the task of run {run} is that of {tiny(seed=7).id}"):
        list(Recorded(tmp_path))
    for text, words in (
        (json.dumps(manifest | {"format": 1}), "has format 1; it must be 2"),
        ('{"format": 2, "files": {}, "scalars": [], "runs": {}}', "is damaged"),
        ("{}", "is damaged"),
        ("[", "is damaged"),
    ):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(ValueError, match=f"{MANIFEST} {words}"):
            Recorded(tmp_path)


# ---- the results that come with the project ----


@pytest.mark.slow
def test_the_results_that_come_with_the_project_are_complete_and_small():
    found = Recorded(paths.RECORDED)
    manifest = json.loads((paths.RECORDED / MANIFEST).read_text())
    assert len(found) > 0 and [run.task.id for run in found] == list(manifest["runs"])
    for run in found:
        recorded.check(run)
        assert run.task in found  # and so the run of an evaluation
    assert any(isinstance(run.task, Evaluation) for run in found)
    every = [run for name in profiles.names() for run in wanted(profiles.Profile(name)).values()]
    shown = {each.task.id for each in every if each.in_full}
    assert {run.task.id for run in found if set(run.samples) > {"correct"}} <= shown
    assert sum(file.stat().st_size for file in paths.RECORDED.iterdir()) <= 12e6


@pytest.mark.parametrize("groups", [np.zeros(49), np.full(50, np.nan)])
def test_a_measure_needs_a_number_of_each_group(tmp_path, groups):
    run = run_of(spec(), images=10_000)
    run.by_group["nll"] = groups
    recorded.write([run], tmp_path)
    sentence = "groups.parquet: nll of run .* must be 50 finite numbers, one a group, but is"
    with pytest.raises(ValueError, match=sentence):
        Recorded(tmp_path).load(run.task)
