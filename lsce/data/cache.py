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
    """As `load(name)`, but from the cache if it holds the data set, whatever its source was: for
    worker processes whose parent has called `load`."""
    return read(datasets.entry(name)) or datasets.load(name)


def load(entry: Entry, files: Sequence[Path], decode: Callable[[], tuple[Split, Split]]) -> Dataset:
    """The data set in these source files: from the cache, else from `decode`, which returns all
    training images and the test images, verified. Raises OSError if the cache cannot be written."""
    existing = [file for file in files if file.is_file()]
    fingerprint = json.dumps([[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in existing])
    if cached := read(entry, fingerprint):
        return cached
    with writing(paths.CACHE):  # tried before the decoding, which takes some seconds
        tempfile.TemporaryFile(dir=paths.CACHE).close()
    dataset = assemble(entry, *decode())
    splits = {name: vars(getattr(dataset, name)) for name in entry.sizes}
    tensors = {f"{name}.{key}": split[key] for name, split in splits.items() for key in split}
    temporary = paths.beside(file(entry))
    with writing(paths.CACHE):
        try:
            save_file(tensors, temporary, {**_identity(entry), "fingerprint": fingerprint})
            os.replace(temporary, file(entry))
        finally:
            temporary.unlink(missing_ok=True)
    return dataset


def file(entry: Entry) -> Path:
    return paths.CACHE / f"{entry.name}.safetensors"


def read(entry: Entry, fingerprint: str | None = None) -> Dataset | None:
    """The cached data set, or None if there is none, or it is damaged or of other source files.

    fingerprint: of the source files; None takes any. Dtypes, shapes and the recorded checksum are
    verified; the bytes are not hashed again.
    """
    try:
        with safe_open(file(entry), framework="pt") as content:
            metadata = content.metadata() or {}
            tensors = {key: content.get_tensor(key) for key in content.keys()}
    except (OSError, SafetensorError):
        return None
    expected = _identity(entry) | ({} if fingerprint is None else {"fingerprint": fingerprint})
    shapes: dict[str, tuple[object, ...]] = {}
    for split, n in entry.sizes.items():
        shapes[f"{split}.images"] = (torch.uint8, n, entry.pixels, entry.pixels, 3)
        shapes[f"{split}.labels"] = (torch.int64, n)
    actual = {key: (tensor.dtype, *tensor.shape) for key, tensor in tensors.items()}
    if not expected.items() <= metadata.items() or actual != shapes:
        return None
    splits = {s: Split(tensors[f"{s}.images"], tensors[f"{s}.labels"]) for s in entry.sizes}
    return entry.dataset(**splits)


def _identity(entry: Entry) -> dict[str, str]:
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
