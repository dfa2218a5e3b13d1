"""CIFAR-100 from any of its sources.

CIFAR-100 (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009) is
distributed in several layouts that hold the same images in different orders. Here its train and
its test part are each sorted by fine label and then by pixels, so that an index means the same
image whatever the source was. A source that differs in a single byte is refused; what passed is
kept decoded (`cache`).
"""

import contextlib
import io
import pickle
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from functools import cache as remembered
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lsce.data import cache, cifar100n, datasets
from lsce.data.cache import first_line, writing
from lsce.data.datasets import (  # fmt: skip
    DataError,
    Dataset,
    DataUnavailable,
    Entry,
    HumanLabels,
    Source,
    Split,
)
from lsce.data.sampling import held_out
from lsce.machine import paths

#: The classes by superclass, both in the order of their indices (classes alphabetically).
_TAXONOMY = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
_SUPERCLASS_OF = {c: s for s, names in enumerate(_TAXONOMY.values()) for c in names.split()}
_CLASSES = tuple(sorted(_SUPERCLASS_OF))

#: The folder and the files in what torchvision downloads.
_FOLDER, _FILES = "cifar-100-python", ("train", "test", "meta")

_WANTED = (
    "torchvision's `cifar-100-python` folder, `cifar-100-python.tar.gz`, or "
    "`train*.parquet` and `test*.parquet`"
)


class Location(NamedTuple):
    """Where CIFAR-100 lies on this machine.

    kind: "archive", "tarball", "parquet" or "cache". files: what is read, all in one folder.
    words: for people, as "CIFAR-100 from data/cifar-100 (Parquet)"; also its `str`.
    """

    kind: str
    files: tuple[Path, ...]
    words: str

    def __str__(self) -> str:
        return self.words


def _load(source: Source) -> Dataset:
    location = locate(source)
    if location is None:
        raise DataUnavailable(
            f"CIFAR-100 is not on this machine ({_shown(paths.CIFAR100)} holds none): run "
            "`make reproduce` where the network can be reached, give DATA=folder, or use the "
            "built-in data set"
        )
    if location.kind == "cache":
        return cache.decoded(ENTRY.name)
    return cache.load(ENTRY, location.files, partial(_read, location))


ENTRY = Entry(
    name="cifar-100",
    words="CIFAR-100",
    checksum="b830e9d01dd55dcceea7a62ccccd147ac1e9d812c694a7a68e273c6f73feb689",
    classes=_CLASSES,
    superclass=tuple(_SUPERCLASS_OF[name] for name in _CLASSES),
    superclasses=tuple(_TAXONOMY),
    sizes={"train": 45_000, "validation": 5_000, "test": 10_000},
    pixels=32,
    # Müller et al. 2019 show the first three.
    examples={"similar": ("beaver", "dolphin", "otter"), "unlike": ("bus", "rose", "wolf")},
    load=_load,
    human_counts=partial(cifar100n.counts, _CLASSES),
    human_labels=lambda: _human_labels(),
)
datasets.register(ENTRY)


def locate(source: Source = None) -> Location | None:
    """The place `load("cifar-100", source)` would read, or None where only `fetch` could help.

    Looks at names and the cache's header: nothing is decoded or downloaded. Raises DataError if
    `source` is given and holds none of the layouts.
    """
    folder = paths.CIFAR100 if source is None else Path(source)
    if location := _find(folder):
        return location
    if source is not None:
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder: DATA must name one with {_WANTED}")
        raise DataError(f"{folder} holds no CIFAR-100: wanted {_WANTED}")
    if cache.read(ENTRY) is None:
        return None
    file = cache.file(ENTRY)
    return Location("cache", (file,), f"CIFAR-100 from {_shown(file)} (decoded before)")


def _find(folder: Path) -> Location | None:
    words = f"CIFAR-100 from {_shown(folder)}"
    for inner in (folder / _FOLDER, folder):
        files = tuple(inner / name for name in _FILES)
        # A folder of that name is meant as the archive even if files are missing in it.
        named = inner.name == _FOLDER and inner.is_dir()
        if named or all(file.is_file() for file in files):
            return Location("archive", files, f"{words} (torchvision's archive)")
    for inner in (folder, folder / "data", folder / "cifar100"):
        files = (*sorted(inner.glob("train*.parquet")), *sorted(inner.glob("test*.parquet")))
        if files:
            return Location("parquet", files, f"{words} (Parquet)")
    tarball = folder / f"{_FOLDER}.tar.gz"
    if tarball.is_file():
        return Location("tarball", (tarball,), f"{words} (the archive)")
    return None


