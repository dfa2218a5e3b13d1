"""CIFAR-100 from each of its layouts, what is refused, the cache, the split and subsets.

The readers are tested on a tiny set of the same form (two train images and one test image a class);
tests with the real images are skipped where there are none.
"""

import contextlib
import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR100

from lsce import data
from lsce.data import label_noise, synthetic
from lsce.machine import paths

PER_CLASS = {"train": 2, "test": 1}
SUPERCLASS = np.array(data._SUPERCLASS)


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """An empty checkout, so that no test sees this machine's data or writes beside it."""
    for name, path in {"ROOT": "", "DATA": "data", "CIFAR100": "data/cifar-100"}.items():
        monkeypatch.setattr(paths, name, tmp_path / "checkout" / path)
    monkeypatch.setattr(paths, "CACHE", paths.DATA / "cache")
    return paths.ROOT


@pytest.fixture(scope="module")
def tiny() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of each part, in a random order of their own."""
    generator = np.random.default_rng(0)
    parts = {}
    for part, per_class in PER_CLASS.items():
        labels = generator.permutation(np.repeat(np.arange(100), per_class))
        images = generator.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        images[:, 0, 0] = 7  # the order must look further than the first pixel
        parts[part] = (images, labels)
    return parts


def canonical(parts) -> list[np.ndarray]:
    """Second implementation of the canonical order."""
    arrays = []
    for part in ("train", "test"):
        images, labels = parts[part]
        order = np.lexsort([*images.reshape(len(images), -1).T[::-1], labels])
        arrays += [images[order], labels[order]]
    return arrays


def digest(parts) -> str:
    """Second implementation of the checksum."""
    blob = b""
    train_images, train_labels, test_images, test_labels = canonical(parts)
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        blob += images.tobytes() + bytes(labels.tolist()) + bytes(SUPERCLASS[labels].tolist())
    return hashlib.sha256(blob).hexdigest()


def encode(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **({"lossless": True} if kind == "webp" else {}))
    return buffer.getvalue()


def columns(images, labels, kind="png", spelling=("img", "fine_label"), struct=True):
    cells = [encode(image, kind) for image in images]
    if struct:
        cells = [{"bytes": cell, "path": f"{i}.png"} for i, cell in enumerate(cells)]
    return {spelling[0]: cells, spelling[1]: [int(label) for label in labels]}


def write(file, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(content), file)


def write_tiny(folder, tiny, **options) -> None:
    for part, (images, labels) in tiny.items():
        write(folder / f"{part}-00000-of-00001.parquet", columns(images, labels, **options))


def read(folder, tiny):
    train, test = data._read(data.locate(folder), PER_CLASS, digest(tiny))
    return [t.numpy() for t in (train.images, train.labels, test.images, test.labels)]


def assert_reads(folder, tiny) -> None:
    for got, expected in zip(read(folder, tiny), canonical(tiny), strict=True):
        np.testing.assert_array_equal(got, expected)


# ---- layouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize("spelling", [("img", "fine_label"), ("image", "label")])
@pytest.mark.parametrize("struct", [True, False])
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
    md5 = {}
    for part, (images, labels) in tiny.items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        content = {"data": rows, "fine_labels": labels.tolist()}
        (folder / part).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": list(data._CLASSES)}))
    tarball = folder.parent / "cifar-100-python.tar.gz"
    with tarfile.open(tarball, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    for file in (*folder.iterdir(), tarball):
        md5[file.name] = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
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


def test_archive_damaged(archive, tiny):
    folder = archive.parent / "cifar-100-python"
    content = (folder / "test").read_bytes()
    (folder / "test").write_bytes(content[:-1])
    with pytest.raises(data.DataError, match="cifar-100-python/test is truncated or altered"):
        read(archive.parent, tiny)
    (folder / "test").unlink()
    with pytest.raises(data.DataError, match="cifar-100-python/test is missing"):
        read(archive.parent, tiny)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(data.DataError, match=r"python.tar.gz is truncated or altered"):
        read(archive.parent, tiny)


# ---- what is refused --------------------------------------------------------------------------


def spoil_label(content):
    content["fine_label"][3] = 100


def spoil_coarse(content):
    content["coarse_label"] = SUPERCLASS[content["fine_label"]]
    content["coarse_label"][3] = (content["coarse_label"][3] + 1) % 20


def spoil_name(content):
    content["picture"] = content.pop("img")


def spoil_size(content):
    content["img"][3]["bytes"] = encode(np.zeros((32, 31, 3), np.uint8), "png")


def spoil_image(content):
    content["img"][3]["bytes"] = content["img"][3]["bytes"][:50]


def spoil_cell(content):
    content["img"][3]["bytes"] = None


def spoil_type(content):
    content["fine_label"] = [str(label) for label in content["fine_label"]]


def spoil_gap(content):
    content["fine_label"][3] = None


def spoil_rows(content):
    for name in content:
        content[name] = content[name][:-1]


def spoil_class(content):
    content["fine_label"] = [label // 5 for label in content["fine_label"]]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_label, "row 3 has fine_label 100, outside 0..99"),
        (spoil_coarse, "row 3 says coarse_label .* whose superclass is"),
        (spoil_name, "no column img or image; it has fine_label, picture"),
        (spoil_size, "image of row 3 is 31x32, not 32x32"),
        (spoil_image, "image of row 3 cannot be decoded"),
        (spoil_cell, "row 3 holds no encoded image"),
        (spoil_type, "column fine_label must hold integers"),
        (spoil_gap, "column fine_label must hold integers and no gaps"),
        (spoil_rows, "99 rows, but CIFAR-100 has 100 there"),
        (spoil_class, "5 images of class 0 .apple.* are the labels the fine ones"),
    ],
)
def test_wrong_parquet_is_refused_by_name(tmp_path, tiny, spoil, words):
    write_tiny(tmp_path, tiny)
    content = columns(*tiny["test"])
    spoil(content)
    write(tmp_path / "test-00000-of-00001.parquet", content)
    with pytest.raises(data.DataError, match=f"test-00000-of-00001.parquet.*{words}"):
        read(tmp_path, tiny)


def test_swapped_labels_and_changed_pixels_are_refused(tmp_path, tiny):
    images, labels = tiny["train"]
    swapped = labels.copy()
    other = int((labels != labels[0]).argmax())
    swapped[[0, other]] = labels[[other, 0]]
    changed = images.copy()
    changed[9, 31, 31, 2] ^= 1
    for part in ((images, swapped), (changed, labels)):
        write_tiny(tmp_path, {**tiny, "train": part})
        with pytest.raises(data.DataError, match=f"{tmp_path}: .*image or label is not CIFAR-100"):
            read(tmp_path, tiny)


def test_truncated_and_missing_parquet(tmp_path, tiny):
    write_tiny(tmp_path, tiny)
    file = tmp_path / "train-00000-of-00001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(data.DataError, match=f"{file} is truncated, damaged or no Parquet file"):
        read(tmp_path, tiny)
    # Footer intact, pages gone: as after a download that filled the middle with zeros.
    file.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(data.DataError, match=str(file)):
        read(tmp_path, tiny)
    file.unlink()
    with pytest.raises(data.DataError, match=r"holds no train\*.parquet"):
        read(tmp_path, tiny)


def test_source_without_data(tmp_path):
    with pytest.raises(data.DataError, match="nowhere is not a folder"):
        data.load("cifar-100", tmp_path / "nowhere")
    with pytest.raises(data.DataError, match="holds no CIFAR-100: wanted"):
        data.load("cifar-100", tmp_path)


def test_names_and_no_data_at_all():
    with pytest.raises(ValueError, match="name must be one of 'cifar-100', 'built-in'.*'cifar'"):
        data.load("cifar")
    with pytest.raises(ValueError, match="source must be None for the built-in"):
        data.load("built-in", "somewhere")
    paths.CIFAR100.mkdir(parents=True)
    assert data.locate() is None
    with pytest.raises(data.DataUnavailable, match="give DATA=folder"):
        data.load("cifar-100")


# ---- the cache --------------------------------------------------------------------------------


@pytest.fixture
def as_cifar(tiny, monkeypatch):
    """Let the tiny set pass for CIFAR-100: one validation image a class, and its checksum."""
    monkeypatch.setitem(data.CHECKSUMS, "cifar-100", digest(tiny))
    monkeypatch.setattr(data, "_PER_CLASS", PER_CLASS)
    monkeypatch.setattr(data, "_SIZES", {"train": 100, "validation": 100, "test": 100})


@pytest.fixture
def decodings(monkeypatch):
    """The kinds of the sources that were decoded, in order."""
    kinds = []
    original = data._read

    def counting(location, *rest):
        kinds.append(location.kind)
        return original(location, *rest)

    monkeypatch.setattr(data, "_read", counting)
    return kinds


def same(a: data.Dataset, b: data.Dataset) -> bool:
    return all(
        torch.equal(getattr(a, split).images, getattr(b, split).images)
        and torch.equal(getattr(a, split).labels, getattr(b, split).labels)
        for split in ("train", "validation", "test")
    )


@pytest.mark.usefixtures("as_cifar")
def test_cache_is_used_until_the_source_changes(tmp_path, tiny, decodings):
    source = tmp_path / "source"
    write_tiny(source, tiny)
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


@pytest.mark.usefixtures("as_cifar")
def test_order_of_the_sources(tmp_path, tiny, archive, decodings):
    write_tiny(tmp_path / "source", tiny)
    paths.DATA.mkdir(parents=True)
    archive.parent.rename(paths.CIFAR100)
    assert str(data.locate()) == "CIFAR-100 from data/cifar-100 (torchvision's archive)"
    words = str(data.locate(tmp_path / "source"))
    assert words == f"CIFAR-100 from {tmp_path / 'source'} (Parquet)"
    from_source = data.load("cifar-100", tmp_path / "source")
    assert same(data.decoded("cifar-100"), from_source) and decodings == ["parquet"]
    assert same(data.load("cifar-100"), from_source) and decodings == ["parquet", "archive"]


@pytest.mark.usefixtures("as_cifar")
def test_damaged_cache_is_rebuilt_or_ignored(tmp_path, tiny, decodings):
    source = tmp_path / "source"
    write_tiny(source, tiny)
    first = data.load("cifar-100", source)
    file = data._cache_file()
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:100], b""):
        file.unlink()  # a new file: the mapped one stays whole
        file.write_bytes(damaged)
        assert data.locate() is None
        assert same(first, data.load("cifar-100", source))
    assert len(decodings) == 4


@pytest.mark.usefixtures("as_cifar")
def test_killed_write_leaves_no_cache(tmp_path, tiny, monkeypatch):
    source = tmp_path / "source"
    write_tiny(source, tiny)

    def killed(tensors, file, metadata):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(data, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            data.load("cifar-100", source)
    assert list(paths.CACHE.iterdir()) == []
    wrong = tmp_path / "wrong"
    write_tiny(wrong, {**tiny, "train": (tiny["train"][0], np.roll(tiny["train"][1], 1))})
    with pytest.raises(data.DataError):
        data.load("cifar-100", wrong)
    assert list(paths.CACHE.iterdir()) == []


@pytest.mark.usefixtures("as_cifar")
def test_unwritable_folder(tmp_path, tiny, decodings, archive):
    write_tiny(tmp_path / "source", tiny)
    paths.DATA.mkdir(parents=True)
    paths.CACHE.write_text("a file in the way")
    with pytest.raises(OSError, match=f"^cannot write to {paths.CACHE}: "):
        data.load("cifar-100", tmp_path / "source")
    assert decodings == []  # said before the decoding, not after
    with pytest.raises(OSError, match=f"^cannot write to {paths.CACHE}: "):
        data.fetch()


# ---- the download -----------------------------------------------------------------------------


@pytest.fixture
def server(archive, monkeypatch):
    """Serves the tarball where torchvision looks for it; `server.cut` breaks off so many bytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("Content-Length", str(archive.stat().st_size))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            with contextlib.suppress(ConnectionError):  # torchvision first asks and hangs up
                self.wfile.write(archive.read_bytes()[: archive.stat().st_size - self.server.cut])

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.cut = 0
        url = f"http://127.0.0.1:{httpd.server_port}/{archive.name}"
        monkeypatch.setattr(CIFAR100, "url", url)
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.mark.usefixtures("as_cifar", "server")
def test_fetch_downloads_verifies_and_starts_afresh(tiny, archive):
    leftover = paths.CACHE / "download" / "cifar-100-python.tar.gz"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(archive.read_bytes()[:100])
    data.fetch()
    assert [p.name for p in paths.CIFAR100.iterdir()] == ["cifar-100-python"]
    assert not leftover.parent.exists()
    assert_reads(paths.CIFAR100, tiny)
    assert len(data.load("cifar-100").train) == 100


