"""CIFAR-100 from any of its sources, the built-in data set, the split and subsets.

CIFAR-100 (A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009) is
distributed in several layouts that hold the same images in different orders. Here each of its two
parts is sorted by fine label and then by pixels, the *canonical order*, so that an index, a subset
or a split means the same images whatever the source was. A source whose content differs in a
single byte from `CHECKSUMS` is refused.
"""

import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lsce.data import synthetic
from lsce.machine import paths

NAMES = ("cifar-100", "built-in")

#: What torchvision downloads, and the folder and the files in it.
_TARBALL, _FOLDER, _FILES = "cifar-100-python.tar.gz", "cifar-100-python", ("train", "test", "meta")

#: SHA-256 of the canonical content of each data set; see `checksum`.
CHECKSUMS = {
    "cifar-100": "b830e9d01dd55dcceea7a62ccccd147ac1e9d812c694a7a68e273c6f73feb689",
    "built-in": "6934160689150166f0743ff117453cea9bc29bd05123de03df9c457236af21ce",
}

#: CIFAR-100's classes by superclass, both in the order of their indices (classes alphabetically).
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
_SUPERCLASSES = tuple(_TAXONOMY)
_SUPERCLASS_OF = {c: s for s, names in enumerate(_TAXONOMY.values()) for c in names.split()}
_CLASSES = tuple(sorted(_SUPERCLASS_OF))
_SUPERCLASS = tuple(_SUPERCLASS_OF[c] for c in _CLASSES)

#: The names of each data set's 100 classes, in the order of their indices.
CLASSES = {"cifar-100": _CLASSES, "built-in": synthetic.CLASSES}

#: The superclass of each of them.
SUPERCLASS = {"cifar-100": _SUPERCLASS, "built-in": synthetic.SUPERCLASS}

#: Three classes that resemble each other (Müller et al. 2019 show these of CIFAR-100), and three
#: of superclasses that have little in common.
EXAMPLES = {
    "cifar-100": {"similar": ("beaver", "dolphin", "otter"), "unlike": ("bus", "rose", "wolf")},
    "built-in": {
        "similar": ("s00-c00", "s00-c01", "s00-c02"),
        "unlike": ("s05-c25", "s10-c50", "s15-c75"),
    },
}

#: Superclasses of either data set.
SUPERCLASSES = 20

#: Images of each class in CIFAR-100's two parts, and all images of each split made of them.
_PER_CLASS = {"train": 500, "test": 100}
_SIZES = {"train": 45_000, "validation": 5_000, "test": 10_000}
#: Also names the split in the cache: change it if the rule of the split changes.
_SPLIT_SEED = 50_000
#: Keeps the draws of one seed for subsets, of images and of classes, apart from each other and
#: from those for label noise (2).
_SUBSET_STREAM, _CLASS_STREAM = 1, 3

_WANTED = (
    "torchvision's `cifar-100-python` folder, `cifar-100-python.tar.gz`, or "
    "`train*.parquet` and `test*.parquet`"
)


class DataError(ValueError):
    """A folder or file that is no CIFAR-100, in one sentence that names it."""


class DataUnavailable(RuntimeError):
    """CIFAR-100 is not on this machine, or could not be downloaded."""


@dataclass(frozen=True)
class Split:
    """images: uint8 (N, 32, 32, 3), 0..255. labels: int64 (N,), 0..99."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set with its fixed split: 45,000 training, 5,000 validation, 10,000 test images.

    classes: the 100 names. superclass: index (0..19) of each class's superclass. superclasses: the
    20 names. checksum: the SHA-256 of `checksum`, the same for every source of the data set.
    """

    name: str
    checksum: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    superclass: tuple[int, ...]
    superclasses: tuple[str, ...]


@dataclass(frozen=True)
class Location:
    """Where CIFAR-100 lies on this machine.

    kind: ``"archive"``, ``"tarball"``, ``"parquet"`` or ``"cache"``. folder: the folder that holds
    `files`. words: for people, as "CIFAR-100 from data/cifar-100 (Parquet)"; also its `str`.
    """

    kind: str
    folder: Path
    files: tuple[Path, ...]
    words: str

    def __str__(self) -> str:
        return self.words


