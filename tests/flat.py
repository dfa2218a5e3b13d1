"""Runs from one flat list of fields, and what training them leaves, for short tests."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsce import data
from lsce.measures import information
from lsce.results.measure import measure
from lsce.results.run import Run
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
from lsce.training.train import train


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


@dataclass
class Outcome:
    """What a run left."""

    run: Run
    history: list[dict[str, float]]
    tensors: dict[str, dict[str, Tensor]]

    @property
    def final(self) -> dict[str, float]:
        return self.run.scalars

    @property
    def outputs(self) -> dict[str, Tensor]:
        return self.tensors.get("outputs", {})


def outcome_of(spec: RunSpec, dataset: data.Dataset, **given: Any) -> Outcome:
    """Train and measure."""
    if "information" in spec.keep:
        examples = spec.entry.examples
        given["monitors"] = lambda material: [information.monitor(material, examples)]
    with train(spec, dataset, device=torch.device("cpu"), **given) as trained:
        run, tensors = measure(trained, {"step": trained.step, "seconds": trained.seconds})
        return Outcome(run, trained.history, tensors)
