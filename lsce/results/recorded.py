"""Recorded results: digests of runs in a few compact files, fit for git.

A folder of recorded results holds::

    manifest.json         data checksums, a checksum for every file, the names of the scalars, and
                          for every run its spec, status, device, precision, versions, commit,
                          time and seconds
    runs.csv              one row a run: its id, what it is, and its scalars (`lsce.results.measurements.measure`)
    histories.parquet     one row a run and epoch
    details.parquet       measurements that are more than a number: run and `lsce.training.spec.DETAILS`
    histograms.parquet    test images by confidence and by logit gap: run, quantity, bin, count
    samples.safetensors   image by image: `<id>.correct`, a bit an image; for the runs that figures
                          show so also `<id>.confidence` and `<id>.scaled` (and
                          `<id>.true_probability` on the built-in data), uint16 in units of 1/65535,
                          and `<id>.nll` and `<id>.nll_scaled`, float16. And where features were
                          kept, `<id>.projection.similar.train`, …, float32 (3, P, 2)

The same runs make the same bytes, in whatever order they came. The manifest is written last but
for taking the new files' place: whoever writes can be killed at any moment, and what is read then
is all that was there before or all that is new.
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors.numpy import load as load_samples
from safetensors.numpy import save as save_samples

from lsce import data
from lsce.machine import paths
from lsce.results.measurements import MONITORED, WIDTHS, Digest
from lsce.training.spec import DETAILS, RunSpec

FORMAT = 1
MANIFEST = "manifest.json"
RUNS, HISTORIES = "runs.csv", "histories.parquet"
HISTOGRAMS, SAMPLES = "histograms.parquet", "samples.safetensors"
DETAILED = "details.parquet"

#: uint16 units of a probability.
UNIT = 65535

#: How the names of projections begin, behind the run's.
_PROJECTION = "projection."

#: Scalars without which a run is incomplete.
NEEDED = {"train_nll", "validation_nll", "test_nll", "top1_error", "debiased_ce", "temperature"}

#: Images of each class in the test split, of either data set.
PER_CLASS = 100


class Recorded:
    """The digests of a folder, whose files are read and verified when it is opened; none if there
    is no such folder. A digest is made when it is first asked for: a page shows few of them.

    `devices` are the names of the machines that trained the runs, sorted. Raises ValueError, naming
    the file, if one is missing or is not what the manifest says.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder or paths.RECORDED
        self._digests: dict[str, Callable[[], Digest]] = {}
        self.devices: list[str] = []
        if (self.folder / MANIFEST).is_file():
            self._digests, self.devices = _read(self.folder)

    def __contains__(self, spec: RunSpec) -> bool:
        return spec.id in self._digests and self.load(spec).has(spec.keep)

    def __iter__(self) -> Iterator[Digest]:
        return (digest() for digest in self._digests.values())

    def __len__(self) -> int:
        return len(self._digests)

    def missing(self, specs: Iterable[RunSpec]) -> list[RunSpec]:
        """The specs that are not recorded, each once, in the order given."""
        return list({spec.id: spec for spec in specs if spec not in self}.values())

    def load(self, spec: RunSpec) -> Digest:
        """The digest of a spec. Raises KeyError if there is none."""
        return self._digests[spec.id]()


def results() -> Recorded:
    """The recorded results that come with the project, read once a process."""
    manifest = paths.RECORDED / MANIFEST
    return _opened(paths.RECORDED, manifest.read_bytes() if manifest.is_file() else b"")


@functools.lru_cache(maxsize=1)
def _opened(folder: Path, manifest: bytes) -> Recorded:
    return Recorded(folder)