@dataclass(frozen=True)
class _Part:
    """One part (train or test) as its source holds it; `name` says in errors which source."""

    name: str
    images: np.ndarray  # uint8 (N, 32, 32, 3)
    labels: np.ndarray  # uint8 (N,)


def load(name: str, source: str | os.PathLike | None = None) -> Dataset:
    """The data set ``"cifar-100"`` or ``"built-in"``, in canonical order and split.

    source: a folder that holds CIFAR-100; without it `data/cifar-100` is looked at and then what
    was decoded before. Nothing is downloaded: see `fetch`. CIFAR-100 is decoded and verified once
    and then memory-mapped from `data/cache`; of what it maps, it verifies structure, shapes and the
    recorded checksum, and not the bytes again.

    Raises ValueError for another name, DataError for data that is not CIFAR-100 (the sentence
    names the file), DataUnavailable if this machine holds none, OSError if the cache cannot be
    written.
    """
    if name == "built-in":
        if source is not None:
            raise ValueError(f"source must be None for the built-in data set, got {str(source)!r}")
        return _built_in()
    if name != "cifar-100":
        raise ValueError(f"name must be one of {', '.join(map(repr, NAMES))}, got {name!r}")
    location = locate(source)
    if location is None:
        raise DataUnavailable(
            f"CIFAR-100 is not on this machine ({_shown(paths.CIFAR100)} holds none): run "
            "`make reproduce` where the network can be reached, give DATA=folder, or use the "
            "built-in data set"
        )
    tensors = _read_cache(_fingerprint(location))
    if tensors is None:
        tensors = _build_cache(location)
    return _cifar100(tensors)


def decoded(name: str) -> Dataset:
    """As `load(name)`, for worker processes whose parent has called `load`.

    What the parent decoded is taken whatever its source was, so that a worker need not know it.
    """
    tensors = _read_cache(fingerprint=None) if name == "cifar-100" else None
    return load(name) if tensors is None else _cifar100(tensors)


def locate(source: str | os.PathLike | None = None) -> Location | None:
    """The place `load("cifar-100", source)` would read, or None where only `fetch` could help.

    Looks at names and the cache's header: nothing is decoded or downloaded. Raises DataError if
    `source` is given and holds none of the layouts.
    """
    if source is not None:
        folder = Path(source)
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder: DATA must name one with {_WANTED}")
        location = _find(folder)
        if location is None:
            raise DataError(f"{folder} holds no CIFAR-100: wanted {_WANTED}")
        return location
    location = _find(paths.CIFAR100)
    if location is None and _read_cache(fingerprint=None) is not None:
        file = _cache_file()
        return Location(
            "cache", file.parent, (file,), f"CIFAR-100 from {_shown(file)} (decoded before)"
        )
    return location


def fetch() -> None:
    """Download CIFAR-100 through torchvision, which verifies it, into `data/cifar-100`.

    It appears there complete or not at all; what an earlier, interrupted download left is removed.
    Raises DataUnavailable if it cannot be had, OSError if the data folder cannot be written.
    """
    temporary = paths.CACHE / "download"
    target = paths.CIFAR100 / _FOLDER
    with _writing(paths.CACHE):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # torchvision sets none, and a silent firewall would hang it
    try:
        _torchvision()(temporary, download=True)
        with _writing(paths.CIFAR100):
            os.replace(temporary / _FOLDER, target)
    except _Unwritable:
        raise
    except Exception as error:  # whatever the network does, the user needs one sentence
        raise DataUnavailable(f"CIFAR-100 could not be downloaded: {_first_line(error)}") from error
    finally:
        socket.setdefaulttimeout(patience)
        shutil.rmtree(temporary, ignore_errors=True)


