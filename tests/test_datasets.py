"""The registry, draws from a data set, and a third data set that goes through all of them."""

import dataclasses
import hashlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
import tiny_dataset
import torch

from lsce import data
from lsce.data import cache
from lsce.data.sampling import SPLIT_SEED
from lsce.machine import paths


@pytest.fixture
def tiny() -> Iterator[data.Dataset]:
    with tiny_dataset.registered():
        yield data.load("tiny")


# ---- the registry -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar-100", "built-in", "tiny"])
def test_an_entry_agrees_with_itself(name):
    with tiny_dataset.registered():
        entry = data.entry(name)
    k = entry.num_classes
    assert entry.name == name and len(set(entry.classes)) == k == len(entry.superclass)
    assert sorted(set(entry.superclass)) == list(range(len(entry.superclasses)))
    assert min(entry.superclass.count(s) for s in entry.superclass) >= 2  # for label noise
    assert list(entry.sizes) == ["train", "validation", "test"]
    assert [k * entry.per_class(split) for split in entry.sizes] == [*entry.sizes.values()]
    above = dict(zip(entry.classes, entry.superclass, strict=True))
    assert len({above[name] for name in entry.examples["similar"]}) == 1
    assert len({above[name] for name in entry.examples["unlike"]}) == 3


def test_names(tiny):
    assert data.names() == ("cifar-100", "built-in", "tiny")
    with pytest.raises(ValueError, match="must be one of 'cifar-100', 'built-in', 'tiny', got 'c'"):
        data.load("c")
    with pytest.raises(ValueError, match="name must be new, but there is a data set 'tiny'"):
        data.register(tiny_dataset.ENTRY)


def test_what_takes_long_to_import_is_imported_where_it_is_used():
    late = {"torchvision", "pyarrow", "PIL", "pandas"}
    script = f"import sys, lsce.data; assert not {late} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


# ---- a third data set -------------------------------------------------------------------------


def test_a_third_data_set_is_loaded_and_split(tiny):
    entry = data.entry("tiny")
    for name, size in entry.sizes.items():
        split = getattr(tiny, name)
        assert split.images.shape == (size, 16, 16, 3) and split.images.dtype == torch.uint8
        assert split.labels.bincount().tolist() == [entry.per_class(name)] * 10
    assert (tiny.name, tiny.checksum) == ("tiny", entry.checksum)
    every, test = tiny_dataset._draw(40, 1), tiny.test
    assert data.checksum(every, test, entry.superclass) == entry.checksum
    together = torch.cat([tiny.train.images, tiny.validation.images])
    assert sorted(i.tobytes() for i in together.numpy()) == sorted(
        i.tobytes() for i in every.images.numpy()
    )