def _shown(path: Path) -> str:
    """A path as people know it: from the checkout if it lies inside."""
    return str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)


def fetch() -> None:
    """Download CIFAR-100 through torchvision, which verifies it, into `data/cifar-100`.

    It appears there complete or not at all; what an earlier, interrupted download left is removed.
    Raises DataUnavailable if it cannot be had, OSError if the data folder cannot be written.
    """
    temporary = paths.CACHE / "download"
    with writing(paths.CACHE):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # torchvision sets none, and a silent firewall would hang it
    try:
        _torchvision().CIFAR100(temporary, download=True)
    except Exception as error:  # whatever the network does, the user needs one sentence
        raise DataUnavailable(f"CIFAR-100 could not be downloaded: {first_line(error)}") from error
    else:
        with writing(paths.CIFAR100):
            (temporary / _FOLDER).replace(paths.CIFAR100 / _FOLDER)
    finally:
        socket.setdefaulttimeout(patience)
        shutil.rmtree(temporary, ignore_errors=True)


def _human_labels() -> HumanLabels:
    """CIFAR-100N's labels in the order of this project, which is none of a source's."""
    assert ENTRY.human_counts is not None
    true, given, checksum = cifar100n.labels(ENTRY.human_counts())
    archive = f"put torchvision's `{_FOLDER}` folder or `{_FOLDER}.tar.gz` into {paths.CIFAR100}"
    location = locate()
    if location is None or location.kind == "cache":
        raise DataUnavailable(
            f"labels by people find their images in CIFAR-100's archive: {archive}"
        )
    labels, order = _train_order(location)
    if not np.array_equal(labels, true):
        raise DataError(
            f"{location.files[0].parent} has CIFAR-100's images in another order than its archive, "
            f"in which {paths.CIFAR100N_LABELS.name} has its labels: {archive}"
        )
    ours = torch.from_numpy(given[order])
    parts = held_out(torch.from_numpy(labels[order]), ENTRY)
    return HumanLabels(torch.cat([ours[i] for i in parts]), checksum)


@remembered
def _train_order(location: Location) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the training images as a source has them, int64 (N,), and the place there of
    the images in the order of this project."""
    with _extracted(location) as files:
        images, labels = _rows(files, "train", ENTRY.per_class("train", "validation"))
    return labels, _order(images, labels)


@contextlib.contextmanager
def _extracted(location: Location) -> Iterator[Location]:
    """The place itself; a tarball's files in a folder that is removed afterwards."""
    if location.kind != "tarball":
        yield location
        return
    (tarball,) = location.files
    _check_md5(tarball, _torchvision().CIFAR100.tgz_md5)
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(tarball) as archive:
        archive.extractall(scratch, filter="data")
        files = tuple(Path(scratch, _FOLDER, name) for name in _FILES)
        yield Location("archive", files, location.words)


def _read(location: Location) -> tuple[Split, Split]:
    """The train and the test part of a source, sorted and verified."""
    with _extracted(location) as files:
        train = _part(files, "train", ENTRY.per_class("train", "validation"))
        test = _part(files, "test", ENTRY.per_class("test"))
    if datasets.checksum(train, test, ENTRY.superclass) != ENTRY.checksum:
        raise DataError(
            f"{location.files[0].parent}: every file is well formed, but some image or label is "
            f"not CIFAR-100's (the content's SHA-256 should be {ENTRY.checksum[:12]}...)"
        )
    return train, test


def _part(location: Location, part: str, per_class: int) -> Split:
    """A part sorted by label and then by pixels."""
    images, labels = _rows(location, part, per_class)
    order = _order(images, labels)
    return Split(torch.from_numpy(images[order]), torch.from_numpy(labels[order]))


