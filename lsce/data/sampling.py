"""The split, subsets of images and of classes, and long tails: draws that a seed fixes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from lsce.data.datasets import Dataset, Entry, Split

#: Also names the split in the cache: change it if the rule of the split changes.
SPLIT_SEED = 50_000
#: These keep a seed's draws of images and of classes apart, and from its label noise (2).
_SUBSET_STREAM, _CLASS_STREAM = 1, 3


def assemble(entry: Entry, train: Split, test: Split) -> Dataset:
    """Hold a balanced subset of the training images out for validation."""
    parts = held_out(train.labels, entry)
    kept, validation = (Split(train.images[i], train.labels[i]) for i in parts)
    return entry.dataset(kept, validation, test)


def held_out(labels: torch.Tensor, entry: Entry) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices, int64, of all training images with these labels: those that are trained on, and the
    balanced subset that is held out for validation."""
    validation = subset(labels, entry.sizes["validation"], SPLIT_SEED)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[validation] = False
    return rest.nonzero().flatten(), validation


def subset(labels: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    """Indices of a random subset with equally many images of each class.

    labels: int64 (N,). size: a multiple of the number of classes present, or N, which takes all.
    Returns int64 (size,), ascending. Subsets of one seed are nested. Raises ValueError if the size
    fits neither the classes nor their images.
    """
    n = len(labels)
    counts = _counts(labels)
    if not 0 < size <= n:
        raise ValueError(f"size must lie in 1..{n}, the number of images, got {size}")
    if size == n:
        return torch.arange(n)
    share, remainder = divmod(size, len(counts))
    if remainder:
        raise ValueError(f"size must be a multiple of the {len(counts)} classes, got {size}")
    if share > (fewest := min(counts)):
        most = fewest * len(counts)
        raise ValueError(f"size must be at most {most}: a class has {fewest} images, got {size}")
    return _first(labels, [share] * len(counts), seed)


def long_tail(labels: torch.Tensor, size: int, imbalance: float, seed: int) -> torch.Tensor:
    """Indices, int64 and ascending, of those images of `subset(labels, size, seed)` that a long
    tail leaves: as many of each class as `long_tail_counts` says."""
    classes = len(_counts(labels))
    return _first(labels, long_tail_counts(size // classes, classes, imbalance), seed)


def long_tail_counts(largest: int, classes: int, imbalance: float) -> list[int]:
    """Images of each class of a long tail: ⌊largest · imbalance^(−k/(classes − 1))⌋ of class k, so
    that the first has `imbalance` times as many as the last (Cui et al. 2019, CVPR)."""
    exponents = np.arange(classes) / (classes - 1)
    return [int(count) for count in largest * imbalance**-exponents + 1e-9]


def class_subset(count: int, seed: int, of: int) -> list[int]:
    """`count` of the classes 0..of - 1, ascending; those of one seed are nested.

    Raises ValueError unless 1 <= count <= of.
    """
    if not 1 <= count <= of:
        raise ValueError(f"count must lie in 1..{of}, got {count}")
    generator = np.random.Generator(np.random.PCG64([seed, _CLASS_STREAM]))
    order: list[int] = np.argsort(generator.random(of), kind="stable").tolist()
    return sorted(order[:count])


def restrict(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """The images of some classes alone, labelled 0, 1, … in the order of `classes`."""
    new = torch.full((len(dataset.classes),), -1)
    new[list(classes)] = torch.arange(len(classes))
    names = tuple(dataset.classes[k] for k in classes)
    return _relabelled(dataset, new, names, tuple(dataset.superclass[k] for k in classes))


def coarse(dataset: Dataset) -> Dataset:
    """The same images, labelled with their superclasses."""
    names = dataset.superclasses
    return _relabelled(dataset, torch.tensor(dataset.superclass), names, tuple(range(len(names))))


def _relabelled(
    dataset: Dataset, new: torch.Tensor, classes: tuple[str, ...], superclass: tuple[int, ...]
) -> Dataset:
    """The images labelled new[class] instead of class, but not those for which it is negative."""

    def part(split: Split) -> Split:
        labels = new[split.labels]
        kept = labels >= 0
        if kept.all():  # no copy of the images
            return Split(split.images, labels)
        return Split(split.images[kept], labels[kept])

    train, validation, test = map(part, (dataset.train, dataset.validation, dataset.test))
    splits = replace(dataset, train=train, validation=validation, test=test)
    return replace(splits, classes=classes, superclass=superclass)


def _counts(labels: torch.Tensor) -> list[int]:
    """Images of each class that has any."""
    return [count for count in labels.bincount().tolist() if count]


def _first(labels: torch.Tensor, shares: Sequence[int], seed: int) -> torch.Tensor:
    """Indices, ascending, of the first images of each class in the seed's order."""
    generator = np.random.Generator(np.random.PCG64([seed, _SUBSET_STREAM]))
    order = torch.from_numpy(np.argsort(generator.random(len(labels)), kind="stable"))
    by_class = order[labels[order].argsort(stable=True)].split_with_sizes(_counts(labels))
    chosen = [members[:share] for members, share in zip(by_class, shares, strict=True)]
    return torch.cat(chosen).sort().values
