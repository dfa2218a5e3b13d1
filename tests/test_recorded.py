"""The files of recorded results: what comes back, what is refused."""

import contextlib
import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import digest_of, spec

from lsce import data
from lsce.commands.record import wanted
from lsce.machine import paths
from lsce.results import recorded
from lsce.results.measurements import Digest
from lsce.results.recorded import MANIFEST, Recorded
from lsce.studies import profiles

BUILT_IN = {"data": "built-in", "data_checksum": data.CHECKSUMS["built-in"]}


@pytest.fixture(scope="module")
def runs() -> list[Digest]:
    """Two seeds, of which one has no samples, one on the built-in data, one that diverged."""
    found = [digest_of(spec(seed=seed), images=10_000) for seed in (0, 1)]
    found[1] = dataclasses.replace(found[1], samples={})
    found.append(digest_of(spec(**BUILT_IN), images=10_000))
    found.append(digest_of(spec(epsilon=0.9), status="diverged"))
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_comes_back(runs, tmp_path):
    recorded.write(runs, tmp_path / "some")
    found = Recorded(tmp_path / "some")
    assert len(found) == 4
    for run in runs:
        back = found.load(run.spec)
        assert (back.spec, back.status, back.origin) == (run.spec, run.status, run.origin)
        assert back.scalars == run.scalars
        pd.testing.assert_frame_equal(back.history, run.history, check_dtype=False, rtol=1e-6)
        assert back.counts.keys() == run.counts.keys()
        for quantity, counts in run.counts.items():
            assert np.array_equal(back.counts[quantity], counts)
        assert back.samples.keys() == run.samples.keys()
        for name, values in run.samples.items():
            error = np.abs(back.samples[name] - values.astype(float))
            # Half a unit; of a NLL, what float16 rounds to.
            rounded = 2**-11 * values if name.startswith("nll") else 0.5 / 65535 + 1e-12
            assert (error <= rounded).all(), name


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
    found = {run.spec.id for run in Recorded(tmp_path)}
    assert found in ({run.spec.id for run in runs[:2]}, {run.spec.id for run in runs})
    again = {run.spec.id for run in Recorded(tmp_path)}  # mended for good
    assert again == found and (kills or contents(tmp_path) == old)
    recorded.write(runs, tmp_path)  # and nothing of the killed one is left then
    recorded.write(runs, tmp_path / "fresh")
    fresh = contents(tmp_path / "fresh")
    shutil.rmtree(tmp_path / "fresh")
    assert contents(tmp_path) == fresh


def test_a_run_takes_little_room(runs, tmp_path):
    """Thousands of runs, the main ones image by image, must stay below 12 MB."""
    recorded.write(runs[:2], tmp_path)
    files = contents(tmp_path)
    assert len(files["samples.safetensors"]) < 82_000
    assert sum(map(len, files.values())) - len(files["samples.safetensors"]) < 30_000


def test_what_only_some_runs_have_comes_back_with_them(runs, tmp_path):
    kept = spec(seed=2, keep=("features", "information"))
    noisy = spec(seed=2, noise="symmetric", noise_rate=0.4, keep=("selected",))
    fewer = spec(seed=2, classes=80, train_size=240, monitor_size=80)
    more = [digest_of(kept, images=10_000), digest_of(noisy, images=10_000)]
    more.append(digest_of(fewer, images=8_000))
    sure = digest_of(spec(seed=3, keep=("selective",)), images=10_000)
    assert len(sure.details) == 60 and sure.scalars["excess_aurc"] > 0
    more.append(sure)
    recorded.write([*runs, *more], tmp_path / "some")
    found = Recorded(tmp_path / "some")
    for run in (*runs, *more):
        back = found.load(run.spec)
        recorded.check(back)
        assert list(back.history) == list(run.history) and back.scalars == run.scalars
        assert back.samples.keys() == run.samples.keys()
        assert back.projections.keys() == run.projections.keys()
        pd.testing.assert_frame_equal(
            back.details.reset_index(drop=True), run.details, check_dtype=False, rtol=1e-6
        )
        for name, points in run.projections.items():
            assert np.array_equal(back.projections[name], points)
    assert kept in found and dataclasses.replace(noisy, keep=("features",)) not in found
    again = tmp_path / "again"
    recorded.write(found, again)
    assert contents(again) == contents(tmp_path / "some")