def test_fetch_that_fails_leaves_nothing(archive, server):
    server.cut = 100  # the connection ends early
    with pytest.raises(data.DataUnavailable, match="could not be downloaded: .*corrupted"):
        data.fetch()
    server.cut = 0
    archive.write_bytes(bytes(len(archive.read_bytes())))  # as long as announced, but altered
    with pytest.raises(data.DataUnavailable, match="could not be downloaded: .*corrupted"):
        data.fetch()
    assert data.locate() is None and not paths.CIFAR100.exists()
    assert list(paths.CACHE.iterdir()) == []


def test_fetch_without_network(monkeypatch):
    monkeypatch.setattr(CIFAR100, "url", "http://127.0.0.1:9/cifar-100-python.tar.gz")
    with pytest.raises(data.DataUnavailable, match="could not be downloaded: .*refused"):
        data.fetch()
    assert list(paths.CACHE.iterdir()) == []


# ---- split and subsets ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built_in() -> data.Dataset:
    return data.load("built-in")


def test_built_in(built_in):
    assert built_in.checksum == data.CHECKSUMS["built-in"]
    parts = dict(zip(("train", "test"), zip(*[iter(synthetic.generate())] * 2), strict=True))
    blob = hashlib.sha256()
    for images, labels in parts.values():
        for array in (images, labels.byte(), torch.tensor(built_in.superclass)[labels].byte()):
            blob.update(array.numpy().tobytes())
    assert blob.hexdigest() == built_in.checksum
    assert torch.equal(built_in.test.images, parts["test"][0])
    counts = {s: getattr(built_in, s).labels.bincount().unique().tolist() for s in data._SIZES}
    assert counts == {"train": [450], "validation": [50], "test": [100]}
    assert len(built_in.classes) == 100 and len(built_in.superclasses) == 20