def subset(labels: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    """Indices of a random subset with equally many images of each class.

    labels: int64 (N,). size: a multiple of the number of classes present, at most N. Subsets of
    one seed are nested: a smaller one is part of every larger one.

    Returns int64 (size,), ascending; all indices if size is N. Raises ValueError if the size fits
    neither the classes nor their images.
    """
    n = len(labels)
    counts = labels.unique(return_counts=True)[1]
    if not 0 < size <= n:
        raise ValueError(f"size must lie in 1..{n}, the number of images, got {size}")
    if size == n:
        return torch.arange(n)
    share, remainder = divmod(size, len(counts))
    if remainder:
        raise ValueError(f"size must be a multiple of the {len(counts)} classes, got {size}")
    fewest = int(counts.min())
    if share > fewest:
        raise ValueError(
            f"size must be at most {fewest * len(counts)}: a class has {fewest} images, got {size}"
        )
    return _first(labels, [share] * len(counts), seed)


def _first(labels: torch.Tensor, shares: Sequence[int], seed: int) -> torch.Tensor:
    """Indices, ascending, of the first images of each class in the seed's order."""
    generator = np.random.Generator(np.random.PCG64([seed, _SUBSET_STREAM]))
    order = torch.from_numpy(np.argsort(generator.random(len(labels)), kind="stable"))
    counts = labels.unique(return_counts=True)[1].tolist()
    by_class = order[labels[order].argsort(stable=True)].split(counts)
    chosen = [members[:share] for members, share in zip(by_class, shares, strict=True)]
    return torch.cat(chosen).sort().values


def long_tail_counts(largest: int, classes: int, imbalance: float) -> list[int]:
    """Images of each class of a long tail: ⌊largest · imbalance^(−k/(classes − 1))⌋ of class k, so
    that the first has `imbalance` times as many as the last (Cui et al. 2019, CVPR)."""
    exponents = np.arange(classes) / (classes - 1)
    return np.floor(largest * imbalance**-exponents + 1e-9).astype(int).tolist()


def long_tail(labels: torch.Tensor, size: int, imbalance: float, seed: int) -> torch.Tensor:
    """Indices, ascending, of those images of `subset(labels, size, seed)` that a long tail leaves:
    as many of each class as `long_tail_counts` says."""
    classes = len(labels.unique())
    return _first(labels, long_tail_counts(size // classes, classes, imbalance), seed)


def coarse(dataset: Dataset) -> Dataset:
    """The same images, labelled with their superclasses."""
    above = torch.tensor(dataset.superclass)
    splits = {
        name: Split(split.images, above[split.labels])
        for name, split in vars(dataset).items()
        if isinstance(split, Split)
    }
    names = dataset.superclasses
    return replace(dataset, **splits, classes=names, superclass=tuple(range(len(names))))


def class_subset(count: int, seed: int) -> list[int]:
    """`count` of the 100 classes, ascending; those of one seed are nested.

    Raises ValueError unless 1 <= count <= 100.
    """
    if not 1 <= count <= 100:
        raise ValueError(f"count must lie in 1..100, got {count}")
    generator = np.random.Generator(np.random.PCG64([seed, _CLASS_STREAM]))
    return sorted(np.argsort(generator.random(100), kind="stable")[:count].tolist())


def restrict(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """The images of some classes alone, labelled 0, 1, … in the order of `classes`."""
    new = torch.full((len(dataset.classes),), -1)
    new[list(classes)] = torch.arange(len(classes))

    def part(split: Split) -> Split:
        labels = new[split.labels]
        return Split(split.images[labels >= 0], labels[labels >= 0])

    return replace(
        dataset,
        train=part(dataset.train),
        validation=part(dataset.validation),
        test=part(dataset.test),
        classes=tuple(dataset.classes[k] for k in classes),
        superclass=tuple(dataset.superclass[k] for k in classes),
    )


def checksum(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    superclass: tuple[int, ...],
) -> str:
    """SHA-256, in hexadecimal, of a data set's content in the order in which it is given.

    The bytes of the train images, their labels and superclasses as uint8, then those of the test
    images. images: uint8 (N, 32, 32, 3); labels: integers (N,).
    """
    digest = hashlib.sha256()
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        digest.update(np.ascontiguousarray(images, dtype=np.uint8).data)
        digest.update(labels.astype(np.uint8).tobytes())
        digest.update(np.array(superclass, dtype=np.uint8)[labels].tobytes())
    return digest.hexdigest()


# ---- the data sets ----------------------------------------------------------------------------


def _built_in() -> Dataset:
    train_images, train_labels, test_images, test_labels = synthetic.generate()
    arrays = (t.numpy() for t in (train_images, train_labels, test_images, test_labels))
    if checksum(*arrays, synthetic.SUPERCLASS) != CHECKSUMS["built-in"]:
        raise RuntimeError(
            f"the built-in data set comes out different with NumPy {np.__version__} on this "
            "machine; results on it could not be compared with others"
        )
    train, test = Split(train_images, train_labels), Split(test_images, test_labels)
    tensors = _split(train, test)
    return _dataset(
        "built-in", tensors, synthetic.CLASSES, synthetic.SUPERCLASS, synthetic.SUPERCLASSES
    )


def _split(train: Split, test: Split) -> dict[str, torch.Tensor]:
    """The tensors of the three splits; a balanced part of the training images is validation."""
    validation = subset(train.labels, _SIZES["validation"], _SPLIT_SEED)
    rest = torch.ones(len(train), dtype=torch.bool)
    rest[validation] = False
    parts = {
        "train": (train, rest.nonzero().flatten()),
        "validation": (train, validation),
        "test": (test, torch.arange(len(test))),
    }
    tensors = {}
    for name, (part, index) in parts.items():
        tensors[f"{name}.images"] = part.images[index]
        tensors[f"{name}.labels"] = part.labels[index]
    return tensors


def _cifar100(tensors: Mapping[str, torch.Tensor]) -> Dataset:
    return _dataset("cifar-100", tensors, _CLASSES, _SUPERCLASS, _SUPERCLASSES)


def _dataset(
    name: str,
    tensors: Mapping[str, torch.Tensor],
    classes: tuple[str, ...],
    superclass: tuple[int, ...],
    superclasses: tuple[str, ...],
) -> Dataset:
    splits = {s: Split(tensors[f"{s}.images"], tensors[f"{s}.labels"]) for s in _SIZES}
    return Dataset(
        name,
        CHECKSUMS[name],
        **splits,
        classes=classes,
        superclass=superclass,
        superclasses=superclasses,
    )


# ---- finding ----------------------------------------------------------------------------------


def _find(folder: Path) -> Location | None:
    """The layout that `folder` holds, if any."""
    for inner in (folder / _FOLDER, folder):
        files = [inner / name for name in _FILES]
        # A folder of that name is meant as the archive even if files are missing in it.
        named = inner.name == _FOLDER and inner.is_dir()
        if named or all(file.is_file() for file in files):
            return _location("archive", inner, files, folder)
    for inner in (folder, folder / "data", folder / "cifar100"):
        files = [*sorted(inner.glob("train*.parquet")), *sorted(inner.glob("test*.parquet"))]
        if files:
            return _location("parquet", inner, files, folder)
    tarball = folder / _TARBALL
    return _location("tarball", folder, [tarball], folder) if tarball.is_file() else None


def _location(kind: str, folder: Path, files: list[Path], shown: Path) -> Location:
    layout = {"archive": "torchvision's archive", "tarball": "the archive", "parquet": "Parquet"}
    return Location(kind, folder, tuple(files), f"CIFAR-100 from {_shown(shown)} ({layout[kind]})")


def _shown(path: Path) -> str:
    """A path as people know it: from the checkout if it lies inside."""
    return str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)


# ---- reading ----------------------------------------------------------------------------------


def _torchvision():
    """torchvision's CIFAR100, which takes more than a second to import."""
    from torchvision.datasets import CIFAR100

    return CIFAR100


def _archive_files() -> dict[str, str]:
    """MD5 of the archive's three files by name: train, test and meta."""
    cifar100 = _torchvision()
    meta = (cifar100.meta["filename"], cifar100.meta["md5"])
    return dict([*cifar100.train_list, *cifar100.test_list, meta])


def _check_md5(file: Path, md5: str) -> None:
    from torchvision.datasets.utils import check_integrity

    if not check_integrity(file, md5):
        raise DataError(f"{file} is truncated or altered: its MD5 is not CIFAR-100's, {md5}")


def _read(location: Location, per_class: Mapping[str, int], expected: str) -> tuple[Split, Split]:
    """Train and test part of a source in canonical order, verified.

    per_class: images of each class in the train and the test part. expected: checksum.
    """
    read = {"archive": _read_archive, "tarball": _read_tarball, "parquet": _read_parquet}
    parts = read[location.kind](location)
    for part, count in zip(parts, (per_class["train"], per_class["test"]), strict=True):
        _check_counts(part, count)
    arrays = [array for part in parts for array in _canonical(part.images, part.labels)]
    if checksum(*arrays, _SUPERCLASS) != expected:
        raise DataError(
            f"{location.folder}: every file is well formed, but some image or label is not "
            f"CIFAR-100's (the content's SHA-256 should be {expected[:12]}...)"
        )
    tensors = [torch.from_numpy(a if a.ndim > 1 else a.astype(np.int64)) for a in arrays]
    return Split(*tensors[:2]), Split(*tensors[2:])


def _canonical(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels (uint8) sorted by label and then by pixels."""
    keys = [bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True)]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    return images[order], labels[order]


def _check_counts(part: _Part, per_class: int) -> None:
    if len(part.labels) != 100 * per_class:
        raise DataError(
            f"{part.name}: {len(part.labels):,} rows, but CIFAR-100 has {100 * per_class:,} there"
        )
    counts = np.bincount(part.labels, minlength=100)
    if (counts != per_class).any():
        k = int((counts != per_class).argmax())
        raise DataError(
            f"{part.name}: {counts[k]} images of class {k} ({_CLASSES[k]}), but CIFAR-100 has "
            f"{per_class} of each there; are the labels the fine ones?"
        )


def _read_archive(location: Location) -> tuple[_Part, _Part]:
    for name, md5 in _archive_files().items():
        file = location.folder / name
        if not file.is_file():
            raise DataError(f"{file} is missing from CIFAR-100's archive")
        _check_md5(file, md5)
    # The folder holds the files itself.
    reader = type("_Archive", (_torchvision(),), {"base_folder": "."})
    parts = []
    for name in ("train", "test"):
        archive = reader(location.folder, train=name == "train")
        labels = np.array(archive.targets, dtype=np.uint8)
        images = np.ascontiguousarray(archive.data)  # torchvision's is a transposed view
        parts.append(_Part(str(location.folder / name), images, labels))
    return tuple(parts)


def _read_tarball(location: Location) -> tuple[_Part, _Part]:
    (file,) = location.files
    _check_md5(file, _torchvision().tgz_md5)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
        return _read_archive(_find(Path(folder)))


def _read_parquet(location: Location) -> tuple[_Part, _Part]:
    parts = []
    for name in ("train", "test"):
        files = [file for file in location.files if file.name.startswith(name)]
        if not files:
            raise DataError(f"{location.folder} holds no {name}*.parquet beside its other part")
        read = [_read_parquet_file(file) for file in files]
        images, labels = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
        parts.append(_Part(", ".join(map(str, files)), images, labels))
    return tuple(parts)


def _read_parquet_file(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, 32, 32, 3), and fine labels, uint8 (N,), of one Parquet file."""
    try:
        table = pq.ParquetFile(file)
        has = table.schema_arrow.names
        image = _column(file, has, "img", "image")
        fine = _column(file, has, "fine_label", "label")
        coarse = [name for name in ["coarse_label"] if name in has]
        table = table.read(columns=[image, fine, *coarse])
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} is truncated, damaged or no Parquet file: {_first_line(error)}"
        ) from error
    labels = _labels(file, table, fine, 100)
    for name in coarse:
        contradicting = _labels(file, table, name, 20) != np.array(_SUPERCLASS)[labels]
        if contradicting.any():
            row = int(contradicting.argmax())
            raise DataError(
                f"{file}: row {row} says {name} {table[name][row]} beside {fine} {labels[row]}, "
                f"whose superclass is {_SUPERCLASS[labels[row]]}"
            )
    return _decode(file, table[image]), labels.astype(np.uint8)


def _column(file: Path, has: list[str], *spellings: str) -> str:
    for name in spellings:
        if name in has:
            return name
    raise DataError(f"{file}: no column {' or '.join(spellings)}; it has {', '.join(has)}")


def _labels(file: Path, table: pa.Table, name: str, k: int) -> np.ndarray:
    column = table[name]
    if not pa.types.is_integer(column.type) or column.null_count:
        raise DataError(f"{file}: column {name} must hold integers and no gaps, is {column.type}")
    labels = column.to_numpy()
    outside = (labels < 0) | (labels >= k)
    if outside.any():
        row = int(outside.argmax())
        raise DataError(f"{file}: row {row} has {name} {labels[row]}, outside 0..{k - 1}")
    return labels


def _decode(file: Path, column: pa.ChunkedArray) -> np.ndarray:
    """The images, uint8 (N, 32, 32, 3), of a column of encoded ones; threads share the work."""
    cells = column.to_pylist()
    images = np.empty((len(cells), 32, 32, 3), dtype=np.uint8)

    def decode(start: int) -> None:
        for row, cell in enumerate(cells[start : start + 500], start):
            encoded = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(encoded, bytes):
                raise DataError(f"{file}: row {row} holds no encoded image")
            try:
                with Image.open(io.BytesIO(encoded)) as image:
                    pixels = np.asarray(image.convert("RGB"))
            except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and others
                raise DataError(f"{file}: the image of row {row} cannot be decoded") from error
            if pixels.shape != (32, 32, 3):
                height, width, _ = pixels.shape
                raise DataError(f"{file}: the image of row {row} is {width}x{height}, not 32x32")
            images[row] = pixels

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, range(0, len(cells), 500)))
    return images


