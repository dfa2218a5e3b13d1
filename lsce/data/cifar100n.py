"""CIFAR-100N: the labels that people gave CIFAR-100's training images.

J. Wei, Z. Zhu, H. Cheng, T. Liu, G. Niu and Y. Liu, "Learning with Noisy Labels Revisited: A Study
Using Real-World Human Annotations", ICLR 2022 (arXiv 2110.12088): one person of Amazon Mechanical
Turk named the class of each image. The project has their counts by true class.
"""

import csv
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from lsce.data.datasets import DataError
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
