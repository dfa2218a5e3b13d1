"""Recorded results: runs in a few compact files, fit for git.

A folder holds, of what `lsce.results.run` describes::

    manifest.json         checksums of data and files, the names of the scalars, and for every run
                          its task, status, origin and extras
    runs.csv              one row a run: its id, what it is, and its scalars
    histories.parquet     one row a run and epoch
    details.parquet       measurements that are more than a number
    histograms.parquet    test images by confidence and by logit gap: run, quantity, bin, count
    groups.parquet        how measures vary between groups of test images: run, measure, and a
                          value, float16, for each group in order
    samples.safetensors   `<id>.correct`, a bit an image; where figures show single images also
                          `<id>.confidence`, `.scaled`, `.true_probability`, uint16 in units of
                          1/65535; where features were kept `<id>.projection.similar.train`, …,
                          float32 (3, P, 2); of evaluations `<id>.survived_fgsm`,
                          `.survived_worst`, a bit an image and radius, and
                          `.survived_corruptions`, uint8

The same runs make the same bytes, in whatever order they came. A writer can be killed at any
moment: a reader sees all the old runs or all the new ones, because the manifest takes its place
first and `_verified` finds the files that have not yet.
"""

import functools
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load as load_samples
from safetensors.numpy import save as save_samples

from lsce.machine import paths
from lsce.results.complete import COUNTS, check, check_groups, shape_of
from lsce.results.run import DETAILS, MONITORED, Run
from lsce.training.spec import Evaluation, Task, task_of

FORMAT = 2
MANIFEST = "manifest.json"
RUNS, HISTORIES, DETAILED = "runs.csv", "histories.parquet", "details.parquet"
HISTOGRAMS, SAMPLES = "histograms.parquet", "samples.safetensors"

#: Which runs recorded before 28 November 2026 lack.
BY_GROUP = "groups.parquet"

#: uint16 units of a probability.
UNIT = 65535

#: Types of columns; all others are float32.
TYPES = {"epoch": "int16", "bin": "int16", "count": "int32"}
TYPES |= dict.fromkeys(("run", "quantity", "case", "measure"), "category")