# ---- the cache --------------------------------------------------------------------------------


class _Unwritable(OSError):
    """A folder of the project that cannot be written; its text is the whole sentence."""


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make `folder`, and turn whatever keeps it from being written into one sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise _Unwritable(f"cannot write to {folder}: {reason}") from error


def _cache_file() -> Path:
    return paths.CACHE / "cifar-100.safetensors"


def _cache_identity() -> dict[str, str]:
    """What a cache must say of itself: whose content it holds, and split how."""
    return {"checksum": CHECKSUMS["cifar-100"], "split": str(_SPLIT_SEED)}


def _fingerprint(location: Location) -> str | None:
    """Names, sizes and times of a source's files; None for the cache, which is its own source."""
    if location.kind == "cache":
        return None
    existing = [file for file in location.files if file.is_file()]
    return json.dumps([[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in existing])


def _read_cache(fingerprint: str | None) -> dict[str, torch.Tensor] | None:
    """The memory-mapped tensors, or None if there are none, or of other source files, or damaged.

    fingerprint: of the source files; None takes the cache whatever it was decoded from.
    """
    try:
        with safe_open(_cache_file(), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError):
        return None
    if any(metadata.get(key) != value for key, value in _cache_identity().items()):
        return None
    if fingerprint is not None and metadata.get("fingerprint") != fingerprint:
        return None
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    expected = {f"{s}.images": (torch.uint8, (n, 32, 32, 3)) for s, n in _SIZES.items()}
    expected |= {f"{s}.labels": (torch.int64, (n,)) for s, n in _SIZES.items()}
    return tensors if shapes == expected else None


def _build_cache(location: Location) -> dict[str, torch.Tensor]:
    """Decode and verify a source, keep the result in the cache and return it."""
    fingerprint = _fingerprint(location)
    with _writing(paths.CACHE):  # tried before the decoding, which takes some seconds
        tempfile.TemporaryFile(dir=paths.CACHE).close()
    train, test = _read(location, _PER_CLASS, CHECKSUMS["cifar-100"])
    tensors = _split(train, test)
    metadata = {**_cache_identity(), "fingerprint": fingerprint}
    temporary = paths.beside(_cache_file())
    with _writing(paths.CACHE):
        try:
            save_file(tensors, temporary, metadata)
            os.replace(temporary, _cache_file())
        finally:
            temporary.unlink(missing_ok=True)
    return tensors


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
