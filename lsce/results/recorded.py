"""Recorded results: runs in a few compact files, fit for git.

A folder of recorded results holds::

    manifest.json         data checksums, a checksum for every file, the names of the scalars, and
                          for every run its task, status, device, precision, versions, commit, time,
                          seconds, and which extras it holds
    runs.csv              one row a run: its id, what it is, and its scalars
    histories.parquet     one row a run and epoch
    details.parquet       measurements that are more than a number
    histograms.parquet    test images by confidence and by logit gap: run, quantity, bin, count
    samples.safetensors   image by image: `<id>.correct`, a bit an image; for the runs that figures
                          show so also `<id>.confidence`, `<id>.scaled` and `<id>.true_probability`,
                          uint16 in units of 1/65535, and `<id>.nll` and `<id>.nll_scaled`, float16.
                          And where features were kept, `<id>.projection.similar.train`, …, float32
                          (3, P, 2)

See `lsce.results.run` for what these are. The same runs make the same bytes, in whatever order they
came. The manifest is written last but for taking the new files' place: whoever writes can be killed
at any moment, and what is read then is all that was there before or all that is new.
"""

import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors.numpy import load as load_samples
from safetensors.numpy import save as save_samples

from lsce import data
from lsce.machine import paths
from lsce.results.run import DETAILS, MONITORED, WIDTHS, Run
from lsce.training.spec import Evaluation, RunSpec, Task, task_of

FORMAT = 2
MANIFEST = "manifest.json"
RUNS, HISTORIES, DETAILED = "runs.csv", "histories.parquet", "details.parquet"
HISTOGRAMS, SAMPLES = "histograms.parquet", "samples.safetensors"

#: uint16 units of a probability.
UNIT = 65535

#: How the names of projections begin, behind the run's.
_PROJECTION = "projection."

#: Scalars without which a run, or an evaluation, is incomplete.
NEEDED = {"train_nll", "validation_nll", "test_nll", "top1_error", "debiased_ce", "temperature"}
NEEDED_OF_EVALUATION = {"corrupted_error", "worst_error"}


class Recorded:
    """The runs of a folder, whose files are read and verified when it is opened; none if there is
    no such folder. A run is made when it is first asked for: a page shows few of them.

    `devices` are the names of the machines that trained the runs, sorted. Raises ValueError, naming
    the file, if one is missing or is not what the manifest says.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder or paths.RECORDED
        self._entries: dict[str, dict[str, Any]] = {}
        if (self.folder / MANIFEST).is_file():
            self._entries, self._tables = _read(self.folder)
        self._run = functools.cache(self._made)
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
        """The run of a task; an evaluation is that of its run, with what it found. Raises KeyError
        if there is none."""
        if isinstance(task, Evaluation):
            return self._run(task.run.id).evaluated(self._run(task.id))
        return self._run(task.id)

    def _made(self, name: str) -> Run:
        entry = self._entries[name].copy()
        if (task := task_of(entry.pop("task"))).id != name:
            file = self.folder / MANIFEST
            raise ValueError(f"{file} is damaged (the task of run {name} is that of {task.id})")
        return _of(task, entry, self._tables)


def results() -> Recorded:
    """The recorded results that come with the project, read once a process."""
    manifest = paths.RECORDED / MANIFEST
    return _opened(paths.RECORDED, manifest.read_bytes() if manifest.is_file() else b"")


@functools.lru_cache(maxsize=1)
def _opened(folder: Path, manifest: bytes) -> Recorded:
    return Recorded(folder)


def check_folder(folder: Path) -> None:
    """Raise ValueError unless `folder` is new, empty or holds recorded runs, and OSError if it
    cannot be written to."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    holds = there == folder and folder.is_dir() and any(folder.iterdir())
    if not there.is_dir() or (holds and not (folder / MANIFEST).is_file()):
        raise ValueError(
            f"OUT is {folder}; it must be a new or empty folder, or hold recorded runs, with their "
            f"{MANIFEST}"
        )
    if not os.access(there, os.W_OK):
        raise OSError(f"OUT is {folder}, but {there} cannot be written to")


def merge(folders: Iterable[Path], into: Path | None = None) -> list[Run]:
    """Add the runs of `folders` to those recorded; returns the runs that are new.

    The same result in any order and any number of times: of a run that several folders hold, the
    one with more scalars stays, then one with samples, then the one that finished first. Raises
    ValueError, naming folder and run, if one is incomplete or of other data; nothing is written
    then.
    """
    into = into or paths.RECORDED
    check_folder(into)  # without its manifest, what it holds would be replaced
    before = {run.task.id: run for run in Recorded(into)}
    kept = dict(before)
    for folder in folders:
        if not (folder / MANIFEST).is_file():
            raise ValueError(f"{folder} holds no recorded results: it has no {MANIFEST}")
        for run in Recorded(folder):
            try:
                check(run)
            except ValueError as error:
                raise ValueError(f"{folder}, run {run.task.id}: {error}") from error
            kept[run.task.id] = min(kept.get(run.task.id, run), run, key=_rank)
    write(kept.values(), into)
    return [run for name, run in kept.items() if name not in before]