def write(digests: Iterable[Digest], folder: Path) -> None:
    """Replace what `folder` records by `digests`, of which there must be some.

    Raises OSError, naming the folder, if it cannot be written.
    """
    runs = sorted(digests, key=lambda run: run.spec.id)
    contents = {
        RUNS: _table(runs).to_csv(index=False, lineterminator="\n").encode(),
        HISTORIES: _parquet(_histories(runs)),
        HISTOGRAMS: _parquet(_histograms(runs)),
        DETAILED: _parquet(_details(runs)),
        SAMPLES: save_samples(_packed(runs)),
    }
    manifest = {
        "format": FORMAT,
        "data": {name: data.CHECKSUMS[name] for name in sorted({run.spec.data for run in runs})},
        "scalars": sorted({name for run in runs for name in run.scalars}),
        "files": {name: _sha(content) for name, content in contents.items()},
        "runs": {
            run.spec.id: {"spec": run.spec.to_dict(), "status": run.status, **run.origin}
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


def merge(folders: Iterable[Path], into: Path | None = None) -> list[Digest]:
    """Add the runs of `folders` to those recorded; returns the runs that are new.

    The same result in any order and any number of times: of a run that several folders hold, the
    one with more scalars stays, then one with samples, then the one that finished first. Raises
    ValueError, naming folder and run, if one is incomplete or of other data; nothing is written
    then.
    """
    into = into or paths.RECORDED
    check_folder(into)  # without its manifest, what it holds would be replaced
    recorded = Recorded(into)
    kept = {run.spec.id: run for run in recorded}
    for folder in folders:
        if not (folder / MANIFEST).is_file():
            raise ValueError(f"{folder} holds no recorded results: it has no {MANIFEST}")
        for run in Recorded(folder):
            try:
                check(run)
            except ValueError as error:
                raise ValueError(f"{folder}, run {run.spec.id}: {error}") from error
            kept[run.spec.id] = min(kept.get(run.spec.id, run), run, key=_rank)
    write(kept.values(), into)
    return [run for run in kept.values() if run.spec not in recorded]


def _rank(run: Digest) -> tuple:
    return (
        -len(run.scalars),
        -len(run.details),
        -len(run.samples),
        run.origin["finished"],
        run.origin["device"],
        repr(run.scalars),
    )


def check(run: Digest) -> None:
    """Raise ValueError, saying why, unless a digest is complete and of the pinned data."""
    spec = run.spec
    if spec.data_checksum != data.CHECKSUMS[spec.data]:
        raise ValueError(
            f"its data_checksum is {spec.data_checksum[:12]}…, but that of {spec.data} is "
            f"{data.CHECKSUMS[spec.data][:12]}…"
        )
    if run.status not in ("completed", "diverged"):
        raise ValueError(f"its status is {run.status!r}; it must be completed or diverged")
    if run.diverged:
        return
    if list(run.history["epoch"]) != list(range(1, spec.epochs + 1)):
        raise ValueError(f"its history has {len(run.history)} epochs instead of {spec.epochs}")
    if lacking := sorted(NEEDED - set(run.scalars)):
        raise ValueError(f"its {lacking[0]} is missing")
    images = {quantity: int(counts.sum()) for quantity, counts in run.counts.items()}
    images |= {name: len(values) for name, values in run.samples.items()}
    expected = _test_images(spec)
    for name, count in images.items():
        if count != expected:
            raise ValueError(f"its {name} is of {count:,} test images instead of {expected:,}")
    if lacking := sorted(set(WIDTHS) - set(run.counts)):
        raise ValueError(f"its histogram of {lacking[0]} is missing")


# ---- writing ----


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def _table(runs: list[Digest]) -> pd.DataFrame:
    return pd.DataFrame([_described(run) | dict(sorted(run.scalars.items())) for run in runs])


def _described(run: Digest) -> dict[str, Any]:
    """What a run is, in the columns of `RUNS` that are not its scalars."""
    spec = run.spec
    fields = dataclasses.asdict(spec)
    recipe = fields.pop("recipe")
    if spec.teacher is not None:
        fields["teacher"] = spec.teacher.id
    fields["examination"] = None if spec.examination is None else spec.base.id
    fields = {name: fields[name] for name in fields if name not in ("data_checksum", "keep")}
    made = {name: run.origin[name] for name in ("device", "precision", "commit", "finished")}
    made["training_seconds"] = run.origin["seconds"]["training"]
    return {"run": run.spec.id, "status": run.status} | fields | recipe | made


def _histories(runs: list[Digest]) -> pd.DataFrame:
    frame = pd.concat([run.history.assign(run=run.spec.id) for run in runs], ignore_index=True)
    narrow = {name: "float32" for name in frame if frame[name].dtype == "float64"}
    frame = frame.astype(narrow | {"epoch": "int16", "run": "category"})
    always = [name for name in frame if name not in ("run", *MONITORED)]
    return frame[["run", *always, *(name for name in MONITORED if name in frame)]]


def _details(runs: list[Digest]) -> pd.DataFrame:
    parts = [run.details.assign(run=run.spec.id) for run in runs if len(run.details)]
    frame = pd.concat(parts) if parts else pd.DataFrame(columns=["run", *DETAILS])
    types = {"run": "category", "quantity": "category", "case": "category"}
    return frame[["run", *DETAILS]].astype(types | {"x": "float32", "value": "float32"})


def _histograms(runs: list[Digest]) -> pd.DataFrame:
    rows = [
        (run.spec.id, quantity, position, counts[position])
        for run in runs
        for quantity, counts in run.counts.items()
        for position in np.flatnonzero(counts)
    ]
    frame = pd.DataFrame(rows, columns=["run", "quantity", "bin", "count"])
    return frame.astype(
        {"run": "category", "quantity": "category", "bin": "int16", "count": "int32"}
    )


def _packed(runs: list[Digest]) -> dict[str, np.ndarray]:
    packed = {}
    for run in runs:
        for name, values in run.samples.items():
            if values.dtype == bool:
                packed[f"{run.spec.id}.{name}"] = np.packbits(values)
            elif name.startswith("nll"):
                packed[f"{run.spec.id}.{name}"] = values.astype(np.float16)
            else:
                packed[f"{run.spec.id}.{name}"] = np.rint(values * UNIT).astype(np.uint16)
        for name, points in run.projections.items():
            packed[f"{run.spec.id}.{_PROJECTION}{name}"] = points
    return packed


# ---- reading ----


def _read(folder: Path) -> tuple[dict[str, Callable[[], Digest]], list[str]]:
    """What makes the digest of each run, by its id, and the devices."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        known, files = manifest["format"], manifest["files"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{folder / MANIFEST} is damaged ({error})") from error
    if known != FORMAT:
        raise ValueError(f"{folder / MANIFEST} has format {known!r}; it must be {FORMAT}")
    contents = {name: _verified(folder / name, checksum) for name, checksum in files.items()}
    # As text first: not every pandas reads back the very number that was written.
    table = pd.read_csv(io.BytesIO(contents[RUNS]), dtype=str, index_col="run")
    scalars = table[manifest["scalars"]].astype(float)
    histories, histograms = _by_run(contents[HISTORIES]), _by_run(contents[HISTOGRAMS])
    none = pd.DataFrame()  # older folders have no details
    details = _by_run(contents[DETAILED]) if DETAILED in contents else lambda run: none
    samples: dict[str, dict[str, np.ndarray]] = {}
    for name, values in load_samples(contents[SAMPLES]).items():
        run, _, quantity = name.partition(".")
        samples.setdefault(run, {})[quantity] = values
    tables = _Tables(scalars, histories, histograms, details, samples)
    digests = {}
    for run, entry in manifest["runs"].items():
        spec = RunSpec.from_dict(entry["spec"])
        if spec.id != run:
            raise ValueError(f"{folder / MANIFEST}: the spec of run {run} is that of {spec.id}")
        digests[run] = functools.cache(functools.partial(_digest, spec, entry, tables))
    return digests, sorted({entry["device"] for entry in manifest["runs"].values()})


class _Tables(NamedTuple):
    """What the files hold of all runs."""

    scalars: pd.DataFrame
    histories: Callable[[str], pd.DataFrame]
    histograms: Callable[[str], pd.DataFrame]
    details: Callable[[str], pd.DataFrame]
    samples: dict[str, dict[str, np.ndarray]]


def _digest(spec: RunSpec, entry: dict[str, Any], tables: _Tables) -> Digest:
    run = spec.id
    origin = {name: value for name, value in entry.items() if name not in ("spec", "status")}
    history = tables.histories(run)
    others = [name for name in MONITORED if name in history and history[name].isna().all()]
    history = history.drop(columns=others)  # what only other runs have measured
    digest = Digest(spec, entry["status"], origin, {}, history, {}, {}, {})
    if digest.diverged:
        return digest
    digest.scalars.update(tables.scalars.loc[run].dropna())
    digest.counts.update(_dense(tables.histograms(run)))
    details = tables.details(run)
    if len(details):
        columns = {"quantity": str, "case": str, "x": float, "value": float}
        digest = dataclasses.replace(digest, details=details.astype(columns))
    for quantity, values in tables.samples.get(run, {}).items():
        if quantity.startswith(_PROJECTION):
            digest.projections[quantity.removeprefix(_PROJECTION)] = values
        else:
            digest.samples[quantity] = _unpacked(values, _test_images(spec))
    return digest


def _test_images(spec: RunSpec) -> int:
    return PER_CLASS * (spec.classes or 100)


def _verified(file: Path, checksum: str) -> bytes:
    """The content of a file. A writer that was killed may have left it beside its place."""
    content = file.read_bytes() if file.is_file() else None
    if content is None or _sha(content) != checksum:
        for left in file.parent.glob(f".{file.name}.*"):
            if _sha(left.read_bytes()) == checksum:
                left.replace(file)
                return file.read_bytes()
    if content is None:
        raise ValueError(f"{file} is missing; {MANIFEST} beside it names it")
    if _sha(content) != checksum:
        raise ValueError(
            f"{file} is damaged: its SHA-256 is {_sha(content)[:12]}…, {MANIFEST} says "
            f"{checksum[:12]}…"
        )
    return content


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
        quantity: np.bincount(part["bin"], weights=part["count"]).astype(np.int64)
        for quantity, part in rows.groupby("quantity", observed=True)
    }


def _unpacked(values: np.ndarray, images: int) -> np.ndarray:
    if values.dtype == np.uint8:
        return np.unpackbits(values, count=images).astype(bool)
    if values.dtype == np.float16:
        return values.astype(float)
    return values / UNIT
