"""What a data set is, and the registry of them: the rest of the project asks a set's `Entry`."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

Source = str | os.PathLike[str] | None


class DataError(ValueError):
    """A folder or file that is not the data set it should be, in one sentence that names it."""


class DataUnavailable(RuntimeError):
    """A data set that is not on this machine, or could not be downloaded."""


@dataclass(frozen=True)
class Split:
    """images: uint8 (N, P, P, 3), 0..255, P as in `Entry.pixels`. labels: int64 (N,), 0..K - 1."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """The splits of a data set, whole or with other classes (`restrict`, `coarse`).

    name, checksum: of its entry. classes: names of the K classes. superclass: index of each class's
    superclass in `superclasses`, which holds their names.
    """

    name: str
    checksum: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    superclass: tuple[int, ...]
    superclasses: tuple[str, ...]


class HumanLabels(NamedTuple):
    """The label that a person gave each image, int64 (N,), of the training and then the validation
    split; and the SHA-256 of the file that they are from."""

    labels: torch.Tensor
    checksum: str


@dataclass(frozen=True)
class Entry:
    """All that is known of a data set without reading it.

    name: in specs. words: for people. checksum: what `checksum` gives. classes, superclass,
    superclasses: as in `Dataset`. sizes: images of "train", "validation" and "test", equally many
    of each class. pixels: P, height and width of the images. examples: three classes that resemble
    each other ("similar") and three of different superclasses ("unlike"). load: called by `load`
    with its source. posterior: the exact p(y|x), float64 (N, K), of uint8 images (N, P, P, 3), if
    it is known. human_counts: how many training images of each class (rows) people called each
    class (columns), int64 (K, K), if people were asked. human_labels: reads what they called each
    image; it raises DataUnavailable or DataError, in a sentence, where that is not on this machine.
    """

    name: str
    words: str
    checksum: str
    classes: tuple[str, ...]
    superclass: tuple[int, ...]
    superclasses: tuple[str, ...]
    sizes: Mapping[str, int]
    pixels: int
    examples: Mapping[str, tuple[str, str, str]]
    load: Callable[[Source], Dataset]
    posterior: Callable[[torch.Tensor], torch.Tensor] | None = None
    human_counts: Callable[[], torch.Tensor] | None = None
    human_labels: Callable[[], HumanLabels] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def per_class(self, *splits: str) -> int:
        """Images of each class in these splits together."""
        return sum(self.sizes[split] for split in splits) // self.num_classes

    def dataset(self, train: Split, validation: Split, test: Split) -> Dataset:
        taxonomy = (self.classes, self.superclass, self.superclasses)
        return Dataset(self.name, self.checksum, train, validation, test, *taxonomy)


_ENTRIES: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Make a data set known by its name. Raises ValueError if another one has that name."""
    if entry.name in _ENTRIES:
        raise ValueError(f"name must be new, but there is a data set {entry.name!r} already")
    _ENTRIES[entry.name] = entry


def names() -> tuple[str, ...]:
    """The names of all data sets, in the order in which they were registered."""
    return tuple(_ENTRIES)


def entry(name: str) -> Entry:
    """The entry of a data set. Raises ValueError for a name that none has."""
    if name not in _ENTRIES:
        raise ValueError(f"name must be one of {', '.join(map(repr, _ENTRIES))}, got {name!r}")
    return _ENTRIES[name]


def load(name: str, source: Source = None) -> Dataset:
    """A data set with its fixed split, in the same order whatever its source was.

    source: a folder that holds it; None looks where it is kept (`locate`). Raises ValueError for an
    unknown name or a source that the data set cannot have, DataError for a source that does not
    hold it, DataUnavailable if this machine has none, OSError if the cache cannot be written.
    """
    return entry(name).load(source)


def checksum(train: Split, test: Split, superclass: tuple[int, ...]) -> str:
    """SHA-256, in hexadecimal, of a data set of at most 256 classes: the bytes of all training
    images, of their labels and of their superclasses as uint8, then those of the test images."""
    digest = hashlib.sha256()
    for part in (train, test):
        digest.update(np.ascontiguousarray(part.images.numpy()).data)
        digest.update(part.labels.numpy().astype(np.uint8).tobytes())
        digest.update(np.array(superclass, dtype=np.uint8)[part.labels.numpy()].tobytes())
    return digest.hexdigest()