def test_of_two_records_of_a_run_the_one_with_more_scalars_stays(tmp_path):
    bare, kept = (digest_of(spec(keep=keep), images=10_000) for keep in ((), ("selected",)))
    recorded.write([bare], tmp_path / "a")
    recorded.write([kept], tmp_path / "b")
    for order in (("a", "b"), ("b", "a")):
        into = tmp_path / "-".join(order)
        recorded.merge([tmp_path / name for name in order], into)
        assert dataclasses.replace(spec(), keep=("selected",)) in Recorded(into)


def test_nothing_recorded_is_an_empty_set(tmp_path):
    assert len(Recorded(tmp_path / "nowhere")) == 0
    assert Recorded(tmp_path / "nowhere").missing([spec(), spec(), spec(seed=1)]) == [
        spec(),
        spec(seed=1),
    ]


def test_merging_into_a_folder_that_lost_its_manifest_changes_nothing(runs, tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    recorded.write(runs, mine)
    recorded.write(runs, other)
    (mine / recorded.MANIFEST).unlink()
    before = {file.name: file.read_bytes() for file in mine.iterdir()}
    with pytest.raises(ValueError, match="or hold recorded runs, with their manifest.json"):
        recorded.merge([other], mine)
    assert {file.name: file.read_bytes() for file in mine.iterdir()} == before


def test_merging_gives_the_same_bytes_in_any_order_and_any_number_of_times(runs, tmp_path):
    recorded.write(runs[:2], tmp_path / "a")
    recorded.write(runs[1:], tmp_path / "b")
    a, b = tmp_path / "a", tmp_path / "b"
    assert len(recorded.merge([a, b], tmp_path / "one")) == 4
    assert len(recorded.merge([b], tmp_path / "two")) == 3
    assert len(recorded.merge([a], tmp_path / "two")) == 1
    assert recorded.merge([a, b, a], tmp_path / "two") == []
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_of_two_records_of_a_run_the_one_with_samples_stays_then_the_earlier(runs, tmp_path):
    first, later = runs[0], dataclasses.replace(
        runs[0], origin=runs[0].origin | {"finished": "2027-01-01T00:00:00+00:00"}
    )  # fmt: skip
    bare = dataclasses.replace(first, samples={})
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
        (lambda r: {"spec": dataclasses.replace(r.spec, data_checksum="abc")}, "data_checksum is"),
        (lambda r: {"history": r.history.head(1)}, "history has 1 epochs instead of 2"),
        (lambda r: {"scalars": {"test_nll": 1.0}}, "its debiased_ce is missing"),
        (lambda r: {"counts": {"gap": r.counts["gap"]}}, "histogram of confidence is missing"),
        (lambda r: {"counts": r.counts | {"gap": np.array([3])}}, "is of 3 test images"),
        (lambda r: {"status": "half"}, "status is 'half'"),
    ],
)
def test_an_incomplete_run_is_refused_and_nothing_is_written(runs, tmp_path, change, words):
    recorded.write([dataclasses.replace(runs[0], **change(runs[0]))], tmp_path / "bad")
    recorded.write(runs[1:], tmp_path / "good")
    with pytest.raises(ValueError, match=rf"bad, run \w{{16}}: .*{words}"):
        recorded.merge([tmp_path / "good", tmp_path / "bad"], tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no recorded results: it has no manifest.json"):
        recorded.merge([tmp_path])


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
    run = runs[0].spec.id
    manifest["runs"][run]["spec"]["seed"] = 7
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=f"the spec of run {run} is that of"):
        Recorded(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(ValueError, match="has format 2; it must be 1"):
        Recorded(tmp_path)


def test_the_results_that_come_with_the_project_are_complete_and_small():
    found = Recorded(paths.RECORDED)
    assert len(found) > 0
    for run in found:
        recorded.check(run)
    every = [run for name in profiles.names() for run in wanted(profiles.load(name)).values()]
    shown = {run.spec.id for run in every if run.in_full}
    assert {run.spec.id for run in found if set(run.samples) > {"correct"}} <= shown
    assert sum(file.stat().st_size for file in paths.RECORDED.iterdir()) <= 12e6
