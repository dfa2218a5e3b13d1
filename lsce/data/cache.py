"""Decoded data sets on disk, each one file whose tensors are mapped into memory."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lsce.data import datasets
from lsce.data.datasets import Dataset, Entry, Split
from lsce.data.sampling import SPLIT_SEED, assemble
from lsce.machine import paths


def decoded(name: str) -> Dataset:
    """As `load(name)`, for worker processes whose parent has called `load`.

    What the parent decoded is taken whatever its source was, so that a worker need not know it.
    """
    return read(datasets.entry(name)) or datasets.load(name)


def load(entry: Entry, files: Sequence[Path], decode: Callable[[], tuple[Split, Split]]) -> Dataset:
    """What is kept of these source files or, if nothing is, what `decode` makes of them, verified:
    all training images and the test images. Raises OSError if the cache cannot be written."""
    existing = [file for file in files if file.is_file()]
    fingerprint = json.dumps([[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in existing])
    kept = read(entry, fingerprint)
    if kept is not None:
        return kept
    with writing(paths.CACHE):  # tried before the decoding, which takes some seconds
        tempfile.TemporaryFile(dir=paths.CACHE).close()
    dataset = assemble(entry, *decode())
    _write(entry, dataset, {**_identity(entry), "fingerprint": fingerprint})
    return dataset


def file(entry: Entry) -> Path:
    """Where a data set is kept."""
    return paths.CACHE / f"{entry.name}.safetensors"


def read(entry: Entry, fingerprint: str | None = None) -> Dataset | None:
    """What is kept, or None if that is nothing, or of other source files, or damaged.

    fingerprint: of the source files; None takes any. Structure, shapes and the recorded checksum
    are verified, and not the bytes again.
    """
    try:
        with safe_open(file(entry), framework="pt") as kept:
            metadata = kept.metadata() or {}
            tensors = {key: kept.get_tensor(key) for key in kept.keys()}
    except (OSError, SafetensorError):
        return None
    wanted = _identity(entry) | ({} if fingerprint is None else {"fingerprint": fingerprint})
    shapes: dict[str, tuple[object, ...]] = {}
    for split, n in entry.sizes.items():
        shapes[f"{split}.images"] = (torch.uint8, n, entry.pixels, entry.pixels, 3)
        shapes[f"{split}.labels"] = (torch.int64, n)
    found = {key: (tensor.dtype, *tensor.shape) for key, tensor in tensors.items()}
    if not wanted.items() <= metadata.items() or found != shapes:
        return None
    splits = {s: Split(tensors[f"{s}.images"], tensors[f"{s}.labels"]) for s in entry.sizes}
    return entry.dataset(**splits)


def _write(entry: Entry, dataset: Dataset, metadata: dict[str, str]) -> None:
    splits = {s: vars(getattr(dataset, s)) for s in entry.sizes}
    tensors = {f"{s}.{key}": tensor for s, split in splits.items() for key, tensor in split.items()}
    temporary = paths.beside(file(entry))
    with writing(paths.CACHE):
        try:
            save_file(tensors, temporary, metadata)
            os.replace(temporary, file(entry))
        finally:
            temporary.unlink(missing_ok=True)


def _identity(entry: Entry) -> dict[str, str]:
    """What a file must say of itself: whose content it holds, and split how."""
    return {"checksum": entry.checksum, "split": str(SPLIT_SEED)}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make `folder`; whatever keeps it from being written becomes an OSError of one sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise OSError(f"cannot write to {folder}: {reason}") from error


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
