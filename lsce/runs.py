"""What a run is: its spec, its identity, and the record that it leaves in the store.

A record is a folder named by the spec's hash::

    data/runs/<id>/record.json           spec, status, final scalars, temperature, timing, machine
    data/runs/<id>/history.parquet       one row an epoch
    data/runs/<id>/outputs.safetensors   logits and labels, validation and test
    data/runs/<id>/features.safetensors  penultimate features, where a study asked for them

It is written under a temporary name and renamed, so a record is there whole or not at all.
"""

import dataclasses
import hashlib
import json
import math
import os
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
    model: str
    epsilon: float
    convention: str = "exclude-true"
    recipe: Recipe = field(default_factory=Recipe)
    epochs: int
    #: Validation images that are measured after each epoch, an equal number a class (all of them
    #: after the last).
    monitor_size: int = 5_000
    seed: int
    #: Extra tensors that the record must hold ("features"); they do not change the run.
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.data in ("cifar-100", "built-in"), "data", self.data, "cifar-100 or built-in")
        for name, low in (("epochs", 1), ("seed", 0)):
            value = getattr(self, name)
            require(_whole(value, low), name, value, f"a whole number ≥ {low}")
        for name, most in (("train_size", 45_000), ("monitor_size", 5_000)):
            value = getattr(self, name)
            fits = _whole(value, 100) and value <= most and value % 100 == 0
            require(fits, name, value, f"a multiple of the 100 classes, at most {most:,}")
        require(self.model in MODELS, "model", self.model, f"one of {', '.join(MODELS)}")
        in_range = _number(self.epsilon) and 0 <= self.epsilon <= 1
        require(in_range, "epsilon", self.epsilon, "a number in [0, 1]")
        conventions = get_args(Convention)
        require(
            self.convention in conventions,
            "convention",
            self.convention,
            "one of " + ", ".join(conventions),
        )
        kinds = f"one of {', '.join(NOISE_KINDS)} or None"
        require(self.noise in (None, *NOISE_KINDS), "noise", self.noise, kinds)
        if self.noise is None:
            require(self.noise_rate is None, "noise_rate", self.noise_rate, "None without noise")
        else:
            rate = self.noise_rate
            require(_number(rate) and 0 < rate <= 1, "noise_rate", rate, "a number in (0, 1]")
        require(set(self.keep) <= {"features"}, "keep", self.keep, "empty or ('features',)")
        # 0 and 0.0 are the same parameter and must name the same record.
        object.__setattr__(self, "epsilon", float(self.epsilon))

    def to_dict(self) -> dict[str, Any]:
        """The fields that identify the run; a field that is None is left out."""
        fields = dataclasses.asdict(self)
        del fields["keep"]
        fields["recipe"] = _known(fields["recipe"])
        return _known(fields)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "RunSpec":
        return cls(**{**fields, "recipe": Recipe(**fields["recipe"])})

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
        """`{train,validation,test}_features` float32 (N, D) and `train_labels` int64 (N,)."""
        return load_file(self.folder / "features.safetensors")


class Store:
    """The records of one machine, each in a folder named by its spec's hash."""

    def __init__(self, root: Path | None = None):
        self.root = root or paths.RUNS

    def _folder(self, spec: RunSpec) -> Path:
        return self.root / spec.id

    def __contains__(self, spec: RunSpec) -> bool:
        folder = self._folder(spec)
        names = ["record.json", *(f"{part}.safetensors" for part in spec.keep)]
        return all((folder / name).is_file() for name in names)

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
        features: Mapping[str, Tensor],
    ) -> Record:
        """Write a record, whole or not at all; a record that is already there is replaced.

        Raises OSError, naming the folder, if it cannot be written.
        """
        temporary = self.root / f".{spec.id}.{os.getpid()}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            history.to_parquet(temporary / "history.parquet", index=False)
            save_file(dict(outputs), temporary / "outputs.safetensors")
            if spec.keep:
                save_file(dict(features), temporary / "features.safetensors")
            text = json.dumps({"spec": spec.to_dict(), "status": status, **meta}, indent=1)
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
