"""What a run is: its spec and its identity."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, get_args

from lsce import data
from lsce.data.label_noise import KINDS as NOISE_KINDS
from lsce.losses import Convention
from lsce.training import networks

#: Part of every spec's identity; raise it when the same spec would train differently.
RECIPE_VERSION = 1

#: Losses that smoothing is compared with (`lsce.losses.alternatives`), and the name of their parameter.
LOSSES = {"focal": "gamma", "maxsup": "weight", "gce": "q", "forward": None, "backward": None}

#: What a record can be asked to hold beside the rest; none of it changes the run.
EXTRAS = ("features", "information", "selected", "selective", "unseen", "weights")

#: How class weights act on smoothed targets: on each class's term, as in
#: `lsce.losses.LabelSmoothingCrossEntropy`, or on the sample by its label.
WEIGHTINGS = ("terms", "samples")

#: Columns of a record's details: what was measured, in which case, at which x.
DETAILS = ("quantity", "case", "x", "value")


def require(ok: bool, name: str, value: Any, want: str) -> None:
    """Raise ValueError, naming the parameter and its value, unless `ok`."""
    if not ok:
        raise ValueError(f"{name} is {value!r}; it must be {want}")


def _whole(value: Any, at_least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained: SGD with Nesterov momentum and a one-cycle learning rate.

    Weight decay acts on convolution and linear weights only. Augmentation is a random crop after
    reflection padding by 4 pixels and a random horizontal flip. The fields that are None by
    default are for published recipes that differ.
    """

    version: int = RECIPE_VERSION
    batch_size: int = 128
    peak_learning_rate: float = 0.3
    warmup_fraction: float = 0.25
    momentum: float = 0.9
    weight_decay: float = 5e-4
    #: Instead of the one cycle: the learning rate starts at its peak and is divided by 10 after
    #: each of these shares of the training.
    milestones: tuple[float, ...] | None = None
    #: The gradient is that of the loss times this.
    loss_factor: float | None = None
    #: A gradient whose norm is larger is scaled down to it.
    clip_norm: float | None = None
    #: False: the images as they are, neither cropped nor flipped.
    augment: bool | None = None
    #: Until this share of the steps, images are scaled down to this many pixels.
    early_resolution: tuple[float, int] | None = None

    def __post_init__(self) -> None:
        require(_whole(self.batch_size, 2), "batch_size", self.batch_size, "a whole number ≥ 2")
        for name in ("peak_learning_rate", "weight_decay"):
            value = getattr(self, name)
            require(_number(value) and value >= 0, name, value, "a number ≥ 0")
        for name in ("warmup_fraction", "momentum"):
            value = getattr(self, name)
            require(_number(value) and 0 <= value < 1, name, value, "a number in [0, 1)")
        for name in ("loss_factor", "clip_norm"):
            value = getattr(self, name)
            fits = value is None or (_number(value) and value > 0)
            require(fits, name, value, "a number > 0 or None")
        fits = self.augment is None or self.augment is False
        require(fits, "augment", self.augment, "False, or None for the usual augmentation")
        if (early := self.early_resolution) is not None:
            share, pixels = early if len(early) == 2 else (0, 0)
            fits = _number(share) and 0 < share < 1 and _whole(pixels, 8) and pixels < 32
            want = "a share between 0 and 1 and 8 to 31 pixels, or None"
            require(fits, "early_resolution", early, want)
            object.__setattr__(self, "early_resolution", (float(share), pixels))
        if self.milestones is not None:
            fits = all(_number(share) and 0 < share < 1 for share in self.milestones)
            require(fits, "milestones", self.milestones, "shares between 0 and 1, or None")
            object.__setattr__(self, "milestones", tuple(self.milestones))


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a trained network is tried with corrupted and with attacked test images: see
    `lsce.measures.robustness.examine`."""

    #: Test images that are corrupted and attacked, an equal number a class.
    corrupted_images: int
    attacked_images: int
    #: Radii of the attacks in the maximum norm, in units of 1/255, ascending; and the one at which
    #: claims are judged.
    radii: tuple[float, ...]
    judged_radius: float
    #: Steps and random starts of the longest PGD, and queries of the Square attack.
    pgd_steps: int
    pgd_restarts: int
    square_queries: int
    #: The run from whose network attacks are transferred.
    source: "RunSpec"

    def __post_init__(self) -> None:
        for name in ("corrupted_images", "attacked_images"):
            value = getattr(self, name)
            fits = _whole(value, 100) and value <= 10_000 and value % 100 == 0
            require(fits, name, value, "a multiple of the 100 classes, at most 10,000")
        for name in ("pgd_steps", "pgd_restarts", "square_queries"):
            value = getattr(self, name)
            require(_whole(value, 1), name, value, "a whole number ≥ 1")
        fits = len(self.radii) and all(_number(r) and 0 < r <= 255 for r in self.radii)
        fits = fits and list(self.radii) == sorted(set(self.radii))
        require(fits, "radii", list(self.radii), "ascending numbers in (0, 255]")
        require(
            self.judged_radius in self.radii,
            "judged_radius",
            self.judged_radius,
            f"one of radii {list(self.radii)}",
        )
        object.__setattr__(self, "radii", tuple(float(radius) for radius in self.radii))
        object.__setattr__(self, "judged_radius", float(self.judged_radius))

    @property
    def longest(self) -> str:
        """What the longest PGD is called."""
        return f"PGD-{self.pgd_steps} × {self.pgd_restarts}"

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Protocol":
        return cls(**{**fields, "source": RunSpec.from_dict(fields["source"])})


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Everything that determines a run; `spec.id` names its record.

    Raises ValueError, naming the field and its value, if a field is out of range.
    """

    #: "cifar-100" or "built-in", and the SHA-256 of its contents.
    data: str
    data_checksum: str
    #: Training images, an equal number a class, drawn from the 45,000 by the seed.
    train_size: int = 45_000
    #: Label noise on the training split: a kind of `lsce.data.label_noise`, and the share of labels flipped.
    noise: str | None = None
    noise_rate: float | None = None
    #: Classes trained and tested on, drawn by the seed and nested; all 100 by default. Sizes are
    #: of images of these classes.
    classes: int | None = None
    #: "superclasses": the images are labelled with their 20 superclasses.
    labels: str | None = None
    #: How many times more images the commonest class has than the rarest, see
    #: `lsce.data.long_tail`; `train_size` is then that of the balanced set it is cut from.
    imbalance: float | None = None
    #: One of `WEIGHTINGS`: classes are weighted by the inverse of their number of images.
    weighting: str | None = None
    model: str
    #: At most 1; negative values sharpen the targets (Wei et al. 2022).
    epsilon: float
    convention: str = "exclude-true"
    #: Epochs of plain cross entropy before ε takes effect.
    warmup_epochs: int | None = None
    #: Instead of smoothing: one of `LOSSES` with its parameter.
    loss: str | None = None
    loss_parameter: float | None = None
    #: Images and labels are mixed in pairs by shares from Beta(mixup, mixup) (Zhang et al. 2018).
    mixup: float | None = None
    #: Distilled at this temperature (Hinton et al. 2015) from the network of another run.
    teacher: "RunSpec | None" = None
    temperature: float | None = None
    #: The network is not trained but that of the run without this field, and tried so.
    examination: Protocol | None = None
    recipe: Recipe = field(default_factory=Recipe)
    epochs: int
    #: Validation images that are measured after each epoch, an equal number a class (all of them
    #: after the last).
    monitor_size: int = 5_000
    seed: int
    #: Some of `EXTRAS`.
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.data in ("cifar-100", "built-in"), "data", self.data, "cifar-100 or built-in")
        for name, low in (("epochs", 1), ("seed", 0)):
            value = getattr(self, name)
            require(_whole(value, low), name, value, f"a whole number ≥ {low}")
        few = self.classes
        fits = few is None or (_whole(few, 2) and few < 100)
        require(fits, "classes", few, "a whole number from 2 to 99, or None for all 100")
        classes = few or 100
        for name, most in (("train_size", 450 * classes), ("monitor_size", 50 * classes)):
            value = getattr(self, name)
            fits = _whole(value, classes) and value <= most and value % classes == 0
            want = f"a multiple of the {classes} classes, at most {most:,}"
            require(fits, name, value, want)
        require(
            self.model in networks.MODELS,
            "model",
            self.model,
            f"one of {', '.join(networks.MODELS)}",
        )
        in_range = _number(self.epsilon) and self.epsilon <= 1
        require(in_range, "epsilon", self.epsilon, "a number of at most 1")
        conventions = get_args(Convention)
        require(
            self.convention in conventions,
            "convention",
            self.convention,
            "one of " + ", ".join(conventions),
        )
        self._check_noise()
        self._check_labels()
        self._check_method()
        self._check_others()
        self._check_kept()
        # 0 and 0.0 are the same parameter and must name the same record.
        for name in (
            "epsilon",
            "noise_rate",
            "loss_parameter",
            "mixup",
            "imbalance",
            "temperature",
        ):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(value))

    def _check_noise(self) -> None:
        kinds = f"one of {', '.join(NOISE_KINDS)} or None"
        require(self.noise in (None, *NOISE_KINDS), "noise", self.noise, kinds)
        if self.noise is None:
            require(self.noise_rate is None, "noise_rate", self.noise_rate, "None without noise")
        else:
            rate = self.noise_rate
            require(_number(rate) and 0 < rate <= 1, "noise_rate", rate, "a number in (0, 1]")
            require(self.classes is None, "classes", self.classes, "None with noise")

    def _check_labels(self) -> None:
        known = self.labels in (None, "superclasses")
        require(known, "labels", self.labels, "superclasses or None")
        rho, weighting = self.imbalance, self.weighting
        fits = rho is None or (_number(rho) and rho > 1)
        require(fits, "imbalance", rho, "a number > 1 or None")
        if rho is not None:
            largest = self.train_size // (self.classes or 100)
            require(largest >= rho, "imbalance", rho, f"at most the {largest} images a class")
        known = weighting in (None, *WEIGHTINGS)
        require(known, "weighting", weighting, f"one of {', '.join(WEIGHTINGS)} or None")
        fits = weighting is None or rho is not None
        require(fits, "weighting", weighting, "None where every class has as many images")
        for name in ("labels", "imbalance"):
            fits = getattr(self, name) is None or self.noise is None
            require(fits, name, getattr(self, name), "None with noise")
        fits = self.labels is None or (self.classes, rho) == (None, None)
        require(fits, "labels", self.labels, "None where classes or images are left out")

    def _check_kept(self) -> None:
        known = set(self.keep) <= set(EXTRAS)
        require(known, "keep", self.keep, f"some of {', '.join(EXTRAS)}")
        usual = self.labels is None and self.imbalance is None
        fits = (self.classes is None and usual) or "information" not in self.keep
        require(fits, "keep", self.keep, "without 'information' where classes are left out")
        fits = usual or "features" not in self.keep
        require(fits, "keep", self.keep, "without 'features' where labels are other ones")
        fits = self.classes is not None or "unseen" not in self.keep
        require(fits, "keep", self.keep, "without 'unseen' where all classes are seen")

    def _check_others(self) -> None:
        """What the run needs of other runs."""
        teacher, temperature = self.teacher, self.temperature
        if teacher is None:
            require(temperature is None, "temperature", temperature, "None without a teacher")
        else:
            fits = _number(temperature) and temperature > 0
            require(fits, "temperature", temperature, "a number > 0 with a teacher")
            plain = self.epsilon == 0 and (self.mixup, self.loss, self.weighting) == (None,) * 3
            require(plain, "epsilon", self.epsilon, "0, and no other method, with a teacher")
            same = (teacher.data_checksum, teacher.classes, teacher.labels)
            fits = same == (self.data_checksum, self.classes, self.labels)
            require(fits, "teacher", teacher.id, "a run with the same data and classes")
        if self.examination is not None:
            usual = self.labels is None and self.classes is None
            require(usual, "examination", self.examination, "None where classes are other ones")

    def _check_method(self) -> None:
        """Smoothing (with a warm-up or mixup, perhaps) or another loss, and not both."""
        warmup, loss, parameter = self.warmup_epochs, self.loss, self.loss_parameter
        fits = warmup is None or (_whole(warmup, 1) and warmup < self.epochs)
        require(fits, "warmup_epochs", warmup, f"a whole number below the {self.epochs} epochs")
        fits = self.mixup is None or (_number(self.mixup) and self.mixup > 0)
        require(fits, "mixup", self.mixup, "a number > 0 or None")
        plain = warmup is None and loss is None and self.epsilon >= 0
        require(self.mixup is None or plain, "mixup", self.mixup, "None beside another method")
        require(loss in (None, *LOSSES), "loss", loss, f"one of {', '.join(LOSSES)} or None")
        if loss is None or LOSSES[loss] is None:
            require(parameter is None, "loss_parameter", parameter, "None, as the loss has none")
        else:
            want = f"a number, the {LOSSES[loss]} of the {loss} loss"
            require(_number(parameter), "loss_parameter", parameter, want)
        if loss is not None:
            require(self.epsilon == 0, "epsilon", self.epsilon, f"0 with the {loss} loss")
            require(warmup is None, "warmup_epochs", warmup, f"None with the {loss} loss")
            weighting = self.weighting
            require(weighting is None, "weighting", weighting, f"None with the {loss} loss")
        if loss in ("forward", "backward"):
            require(self.noise is not None, "noise", self.noise, f"given for {loss} correction")

    def to_dict(self) -> dict[str, Any]:
        """The fields that identify the run; a field that is None is left out."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        del fields["keep"]
        fields["recipe"] = _known(dataclasses.asdict(self.recipe))
        if self.teacher is not None:
            fields["teacher"] = self.teacher.to_dict()
        if (protocol := self.examination) is not None:
            fields["examination"] = {**vars(protocol), "source": protocol.source.to_dict()}
        return _known(fields)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "RunSpec":
        made = {"recipe": Recipe(**fields["recipe"]), "keep": tuple(fields.get("keep", ()))}
        if "teacher" in fields:
            made["teacher"] = cls.from_dict(fields["teacher"])
        if "examination" in fields:
            made["examination"] = Protocol.from_dict(fields["examination"])
        return cls(**{**fields, **made})

    @property
    def num_classes(self) -> int:
        """Classes that the network tells apart."""
        return data.SUPERCLASSES if self.labels else self.classes or 100

    @property
    def images(self) -> int:
        """Training images."""
        if self.imbalance is None:
            return self.train_size
        classes = self.classes or 100
        return sum(data.long_tail_counts(self.train_size // classes, classes, self.imbalance))

    @property
    def base(self) -> "RunSpec":
        """The run whose network an examination tries."""
        return dataclasses.replace(self, examination=None)

    @property
    def needs(self) -> list["RunSpec"]:
        """The runs whose networks must be there before this one can start."""
        others = [self.teacher] if self.teacher is not None else []
        if self.examination is not None:
            others = [self.base, self.examination.source]
        return [dataclasses.replace(other, keep=("weights",)) for other in others]

    @cached_property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
