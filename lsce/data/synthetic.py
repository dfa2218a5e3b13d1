"""The built-in data set: images drawn from a model whose posterior p(y|x) is known exactly.

An image is a grid of GRID x GRID cells. Each cell is drawn independently, from the distribution
theta_y of the image's class y, among PATTERNS fixed pictures of CELL x CELL pixels, so that

    p(y | x) = softmax_y ( sum over cells of log theta_y[pattern of the cell] )

for equally frequent classes. theta_y = softmax(SUPERCLASS_SCALE * u_s(y) + CLASS_SCALE * v_y) with
u and v about standard normal: most errors of the best possible classifier (`posterior`), which is
right for about 3 of 4 images, stay inside the superclass. A horizontal flip keeps the posterior,
since positions do not matter and each pattern equals its mirror image.
"""

from functools import cache

import numpy as np
import torch

from lsce.data import datasets
from lsce.data.datasets import Dataset, Entry, Source, Split
from lsce.data.sampling import assemble

CLASSES = 100
SUPERCLASSES = 20
PATTERNS = 32
SUPERCLASS_SCALE = 0.55
CLASS_SCALE = 0.25
GRID = 8
CELL = 4
_SIDE = GRID * CELL

_SUPERCLASS = tuple(k * SUPERCLASSES // CLASSES for k in range(CLASSES))
_SEED = 20151202  # arXiv date of Szegedy et al., who introduced label smoothing
_MODEL, _TRAIN, _TEST = range(3)


def generate() -> tuple[Split, Split]:
    """All training images and the test images of the data set, in class order."""
    train = _draw(ENTRY.per_class("train", "validation"), _TRAIN)
    return train, _draw(ENTRY.per_class("test"), _TEST)


def posterior(images: torch.Tensor) -> torch.Tensor:
    """The exact p(y|x), float64 (N, CLASSES), all classes being equally frequent.

    images: uint8 (N, P, P, 3), P = GRID * CELL, unaugmented or flipped horizontally. Raises
    ValueError for another dtype or shape, or for an image that the model cannot produce.
    """
    shape = (_SIDE, _SIDE, 3)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        wanted = f"uint8 (N, {_SIDE}, {_SIDE}, 3)"
        raise ValueError(f"images must be {wanted}, got {images.dtype} {tuple(images.shape)}")
    codes = _decode(images.numpy())
    n = len(codes)
    cells = codes + PATTERNS * np.arange(n)[:, None]
    counts = np.bincount(cells.ravel(), minlength=n * PATTERNS).reshape(n, PATTERNS)
    log_likelihood = counts @ np.log(_model()[0]).T
    return torch.from_numpy(log_likelihood).softmax(dim=1)


def _load(source: Source) -> Dataset:
    if source is not None:
        raise ValueError(f"source must be None for the built-in data set, got {str(source)!r}")
    train, test = generate()
    if datasets.checksum(train, test, ENTRY.superclass) != ENTRY.checksum:
        raise RuntimeError(
            f"the built-in data set comes out different with NumPy {np.__version__} on this "
            "machine; results on it could not be compared with others"
        )
    return assemble(ENTRY, train, test)


ENTRY = Entry(
    name="built-in",
    words="the built-in synthetic data",
    checksum="6934160689150166f0743ff117453cea9bc29bd05123de03df9c457236af21ce",
    classes=tuple(f"s{s:02d}-c{k:02d}" for k, s in enumerate(_SUPERCLASS)),
    superclass=_SUPERCLASS,
    superclasses=tuple(f"s{s:02d}" for s in range(SUPERCLASSES)),
    sizes={"train": 45_000, "validation": 5_000, "test": 10_000},
    pixels=_SIDE,
    examples={
        "similar": ("s00-c00", "s00-c01", "s00-c02"),
        "unlike": ("s05-c25", "s10-c50", "s15-c75"),
    },  # fmt: skip
    load=_load,
    posterior=posterior,
)
datasets.register(ENTRY)


def _generator(stream: int) -> np.random.Generator:
    # Only `random` is drawn from it, whose values do not change between versions of NumPy.
    return np.random.Generator(np.random.PCG64([_SEED, stream]))


@cache
def _model() -> tuple[np.ndarray, np.ndarray]:
    """theta, float64 (CLASSES, PATTERNS), and the patterns, uint8 (PATTERNS, CELL, CELL, 3)."""
    generator = _generator(_MODEL)

    def near_normal(rows: int) -> np.ndarray:
        values: np.ndarray = generator.random((rows, PATTERNS, 12)).sum(axis=2) - 6
        return values

    logits = SUPERCLASS_SCALE * near_normal(SUPERCLASSES)[list(_SUPERCLASS)]
    logits += CLASS_SCALE * near_normal(CLASSES)
    theta = np.exp(logits)
    theta /= theta.sum(axis=1, keepdims=True)
    # A hue of its own with some texture, stretched to about the mean and contrast of CIFAR-100.
    hue = generator.random((PATTERNS, 1, 1, 3))
    texture = generator.random((PATTERNS, CELL, CELL // 2, 3))
    half = np.clip(124 + 310 * (0.65 * hue + 0.35 * texture - 0.5), 0, 255).astype(np.uint8)
    return theta, np.concatenate([half, half[:, :, ::-1]], axis=2)


def _draw(per_class: int, stream: int) -> Split:
    uniform = _generator(stream).random((CLASSES, per_class * GRID * GRID))
    cumulative = _model()[0].cumsum(axis=1)[:, :-1]
    pairs = zip(cumulative, uniform, strict=True)
    codes = np.stack([np.searchsorted(c, u, side="right") for c, u in pairs])
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    return Split(torch.from_numpy(_render(codes.reshape(-1, GRID, GRID))), labels)


def _render(codes: np.ndarray) -> np.ndarray:
    """Images, uint8 (N, P, P, 3), of pattern indices (N, GRID, GRID)."""
    cells: np.ndarray = _model()[1][codes]
    return cells.swapaxes(2, 3).reshape(-1, _SIDE, _SIDE, 3)


def _decode(images: np.ndarray) -> np.ndarray:
    """Pattern indices, int64 (N, GRID * GRID), of images; ValueError if one has none."""
    # Two pixels of a cell tell the patterns apart; drawing the result again makes the match exact.
    weights = 257 ** np.arange(6, dtype=np.int64)
    corners = images.reshape(-1, GRID, CELL, GRID, CELL, 3)[:, :, 0, :, :2]
    keys = corners.reshape(-1, GRID * GRID, 6) @ weights
    known = _model()[1][:, 0, :2].reshape(PATTERNS, 6) @ weights
    order = np.argsort(known)
    codes: np.ndarray = order[np.searchsorted(known[order], keys).clip(max=PATTERNS - 1)]
    wrong = (_render(codes.reshape(-1, GRID, GRID)) != images).any(axis=(1, 2, 3))
    if wrong.any():
        raise ValueError(
            f"images[{int(wrong.argmax())}] is not an image of the built-in data set: "
            "the posterior is known for its own images only"
        )
    return codes