def test_a_third_data_set_is_kept_in_the_cache(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    parts = [(tiny_dataset._draw(40, 1), tiny.test)]
    for _ in range(2):
        again = cache.load(tiny_dataset.ENTRY, [], parts.pop)  # decoded once, or there is no part
        assert torch.equal(again.validation.images, tiny.validation.images)
    assert torch.equal(data.decoded("tiny").train.labels, tiny.train.labels)
    assert cache.read(dataclasses.replace(tiny_dataset.ENTRY, pixels=17)) is None


def test_classes_of_a_third_data_set(tiny):
    seen = data.class_subset(4, seed=0, of=10)
    assert seen == sorted(set(seen)) and set(seen) <= set(data.class_subset(7, seed=0, of=10))
    few = data.restrict(tiny, seen)
    assert few.classes == tuple(tiny.classes[k] for k in seen)
    assert few.superclass == tuple(tiny.superclass[k] for k in seen)
    for new, old in enumerate(seen):
        images = few.test.images[few.test.labels == new]
        assert torch.equal(images, tiny.test.images[tiny.test.labels == old])
    assert len(few.train) == 4 * 30 and few.superclasses == tiny.superclasses


def test_superclasses_of_a_third_data_set(tiny):
    above = data.coarse(tiny)
    assert above.classes == tiny.superclasses and above.superclass == (0, 1, 2, 3)
    assert above.train.labels.bincount().tolist() == [90, 90, 60, 60]
    assert above.train.images is tiny.train.images
    assert above.test.labels.tolist() == [tiny.superclass[k] for k in tiny.test.labels]


def test_training_images_of_a_third_data_set(tiny):
    labels = tiny.train.labels
    chosen = data.subset(labels, 100, seed=1)
    assert labels[chosen].bincount().tolist() == [10] * 10
    tail = data.long_tail(labels, 100, imbalance=5, seed=1)
    assert {*tail.tolist()} < {*chosen.tolist()}
    assert labels[tail].bincount().tolist() == data.long_tail_counts(10, 10, 5)
    noisy = data.flip_labels(labels, "asymmetric", 0.3, 1, tiny.superclass)
    above = torch.tensor(tiny.superclass)
    assert torch.equal(above[noisy], above[labels]) and 50 < (noisy != labels).sum() < 130


# ---- draws ------------------------------------------------------------------------------------

LABELS = torch.arange(100).repeat_interleave(500)


def test_the_draws_never_change():
    validation = data.subset(LABELS, 5_000, SPLIT_SEED)
    pinned = "fefa963515f41ad4"
    assert hashlib.sha256(validation.numpy().tobytes()).hexdigest()[:16] == pinned
    assert data.class_subset(5, seed=0, of=100) == [8, 39, 54, 75, 90]
    assert data.subset(LABELS[::50], 100, seed=3)[:5].tolist() == [0, 14, 28, 34, 45]


def test_subsets_are_balanced_and_nested():
    sizes = [100, 4_500, 10_000, 50_000]
    subsets = [data.subset(LABELS, size, seed=4) for size in sizes]
    for size, chosen in zip(sizes, subsets, strict=True):
        assert chosen.dtype == torch.int64 and len(set(chosen.tolist())) == size
        assert LABELS[chosen].bincount().tolist() == [size // 100] * 100
    for small, large in zip(subsets, subsets[1:]):
        assert set(small.tolist()) < set(large.tolist())
    assert torch.equal(subsets[-1], torch.arange(50_000))
    assert torch.equal(subsets[1], data.subset(LABELS, 4_500, seed=4))
    assert not torch.equal(subsets[1], data.subset(LABELS, 4_500, seed=5))


def test_noise_of_a_seed_is_independent_of_its_subset():
    labels = LABELS[::5]
    superclass = data.entry("cifar-100").superclass
    wrong = data.flip_labels(labels, "symmetric", 0.3, 6, superclass) != labels
    share = wrong[data.subset(labels, 3_000, seed=6)].double().mean()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 3_000) ** 0.5


def test_subset_does_not_depend_on_the_order_of_a_class_alone():
    # Two seeds must not agree on a class's first images merely because these stand first.
    first = data.subset(torch.arange(10).repeat_interleave(100), 100, seed=0)
    assert (first % 100 >= 50).sum() > 20


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "size must lie in 1..10, the number of images, got 0"),
        (11, "size must lie in 1..10, .*got 11"),
        (5, "size must be a multiple of the 2 classes, got 5"),
        (8, "size must be at most 6: a class has 3 images, got 8"),
    ],
)
def test_subset_sizes_that_do_not_fit(size, words):
    labels = torch.tensor([0] * 7 + [1] * 3)
    assert labels[data.subset(labels, 6, seed=0)].bincount().tolist() == [3, 3]
    assert data.subset(labels, 10, seed=0).tolist() == list(range(10))
    with pytest.raises(ValueError, match=words):
        data.subset(labels, size, seed=0)


@pytest.mark.parametrize("count", [0, 11])
def test_class_subset_of_a_wrong_size(count):
    with pytest.raises(ValueError, match=f"count must lie in 1..10, got {count}"):
        data.class_subset(count, seed=0, of=10)
