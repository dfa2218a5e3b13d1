"""Is smoothing of more use with more classes?"""

import itertools
from collections.abc import Iterator
from typing import Annotated, Self

import pandas as pd
from pydantic import Field, model_validator

from lsce import data, studies
from lsce.judging import claims
from lsce.judging.claims import MAIN
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import Parameters, Positive, Regime, Some, parameter
from lsce.studies.study import Labelled, Study
from lsce.training.spec import Superclasses, TrueLabels

#: The names of the designs beside the main one of equal steps.
EQUAL_EPOCHS, SAME_IMAGES = "equal epochs", "same images"

#: Words for a gain → the claim whose effect it is.
GAINS = {
    "error, points": "more-with-more-classes",
    "NLL gap, nats": "less-overfitting-with-more-classes",
}


class ClassesParameters(Parameters):
    class_run: Regime = parameter(
        Regime(network="resnet6", train_size=4500, epochs=10, monitor_size=1000),
        "the run with all classes; those with fewer have as many images of each",
    )
    class_counts: Some[Annotated[int, Field(ge=2)]] = parameter(
        (5, 100), "numbers of classes, from 2 on"
    )
    judged_epsilon: Positive = parameter(
        0.1, "the ε at which the claims are judged, against 0", le=1
    )

    @property
    def judged(self) -> float:
        return self.judged_epsilon

    @model_validator(mode="after")
    def _check_counts(self) -> Self:
        most = data.entry(self.data_name).num_classes
        if max(self.class_counts) > most:
            wanted = f"whole numbers from 2 to {most}"
            raise ValueError(f"class_counts is {list(self.class_counts)}; it must be {wanted}")
        return self


class NumberOfClasses(Study):
    """`class_run`, which has all classes, with nested random subsets of them and as many images of
    each, at ε = 0 and at the judged one.

    The main group takes as many steps whatever the classes, "equal epochs" as many epochs; and
    "same images" labels all images with their classes and with their superclasses.
    """

    Parameters = ClassesParameters
    columns = {
        "train_accuracy": "training accuracy",
        "top1_error": "test error",
        "nll_gap": "NLL gap",
        "debiased_ce": "debiased CE",
        "temperature": "T",
    }
    percent = {"train_accuracy", "top1_error"}

    def runs(self) -> Iterator[Labelled]:
        p, run, epsilons = self.parameters, self.parameters.class_run, [0.0, self.judged]
        entry, batch = data.entry(p.data_name), run.recipe.batch_size
        classes, size = entry.num_classes, run.images(p.data_name)
        steps = run.epochs * max(1, size // batch)
        for group, count in itertools.product((MAIN, EQUAL_EPOCHS), p.class_counts):
            epochs = run.epochs
            if group == MAIN:
                epochs = round(steps / max(1, size * count // classes // batch))
            regimes = {f"{count} classes": run.changed(epochs=epochs)}
            yield from self.smoothed(group, regimes, epsilons, classes=count)
        for words, labels in {
            f"{len(entry.superclasses)} superclasses": Superclasses(),
            f"{classes} classes": TrueLabels(),
        }.items():
            yield from self.smoothed(SAME_IMAGES, {words: run}, epsilons, labels=labels)

    def _designs(self, main: Evidence) -> dict[str, pd.DataFrame]:
        others = {name: main.others[name].table for name in (EQUAL_EPOCHS, SAME_IMAGES)}
        return {"equal steps": main.table} | others

    def errors(self, main: Evidence) -> pd.DataFrame:
        parts = [table.assign(panel=design) for design, table in self._designs(main).items()]
        columns = ["panel", "arm", "classes", "seed", "top1_error"]
        return pd.concat(parts)[columns].rename(columns={"top1_error": "value"})

    def gains(self, main: Evidence) -> pd.DataFrame:
        """What the judged ε gains by the number of classes: columns panel, arm, classes, seed and
        value. What an effect is, a claim says."""
        claim_of = {claim.id: claim for claim in studies.claims_of(self.notebook)}
        arm, parts = f"gain of ε = {self.judged:g}", []
        for (words, name), (design, table) in itertools.product(
            GAINS.items(), self._designs(main).items()
        ):
            claim, panel = claim_of[name], f"{design}: {words}"
            for classes, rows in table.groupby("classes"):
                gain = claims.smoothing_effects(claim, rows, claim.measure, self.judged)
                effects = gain.rename("value").reset_index()
                parts.append(effects.assign(panel=panel, arm=arm, classes=classes))
        return pd.concat(parts, ignore_index=True)
