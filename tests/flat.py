"""Runs from one flat list of fields, for short tests."""

from typing import Any

from lsce.training import methods
from lsce.training.methods import Method
from lsce.training.spec import (
    Balanced,
    LongTail,
    NoisyLabels,
    Recipe,
    RunSpec,
    SomeClasses,
    Superclasses,
    TrueLabels,
)


def flat(**changes: Any) -> RunSpec:
    """A short run on the built-in data; `classes`, `imbalance`, `noise` with `rate`, and
    `superclasses` say which images and labels, `epsilon` or `method` what it is trained by."""
    fields: dict[str, Any] = dict(data="built-in", network="resnet6", epochs=2, seed=0)
    fields |= dict(train_size=300, monitor_size=100, recipe=Recipe(batch_size=100)) | changes
    size = fields.pop("train_size")
    sample, labels = Balanced(train_size=size), TrueLabels()
    if classes := fields.pop("classes", None):
        sample = SomeClasses(classes=classes, train_size=size)
    if imbalance := fields.pop("imbalance", None):
        sample = LongTail(train_size=size, imbalance=imbalance)
    if noise := fields.pop("noise", None):
        labels = NoisyLabels(noise=noise, rate=fields.pop("rate"))
    if fields.pop("superclasses", False):
        labels = Superclasses()
    epsilon = fields.pop("epsilon", 0.1)
    method: Method = fields.pop("method", None) or methods.Smoothing(epsilon=epsilon)
    return RunSpec(**fields, sample=sample, labels=labels, method=method)
