"""The data sets with their fixed splits, and what runs draw from them.

Each module that holds a data set registers its `Entry` when it is imported here.
"""

import importlib
import pkgutil

from lsce.data.cache import decoded
from lsce.data.cifar100 import fetch, locate
from lsce.data.datasets import (  # fmt: skip
    DataError,
    Dataset,
    DataUnavailable,
    Entry,
    HumanLabels,
    Split,
    checksum,
    entry,
    load,
    names,
    register,
)
from lsce.data.label_noise import KINDS as NOISE_KINDS
from lsce.data.label_noise import (  # fmt: skip
    draw_labels,
    flip_labels,
    human_rate,
    human_transition,
    transition_matrix,
)
from lsce.data.sampling import class_subset, coarse, long_tail, long_tail_counts, restrict, subset

__all__ = ["NOISE_KINDS", "DataError", "DataUnavailable", "Dataset", "Entry", "HumanLabels",
           "Split", "checksum", "class_subset", "coarse", "decoded", "draw_labels", "entry",
           "fetch", "flip_labels", "human_rate", "human_transition", "load", "locate",
           "long_tail", "long_tail_counts", "names", "register", "restrict", "subset",
           "transition_matrix"]  # fmt: skip

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