def _rows(location: Location, part: str, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, P, P, 3), and fine labels, int64 (N,), of a part, as they stand in its
    files; DataError for another number of any class."""
    files = [file for file in location.files if file.name.startswith(part)]
    if not files:
        folder = location.files[0].parent
        raise DataError(f"{folder} holds no {part}*.parquet beside its other part")
    read = _read_pickle if location.kind == "archive" else _read_parquet
    images, labels = map(np.concatenate, zip(*map(read, files), strict=True))
    name, expected = ", ".join(map(str, files)), ENTRY.num_classes * per_class
    if len(labels) != expected:
        raise DataError(f"{name}: {len(labels):,} rows, but CIFAR-100 has {expected:,} there")
    counts = np.bincount(labels, minlength=ENTRY.num_classes)
    if (wrong := np.flatnonzero(counts != per_class)).size:
        k = wrong[0]
        raise DataError(
            f"{name}: {counts[k]} images of class {k} ({ENTRY.classes[k]}), but CIFAR-100 has "
            f"{per_class} of each there; are the labels the fine ones?"
        )
    return images, labels


def _order(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Indices, int64 (N,), that sort images by label and then by pixels."""
    keys = [bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__))


def _torchvision() -> Any:
    """torchvision's module of CIFAR, which takes more than a second to import."""
    from torchvision.datasets import cifar

    return cifar


def _check_md5(file: Path, md5: str) -> None:
    if not file.is_file():
        raise DataError(f"{file} is missing from CIFAR-100's archive")
    if not _torchvision().check_integrity(file, md5):
        raise DataError(f"{file} is truncated or altered: its MD5 is not CIFAR-100's, {md5}")


def _read_pickle(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, P, P, 3), and fine labels, int64 (N,), of one part of the archive."""
    cifar100 = _torchvision().CIFAR100
    meta = (cifar100.meta["filename"], cifar100.meta["md5"])
    for name, md5 in [*getattr(cifar100, f"{file.name}_list"), meta]:
        _check_md5(file.with_name(name), md5)
    content = pickle.loads(file.read_bytes(), encoding="latin1")
    images = content["data"].reshape(-1, 3, ENTRY.pixels, ENTRY.pixels).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(content["fine_labels"])


def _read_parquet(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, P, P, 3), and fine labels, int64 (N,), of one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = pq.ParquetFile(file)
        names = content.schema_arrow.names
        image = _column(file, names, "img", "image")
        fine = _column(file, names, "fine_label", "label")
        table = content.read(columns=[image, fine, "coarse_label"])
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is truncated, damaged or no Parquet file: {first_line(error)}"
        ) from error
    labels = _labels(file, table, fine, ENTRY.num_classes)
    if "coarse_label" in names:
        coarse = _labels(file, table, "coarse_label", len(ENTRY.superclasses))
        right = np.array(ENTRY.superclass)[labels]
        if (wrong := np.flatnonzero(coarse != right)).size:
            row = wrong[0]
            raise DataError(
                f"{file}: row {row} says coarse_label {coarse[row]} beside {fine} {labels[row]}, "
                f"whose superclass is {right[row]}"
            )
    return _decode(file, table[image].to_pylist(), ENTRY.pixels), labels


def _column(file: Path, names: list[str], *spellings: str) -> str:
    for name in spellings:
        if name in names:
            return name
    raise DataError(f"{file}: no column {' or '.join(spellings)}; it has {', '.join(names)}")


def _labels(file: Path, table: Any, name: str, k: int) -> np.ndarray:
    """A column of a PyArrow table as labels, int64 (N,), 0..k - 1."""
    from pyarrow.types import is_integer

    column = table[name]
    if not is_integer(column.type) or column.null_count:
        raise DataError(f"{file}: column {name} must hold integers and no gaps, is {column.type}")
    labels: np.ndarray = column.to_numpy()
    if (outside := np.flatnonzero((labels < 0) | (labels >= k))).size:
        row = outside[0]
        raise DataError(f"{file}: row {row} has {name} {labels[row]}, outside 0..{k - 1}")
    return labels.astype(np.int64)


def _decode(file: Path, cells: list[Any], side: int) -> np.ndarray:
    """The images, uint8 (N, side, side, 3), of a column of encoded ones; threads share the work."""
    from PIL import Image

    def decode(row: int) -> np.ndarray:
        cell = cells[row]
        encoded = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(encoded, bytes):
            raise DataError(f"{file}: row {row} holds no encoded image")
        try:
            pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and others
            raise DataError(f"{file}: the image of row {row} cannot be decoded") from error
        if pixels.shape != (side, side, 3):
            size = "{1}x{0}".format(*pixels.shape)
            raise DataError(f"{file}: the image of row {row} is {size}, not {side}x{side}")
        return pixels

    with ThreadPool() as pool:
        images = list(pool.imap(decode, range(len(cells)), chunksize=500))
    return np.array(images, dtype=np.uint8).reshape(-1, side, side, 3)