def test_drift_of_the_built_in_set_is_an_error(monkeypatch):
    monkeypatch.setitem(data.CHECKSUMS, "built-in", "0" * 64)
    with pytest.raises(RuntimeError, match="comes out different with NumPy"):
        data.load("built-in")


def test_split_is_a_partition(built_in):
    train, _, _, _ = synthetic.generate()
    together = torch.cat([built_in.train.images, built_in.validation.images])
    digests = [sorted(hash(i.tobytes()) for i in t.numpy()) for t in (train, together)]
    assert digests[0] == digests[1]


def test_split_never_changes():
    labels = torch.arange(100).repeat_interleave(500)
    validation = data.subset(labels, 5_000, data._SPLIT_SEED)
    pinned = "fefa963515f41ad4"
    assert hashlib.sha256(validation.numpy().tobytes()).hexdigest()[:16] == pinned


def test_subsets_are_balanced_and_nested(built_in):
    labels = built_in.train.labels
    sizes = [100, 4_500, 10_000, 45_000]
    subsets = [data.subset(labels, size, seed=4) for size in sizes]
    for size, chosen in zip(sizes, subsets, strict=True):
        assert chosen.dtype == torch.int64 and len(chosen.unique()) == size
        assert labels[chosen].bincount().unique().tolist() == [size // 100]
    for small, large in zip(subsets, subsets[1:]):
        assert torch.isin(small, large).all()
    assert torch.equal(subsets[-1], torch.arange(45_000))
    assert torch.equal(subsets[1], data.subset(labels, 4_500, seed=4))
    assert not torch.equal(subsets[1], data.subset(labels, 4_500, seed=5))


def test_noise_of_a_seed_is_independent_of_its_subset():
    labels = torch.arange(100).repeat_interleave(100)
    wrong = label_noise.flip_labels(labels, "symmetric", 0.3, 6, data._SUPERCLASS) != labels
    share = wrong[data.subset(labels, 3_000, seed=6)].double().mean()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 3_000) ** 0.5


