"""Each method has its name, setting, words and loss; own methods and networks are trained alike."""

import math
from typing import Any, Literal

import pytest
import torch
from made_up import spec
from torch import nn
from torch.nn import functional as F

from lsce import data
from lsce.losses import LabelSmoothingCrossEntropy, alternatives
from lsce.results.measure import measure
from lsce.training import networks, precision
from lsce.training.methods import (
    Correction,
    Distillation,
    Focal,
    GeneralizedCE,
    LogitPenalty,
    MaxSup,
    MbLS,
    Method,
    Mixup,
    OnlineSmoothing,
    Smoothing,
    TrainingLabels,
    WeightedSmoothing,
    ZipfLS,
)
from lsce.training.spec import Balanced, RunSpec, task_of
from lsce.training.train import train


def distillation(epsilon: float, **changes) -> Distillation:
    fields = dict(teacher=spec(method=Smoothing(epsilon=epsilon)), temperature=2)
    return Distillation(**fields | changes)


def weighted(**changes) -> WeightedSmoothing:
    return WeightedSmoothing(**dict(epsilon=0.1, weighting="terms") | changes)


#: Method, name, setting, words, loss.
METHODS = [
    (Smoothing(epsilon=0.1), "smoothing", 0.1, "ε = 0.1", LabelSmoothingCrossEntropy),
    (Smoothing(epsilon=-0.4), "negative smoothing", -0.4, "ε = −0.4",
     alternatives.GeneralizedLabelSmoothing),
    (Smoothing(epsilon=0.1, warmup_epochs=1), "smoothing, warmed up", 0.1,
     "ε = 0.1 after a warm-up", alternatives.GeneralizedLabelSmoothing),
    (Smoothing(epsilon=0.1, final_epsilon=0.2), "smoothing, scheduled", 0.1, "ε = 0.1 to 0.2",
     alternatives.GeneralizedLabelSmoothing),
    (weighted(), "class weights", 0.1, "class weights, ε = 0.1", LabelSmoothingCrossEntropy),
    (weighted(weighting="samples", convention="include-true"), "sample weights, include-true", 0.1,
     "sample weights, include-true, ε = 0.1", alternatives.SampleWeighted),
    (Focal(gamma=2), "focal loss", 2, "focal loss, γ = 2", alternatives.FocalLoss),
    (MaxSup(weight=0.5), "MaxSup", 0.5, "MaxSup, weight 0.5", alternatives.MaxSup),
    (MaxSup(weight=0.1, final_weight=0.0), "MaxSup, scheduled", 0.1, "MaxSup, weight 0.1 to 0",
     alternatives.MaxSup),
    (OnlineSmoothing(alpha=0.5), "online label smoothing", 0.5, "online label smoothing, α = 0.5",
     alternatives.OnlineLabelSmoothing),
    (ZipfLS(weight=0.1), "Zipf-LS", 0.1, "Zipf-LS, weight 0.1", alternatives.ZipfLabelSmoothing),
    (LogitPenalty(beta=6e-4), "logit penalty", 6e-4, "logit penalty, β = 0.0006",
     alternatives.LogitPenalty),
    (MbLS(margin=10), "MbLS", 10, "MbLS, margin 10", alternatives.MbLS),
    (MbLS(margin=6, weight=0.2), "MbLS", 6, "MbLS, margin 6, weight 0.2", alternatives.MbLS),
    (GeneralizedCE(q=0.7), "generalised cross entropy", 0.7, "generalised CE, q = 0.7",
     alternatives.GeneralizedCrossEntropy),
    (Correction(direction="forward"), "forward correction", math.nan, "forward correction",
     alternatives.ForwardCorrection),
    (Correction(direction="backward"), "backward correction", math.nan, "backward correction",
     alternatives.BackwardCorrection),
    (Mixup(alpha=0.2), "mixup", 0.2, "mixup, α = 0.2", LabelSmoothingCrossEntropy),
    (
        Mixup(alpha=0.2, epsilon=0.1),
        "mixup",
        0.2,
        "mixup, α = 0.2, ε = 0.1",
        LabelSmoothingCrossEntropy,
    ),
    (distillation(0.0), "distilled, plain teacher", 2, "plain teacher, T = 2",
     alternatives.Distillation),
    (distillation(0.1), "distilled, smoothed teacher", 2, "smoothed teacher, T = 2",
     alternatives.Distillation),
]  # fmt: skip


def test_every_method_is_in_the_table():
    assert {type(method) for method, *_ in METHODS} == set(Method.kinds.values())


@pytest.mark.parametrize(
    ("method", "name", "setting", "words", "loss"), METHODS, ids=[each[1] for each in METHODS]
)
def test_a_method_says_what_it_is_and_has_its_loss(method, name, setting, words, loss):
    assert (method.name, method.words) == (name, words)
    assert method.setting == pytest.approx(setting, nan_ok=True)
    labelled = TrainingLabels(torch.arange(100).repeat(3), 100, 0.9 * torch.eye(100) + 0.001)
    criterion = method.criterion(labelled)
    assert type(criterion) is loss
    probabilities = isinstance(method, Distillation)
    targets = F.one_hot(torch.arange(4), 100).float() if probabilities else torch.arange(4)
    local = [torch.zeros(4, 100, 2, 2)] if method.local else []
    assert criterion(torch.zeros(4, 100), targets, *local).ndim == 0