def _rank(run: Run) -> tuple[Any, ...]:
    fullness = -len(run.scalars), -len(run.details), -len(run.samples)
    return *fullness, run.origin["finished"], run.origin["device"], repr(run.scalars)


def check(run: Run) -> None:
    """Raise ValueError, saying why, unless a run is complete and of the pinned data."""
    spec, known = run.spec, run.spec.entry.checksum
    if spec.data_checksum != known:
        raise ValueError(
            f"its data_checksum is {spec.data_checksum[:12]}…, but that of {spec.data} is "
            f"{known[:12]}…"
        )
    if run.status not in ("completed", "diverged"):
        raise ValueError(f"its status is {run.status!r}; it must be completed or diverged")
    if run.diverged:
        return
    of_network = isinstance(run.task, RunSpec)
    if lacking := sorted((NEEDED if of_network else NEEDED_OF_EVALUATION) - set(run.scalars)):
        raise ValueError(f"its {lacking[0]} is missing")
    if not of_network:
        return
    if list(run.history["epoch"]) != list(range(1, spec.epochs + 1)):
        raise ValueError(f"its history has {len(run.history)} epochs instead of {spec.epochs}")
    images = {quantity: int(counts.sum()) for quantity, counts in run.counts.items()}
    images |= {name: len(values) for name, values in run.samples.items()}
    expected = spec.images_of("test")
    for name, count in images.items():
        if count != expected:
            raise ValueError(f"its {name} is of {count:,} test images instead of {expected:,}")
    if lacking := sorted(set(WIDTHS) - set(run.counts)):
        raise ValueError(f"its histogram of {lacking[0]} is missing")


# ---- writing ----


def write(runs: Iterable[Run], folder: Path) -> None:
    """Replace what `folder` records by `runs`, of which there must be some.

    Raises OSError, naming the folder, if it cannot be written.
    """
    runs = sorted(runs, key=lambda run: run.task.id)
    contents = {
        RUNS: pd.DataFrame(map(_row, runs)).to_csv(index=False, lineterminator="\n").encode(),
        HISTORIES: _parquet(_histories(runs)),
        HISTOGRAMS: _parquet(_histograms(runs)),
        DETAILED: _parquet(_details(runs)),
        SAMPLES: save_samples(_packed(runs)),
    }
    names = sorted({run.spec.data for run in runs})
    manifest = {
        "format": FORMAT,
        "data": {name: data.entry(name).checksum for name in names},
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
    contents[MANIFEST] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            paths.beside(folder / name).write_bytes(content)
        for name in (MANIFEST, *contents.keys() - {MANIFEST}):  # after it, `_verified` would do it
            paths.beside(folder / name).replace(folder / name)
        for leftover in folder.glob(".*.*.[0-9]*"):  # of a writer that was killed
            leftover.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"results cannot be written to {folder} ({error.strerror})") from error


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def _row(run: Run) -> dict[str, Any]:
    """What a run is and its scalars, as a row of `RUNS`."""
    spec = run.spec
    evaluated = spec.id if isinstance(run.task, Evaluation) else None
    parts = {"sample": spec.sample, "labels": spec.labels, "method": spec.method}
    fields: dict[str, Any] = {"evaluation_of": evaluated, "data": spec.data}
    fields |= {name: part.kind for name, part in parts.items()}
    fields |= {"arm": spec.method.words, "setting": spec.method.setting}
    for part in (spec.sample, spec.labels, spec.recipe):
        fields |= part.model_dump(mode="json", exclude={"kind"})
    fields |= {name: getattr(spec, name) for name in ("network", "epochs", "monitor_size", "seed")}
    made = {name: run.origin[name] for name in ("device", "precision", "commit", "finished")}
    made["training_seconds"] = run.origin["seconds"].get("training")
    scalars = dict(sorted(run.scalars.items()))
    return {"run": run.task.id, "status": run.status} | fields | made | scalars


def _histories(runs: Sequence[Run]) -> pd.DataFrame:
    nothing = pd.DataFrame({"run": [], "epoch": []})  # as where all are evaluations
    parts = [run.history.assign(run=run.task.id) for run in runs if len(run.history)]
    frame = pd.concat(parts or [nothing], ignore_index=True)
    narrow = {name: "float32" for name in frame if frame[name].dtype == "float64"}
    frame = frame.astype(narrow | {"epoch": "int16", "run": "category"})
    always = [name for name in frame if name not in ("run", *MONITORED)]
    return frame[["run", *always, *(name for name in MONITORED if name in frame)]]


def _details(runs: Sequence[Run]) -> pd.DataFrame:
    parts = [run.details.assign(run=run.task.id) for run in runs if len(run.details)]
    frame = pd.concat(parts) if parts else pd.DataFrame(columns=["run", *DETAILS])
    types = {"run": "category", "quantity": "category", "case": "category"}
    return frame[["run", *DETAILS]].astype(types | {"x": "float32", "value": "float32"})


