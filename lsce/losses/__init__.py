"""Label smoothing cross entropy, and the losses that it is compared with."""

from lsce.losses.checks import Convention
from lsce.losses.smoothing import (
    LabelSmoothingCrossEntropy,
    convert_epsilon,
    label_smoothing_cross_entropy,
)

__all__ = [
    "Convention",
    "LabelSmoothingCrossEntropy",
    "convert_epsilon",
    "label_smoothing_cross_entropy",
]
