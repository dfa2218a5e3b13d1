"""The parameters of pages: typed values with one line of explanation each.

A notebook's cell of parameters, the profiles, and the documentation of parameters are checked
against these models. A parameter's default is its value in a notebook that is opened in Jupyter.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, Strict, model_validator

from lsce import data
from lsce.machine.values import MustBe, Value
from lsce.training.methods import Method
from lsce.training.spec import (
    Balanced,
    DataName,
    Extra,
    Labels,
    LongTail,
    NetworkName,
    Recipe,
    RunSpec,
    Sample,
    SomeClasses,
    TrueLabels,
)

#: The ε that is recommended most often.
USUAL_EPSILON = 0.1


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise MustBe("of values that differ")
    return values


#: Values of which none is there twice, and one or more of these. Lists are taken, too.
T = TypeVar("T")
EachOnce = Annotated[tuple[T, ...], Strict(False), AfterValidator(_once)]
Some = Annotated[tuple[T, ...], Strict(False), AfterValidator(_once), Field(min_length=1)]

Epsilon = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Epsilons = Some[Epsilon]
Seeds = Some[Annotated[int, Field(ge=0)]]
Settings = Some[Annotated[float, Field(ge=0)]]
Names = Some[str]


class Regime(Value):
    """How a network is trained, whatever it is trained by."""

    network: NetworkName
    train_size: int | None = Field(None, ge=1)
    """All of the data set's, unless given."""
    epochs: int = Field(ge=1)
    monitor_size: int | None = Field(None, ge=1)
    """Validation images that are measured after each epoch: all, unless given."""
    recipe: Recipe = Recipe()

    def images(self, data_name: str) -> int:
        """Training images."""
        return self.train_size or data.entry(data_name).sizes["train"]

    def spec(
        self,
        data_name: str,
        seed: int,
        method: Method,
        *,
        classes: int | None = None,
        imbalance: float | None = None,
        labels: Labels = TrueLabels(),
        keep: Sequence[Extra] = (),
    ) -> RunSpec:
        """The run of a seed, with some of the classes and as many images of each, or a long tail of
        them, or all."""
        entry = data.entry(data_name)
        size, monitored = self.images(data_name), self.monitor_size or entry.sizes["validation"]
        sample: Sample = Balanced(train_size=size)
        if classes is not None and classes != entry.num_classes:
            sample = SomeClasses(classes=classes, train_size=size * classes // entry.num_classes)
            monitored = monitored * classes // entry.num_classes
        elif imbalance is not None:
            sample = LongTail(train_size=size, imbalance=imbalance)
        return RunSpec(
            data=data_name,
            sample=sample,
            labels=labels,
            method=method,
            network=self.network,
            recipe=self.recipe,
            epochs=self.epochs,
            monitor_size=monitored,
            seed=seed,
            keep=frozenset(keep),
        )

    def fitted(self, data_name: str) -> "Regime":
        """The same with about as many images as another data set can have, equally many of each of
        its classes."""
        entry, sizes = data.entry(data_name), {}
        for name, split in (("train_size", "train"), ("monitor_size", "validation")):
            wanted = min(getattr(self, name) or entry.sizes[split], entry.sizes[split])
            sizes[name] = max(1, wanted // entry.num_classes) * entry.num_classes
        return self.changed(**sizes)

    def changed(self, **fields: Any) -> "Regime":
        """The same with other fields."""
        return Regime(**vars(self) | fields)


Regimes = Annotated[dict[str, Regime], Field(min_length=1)]

#: The regimes of the profile quick: a tenth of the images seen ten times, which a small network
#: over-fits, and all of them seen once, which is as many training steps.
QUICK_REGIMES = {
    "10% of images, 10 epochs": Regime(
        network="resnet6", train_size=4500, epochs=10, monitor_size=1000
    ),
    "all images, 1 epoch": Regime(network="resnet6", train_size=45000, epochs=1, monitor_size=1000),
}


def parameter(default: Any, description: str, **limits: Any) -> Any:
    """A parameter of a page: its value in a notebook that is opened in Jupyter, and one line of
    explanation."""
    return Field(default, description=description, **limits)


#: Whose runs a page shows: those of the machine that it is run on, or the recorded ones.
Shown = Literal["own", "recorded"]


def _folder(name: str) -> str:
    if not re.fullmatch(r"[\w-]+", name):
        raise MustBe("of letters, digits, - and _")
    return name


class Shows(Value):
    """Which runs a page shows."""

    profile: Annotated[str, AfterValidator(_folder)] = parameter(
        "quick",
        "a name for this machine's runs; figures of them are saved below figures/<profile>",
    )
    runs: Shown = parameter(
        "own", '"own": this machine\'s, trained where missing; "recorded": those of the project'
    )
    train_missing: bool = parameter(
        True, "False: a run of this machine that is missing is an error"
    )


class Parameters(Value):
    """The parameters that every page with runs has."""

    data_name: DataName = parameter(
        "cifar-100", '"cifar-100", or "built-in": synthetic images with a known posterior'
    )
    seeds: Seeds = parameter((0, 1, 2), "each seed is one pair of runs more")
    judged_epsilon: Epsilon | None = parameter(
        None, "ε that claims compare with 0; None: of epsilons the nearest to 0.1"
    )

    @property
    def judged(self) -> float:
        """The ε at which claims are judged; ValueError if none can be."""
        return judged_of("epsilons", getattr(self, "epsilons"), self.judged_epsilon)

    @model_validator(mode="after")
    def _check_judged(self) -> Self:
        self.judged
        return self


def judged_of(name: str, epsilons: Sequence[float], wanted: float | None) -> float:
    """`wanted`, or the value above 0 that is nearest to the usual one; ValueError unless it is one
    of `epsilons` and can be compared with 0."""
    above = [epsilon for epsilon in epsilons if epsilon > 0]
    if 0 not in epsilons or not above:
        raise ValueError(f"{name} is {list(epsilons)}; it must hold 0, to compare with, and more")
    if wanted is None:
        return min(above, key=lambda epsilon: abs(epsilon - USUAL_EPSILON))
    if wanted not in above:
        raise ValueError(f"judged_epsilon is {wanted:g}; it must be one of {name} above 0, {above}")
    return wanted


class GridParameters(Parameters):
    """Those of a page whose main runs are every ε in every regime."""

    regimes: Regimes = parameter(
        QUICK_REGIMES,
        "name: the network, its training images and epochs (see lsce.studies.parameters.Regime)",
    )
    epsilons: Epsilons = parameter((0.0, 0.1, 0.3, 0.6), "values in [0, 1]; 0 must be one of them")


class ComparedParameters(GridParameters):
    """Those of a page that trains more in some of its regimes."""

    compared_regimes: Names | None = parameter(
        None, "the regimes in which more is trained; None: the first"
    )

    @model_validator(mode="after")
    def _check_compared(self) -> Self:
        names, known = list(self.compared_regimes or ()), ", ".join(self.regimes)
        if not set(names) <= set(self.regimes):
            raise ValueError(f"compared_regimes is {names}; it must be some of {known}")
        return self

    @property
    def compared(self) -> dict[str, Regime]:
        """The compared regimes by their names."""
        names = self.compared_regimes or [*self.regimes][:1]
        return {name: self.regimes[name] for name in names}


def equal_effort(p: Any, *rivals: str) -> tuple[list[float], ...]:
    """The values of ε of parameters `p` that are compared and the settings of each rival, a
    parameter of `p`: as many of each, so that all are tuned alike.

    Without `compared_epsilons` as many values are taken as the rivals have settings, from the
    judged one upwards and then below it; where there are fewer, rivals keep their first ones.
    Raises ValueError if the numbers differ.
    """
    above = [epsilon for epsilon in p.epsilons if epsilon > 0]
    compared, settings = p.compared_epsilons, [list(getattr(p, name)) for name in rivals]
    if compared is None:
        most = max(map(len, settings))
        compared = sorted(above, key=lambda epsilon: (epsilon < p.judged, epsilon))[:most]
        settings = [each[: len(compared)] if len(each) == most else each for each in settings]
    if not compared or not set(compared) <= set(above):
        wanted = f"some of epsilons above 0, {above}"
        raise ValueError(f"compared_epsilons is {list(compared)}; it must be {wanted}")
    for name, values in zip(rivals, settings, strict=True):
        if len(values) != len(compared):
            raise ValueError(
                f"{name} is {values}; it must be {len(compared)} values, as many as there are of "
                f"compared_epsilons {list(compared)}, for equal tuning"
            )
    return list(compared), *settings
