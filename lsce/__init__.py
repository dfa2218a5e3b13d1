"""lsce: the reproducible report on label smoothing cross entropy."""

from lsce.losses import (
    LabelSmoothingCrossEntropy,
    convert_epsilon,
    label_smoothing_cross_entropy,
)

__all__ = ["LabelSmoothingCrossEntropy", "convert_epsilon", "label_smoothing_cross_entropy"]
