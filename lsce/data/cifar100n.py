"""CIFAR-100N: the labels that people gave CIFAR-100's training images.

J. Wei, Z. Zhu, H. Cheng, T. Liu, G. Niu and Y. Liu, "Learning with Noisy Labels Revisited: A Study
Using Real-World Human Annotations", ICLR 2022 (arXiv 2110.12088): one person of Amazon Mechanical
Turk named the class of each image. The project has their counts by true class; the label of each
image is in the authors' file `data/CIFAR-100_human.pt` of github.com/UCSC-REAL/cifar-10-100n.
"""

import csv
import functools
import hashlib
import io
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lsce.data.cache import first_line
from lsce.data.datasets import DataError, DataUnavailable
from lsce.machine import paths

#: Of the counts as int64, class by class in the order of CIFAR-100.
_CHECKSUM = "e2f4aa68f5d4f3e2fb70dc67e1957bd69b575e15741cdb9c53343bc36545c74d"


@functools.cache
def counts(classes: Sequence[str]) -> torch.Tensor:
    """How many training images of each class (rows) were called each class (columns), int64 (K, K),
    in the order of `classes`, which names all of CIFAR-100's.

    Raises DataError if `paths.CIFAR100N_COUNTS` does not hold CIFAR-100N's counts, OSError if it
    cannot be read.
    """
    file, k = paths.CIFAR100N_COUNTS, len(classes)
    found, index = np.zeros((k, k), dtype=np.int64), {name: i for i, name in enumerate(classes)}
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                found[index[row["true"]], index[row["given"]]] = int(row["images"])
    except (KeyError, ValueError) as error:
        raise DataError(f"{file} is no table of true class, given class and images") from error
    if hashlib.sha256(found.tobytes()).hexdigest() != _CHECKSUM:
        raise DataError(f"{file} was altered: its counts are not those of CIFAR-100N")
    return torch.from_numpy(found)


#: What an array of integers in a pickle calls: nothing else is called when one is read.
_ALLOWED: list[Any] = [np.ndarray, np.dtype]
_ALLOWED += [type(np.dtype(kind)) for kind in ("int64", "int32", "uint8")]
#: The function that makes the array, by its names in pickles of NumPy 1 and 2.
_ALLOWED += [
    (np.empty(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct")
    for core in ("core", "_core")
]


def labels(expected: torch.Tensor) -> tuple[np.ndarray, np.ndarray, str]:
    """The true label and that by a person of each training image, int64 (N,) each, in the order of
    CIFAR-100's archive, and the SHA-256 of the file that they are from.

    expected: their counts, as of `counts`. Raises DataUnavailable if `paths.CIFAR100N_LABELS` is
    not there, DataError if it is not CIFAR-100N's file; objects in it other than arrays of integers
    are not unpickled.
    """
    file, k = paths.CIFAR100N_LABELS, len(expected)
    if not file.is_file():
        raise DataUnavailable(
            "the label that a person gave each image is not on this machine: CIFAR-100N's "
            f"{file.name} has to be put into {file.parent}"
        )
    content = file.read_bytes()
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        true, given = (np.asarray(loaded[name]).ravel() for name in ("clean_label", "noisy_label"))
    except pickle.UnpicklingError as error:  # it advises to unpickle anything
        raise DataError(f"{file} is damaged or holds more than arrays of integers") from error
    except Exception as error:  # pickles fail in many ways, and the user needs one sentence
        raise DataError(f"{file} cannot be read as CIFAR-100N: {first_line(error)}") from error
    total = int(expected.sum())
    if any(each.dtype.kind not in "iu" or each.shape != (total,) for each in (true, given)):
        raise DataError(f"{file} must hold {total:,} integers as clean_label and as noisy_label")
    true, given = true.astype(np.int64), given.astype(np.int64)
    if min(true.min(), given.min()) < 0 or max(true.max(), given.max()) >= k:
        raise DataError(f"{file} holds labels outside 0..{k - 1}")
    if not np.array_equal(np.bincount(k * true + given, minlength=k * k), expected.ravel()):
        raise DataError(f"{file} holds other labels than CIFAR-100N: their counts by class differ")
    return true, given, hashlib.sha256(content).hexdigest()
