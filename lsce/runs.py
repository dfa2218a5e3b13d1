"""What a run is: its spec, its identity, and the record that it leaves in the store.

A record is a folder named by the spec's hash::

    data/runs/<id>/record.json           spec, status, final scalars, temperature, timing, machine
    data/runs/<id>/history.parquet       one row an epoch
    data/runs/<id>/outputs.safetensors   logits and labels, validation and test
    data/runs/<id>/features.safetensors  penultimate features, where a study asked for them
    data/runs/<id>/selected.safetensors  logits at the validation-chosen epoch, likewise

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

from lsce import paths
from lsce.losses import Convention
from lsce.models import MODELS
from lsce.noise import KINDS as NOISE_KINDS

#: Part of every spec's identity; raise it when the same spec would train differently.
RECIPE_VERSION = 1

#: Losses that smoothing is compared with (`lsce.baselines`), and the name of their parameter.
LOSSES = {"focal": "gamma", "maxsup": "weight", "gce": "q", "forward": None, "backward": None}

#: What a record can be asked to hold beside the rest; none of it changes the run.
EXTRAS = ("features", "information", "selected")


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
        if self.milestones is not None:
            fits = all(_number(share) and 0 < share < 1 for share in self.milestones)
            require(fits, "milestones", self.milestones, "shares between 0 and 1, or None")
            object.__setattr__(self, "milestones", tuple(self.milestones))


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


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
        require(self.model in MODELS, "model", self.model, f"one of {', '.join(MODELS)}")
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
        self._check_method()
        known = set(self.keep) <= set(EXTRAS)
        require(known, "keep", self.keep, f"some of {', '.join(EXTRAS)}")
        fits = few is None or "information" not in self.keep
        require(fits, "keep", self.keep, "without 'information' where classes are left out")
        # 0 and 0.0 are the same parameter and must name the same record.
        for name in ("epsilon", "noise_rate", "loss_parameter", "mixup"):
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
        if loss in ("forward", "backward"):
            require(self.noise is not None, "noise", self.noise, f"given for {loss} correction")

    def to_dict(self) -> dict[str, Any]:
        """The fields that identify the run; a field that is None is left out."""
        fields = dataclasses.asdict(self)
        del fields["keep"]
        fields["recipe"] = _known(fields["recipe"])
        return _known(fields)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "RunSpec":
        keep = tuple(fields.get("keep", ()))
        return cls(**{**fields, "recipe": Recipe(**fields["recipe"]), "keep": keep})

    @cached_property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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


class Store:
    """The records of one machine, each in a folder named by its spec's hash."""

    def __init__(self, root: Path | None = None):
        self.root = root or paths.RUNS

    def _folder(self, spec: RunSpec) -> Path:
        return self.root / spec.id

    def __contains__(self, spec: RunSpec) -> bool:
        file = self._folder(spec) / "record.json"
        if not spec.keep:
            return file.is_file()
        try:
            return set(spec.keep) <= set(json.loads(file.read_text())["spec"].get("keep", ()))
        except (OSError, ValueError, KeyError):
            return False

    def missing(self, specs: Iterable[RunSpec]) -> list[RunSpec]:
        """The specs without a record, each once, in the order given.

        Specs that differ only in what they keep are one run, which keeps all of it.
        """
        wanted: dict[str, RunSpec] = {}
        for spec in specs:
            if spec not in self:
                keep = set(spec.keep) | set(wanted[spec.id].keep if spec.id in wanted else ())
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
