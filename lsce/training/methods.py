"""What a run is trained by: smoothing, and what it is compared with.

A method is one class with a `kind` of its own: its parameters, its loss, its words for tables. It
is known once it is defined.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, SerializeAsAny, WithJsonSchema
from torch import Tensor, nn

from lsce.losses import Convention, LabelSmoothingCrossEntropy, alternatives
from lsce.machine.values import Value

if TYPE_CHECKING:
    from lsce.training.spec import RunSpec

#: Turns a batch of images and labels into one of images and label probabilities.
Mixer = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

#: A teacher's logits, float32 (N, C), of images.
Teach = Callable[[Tensor], Tensor]


class TrainingLabels(NamedTuple):
    """The training labels, int64 (N,), the number of classes C, and the probabilities (C, C) of
    their noise, if any."""

    labels: Tensor
    num_classes: int
    transition: Tensor | None


class Method(Value):
    """What a run is trained by."""

    kinds: ClassVar[dict[str, type["Method"]]] = {}
    kind: str
    #: The field of the method's parameter and its symbol, if it has one.
    parameter: ClassVar[tuple[str, str] | None] = None
    #: The loss, where it is made of the parameter alone.
    loss: ClassVar[type[nn.Module]]
    #: Whether the loss takes the logits at each position of the last feature map, too.
    local: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        Method.kinds[cls.model_fields["kind"].default] = cls

    @property
    def name(self) -> str:
        """The method's name in tables."""
        return self.kind + ", scheduled" * (self.final is not None)

    @property
    def final(self) -> float | None:
        """What its parameter moves to in equal steps, one an epoch, which one epoch more would
        reach: the field that is named as the parameter after `final_`. None if it stays."""
        return getattr(self, f"final_{self.parameter[0]}", None) if self.parameter else None

    @property
    def setting(self) -> float:
        """The value of its parameter; NaN if it has none."""
        return float(getattr(self, self.parameter[0])) if self.parameter else math.nan

    @property
    def words(self) -> str:
        """The method with its setting."""
        if self.parameter is None:
            return self.name
        return f"{self.name}, {self.parameter[1]} {_number(self.setting)}"

    @property
    def learns_from(self) -> "RunSpec | None":
        """The run from whose network it learns."""

    def check(self, run: "RunSpec") -> None:
        """Raise ValueError if a run cannot be trained so."""

    def criterion(self, training: TrainingLabels) -> nn.Module:
        """The loss: called with logits (N, C) and labels, it returns the mean over the batch. If
        `local`, it is also called with logits (N, C, H, W)."""
        return self.loss(self.setting)

    def begin_epoch(self, criterion: nn.Module, epoch: int, epochs: int) -> None:
        """Change the loss, by its buffers in place, for an epoch counted from 0 of so many.

        A parameter with a `final` value is first + (final − first)·t/T in epoch t of T. So in Zhou
        et al. (2025, appendix F) and in their code for ResNets, from 0.1 to 0.2."""
        if self.parameter and (final := self.final) is not None:
            value = self.setting + (final - self.setting) * epoch / epochs
            criterion.get_buffer(self.parameter[0]).fill_(value)

    def mixer(self, num_classes: int, teach: Teach | None) -> Mixer | None:
        """What each batch goes through before the step; its labels are then probabilities."""
        return None


def _method_of(fields: Any) -> Any:
    """The method that a dictionary with its `kind` describes; anything else as it is."""
    if not isinstance(fields, dict):
        return fields
    kind = fields.get("kind")
    if kind not in list(Method.kinds):
        known = ", ".join(map(repr, Method.kinds))
        raise ValueError(f"method.kind is {kind!r}; it must be one of {known}")
    return Method.kinds[kind](**fields)