def test_subset_does_not_depend_on_the_order_of_a_class_alone():
    # Two seeds must not agree on a class's first images merely because these stand first.
    labels = torch.arange(10).repeat_interleave(100)
    first = data.subset(labels, 100, seed=0)
    assert (first % 100 >= 50).sum() > 20


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "size must lie in 1..1000, the number of images, got 0"),
        (1001, "size must lie in 1..1000, .*got 1001"),
        (105, "size must be a multiple of the 10 classes, got 105"),
    ],
)
def test_subset_sizes_that_do_not_fit(size, words):
    with pytest.raises(ValueError, match=words):
        data.subset(torch.arange(10).repeat(100), size, seed=0)


def test_subset_of_unequal_classes():
    labels = torch.tensor([0] * 7 + [1] * 3)
    assert labels[data.subset(labels, 6, seed=0)].bincount().tolist() == [3, 3]
    with pytest.raises(ValueError, match="size must be at most 6: a class has 3 images, got 8"):
        data.subset(labels, 8, seed=0)


# ---- the real images --------------------------------------------------------------------------


def test_names_of_the_classes(cifar100_dir):
    listed = cifar100_dir / "classes.txt"
    if not listed.is_file():
        pytest.skip("no classes.txt beside the images")
    assert list(data._CLASSES) == listed.read_text().split()