class Recorded:
    """The runs of a folder; none if there is no such folder.

    The files are read and verified when it is opened; a run is made when it is first asked for.
    Raises ValueError, naming the file, if one is missing or is not what the manifest says.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder or paths.RECORDED
        self._entries: dict[str, dict[str, Any]] = {}
        if (self.folder / MANIFEST).is_file():
            self._read()
        self._run = functools.cache(self._made)
        #: Names of the machines that trained the runs, sorted.
        self.devices = sorted({entry["device"] for entry in self._entries.values()})

    def __contains__(self, task: Task) -> bool:
        if task.id not in self._entries:
            return False
        if isinstance(task, Evaluation):
            return task.run in self
        entry = self._entries[task.id]  # one that diverged has nothing to hold
        return entry["status"] == "diverged" or task.keep <= set(entry["kept"])

    def __iter__(self) -> Iterator[Run]:
        """Every run, and every evaluation without its run."""
        return map(self._run, self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def missing(self, tasks: Iterable[Task]) -> list[Task]:
        """The tasks that are not recorded, each once, in the order given."""
        return list({task.id: task for task in tasks if task not in self}.values())

    def load(self, task: Task) -> Run:
        """The run of a task; an evaluation is that of its run, with what it measured. Raises
        KeyError if there is none."""
        run = self._run(task.run.id)
        return run.evaluated(self._run(task.id)) if isinstance(task, Evaluation) else run

    def _read(self) -> None:
        file = self.folder / MANIFEST
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            version, sums = manifest["format"], manifest["files"]
            files = {name: sums[name] for name in (RUNS, HISTORIES, DETAILED, HISTOGRAMS, SAMPLES)}
            files |= {BY_GROUP: sums[BY_GROUP]} if BY_GROUP in sums else {}
            scalars, self._entries = manifest["scalars"], manifest["runs"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error})") from error
        if version != FORMAT:
            raise ValueError(f"{file} has format {version!r}; it must be {FORMAT}")
        contents = {name: _verified(self.folder / name, sha) for name, sha in files.items()}
        # As text first: not every pandas reads back the very number that was written.
        table = pd.read_csv(io.BytesIO(contents[RUNS]), dtype=str, index_col="run")
        self._scalars = table[scalars].astype(float)
        self._samples: dict[str, dict[str, np.ndarray]] = {}
        for name, values in load_samples(contents[SAMPLES]).items():
            run, _, quantity = name.partition(".")
            self._samples.setdefault(run, {})[quantity] = values
        tables = files.keys() - {RUNS, SAMPLES}
        self._rows = {name: _by_run(contents[name]) for name in tables}

    def _made(self, name: str) -> Run:
        origin = self._entries[name].copy()
        task, status, kept = task_of(origin.pop("task")), origin.pop("status"), origin.pop("kept")
        if task.id != name:
            file = self.folder / MANIFEST
            raise ValueError(f"{file} is damaged (the task of run {name} is that of {task.id})")
        history = self._rows[HISTORIES](name)
        of_other_runs = [c for c in MONITORED if c in history and history[c].isna().all()]
        history = history.drop(columns=of_other_runs)
        details = self._rows[DETAILED](name).astype(DETAILS)
        run = Run(task, status, origin, history=history, details=details, kept=frozenset(kept))
        if run.diverged:
            return run
        run.scalars.update(self._scalars.loc[name].dropna().to_dict())
        for quantity, rows in self._rows[HISTOGRAMS](name).groupby("quantity", observed=True):
            counts = np.bincount(rows["bin"], weights=rows["count"])
            run.counts[str(quantity)] = counts.astype(np.int64)
        if BY_GROUP in self._rows:
            for measure, rows in self._rows[BY_GROUP](name).groupby("measure", observed=True):
                run.by_group[str(measure)] = rows["value"].to_numpy(dtype=float)
            check_groups(run, self.folder / BY_GROUP)
        for quantity, values in self._samples.get(name, {}).items():
            if quantity.startswith("projection."):
                run.projections[quantity.removeprefix("projection.")] = values
            elif values.dtype != np.float16:  # the NLL, recorded before 28 November 2026
                run.samples[quantity] = _unpacked(values, quantity, task)
        return run


def _verified(file: Path, checksum: str) -> bytes:
    """The content of a file, which a writer that was killed may have left beside its place."""
    for path in (file, *file.parent.glob(f".{file.name}.*")):
        if path.is_file() and _sha(content := path.read_bytes()) == checksum:
            if path != file:
                path.replace(file)
            return content
    if not file.is_file():
        raise ValueError(f"{file} is missing; {MANIFEST} beside it names it")
    actual, expected = _sha(file.read_bytes())[:12], checksum[:12]
    raise ValueError(f"{file} is damaged: its SHA-256 is {actual}…, {MANIFEST} says {expected}…")


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _by_run(content: bytes) -> Callable[[str], pd.DataFrame]:
    """The rows of a run by its id."""
    frame = pd.read_parquet(io.BytesIO(content))
    rows = frame.groupby("run", observed=True).indices
    frame = frame.drop(columns="run")
    return lambda run: frame.iloc[rows.get(run, [])].reset_index(drop=True)


def _unpacked(values: np.ndarray, name: str, task: Task) -> np.ndarray:
    if name == COUNTS:
        return values
    if values.dtype == np.uint8:
        shape = shape_of(name, task)
        return np.unpackbits(values, count=math.prod(shape)).astype(bool).reshape(shape)
    return values / UNIT


def results() -> Recorded:
    """The recorded results that come with the project, read once a process."""
    return _opened(paths.RECORDED, manifest_of(paths.RECORDED))


def manifest_of(folder: Path) -> bytes:
    """The content of a folder's manifest, empty if there is none."""
    file = folder / MANIFEST
    return file.read_bytes() if file.is_file() else b""


@functools.lru_cache(maxsize=1)
def _opened(folder: Path, manifest: bytes) -> Recorded:
    return Recorded(folder)


# ---- writing ----


def write(runs: Iterable[Run], folder: Path) -> None:
    """Replace what `folder` records by `runs`, of which there must be some.

    Raises OSError, naming the folder, if it cannot be written.
    """
    runs = sorted(runs, key=lambda run: run.task.id)
    contents = {
        RUNS: pd.DataFrame(map(_row, runs)).to_csv(index=False, lineterminator="\n").encode(),
        SAMPLES: save_samples(_samples(runs)),
    }
    for name, table in _tables(runs).items():
        usual = "float16" if name == BY_GROUP else "float32"
        types = {column: TYPES.get(str(column), usual) for column in table}
        floats = [column for column, kind in types.items() if kind == "float32"]
        contents[name] = table.astype(types).to_parquet(
            index=False,
            compression="zstd",
            use_dictionary=[column for column in table if column not in floats],
            use_byte_stream_split=floats,  # a third smaller
        )
    manifest = {
        "format": FORMAT,
        "data": {run.spec.data: run.spec.entry.checksum for run in runs},
        "scalars": sorted({name for run in runs for name in run.scalars}),
        "files": {name: _sha(content) for name, content in contents.items()},
        "runs": {
            run.task.id: {
                "task": run.task.model_dump(mode="json", exclude_none=True),
                "status": run.status,
                "kept": sorted(run.kept),
                **run.origin,
            }
            for run in runs
        },
    }
    contents[MANIFEST] = (json.dumps(manifest, sort_keys=True) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            paths.beside(folder / name).write_bytes(content)
        for name in (MANIFEST, *contents.keys() - {MANIFEST}):
            paths.beside(folder / name).replace(folder / name)
        for leftover in folder.glob(".*.*.[0-9]*"):  # of a writer that was killed
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"results cannot be written to {folder} ({error.strerror})") from error


