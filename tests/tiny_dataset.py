"""A third data set, to show that one file adds it: 10 classes, 4 superclasses, 16 × 16 pixels."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from lsce.data import datasets
from lsce.data.datasets import Dataset, Entry, Source, Split
from lsce.data.sampling import assemble

_SUPERCLASS = (0, 0, 0, 1, 1, 1, 2, 2, 3, 3)


def _load(source: Source) -> Dataset:
    if source is not None:
        raise ValueError(f"source must be None for the tiny data set, got {str(source)!r}")
    parts = [_draw(ENTRY.per_class("train", "validation"), 1), _draw(ENTRY.per_class("test"), 2)]
    return assemble(ENTRY, *parts)


def _draw(per_class: int, seed: int) -> Split:
    """Images of a class are a picture of its own under as much noise: a network can learn them."""
    labels = torch.arange(ENTRY.num_classes).repeat(per_class)
    shape = (ENTRY.pixels, ENTRY.pixels, 3)
    pictures = np.random.Generator(np.random.PCG64(0)).random((ENTRY.num_classes, *shape))
    noise = np.random.Generator(np.random.PCG64(seed)).random((len(labels), *shape))
    images = 128 * (pictures[labels.numpy()] + noise)
    return Split(torch.from_numpy(images.astype(np.uint8)), labels)


ENTRY = Entry(
    name="tiny",
    words="a tiny random data set",
    checksum="b8f405fb68d91d184ed4de3ad503ccf9924a81528a087e1cf17c3e9dba2f84d2",
    classes=tuple(f"class {k}" for k in range(10)),
    superclass=_SUPERCLASS,
    superclasses=tuple(f"superclass {s}" for s in range(4)),
    sizes={"train": 300, "validation": 100, "test": 100},
    pixels=16,
    examples={
        "similar": ("class 0", "class 1", "class 2"),
        "unlike": ("class 0", "class 3", "class 6"),
    },
    load=_load,
    human_counts=lambda: torch.eye(10, dtype=torch.int64) * 20 + 2,
)


@contextmanager
def registered() -> Iterator[Entry]:
    """The data set is known inside the context, as `with registered(): yield` in a fixture."""
    datasets.register(ENTRY)
    try:
        yield ENTRY
    finally:
        del datasets._ENTRIES[ENTRY.name]