@pytest.mark.slow
def test_real_content(cifar100):
    assert cifar100.checksum == data.CHECKSUMS["cifar-100"]
    sums, squares = np.zeros(3), np.zeros(3)
    for split in (cifar100.train, cifar100.validation):
        values = np.arange(256.0)
        for c in range(3):
            histogram = np.bincount(split.images[..., c].flatten().numpy(), minlength=256)
            sums[c] += histogram @ values
            squares[c] += histogram @ values**2
    mean = sums / (50_000 * 1024)
    deviation = np.sqrt(squares / (50_000 * 1024) - mean**2)
    # As published for CIFAR-100's training images.
    np.testing.assert_allclose(mean, [129.30416561, 124.0699627, 112.43405006], atol=1e-6)
    np.testing.assert_allclose(deviation, [68.1702429, 65.39180804, 70.41837019], atol=1e-6)
    for split, per_class in (("train", 450), ("validation", 50), ("test", 100)):
        assert getattr(cifar100, split).labels.bincount().unique().tolist() == [per_class]
    assert cifar100.classes[cifar100.test.labels[0]] == "apple"
    otter = cifar100.classes.index("otter")
    assert cifar100.superclasses[cifar100.superclass[otter]] == "aquatic_mammals"


def test_real_rows_as_png_with_other_spellings(tmp_path, cifar100_dir):
    files = sorted(cifar100_dir.glob("test*.parquet"))
    if not files:
        pytest.skip(f"no test*.parquet in {cifar100_dir}")
    table = next(pq.ParquetFile(files[0]).iter_batches(200))
    original = tmp_path / "original.parquet"
    pq.write_table(pa.Table.from_batches([table]), original)
    images, labels = data._read_parquet_file(original)
    assert images.shape == (200, 32, 32, 3) and images.std() > 40
    converted = tmp_path / "converted.parquet"
    write(converted, columns(images, labels, spelling=("image", "label"), struct=False))
    again = data._read_parquet_file(converted)
    np.testing.assert_array_equal(again[0], images)
    np.testing.assert_array_equal(again[1], labels)
    np.testing.assert_array_equal(labels, table["fine_label"].to_numpy())