class _OfAnyKind:
    """The JSON Schema of a method: one of the kinds that there are when it is made."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> Any:
        kinds: list[Any] = [kind.__pydantic_core_schema__ for kind in Method.kinds.values()]
        # Without what a kind may define beside itself: a run, which has a method again.
        bare = [kind["schema"] if kind["type"] == "definitions" else kind for kind in kinds]
        return {"oneOf": list(map(handler, bare))}


#: A field that holds a method of any kind.
AnyMethod = Annotated[SerializeAsAny[Method], BeforeValidator(_method_of), _OfAnyKind]


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _up_to(final: float | None) -> str:
    return "" if final is None else f" to {_number(final)}"


class Smoothing(Method):
    """Label smoothing; below 0 it sharpens the targets (Wei et al. 2022, ICML)."""

    kind: Literal["smoothing"] = "smoothing"
    parameter = ("epsilon", "ε =")
    epsilon: float = Field(le=1)
    convention: Convention = "exclude-true"
    warmup_epochs: int | None = Field(None, ge=1)
    """Epochs of plain cross entropy before ε takes effect."""
    final_epsilon: float | None = Field(None, le=1)
    """What ε moves to in equal steps, one an epoch, which one epoch more would reach."""

    @property
    def name(self) -> str:
        words = "negative smoothing" if self.epsilon < 0 else "smoothing"
        words += ", warmed up" * bool(self.warmup_epochs)
        return words + ", scheduled" * (self.final is not None)

    @property
    def words(self) -> str:
        words = f"ε = {_number(self.epsilon)}" + " after a warm-up" * bool(self.warmup_epochs)
        return words + _up_to(self.final_epsilon)

    def check(self, run: "RunSpec") -> None:
        if (warmup := self.warmup_epochs) and warmup >= run.epochs:
            wanted = f"below the {run.epochs} epochs"
            raise ValueError(f"warmup_epochs is {warmup}; it must be {wanted}")
        if warmup and (final := self.final_epsilon) is not None:
            raise ValueError(f"final_epsilon is {final:g}; it must be left out after a warm-up")

    def criterion(self, training: TrainingLabels) -> nn.Module:
        if self.epsilon < 0 or self.warmup_epochs or self.final_epsilon is not None:
            return alternatives.GeneralizedLabelSmoothing(self.epsilon, self.convention)
        return LabelSmoothingCrossEntropy(self.epsilon, convention=self.convention)

    def begin_epoch(self, criterion: nn.Module, epoch: int, epochs: int) -> None:
        if self.warmup_epochs and epoch in (0, self.warmup_epochs):
            criterion.get_buffer("epsilon").fill_(self.epsilon if epoch else 0.0)
        super().begin_epoch(criterion, epoch, epochs)


class WeightedSmoothing(Method):
    """Label smoothing with classes weighted by the inverse of their number of images.

    The weights act on each class's term of the loss ("terms"), as in
    `lsce.losses.LabelSmoothingCrossEntropy`, or on the sample by its label ("samples").
    """

    kind: Literal["weighted smoothing"] = "weighted smoothing"
    parameter = ("epsilon", "ε =")
    epsilon: float = Field(ge=0, le=1)
    convention: Convention = "exclude-true"
    weighting: Literal["terms", "samples"]

    @property
    def name(self) -> str:
        words = "class weights" if self.weighting == "terms" else "sample weights"
        return words + ", include-true" * (self.convention == "include-true")

    def check(self, run: "RunSpec") -> None:
        if (kind := run.sample.kind) != "long tail":
            raise ValueError(f"sample is {kind}; it must be a long tail for classes to be weighted")

    def criterion(self, training: TrainingLabels) -> nn.Module:
        weights = alternatives.inverse_frequency(training.labels.bincount().tolist())
        loss = partial(LabelSmoothingCrossEntropy, self.epsilon, convention=self.convention)
        if self.weighting == "terms":
            return loss(class_weights=weights)
        return alternatives.SampleWeighted(loss(reduction="none"), weights)


class Focal(Method):
    """Focal loss (Lin et al. 2017)."""

    kind: Literal["focal loss"] = "focal loss"
    parameter = ("gamma", "γ =")
    loss = alternatives.FocalLoss
    gamma: float = Field(ge=0)


class MaxSup(Method):
    """Cross entropy with a penalty on the largest logit (Zhou et al. 2025)."""

    kind: Literal["MaxSup"] = "MaxSup"
    parameter = ("weight", "weight")
    loss = alternatives.MaxSup
    weight: float = Field(ge=0)
    final_weight: float | None = Field(None, ge=0)
    """What the weight moves to in equal steps, one an epoch, which one epoch more would reach."""

    @property
    def words(self) -> str:
        return f"{self.kind}, weight {_number(self.weight)}" + _up_to(self.final_weight)


class OnlineSmoothing(Method):
    """Online label smoothing: a soft label for each class, from what the network said in the epoch
    before of its images that it classified rightly (Zhang et al. 2021)."""

    kind: Literal["online label smoothing"] = "online label smoothing"
    parameter = ("alpha", "α =")
    alpha: float = Field(gt=0, le=1)
    """The share of the plain cross entropy, 0.5 in the paper."""

    def criterion(self, training: TrainingLabels) -> nn.Module:
        return alternatives.OnlineLabelSmoothing(self.alpha, training.num_classes)

    def begin_epoch(self, criterion: nn.Module, epoch: int, epochs: int) -> None:
        assert isinstance(criterion, alternatives.OnlineLabelSmoothing)
        if epoch:
            criterion.next_epoch()


class ZipfLS(Method):
    """Zipf's label smoothing: the wrong classes share mass by 1/rank, where the positions of the
    last feature map vote on the ranks (Liang et al. 2022)."""

    kind: Literal["Zipf-LS"] = "Zipf-LS"
    parameter = ("weight", "weight")
    loss = alternatives.ZipfLabelSmoothing
    local = True
    weight: float = Field(ge=0)


class LogitPenalty(Method):
    """Cross entropy with a penalty on the squared logits (Dauphin & Cubuk 2021)."""

    kind: Literal["logit penalty"] = "logit penalty"
    parameter = ("beta", "β =")
    loss = alternatives.LogitPenalty
    beta: float = Field(ge=0)


class MbLS(Method):
    """Margin-based label smoothing: a penalty on logits that are further than a margin below the
    largest (Liu et al. 2022)."""

    kind: Literal["MbLS"] = "MbLS"
    parameter = ("margin", "margin")
    margin: float = Field(ge=0)
    weight: float = Field(0.1, ge=0)

    @property
    def words(self) -> str:
        return super().words + f", weight {_number(self.weight)}" * (self.weight != 0.1)

    def criterion(self, training: TrainingLabels) -> nn.Module:
        return alternatives.MbLS(self.margin, self.weight)


class GeneralizedCE(Method):
    """Generalised cross entropy (Zhang & Sabuncu 2018)."""

    kind: Literal["generalised cross entropy"] = "generalised cross entropy"
    parameter = ("q", "q =")
    loss = alternatives.GeneralizedCrossEntropy
    q: float = Field(gt=0, le=1)

    @property
    def words(self) -> str:
        return f"generalised CE, q = {_number(self.q)}"


class Correction(Method):
    """Forward or backward correction with the true noise (Patrini et al. 2017)."""

    kind: Literal["correction"] = "correction"
    direction: Literal["forward", "backward"]

    @property
    def name(self) -> str:
        return f"{self.direction} correction"

    def check(self, run: "RunSpec") -> None:
        if run.labels.kind != "noisy":
            raise ValueError(f"labels are {run.labels.kind}; {self.name} needs noisy ones")

    def criterion(self, training: TrainingLabels) -> nn.Module:
        assert training.transition is not None
        if self.direction == "forward":
            return alternatives.ForwardCorrection(training.transition)
        return alternatives.BackwardCorrection(training.transition)


class Mixup(Method):
    """Images and labels mixed in pairs by shares from Beta(α, α) (Zhang et al. 2018), with or
    without smoothing."""

    kind: Literal["mixup"] = "mixup"
    parameter = ("alpha", "α =")
    alpha: float = Field(gt=0)
    epsilon: float = Field(0.0, ge=0, le=1)

    @property
    def words(self) -> str:
        return super().words + f", ε = {_number(self.epsilon)}" * bool(self.epsilon)

    def criterion(self, training: TrainingLabels) -> nn.Module:
        return LabelSmoothingCrossEntropy(self.epsilon)

    def mixer(self, num_classes: int, teach: Teach | None) -> Mixer | None:
        from torchvision.transforms.v2 import MixUp  # a second to import

        mixer: Mixer = MixUp(alpha=self.alpha, num_classes=num_classes)
        return mixer


class Distillation(Method):
    """Learning the probabilities of another run's network at a temperature (Hinton et al. 2015)."""

    kind: Literal["distillation"] = "distillation"
    parameter = ("temperature", "T =")
    loss = alternatives.Distillation
    teacher: Annotated["RunSpec", WithJsonSchema({"type": "object", "title": "RunSpec"})]
    temperature: float = Field(gt=0)

    @property
    def learns_from(self) -> "RunSpec":
        return self.teacher

    @property
    def name(self) -> str:
        method = self.teacher.method
        plain = method.kind == "smoothing" and method.setting == 0
        return f"distilled, {'plain' if plain else 'smoothed'} teacher"

    @property
    def words(self) -> str:
        return super().words.removeprefix("distilled, ")

    def check(self, run: "RunSpec") -> None:
        def classes(spec: "RunSpec") -> tuple[object, ...]:
            return spec.data_checksum, spec.classes, spec.labels.kind, spec.num_classes

        if classes(self.teacher) != classes(run):
            raise ValueError(f"teacher is {self.teacher.id}; it must have the run's classes")

    def probabilities(self, teach: Teach, images: Tensor) -> Tensor:
        """The teacher's probabilities, float32 (N, C), of images."""
        return torch.softmax(teach(images) / self.temperature, 1)

    def mixer(self, num_classes: int, teach: Teach | None) -> Mixer | None:
        assert teach is not None
        return lambda images, labels: (images, self.probabilities(teach, images).clone())
