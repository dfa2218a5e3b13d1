"""What a run is: all that determines it, and its identity."""

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from lsce import data
from lsce.data import Entry
from lsce.machine.values import MustBe, Value
from lsce.training import methods, networks

#: Part of every spec's identity; raise it when the same spec would train differently.
VERSION = 2

#: What a run can be asked to measure or keep beside the rest; none of it changes the run.
Extra = Literal["features", "information", "selected", "selective", "unseen", "weights"]


def _known(name: str) -> str:
    if name not in data.names():
        raise MustBe(f"one of {', '.join(data.names())}")
    return name


DataName = Annotated[str, AfterValidator(_known)]
NetworkName = Annotated[str, AfterValidator(networks.known)]
Share = Annotated[float, Field(gt=0, lt=1)]
Pixels = Annotated[int, Field(ge=8)]


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}; it must be {wanted}")


class Recipe(Value):
    """How a network is trained: SGD with Nesterov momentum and a one-cycle learning rate.

    Weight decay acts on convolution and linear weights only. Augmentation is a random crop after
    reflection padding by 4 pixels and a random horizontal flip.
    """

    batch_size: int = Field(128, ge=2)
    peak_learning_rate: float = Field(0.3, ge=0)
    warmup_fraction: float = Field(0.25, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its peak."""
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    milestones: Annotated[tuple[Share, ...], Strict(False)] | None = None
    """Instead of the one cycle: the learning rate starts at its peak and is divided by 10 after
    each of these shares of the training."""
    loss_factor: float | None = Field(None, gt=0)
    """The gradient is that of the loss times this."""
    clip_norm: float | None = Field(None, gt=0)
    """A gradient whose norm is larger is scaled down to it."""
    augment: bool = True
    """False: the images as they are, neither cropped nor flipped."""
    early_resolution: Annotated[tuple[Share, Pixels], Strict(False)] | None = None
    """Until this share of the steps, images are scaled down to this many pixels."""


class Balanced(Value):
    """Equally many images of every class, drawn by the seed; smaller sets are part of larger."""

    kind: Literal["balanced"] = "balanced"
    train_size: int = Field(ge=1)


class SomeClasses(Value):
    """Some of the classes, drawn by the seed and nested, with equally many images of each."""

    kind: Literal["some classes"] = "some classes"
    classes: int = Field(ge=2)
    train_size: int = Field(ge=1)


class LongTail(Value):
    """What `lsce.data.long_tail` leaves of a balanced set of `train_size`: the commonest class has
    `imbalance` times the images of the rarest."""

    kind: Literal["long tail"] = "long tail"
    train_size: int = Field(ge=1)
    imbalance: float = Field(gt=1)


Sample = Annotated[Balanced | SomeClasses | LongTail, Field(discriminator="kind")]


class TrueLabels(Value):
    """The data set's own labels."""

    kind: Literal["true"] = "true"


class Superclasses(Value):
    """The superclasses instead of the classes."""

    kind: Literal["superclasses"] = "superclasses"


class NoisyLabels(Value):
    """Wrong labels on training and validation images: drawn by a kind of `lsce.data.label_noise`
    and a rate, or as people err, at their rate (`NoisyLabels.of_people`)."""

    kind: Literal["noisy"] = "noisy"
    noise: Literal["symmetric", "asymmetric", "human", "instance-wise human"]
    rate: float = Field(gt=0, le=1)
    checksum: str | None = Field(None, min_length=64, max_length=64)
    """SHA-256 of the file that has the label of each image, where it is not drawn."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.noise == "instance-wise human") != (self.checksum is not None):
            wanted = "that of the labels' file" if self.checksum is None else "None"
            raise ValueError(f"checksum is {self.checksum}; with {self.noise} noise it is {wanted}")
        return self

    @classmethod
    def of_people(cls, entry: Entry, *, by_image: bool = False) -> "NoisyLabels":
        """Human noise on a data set, drawn for each class, or the very label of each image.

        Raises ValueError if nobody was asked about its images; by image also DataUnavailable or
        DataError, if their labels are not on this machine.
        """
        read, counts = entry.human_labels, entry.human_counts
        if counts is None or (by_image and read is None):
            raise ValueError(f"noise is 'human'; {entry.name} has no labels by people")
        rate = data.human_rate(counts())
        if not by_image or read is None:
            return cls(noise="human", rate=rate)
        return cls(noise="instance-wise human", rate=rate, checksum=read().checksum)

    @property
    def human(self) -> bool:
        return self.noise.endswith("human")

    @property
    def words(self) -> str:
        """As regimes are named."""
        return f"{self.noise}{' noise' * self.human}, {self.rate:.0%}"


Labels = Annotated[TrueLabels | Superclasses | NoisyLabels, Field(discriminator="kind")]


class _Identified(Value):
    @cached_property
    def id(self) -> str:
        """The first 16 hexadecimal digits of its JSON's SHA-256."""
        fields = {"version": VERSION, **self.model_dump(mode="json", exclude_none=True)}
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class RunSpec(_Identified):
    """Everything that determines a run; `spec.id` names its record."""

    data: DataName
    data_checksum: str = Field(default_factory=lambda fields: data.entry(fields["data"]).checksum)
    """SHA-256 of the data set's contents."""
    sample: Sample
    labels: Labels = TrueLabels()
    method: methods.AnyMethod
    network: NetworkName
    recipe: Recipe = Recipe()
    epochs: int = Field(ge=1)
    monitor_size: int = Field(ge=1)
    """Validation images that are measured after each epoch, equally many of each class (all of them
    after the last)."""
    seed: int = Field(ge=0)
    keep: Annotated[frozenset[Extra], Strict(False)] = Field(frozenset(), exclude=True)
    """Not part of the run's identity."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        sample, entry = self.sample, self.entry
        self.require_images("train_size", sample.train_size, "train")
        self.require_images("monitor_size", self.monitor_size, "validation")
        if isinstance(sample, SomeClasses):
            most = entry.num_classes
            _require(sample.classes < most, "classes", sample.classes, f"below all {most}")
        if isinstance(sample, LongTail):
            largest = sample.train_size // self.classes
            wanted = f"at most the {largest} images of a class"
            _require(sample.imbalance <= largest, "imbalance", f"{sample.imbalance:g}", wanted)
        early, pixels, kind = self.recipe.early_resolution, entry.pixels, self.labels.kind
        if early and early[1] >= pixels:
            raise ValueError(f"early_resolution is {early}; its pixels must be below {pixels}")
        if kind != "true" and not isinstance(sample, Balanced):
            raise ValueError(f"labels are {kind}; they must be true where images are left out")
        if isinstance(self.labels, NoisyLabels) and self.labels.human:
            rate = NoisyLabels.of_people(entry).rate
            wanted = f"{rate:g}, the share of {entry.words}'s labels by people that are wrong"
            _require(self.labels.rate == rate, "rate", self.labels.rate, wanted)
        self._check_kept()
        self.method.check(self)
        return self

    def _check_kept(self) -> None:
        sample, of_classes = self.sample, not isinstance(self.labels, Superclasses)
        several = sample.train_size > self.classes  # else no class can collapse
        possible = {
            "information": of_classes and isinstance(sample, Balanced),
            "features": of_classes and several and not isinstance(sample, LongTail),
            "unseen": isinstance(sample, SomeClasses),
        }
        for extra, fits in possible.items():
            if extra in self.keep and not fits:
                raise ValueError(f"keep is {sorted(self.keep)}; this run has no {extra!r}")

    @property
    def entry(self) -> Entry:
        """What its data set is."""
        return data.entry(self.data)

    @property
    def classes(self) -> int:
        """Classes whose images it is trained and tested on."""
        sample = self.sample
        return sample.classes if isinstance(sample, SomeClasses) else self.entry.num_classes

    @property
    def num_classes(self) -> int:
        """Classes that the network tells apart."""
        coarse = isinstance(self.labels, Superclasses)
        return len(self.entry.superclasses) if coarse else self.classes

    @property
    def images(self) -> int:
        """Training images."""
        if not isinstance(self.sample, LongTail):
            return self.sample.train_size
        largest = self.sample.train_size // self.classes
        return sum(data.long_tail_counts(largest, self.classes, self.sample.imbalance))

    def images_of(self, split: str) -> int:
        """Images of its classes in a split of the data set."""
        return self.classes * self.entry.per_class(split)

    def require_images(self, name: str, count: int, split: str) -> None:
        """Raise ValueError unless a split has so many images, equally many of each class."""
        most = self.images_of(split)
        wanted = f"a multiple of the {self.classes} classes, at most {most:,}"
        _require(count <= most and count % self.classes == 0, name, count, wanted)

    @property
    def run(self) -> "RunSpec":
        """Itself, as an `Evaluation` has the run that it evaluates."""
        return self

    @property
    def needs(self) -> list["RunSpec"]:
        """The runs whose networks must be there before this one can start."""
        teacher = self.method.learns_from
        return [] if teacher is None else [teacher.keeping("weights")]

    def keeping(self, *extras: str) -> "RunSpec":
        """The same run that keeps these extras, too."""
        return self.model_copy(update={"keep": self.keep | set(extras)})

    def changed(self, **fields: Any) -> "RunSpec":
        """The same run with other fields, checked."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return RunSpec(**own | fields)


methods.Distillation.model_rebuild(_types_namespace={"RunSpec": RunSpec})


class Protocol(Value):
    """How a trained network is tested on corrupted and on attacked images: see
    `lsce.measures.robustness.examine`."""

    corrupted_images: int = Field(ge=1)
    """Test images that are corrupted and attacked, equally many of each class."""
    attacked_images: int = Field(ge=1)
    radii: Annotated[tuple[Annotated[float, Field(gt=0, le=255)], ...], Strict(False)]
    """Radii of the attacks in the maximum norm, in units of 1/255, ascending; and the one that an
    evaluation's scalars are of. A study judges at the one that it finds in all of its runs."""
    judged_radius: float
    pgd_steps: int = Field(ge=1)
    """Steps and random starts of the longest PGD, and queries of the Square attack."""
    pgd_restarts: int = Field(ge=1)
    square_queries: int = Field(ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        radii = list(self.radii)
        ascending = bool(radii) and radii == sorted(set(radii))
        _require(ascending, "radii", radii, "ascending numbers")
        judged = self.judged_radius
        _require(judged in radii, "judged_radius", f"{judged:g}", f"one of radii {radii}")
        return self

    @property
    def longest(self) -> str:
        """The name of the longest PGD."""
        return f"PGD-{self.pgd_steps} × {self.pgd_restarts}"


class Evaluation(_Identified):
    """The network of a run under a protocol; attacks are transferred from `source`."""

    run: RunSpec
    source: RunSpec
    protocol: Protocol

    @model_validator(mode="after")
    def _check(self) -> Self:
        run = self.run
        if not (isinstance(run.sample, Balanced) and isinstance(run.labels, TrueLabels)):
            raise ValueError("the run of an evaluation must have all classes with their labels")
        for name in ("corrupted_images", "attacked_images"):
            run.require_images(name, getattr(self.protocol, name), "test")
        return self

    @property
    def seed(self) -> int:
        return self.run.seed

    @property
    def keep(self) -> frozenset[Extra]:
        return self.run.keep

    @property
    def needs(self) -> list[RunSpec]:
        return [self.run.keeping("weights"), self.source.keeping("weights")]


#: What a sweep does: train a run or evaluate one.
Task = RunSpec | Evaluation


def task_of(fields: dict[str, Any]) -> Task:
    """The task that a dictionary, as `model_dump` makes it, describes."""
    return Evaluation(**fields) if "protocol" in fields else RunSpec(**fields)
