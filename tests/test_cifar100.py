"""CIFAR-100 from each of its layouts, what is refused, the cache and the download.

A tiny set of the same form passes for CIFAR-100 (two train images and one test image a class);
tests with the real images are skipped where there are none.
"""

import dataclasses
import functools
import hashlib
import http.server
import io
import os
import pickle
import shutil
import tarfile
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR100

from lsce import data
from lsce.data import cache, cifar100, datasets
from lsce.machine import paths

REAL = cifar100.ENTRY
SUPERCLASS = np.array(REAL.superclass)


@pytest.fixture(scope="module")
def tiny() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of each part, in a random order of their own."""
    generator = np.random.default_rng(0)
    parts = {}
    for part, per_class in {"train": 2, "test": 1}.items():
        labels = generator.permutation(np.repeat(np.arange(100), per_class))
        images = generator.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        images[:, 0, 0] = 7  # the order must look further than the first pixel
        parts[part] = (images, labels)
    return parts


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch, tiny):
    """An empty checkout, so that no test sees this machine's data or writes beside it, in which
    the tiny set is CIFAR-100, one validation image a class."""
    for name, path in {"ROOT": "", "DATA": "data", "CIFAR100": "data/cifar-100"}.items():
        monkeypatch.setattr(paths, name, tmp_path / "checkout" / path)
    monkeypatch.setattr(paths, "CACHE", paths.DATA / "cache")
    sizes = dict.fromkeys(("train", "validation", "test"), 100)
    small = dataclasses.replace(REAL, checksum=digest(tiny), sizes=sizes)
    monkeypatch.setattr(cifar100, "ENTRY", small)
    monkeypatch.setitem(datasets._ENTRIES, small.name, small)


def canonical(parts) -> list[np.ndarray]:
    """Second implementation of the canonical order."""
    arrays = []
    for images, labels in (parts["train"], parts["test"]):
        order = np.lexsort([*images.reshape(len(images), -1).T[::-1], labels])
        arrays += [images[order], labels[order]]
    return arrays


def digest(parts) -> str:
    """Second implementation of the checksum."""
    train, train_labels, test, test_labels = canonical(parts)
    blob = b""
    for images, labels in ((train, train_labels), (test, test_labels)):
        blob += images.tobytes() + bytes(labels.tolist()) + bytes(SUPERCLASS[labels].tolist())
    return hashlib.sha256(blob).hexdigest()


def encode(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    options = {"lossless": True, "quality": 0, "method": 0} if kind == "webp" else {}
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def columns(images, labels, kind="png", spelling=("img", "fine_label"), struct=True):
    cells = [encode(image, kind) for image in images]
    if struct:
        cells = [{"bytes": cell, "path": f"{i}.png"} for i, cell in enumerate(cells)]
    return {spelling[0]: cells, spelling[1]: [int(label) for label in labels]}


def write(file, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(content), file)


def write_tiny(folder, tiny, **options):
    for part, (images, labels) in tiny.items():
        write(folder / f"{part}-00000-of-00001.parquet", columns(images, labels, **options))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory, tiny):
    """A folder that holds the tiny set as Parquet, only to be read."""
    return write_tiny(tmp_path_factory.mktemp("written"), tiny)


@pytest.fixture
def source(tmp_path, written):
    """The same, to be changed."""
    return Path(shutil.copytree(written, tmp_path / "source"))


def read(folder):
    train, test = cifar100._read(data.locate(folder))
    return [t.numpy() for t in (train.images, train.labels, test.images, test.labels)]


def assert_reads(folder, tiny) -> None:
    for got, expected in zip(read(folder), canonical(tiny), strict=True):
        np.testing.assert_array_equal(got, expected)


def assert_refused(folder, words) -> None:
    with pytest.raises(data.DataError, match=words):
        read(folder)


# ---- layouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "spelling", "struct"),
    [  # each pair of choices once
        ("png", ("img", "fine_label"), True),
        ("png", ("image", "label"), False),
        ("webp", ("img", "fine_label"), False),
        ("webp", ("image", "label"), True),
    ],
)
def test_parquet_spellings(tmp_path, tiny, kind, spelling, struct):
    write_tiny(tmp_path, tiny, kind=kind, spelling=spelling, struct=struct)
    assert_reads(tmp_path, tiny)


@pytest.mark.parametrize("inner", ["data", "cifar100"])
def test_parquet_in_shards_of_another_order_with_coarse_labels(tmp_path, tiny, inner):
    for part, (images, labels) in tiny.items():
        half = len(labels) // 2
        for shard, rows in enumerate((slice(half, None), slice(None, half))):
            content = columns(images[rows][::-1], labels[rows][::-1])
            content["coarse_label"] = SUPERCLASS[labels[rows][::-1]]
            write(tmp_path / inner / f"{part}-0000{shard}-of-00002.parquet", content)
    assert_reads(tmp_path, tiny)


@pytest.fixture
def archive(tmp_path, tiny, monkeypatch):
    """A tarball in torchvision's layout, whose MD5s torchvision is told to expect."""
    folder = tmp_path / "made" / "cifar-100-python"
    folder.mkdir(parents=True)
    contents = {"meta": {"fine_label_names": list(REAL.classes)}}
    for part, (images, labels) in tiny.items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        contents[part] = {"data": rows, "fine_labels": labels.tolist()}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    tarball = folder.parent / "cifar-100-python.tar.gz"
    with tarfile.open(tarball, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    md5 = {f.name: hashlib.md5(f.read_bytes()).hexdigest() for f in (*folder.iterdir(), tarball)}
    for part in tiny:
        monkeypatch.setattr(CIFAR100, f"{part}_list", [[part, md5[part]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5["meta"]})
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5[tarball.name])
    return tarball


def test_archive_layouts(tmp_path, archive, tiny):
    folder = archive.parent / "cifar-100-python"
    assert_reads(archive.parent, tiny)
    assert_reads(folder, tiny)
    assert_reads(folder.rename(tmp_path / "renamed"), tiny)
    before = sorted(archive.parent.rglob("*"))
    assert data.locate(archive.parent).kind == "tarball"
    assert_reads(archive.parent, tiny)
    assert sorted(archive.parent.rglob("*")) == before == [archive]


def test_archive_damaged(archive):
    folder = archive.parent / "cifar-100-python"
    content = (folder / "test").read_bytes()
    (folder / "test").write_bytes(content[:-1])
    assert_refused(archive.parent, "cifar-100-python/test is truncated or altered")
    (folder / "test").unlink()
    assert_refused(archive.parent, "cifar-100-python/test is missing")
    shutil.rmtree(folder)
    archive.write_bytes(archive.read_bytes()[:-100])
    assert_refused(archive.parent, "python.tar.gz is truncated or altered")


# ---- what is refused --------------------------------------------------------------------------


def changed(content, column, value):
    """The content with another value in row 3 of a column."""
    return {**content, column: [*content[column][:3], value, *content[column][4:]]}


def contradictory(content):
    above = SUPERCLASS[content["fine_label"]].tolist()
    return changed({**content, "coarse_label": above}, "coarse_label", (above[3] + 1) % 20)


SMALL = {"bytes": encode(np.zeros((32, 31, 3), np.uint8), "png")}


@pytest.mark.parametrize(
    ("words", "spoil"),
    [
        ("row 3 has fine_label 100, outside 0..99", lambda c: changed(c, "fine_label", 100)),
        ("row 3 says coarse_label .* whose superclass is", contradictory),
        (
            "no column img or image; it has fine_label, picture",
            lambda c: {"fine_label": c["fine_label"], "picture": c["img"]},
        ),
        ("image of row 3 is 31x32, not 32x32", lambda c: changed(c, "img", SMALL)),
        (
            "image of row 3 cannot be decoded",
            lambda c: changed(c, "img", {"bytes": c["img"][3]["bytes"][:50]}),
        ),
        ("row 3 holds no encoded image", lambda c: changed(c, "img", {"bytes": None})),
        (
            "column fine_label must hold integers and no gaps, is string",
            lambda c: {**c, "fine_label": [*map(str, c["fine_label"])]},
        ),
        (
            "column fine_label must hold integers and no gaps, is int64",
            lambda c: changed(c, "fine_label", None),
        ),
        (
            "99 rows, but CIFAR-100 has 100 there",
            lambda c: {column: cells[:-1] for column, cells in c.items()},
        ),
        (
            "5 images of class 0 .apple.* are the labels the fine ones",
            lambda c: {**c, "fine_label": [label // 5 for label in c["fine_label"]]},
        ),
    ],
)
def test_wrong_parquet_is_refused_by_name(source, tiny, words, spoil):
    write(source / "test-00000-of-00001.parquet", spoil(columns(*tiny["test"])))
    assert_refused(source, f"test-00000-of-00001.parquet.*{words}")


def test_swapped_labels_and_changed_pixels_are_refused(tmp_path, tiny):
    images, labels = tiny["train"]
    swapped = labels.copy()
    other = int((labels != labels[0]).argmax())
    swapped[[0, other]] = labels[[other, 0]]
    altered = images.copy()
    altered[9, 31, 31, 2] ^= 1
    for part in ((images, swapped), (altered, labels)):
        write_tiny(tmp_path, {**tiny, "train": part})
        assert_refused(tmp_path, f"{tmp_path}: .*image or label is not CIFAR-100")


def test_truncated_and_missing_parquet(source):
    file = source / "train-00000-of-00001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert_refused(source, f"{file} is truncated, damaged or no Parquet file")
    # Footer intact, pages gone: as after a download that filled the middle with zeros.
    file.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    assert_refused(source, str(file))
    file.unlink()
    assert_refused(source, r"holds no train\*.parquet")


def test_no_data(tmp_path):
    assert_refused(tmp_path / "nowhere", "nowhere is not a folder")
    assert_refused(tmp_path, "holds no CIFAR-100: wanted")
    paths.CIFAR100.mkdir(parents=True)
    assert data.locate() is None
    with pytest.raises(data.DataUnavailable, match="give DATA=folder"):
        data.load("cifar-100")


# ---- the cache --------------------------------------------------------------------------------


@pytest.fixture
def decodings(monkeypatch):
    """The kinds of the sources that were decoded, in order."""
    kinds, original = [], cifar100._read
    monkeypatch.setattr(cifar100, "_read", lambda at: kinds.append(at.kind) or original(at))
    return kinds


def same(a: data.Dataset, b: data.Dataset) -> bool:
    return all(
        torch.equal(getattr(a, split).images, getattr(b, split).images)
        and torch.equal(getattr(a, split).labels, getattr(b, split).labels)
        for split in ("train", "validation", "test")
    )


def test_cache_is_used_until_the_source_changes(source, decodings):
    first = data.load("cifar-100", source)
    assert same(first, data.load("cifar-100", source))
    assert decodings == ["parquet"]
    assert same(first, data.load("cifar-100"))  # the cache alone
    assert data.locate().kind == "cache" and decodings == ["parquet"]
    os.utime(source / "test-00000-of-00001.parquet", ns=(1, 1))
    assert same(first, data.load("cifar-100", source))
    assert decodings == ["parquet"] * 2
    (source / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(data.DataError, match="test-00000-of-00001.parquet is truncated"):
        data.load("cifar-100", source)
    assert same(first, data.load("cifar-100"))


def test_order_of_the_sources(written, archive, decodings):
    paths.DATA.mkdir(parents=True)
    archive.parent.rename(paths.CIFAR100)
    assert str(data.locate()) == "CIFAR-100 from data/cifar-100 (torchvision's archive)"
    assert str(data.locate(written)) == f"CIFAR-100 from {written} (Parquet)"
    from_source = data.load("cifar-100", written)
    assert same(data.decoded("cifar-100"), from_source) and decodings == ["parquet"]
    assert same(data.load("cifar-100"), from_source) and decodings == ["parquet", "archive"]


def test_damaged_cache_is_rebuilt_or_ignored(written, decodings):
    first = data.load("cifar-100", written)
    file = paths.CACHE / "cifar-100.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:100], b""):
        file.unlink()  # a new file: the mapped one stays whole
        file.write_bytes(damaged)
        assert data.locate() is None
        assert same(first, data.load("cifar-100", written))
    assert len(decodings) == 4


def test_killed_write_leaves_no_cache(tmp_path, tiny, written, monkeypatch):
    def killed(tensors, file, metadata):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            data.load("cifar-100", written)
    assert list(paths.CACHE.iterdir()) == []
    images, labels = tiny["train"]
    wrong = write_tiny(tmp_path / "wrong", {**tiny, "train": (images, np.roll(labels, 1))})
    with pytest.raises(data.DataError):
        data.load("cifar-100", wrong)
    assert list(paths.CACHE.iterdir()) == []


def test_unwritable_folder(written, decodings, archive):
    paths.DATA.mkdir(parents=True)
    paths.CACHE.write_text("a file in the way")
    with pytest.raises(OSError, match=f"^cannot write to {paths.CACHE}: "):
        data.load("cifar-100", written)
    assert decodings == []  # said before the decoding, not after
    with pytest.raises(OSError, match=f"^cannot write to {paths.CACHE}: "):
        data.fetch()


# ---- the download -----------------------------------------------------------------------------


@pytest.fixture
def online(archive, monkeypatch):
    """The tarball, served where torchvision looks for it."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=archive.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/{archive.name}"
        monkeypatch.setattr(CIFAR100, "url", url)
        monkeypatch.setattr(urllib.request, "_opener", None)  # it may have an old proxy
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield archive
        server.shutdown()


def assert_fetch_fails(words) -> None:
    with pytest.raises(data.DataUnavailable, match=f"could not be downloaded: .*{words}"):
        data.fetch()
    assert data.locate() is None and not paths.CIFAR100.exists()
    assert list(paths.CACHE.iterdir()) == []


def test_fetch_downloads_verifies_and_starts_afresh(tiny, online):
    leftover = paths.CACHE / "download" / "cifar-100-python" / "half"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(online.read_bytes()[:100])
    data.fetch()
    (folder,) = paths.CIFAR100.iterdir()
    assert folder.name == "cifar-100-python"
    assert sorted(file.name for file in folder.iterdir()) == ["meta", "test", "train"]
    assert list(paths.CACHE.iterdir()) == []
    assert_reads(paths.CIFAR100, tiny)
    assert len(data.load("cifar-100").train) == 100


def test_fetch_that_fails_leaves_nothing(online, monkeypatch):
    whole = online.read_bytes()
    for broken in (whole[:-100], bytes(len(whole))):
        online.write_bytes(broken)
        assert_fetch_fails("corrupted")
    monkeypatch.setattr(CIFAR100, "url", "http://127.0.0.1:9/cifar-100-python.tar.gz")
    assert_fetch_fails("refused")


# ---- the labels that people gave ---------------------------------------------------------------


@pytest.fixture
def people(tiny, archive, monkeypatch) -> np.ndarray:
    """What people call the tiny set's training images, in the order of the archive, which is there
    with the file of their labels."""
    paths.DATA.mkdir(parents=True)
    archive.parent.rename(paths.CIFAR100)
    true = tiny["train"][1]
    given = np.where(np.random.default_rng(1).random(len(true)) < 0.4, (true + 7) % 100, true)
    counts = torch.from_numpy(np.bincount(100 * true + given, minlength=10_000).reshape(100, 100))
    changed = dataclasses.replace(cifar100.ENTRY, human_counts=lambda: counts)
    monkeypatch.setattr(cifar100, "ENTRY", changed)
    monkeypatch.setattr(paths, "CIFAR100N_LABELS", paths.DATA / "CIFAR-100_human.pt")
    torch.save({"clean_label": true, "noisy_label": given}, paths.CIFAR100N_LABELS)
    return given


def test_a_label_by_a_person_finds_its_image(tiny, people):
    found, dataset = cifar100.ENTRY.human_labels(), data.load("cifar-100")
    blob = paths.CIFAR100N_LABELS.read_bytes()
    assert found.checksum == hashlib.sha256(blob).hexdigest()
    called = {image.tobytes(): k for image, k in zip(tiny["train"][0], people, strict=True)}
    images = torch.cat([dataset.train.images, dataset.validation.images]).numpy()
    assert found.labels.dtype == torch.int64
    assert found.labels.tolist() == [called[image.tobytes()] for image in images]
    truth = torch.cat([dataset.train.labels, dataset.validation.labels])
    assert 0.25 < (found.labels != truth).double().mean() < 0.55


def test_labels_by_people_need_their_file_and_the_order_of_the_archive(people, written):
    content = paths.CIFAR100N_LABELS.read_bytes()
    paths.CIFAR100N_LABELS.unlink()
    with pytest.raises(data.DataUnavailable, match="CIFAR-100_human.pt has to be put into .*/data"):
        cifar100.ENTRY.human_labels()
    paths.CIFAR100N_LABELS.write_bytes(content)
    shutil.rmtree(paths.CIFAR100)
    with pytest.raises(data.DataUnavailable, match="archive: put torchvision's `cifar-100-python`"):
        cifar100.ENTRY.human_labels()
    shutil.copytree(written, paths.CIFAR100)  # in the order of the archive, as Parquet may be
    assert len(cifar100.ENTRY.human_labels().labels) == 200
    table = pq.read_table(paths.CIFAR100 / "train-00000-of-00001.parquet")
    cifar100._train_order.cache_clear()
    pq.write_table(
        table.take([*range(199, -1, -1)]), paths.CIFAR100 / "train-00000-of-00001.parquet"
    )
    with pytest.raises(
        data.DataError, match="has CIFAR-100's images in another order than its arc"
    ):
        cifar100.ENTRY.human_labels()


class Malice:
    """Unpickled, it writes a file."""

    def __reduce__(self):
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda labels: labels | {"noisy_label": Malice()},
            "is damaged or holds more than arrays of integers",
        ),
        (lambda labels: [labels], "cannot be read as CIFAR-100N"),
        (lambda labels: {"clean_label": labels["clean_label"]}, "as CIFAR-100N: 'noisy_label'"),
        (lambda labels: {k: v[1:] for k, v in labels.items()}, "must hold 200 integers as clean_l"),
        (lambda labels: {k: v / 2 for k, v in labels.items()}, "more than arrays of integers"),
        (lambda labels: {k: torch.tensor(v / 2) for k, v in labels.items()}, "must hold 200 integ"),
        (lambda labels: {k: v + 1 for k, v in labels.items()}, "holds labels outside 0..99"),
        (lambda labels: {k: v - 1 for k, v in labels.items()}, "holds labels outside 0..99"),
        (
            lambda labels: labels | {"noisy_label": np.roll(labels["noisy_label"], 1)},
            "other labels than CIFAR-100N: their counts by class differ",
        ),
    ],
)
def test_another_file_of_labels_is_refused_and_not_executed(
    spoil, words, people, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    content = torch.load(paths.CIFAR100N_LABELS, weights_only=False)
    torch.save(spoil(content), paths.CIFAR100N_LABELS)
    with pytest.raises(data.DataError, match=words) as error:
        cifar100.ENTRY.human_labels()
    assert "\n" not in str(error.value) and not Path("unpickled").exists()
    paths.CIFAR100N_LABELS.write_bytes(b"no pickle")
    with pytest.raises(data.DataError, match="is damaged or holds more"):
        cifar100.ENTRY.human_labels()


def test_a_file_of_numpy_1_is_read(people):
    """Its arrays name a module that NumPy 2 has renamed."""
    content = torch.load(paths.CIFAR100N_LABELS, weights_only=False)
    before = cifar100.ENTRY.human_labels().labels
    torch.save(content, paths.CIFAR100N_LABELS, _use_new_zipfile_serialization=False)
    blob = paths.CIFAR100N_LABELS.read_bytes()
    new, old = b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"
    assert new in blob
    paths.CIFAR100N_LABELS.write_bytes(blob.replace(new, old))
    assert torch.equal(cifar100.ENTRY.human_labels().labels, before)


# ---- the real images --------------------------------------------------------------------------


def test_names_of_the_classes(cifar100_dir):
    listed = cifar100_dir / "classes.txt"
    if not listed.is_file():
        pytest.skip("no classes.txt beside the images")
    assert list(REAL.classes) == listed.read_text().split()


@pytest.mark.slow
def test_real_content(cifar100):
    assert cifar100.checksum == REAL.checksum
    counts = np.zeros((3, 256))
    for split in (cifar100.train, cifar100.validation):
        for c in range(3):
            counts[c] += np.bincount(split.images[..., c].numpy().ravel(), minlength=256)
    mean, square = (counts @ np.arange(256.0) ** power / counts.sum(1) for power in (1, 2))
    # As published for CIFAR-100's training images.
    np.testing.assert_allclose(mean, [129.30416561, 124.0699627, 112.43405006], atol=1e-6)
    deviation = [68.1702429, 65.39180804, 70.41837019]
    np.testing.assert_allclose(np.sqrt(square - mean**2), deviation, atol=1e-6)
    for split, per_class in (("train", 450), ("validation", 50), ("test", 100)):
        assert getattr(cifar100, split).labels.bincount().tolist() == [per_class] * 100
    assert cifar100.classes[cifar100.test.labels[0]] == "apple"
    otter = cifar100.classes.index("otter")
    assert cifar100.superclasses[cifar100.superclass[otter]] == "aquatic_mammals"


def test_real_rows_as_png_with_other_spellings(tmp_path, cifar100_dir):
    files = sorted(cifar100_dir.glob("test*.parquet"))
    if not files:
        pytest.skip(f"no test*.parquet in {cifar100_dir}")
    rows = next(pq.ParquetFile(files[0]).iter_batches(200))
    original, converted = tmp_path / "original.parquet", tmp_path / "converted.parquet"
    pq.write_table(pa.Table.from_batches([rows]), original)
    images, labels = cifar100._read_parquet(original)
    assert images.shape == (200, 32, 32, 3) and images.std() > 40
    np.testing.assert_array_equal(labels, rows["fine_label"].to_numpy())
    write(converted, columns(images, labels, spelling=("image", "label"), struct=False))
    for again, expected in zip(cifar100._read_parquet(converted), (images, labels), strict=True):
        np.testing.assert_array_equal(again, expected)
