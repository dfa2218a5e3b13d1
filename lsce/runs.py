"""What a run is: its spec, its identity, and the record that it leaves in the store.

A record is a folder named by the spec's hash::

    data/runs/<id>/record.json           spec, status, final scalars, temperature, timing, machine
    data/runs/<id>/history.parquet       one row an epoch
    data/runs/<id>/outputs.safetensors   logits and labels, validation and test
    data/runs/<id>/features.safetensors  penultimate features, where a study asked for them
    data/runs/<id>/selected.safetensors  logits at the validation-chosen epoch, likewise
    data/runs/<id>/unseen.safetensors    logits of test images of classes never seen, likewise
    data/runs/<id>/weights.safetensors   the network, where another run needs it
    data/runs/<id>/details.parquet       measurements that are more than a number, where there are

It is written under a temporary name and renamed, so a record is there whole or not at all.
"""

import dataclasses
import hashlib
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from safetensors.torch import load_file, save_file
from torch import Tensor

from lsce import data, models, paths
from lsce.losses import Convention
from lsce.noise import KINDS as NOISE_KINDS

#: Part of every spec's identity; raise it when the same spec would train differently.
RECIPE_VERSION = 1

#: Losses that smoothing is compared with (`lsce.baselines`), and the name of their parameter.
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
    `lsce.robustness.examine`."""

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
    #: Label noise on the training split: a kind of `lsce.noise`, and the share of labels flipped.
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
            self.model in models.MODELS, "model", self.model, f"one of {', '.join(models.MODELS)}"
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


def size(spec: RunSpec) -> int:
    """Bytes that a run's record takes, about: its float32 tensors."""
    test = 100 * (spec.classes or 100)
    logits = (test + test // 2) * spec.num_classes
    numbers = logits * (1 + ("selected" in spec.keep))
    if "features" in spec.keep:
        numbers += (min(spec.images, 10_000) + test + test // 2) * models.width(spec.model)
    if "weights" in spec.keep:
        numbers += models.parameters(spec.model)
    if "unseen" in spec.keep:
        numbers += (10_000 - test) * spec.num_classes
    return 4 * numbers


@dataclass(frozen=True)
class Record:
    """A finished run. Scalars are in memory, tensors are read each time they are asked for."""

    folder: Path
    spec: RunSpec
    #: "completed", or "diverged" if the training loss stopped being finite.
    status: str
    #: final: scalars after the last epoch; temperature, seconds, device, precision, versions, …
    meta: dict[str, Any]

    @property
    def diverged(self) -> bool:
        return self.status == "diverged"

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch; losses in nats a sample, accuracies in [0, 1]. See `lsce.train`."""
        return pd.read_parquet(self.folder / "history.parquet")

    def outputs(self) -> dict[str, Tensor]:
        """`{test,validation}_logits` float32 (N, C), `…_labels` int64 (N,); empty if diverged."""
        return load_file(self.folder / "outputs.safetensors")

    def features(self) -> dict[str, Tensor]:
        """`{train,validation,test}_features` float32 (N, D), `train_labels` int64 (N,), and the
        last layer's `classifier_weight` (C, D) and `classifier_bias` (C,)."""
        return load_file(self.folder / "features.safetensors")

    def selected(self) -> dict[str, Tensor]:
        """`{test,validation}_logits` float32 (N, C) at the epoch that validation chose."""
        return load_file(self.folder / "selected.safetensors")

    def unseen(self) -> Tensor:
        """Logits, float32 (N, C), of test images of the classes that the run never saw."""
        return load_file(self.folder / "unseen.safetensors")["unseen_logits"]

    def weights(self) -> dict[str, Tensor]:
        """The network's state dict, on the CPU."""
        return load_file(self.folder / "weights.safetensors")

    @property
    def keep(self) -> set[str]:
        """Of `EXTRAS`, what the record holds, which may be more than its spec asks for."""
        return set(self.meta["spec"].get("keep", ()))

    def details(self) -> pd.DataFrame:
        """`DETAILS`; no rows for most runs."""
        file = self.folder / "details.parquet"
        return pd.read_parquet(file) if file.is_file() else pd.DataFrame(columns=list(DETAILS))


class Store:
    """The records of one machine, each in a folder named by its spec's hash."""

    def __init__(self, root: Path | None = None):
        self.root = root or paths.RUNS

    def _folder(self, spec: RunSpec) -> Path:
        return self.root / spec.id

    def __contains__(self, spec: RunSpec) -> bool:
        if not spec.keep:
            return (self._folder(spec) / "record.json").is_file()
        return set(spec.keep) <= self._kept(spec)

    def _kept(self, spec: RunSpec) -> set[str]:
        """What the record of a run holds of `EXTRAS`, if there is one."""
        try:
            text = (self._folder(spec) / "record.json").read_text()
            return set(json.loads(text)["spec"].get("keep", ()))
        except (OSError, ValueError, KeyError):
            return set()

    def missing(self, specs: Iterable[RunSpec]) -> list[RunSpec]:
        """The specs without a record, each once, in the order given.

        Specs that differ only in what they keep are one run, which keeps all of it; and a record
        that lacks some of it is made anew with what it holds.
        """
        wanted: dict[str, RunSpec] = {}
        for spec in specs:
            if spec not in self:
                known = wanted[spec.id].keep if spec.id in wanted else self._kept(spec)
                keep = {*spec.keep, *known}
                wanted[spec.id] = dataclasses.replace(spec, keep=tuple(sorted(keep)))
        return list(wanted.values())

    def load(self, spec: RunSpec) -> Record:
        """The record of a spec. Raises KeyError if there is none, ValueError if it is damaged."""
        folder = self._folder(spec)
        if spec not in self:
            raise KeyError(f"no record of run {spec.id} in {self.root}")
        try:
            meta = json.loads((folder / "record.json").read_text())
            same = RunSpec.from_dict(meta["spec"]).id == spec.id
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the record {folder} is damaged ({error}); delete it") from error
        if not same:
            raise ValueError(f"the record {folder} holds another run's spec; delete it")
        return Record(folder, spec, meta["status"], meta)

    def save(
        self,
        spec: RunSpec,
        *,
        status: str,
        meta: Mapping[str, Any],
        history: pd.DataFrame,
        outputs: Mapping[str, Tensor],
        extras: Mapping[str, Mapping[str, Tensor]],
        details: pd.DataFrame,
    ) -> Record:
        """Write a record, whole or not at all; a record that is already there is replaced.

        Raises OSError, naming the folder, if it cannot be written.
        """
        temporary = paths.beside(self.root / spec.id)
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            history.to_parquet(temporary / "history.parquet", index=False)
            save_file(dict(outputs), temporary / "outputs.safetensors")
            for name, tensors in extras.items():
                save_file(dict(tensors), temporary / f"{name}.safetensors")
            if len(details):
                details.to_parquet(temporary / "details.parquet", index=False)
            fields = spec.to_dict() | ({"keep": spec.keep} if spec.keep else {})
            text = json.dumps({"spec": fields, "status": status, **meta}, indent=1)
            (temporary / "record.json").write_text(text)
            folder = self._folder(spec)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        except OSError as error:
            raise OSError(
                f"a record cannot be written to {self.root} ({error.strerror})"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return self.load(spec)
