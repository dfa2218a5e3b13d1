"""The data sets with their fixed splits, and what a run draws from them.

A data set is one module, which registers its `Entry` when it is imported here.
"""

from lsce.data import cifar100, synthetic  # the order in which `names` gives them
from lsce.data.cache import decoded
from lsce.data.cifar100 import Location, fetch, locate
from lsce.data.datasets import (
    DataError,
    Dataset,
    DataUnavailable,
    Entry,
    Split,
    checksum,
    entry,
    load,
    names,
    register,
)
from lsce.data.label_noise import KINDS as NOISE_KINDS
from lsce.data.label_noise import flip_labels, transition_matrix
from lsce.data.sampling import (
    assemble,
    class_subset,
    coarse,
    long_tail,
    long_tail_counts,
    restrict,
    subset,
)

__all__ = ["NOISE_KINDS", "DataError", "DataUnavailable", "Dataset", "Entry", "Location", "Split",
           "assemble", "checksum", "cifar100", "class_subset", "coarse", "decoded", "entry",
           "fetch", "flip_labels", "load", "locate", "long_tail", "long_tail_counts", "names",
           "register", "restrict", "subset", "synthetic", "transition_matrix"]  # fmt: skip