def _histograms(runs: Sequence[Run]) -> pd.DataFrame:
    rows = [
        (run.task.id, quantity, position, counts[position])
        for run in runs
        for quantity, counts in run.counts.items()
        for position in np.flatnonzero(counts)
    ]
    frame = pd.DataFrame(rows, columns=["run", "quantity", "bin", "count"])
    return frame.astype(
        {"run": "category", "quantity": "category", "bin": "int16", "count": "int32"}
    )


def _packed(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    packed = {}
    for run in runs:
        for name, values in run.samples.items():
            if values.dtype == bool:
                small = np.packbits(values)
            elif name.startswith("nll"):
                small = values.astype(np.float16)
            else:
                small = np.rint(values * UNIT).astype(np.uint16)
            packed[f"{run.task.id}.{name}"] = small
        for name, points in run.projections.items():
            packed[f"{run.task.id}.{_PROJECTION}{name}"] = points
    return packed


# ---- reading ----


class _Tables(NamedTuple):
    """What the files hold of all runs."""

    scalars: pd.DataFrame
    samples: dict[str, dict[str, np.ndarray]]
    histories: Callable[[str], pd.DataFrame]
    histograms: Callable[[str], pd.DataFrame]
    details: Callable[[str], pd.DataFrame]


def _read(folder: Path) -> tuple[dict[str, dict[str, Any]], _Tables]:
    """What the manifest says of every run, by its id, and what the files hold."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known, files = manifest["format"], manifest["files"]
        scalars, entries = manifest["scalars"], manifest["runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST} is damaged ({error})") from error
    if known != FORMAT:
        raise ValueError(f"{folder / MANIFEST} has format {known!r}; it must be {FORMAT}")
    contents = {name: _verified(folder / name, checksum) for name, checksum in files.items()}
    # As text first: not every pandas reads back the very number that was written.
    table = pd.read_csv(io.BytesIO(contents[RUNS]), dtype=str, index_col="run")
    samples: dict[str, dict[str, np.ndarray]] = {}
    for name, values in load_samples(contents[SAMPLES]).items():
        run, _, quantity = name.partition(".")
        samples.setdefault(run, {})[quantity] = values
    by_run = [_by_run(contents[name]) for name in (HISTORIES, HISTOGRAMS, DETAILED)]
    return entries, _Tables(table[scalars].astype(float), samples, *by_run)


def _of(task: Task, origin: dict[str, Any], tables: _Tables) -> Run:
    """`origin` is what the manifest says of the run beside its task."""
    name, status, kept = task.id, origin.pop("status"), frozenset(origin.pop("kept"))
    history = tables.histories(name)
    others = [column for column in MONITORED if column in history and history[column].isna().all()]
    history = history.drop(columns=others)  # what only other runs have measured
    types = {"quantity": str, "case": str, "x": float, "value": float}
    details = tables.details(name).astype(types)
    run = Run(task, status, origin, history=history, details=details, kept=kept)
    if run.diverged:
        return run
    known = tables.scalars.loc[name].dropna()
    run.scalars.update((str(scalar), float(known[scalar])) for scalar in known.index)
    run.counts.update(_dense(tables.histograms(name)))
    for quantity, values in tables.samples.get(name, {}).items():
        if quantity.startswith(_PROJECTION):
            run.projections[quantity.removeprefix(_PROJECTION)] = values
        else:
            run.samples[quantity] = _unpacked(values, run.spec.images_of("test"))
    return run


def _verified(file: Path, checksum: str) -> bytes:
    """The content of a file. A writer that was killed may have left it beside its place."""
    content = file.read_bytes() if file.is_file() else b""
    if _sha(content) == checksum:
        return content
    for left in file.parent.glob(f".{file.name}.*"):
        if _sha(left.read_bytes()) == checksum:
            left.replace(file)
            return file.read_bytes()
    if not file.is_file():
        raise ValueError(f"{file} is missing; {MANIFEST} beside it names it")
    found, wanted = _sha(content)[:12], checksum[:12]
    raise ValueError(f"{file} is damaged: its SHA-256 is {found}…, {MANIFEST} says {wanted}…")


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _by_run(content: bytes) -> Callable[[str], pd.DataFrame]:
    """The rows of a run by its id."""
    frame = pd.read_parquet(io.BytesIO(content))
    rows = frame.groupby("run", observed=True).indices
    frame = frame.drop(columns="run")
    return lambda run: frame.iloc[rows.get(run, [])].reset_index(drop=True)


def _dense(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    return {
        str(quantity): np.bincount(part["bin"], weights=part["count"]).astype(np.int64)
        for quantity, part in rows.groupby("quantity", observed=True)
    }


def _unpacked(values: np.ndarray, images: int) -> np.ndarray:
    if values.dtype == np.uint8:
        return np.unpackbits(values, count=images).astype(bool)
    return values.astype(float) if values.dtype == np.float16 else values / UNIT