def _row(run: Run) -> dict[str, Any]:
    """What a run is and its scalars, as a row of `RUNS`."""
    spec = run.spec
    evaluated = spec.id if isinstance(run.task, Evaluation) else None
    row: dict[str, Any] = {"run": run.task.id, "status": run.status, "evaluation_of": evaluated}
    row["data"] = spec.data
    row |= {name: getattr(spec, name).kind for name in ("sample", "labels", "method")}
    row |= {"arm": spec.method.words, "setting": spec.method.setting}
    for part in (spec.sample, spec.labels, spec.recipe):
        row |= part.model_dump(mode="json", exclude={"kind"})
    row |= {name: getattr(spec, name) for name in ("network", "epochs", "monitor_size", "seed")}
    row |= {name: run.origin[name] for name in ("device", "precision", "commit", "finished")}
    row["training_seconds"] = run.origin["seconds"].get("training")
    return row | dict(sorted(run.scalars.items()))


def _tables(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    histories = [run.history.assign(run=run.task.id) for run in runs if len(run.history)]
    details = [run.details.assign(run=run.task.id) for run in runs if len(run.details)]
    history = pd.concat(histories or [pd.DataFrame({"run": [], "epoch": []})], ignore_index=True)
    detail = pd.concat(details or [pd.DataFrame(columns=["run", *DETAILS])])
    monitored = [name for name in MONITORED if name in history]
    counts = [
        (run.task.id, quantity, position, counts[position])
        for run in runs
        for quantity, counts in run.counts.items()
        for position in np.flatnonzero(counts)
    ]
    return {
        HISTORIES: history[["run", *history.columns.drop(["run", *monitored]), *monitored]],
        HISTOGRAMS: pd.DataFrame(counts, columns=["run", "quantity", "bin", "count"]),
        DETAILED: detail[["run", *DETAILS]],
        BY_GROUP: pd.DataFrame(
            [
                (run.task.id, measure, value)
                for run in runs
                for measure, values in sorted(run.by_group.items())
                for value in values
            ],
            columns=["run", "measure", "value"],
        ),
    }


def _samples(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    samples = {}
    for run in runs:
        for name, values in run.samples.items():
            if values.dtype == bool:
                packed = np.packbits(values)
            elif name == COUNTS:
                packed = values
            else:
                packed = np.rint(values * UNIT).astype(np.uint16)
            samples[f"{run.task.id}.{name}"] = packed
        for name, points in run.projections.items():
            samples[f"{run.task.id}.projection.{name}"] = points
    return samples


# ---- merging ----


def merge(folders: Iterable[Path], into: Path | None = None) -> list[Run]:
    """Add the runs of `folders` to those recorded; returns the runs that are new.

    Of a run that several folders hold, the one with more scalars stays, then one with samples, then
    the one that finished first: the order of the folders does not matter. Raises ValueError, naming
    folder and run, before anything is written if one is incomplete or of other data.
    """
    into = into or paths.RECORDED
    check_folder(into)  # without its manifest, what it holds would be replaced
    before = {run.task.id: run for run in Recorded(into)}
    merged = dict(before)
    for folder in folders:
        if not (folder / MANIFEST).is_file():
            raise ValueError(f"{folder} holds no recorded results: it has no {MANIFEST}")
        for run in Recorded(folder):
            try:
                check(run)
            except ValueError as error:
                raise ValueError(f"{folder}, run {run.task.id}: {error}") from error
            merged[run.task.id] = min(merged.get(run.task.id, run), run, key=_rank)
    write(merged.values(), into)
    return [run for name, run in merged.items() if name not in before]


def _rank(run: Run) -> tuple[Any, ...]:
    fullness = -len(run.scalars), -len(run.by_group), -len(run.details), -len(run.samples)
    return *fullness, run.origin["finished"], run.origin["device"], repr(run.scalars)


def check_folder(folder: Path) -> None:
    """Raise ValueError unless `folder` is new, empty or holds recorded runs, and OSError if it
    cannot be written to."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    in_use = existing == folder and folder.is_dir() and any(folder.iterdir())
    if not existing.is_dir() or (in_use and not (folder / MANIFEST).is_file()):
        raise ValueError(
            f"OUT is {folder}; it must be a new or empty folder, or hold recorded runs, with their "
            f"{MANIFEST}"
        )
    if not os.access(existing, os.W_OK):
        raise OSError(f"OUT is {folder}, but {existing} cannot be written to")