@pytest.mark.parametrize(
    ("method", "buffer"),
    [
        (MaxSup(weight=0.1, final_weight=0.2), "weight"),
        (Smoothing(epsilon=0.1, final_epsilon=0.2, convention="include-true"), "epsilon"),
    ],
)
def test_a_schedule_is_that_of_the_paper(method, buffer):
    """Zhou et al. 2025, appendix F: 0.1 + 0.1·t/T; in place, as a captured step needs it."""
    criterion = method.criterion(TrainingLabels(torch.arange(10), 10, None))
    held, found = criterion.get_buffer(buffer), []
    for epoch in range(4):
        method.begin_epoch(criterion, epoch, 4)
        assert criterion.get_buffer(buffer) is held
        found.append(held.item())
    assert found == pytest.approx([0.1, 0.125, 0.15, 0.175])


def test_online_smoothing_knows_classes_that_no_training_image_has():
    labelled = TrainingLabels(torch.tensor([0, 1, 1]), 5, None)
    assert OnlineSmoothing(alpha=0.5).criterion(labelled).soft_labels.shape == (5, 5)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: weighted(weighting="images"), "weighting is 'images'; it must be 'terms' or 'sam"),
        (lambda: weighted(epsilon=-0.1), "epsilon is -0.1; it must be at least 0"),
        (lambda: Smoothing(epsilon=0, warmup_epochs=0), "warmup_epochs is 0; it must be at least"),
        (lambda: Focal(gamma=-1), "gamma is -1; it must be at least 0"),
        (lambda: MaxSup(weight=-1), "weight is -1; it must be at least 0"),
        (lambda: MaxSup(weight=0, final_weight=-1), "final_weight is -1; it must be at least 0"),
        (lambda: Smoothing(epsilon=0, final_epsilon=2), "final_epsilon is 2; it must be at most 1"),
        (lambda: OnlineSmoothing(alpha=0), "alpha is 0; it must be greater than 0"),
        (lambda: OnlineSmoothing(alpha=1.5), "alpha is 1.5; it must be at most 1"),
        (lambda: ZipfLS(weight=-1), "weight is -1; it must be at least 0"),
        (lambda: LogitPenalty(beta=-1), "beta is -1; it must be at least 0"),
        (lambda: MbLS(margin=-1), "margin is -1; it must be at least 0"),
        (lambda: MbLS(margin=1, weight=-1), "weight is -1; it must be at least 0"),
        (lambda: GeneralizedCE(q=0), "q is 0; it must be greater than 0"),
        (lambda: GeneralizedCE(q=2), "q is 2; it must be at most 1"),
        (lambda: Correction(direction="up"), "direction is 'up'; it must be 'forward' or 'backwa"),
        (lambda: Mixup(alpha=0), "alpha is 0; it must be greater than 0"),
        (lambda: Mixup(alpha=1, epsilon=2), "epsilon is 2; it must be at most 1"),
        (lambda: distillation(0, temperature=0), "temperature is 0; it must be greater than 0"),
        (lambda: Focal(gamma=1, epsilon=0.1), "Focal has no parameter 'epsilon'; it has gamma, k"),
    ],
)
def test_what_a_method_cannot_be_is_one_sentence(make, sentence):
    """What it cannot be combined with is in `test_spec.py`."""
    with pytest.raises(ValueError, match=f"^{sentence}") as error:
        make()
    assert "\n" not in str(error.value)


# ---- what a reader adds ----


@pytest.fixture
def added(monkeypatch):
    """What is added is forgotten after the test."""
    monkeypatch.setattr(precision, "of", lambda *_: "float32")
    monkeypatch.setattr(Method, "kinds", dict(Method.kinds))
    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))


def check_trained(**changes: Any) -> RunSpec:
    """A run on the built-in data that comes back from its dictionary, is trained and measured."""
    sample = Balanced(train_size=100)
    run = spec(data="built-in", sample=sample, monitor_size=100, **changes)
    assert task_of(run.model_dump(mode="json")) == run
    with train(run, data.load("built-in"), device=torch.device("cpu")) as trained:
        found, _ = measure(trained, {})
    assert found.status == "completed" and 0 < found.scalars["test_nll"] < 10
    return run


def test_a_method_of_one_s_own_is_a_class_alone(added):
    class PolyLoss(nn.Module):
        """With its first term alone (Leng et al. 2022)."""

        def __init__(self, weight: float):
            super().__init__()
            self.weight = weight

        def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            nll = F.cross_entropy(logits, labels, reduction="none")
            return (nll + self.weight * (1 - torch.exp(-nll))).mean()

    class Poly(Method):
        kind: Literal["PolyLoss"] = "PolyLoss"
        weight: float = 1.0

        def criterion(self, training: TrainingLabels) -> nn.Module:
            return PolyLoss(self.weight)

    run = check_trained(method={"kind": "PolyLoss", "weight": 2.0})
    assert run.method == Poly(weight=2.0)
    assert (run.method.name, run.method.words) == ("PolyLoss", "PolyLoss")
    assert math.isnan(run.method.setting)


def test_a_network_of_one_s_own_is_an_entry_alone(added):
    def one_layer(classes: int) -> networks.ImageClassifier:
        return networks.ImageClassifier(networks.ConvBN(3, 8, 8, stride=8), 8, classes)

    networks.NETWORKS["one layer"] = one_layer
    run = check_trained(network="one layer")
    assert networks.width("one layer") == 8 and networks.parameters("one layer", 100) == 2_452
    with pytest.raises(ValueError, match="^network is 'two layers'; it must be one of .*one layer"):
        run.changed(network="two layers")
