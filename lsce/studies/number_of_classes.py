"""Is smoothing of more use with more classes?"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import Field, model_validator

from lsce import data, studies
from lsce.judging import judgements, rule
from lsce.judging.claims import MAIN, Claim
from lsce.results.run import Run
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import Parameters, Positive, Regime, Some, parameter
from lsce.studies.study import Labelled, Study, table_of
from lsce.training import networks
from lsce.training.spec import Superclasses, TrueLabels

#: The names of the designs beside the main one of equal steps.
EQUAL_EPOCHS, SAME_IMAGES = "equal epochs", "same images"


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
        "classes_per_feature": "classes ÷ width",
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

    def table(self, pairs: Iterable[tuple[Labelled, Run]]) -> pd.DataFrame:
        """With `classes_per_feature`: the classes over the network's penultimate features."""
        pairs = list(pairs)
        table = table_of(pairs)
        widths = [networks.width(label.task.run.network) for label, _ in pairs]
        return table.assign(classes_per_feature=table["classes"] / widths)

    def _designs(self, main: Evidence) -> dict[str, pd.DataFrame]:
        """The tables of the designs, by the words that claims have for them."""
        return {words: main.groups[name].table for name, words in self._claims()[0].groups.items()}

    def _claims(self) -> list[Claim]:
        """The claims on a gain by the number of classes."""
        return [claim for claim in studies.claims_of(self.notebook) if claim.contrast]

    def errors(self, main: Evidence) -> pd.DataFrame:
        parts = [table.assign(panel=design) for design, table in self._designs(main).items()]
        columns = ["panel", "arm", "classes", "seed", "top1_error"]
        return pd.concat(parts)[columns].rename(columns={"top1_error": "value"})

    def gains(self, main: Evidence) -> pd.DataFrame:
        """What the judged ε gains by the number of classes, in the claims' units: columns row (the
        measure), column (the design), claim, arm, classes, seed and value."""
        arm, parts = f"gain of ε = {self.judged:g}", []
        for claim, (design, table) in itertools.product(
            self._claims(), self._designs(main).items()
        ):
            name = self.columns[claim.measure].removeprefix("test ")
            about = {"row": f"{name}, {claim.unit}", "column": design, "claim": claim.id}
            for classes, rows in table.groupby("classes"):
                gain = judgements.smoothing_effects(claim, rows, claim.measure, self.judged)
                effects = gain.rename("value").reset_index()
                parts.append(effects.assign(**about, arm=arm, classes=classes))
        return pd.concat(parts, ignore_index=True)

    def contrasts(self, main: Evidence) -> pd.DataFrame:
        """How much more the judged ε gains with the most classes than with the fewest, a row a
        claim and design, in the claim's unit.

        Columns: measure and unit; design; fewest and most, the classes; per_fewest and per_most,
        these over the penultimate width; gain_fewest and gain_most, means over seeds; effect, the
        difference as `lsce.judging.rule.Effect` (None without a complete pair); verdict; and
        overall, the verdict over the designs.
        """
        gains = self.gains(main).groupby(["claim", "column", "classes"])["value"].mean()
        rows = []
        for claim in self._claims():
            judgements = main.judgements.get(claim.id, [])
            overall = rule.combine(each.verdict for each in judgements) if judgements else ""
            for judgement in judgements:
                design = judgement.regime.partition(": ")[0]
                table = self._designs(main)[design]
                ends = [table["classes"].min(), table["classes"].max()]
                per_feature = table.groupby("classes")["classes_per_feature"].first()
                row: dict[str, Any] = {"measure": self.columns[claim.measure]}
                row |= {"unit": claim.unit, "design": design}
                for end, classes in zip(("fewest", "most"), ends, strict=True):
                    row |= {end: classes, f"per_{end}": per_feature[classes]}
                    row[f"gain_{end}"] = gains.get((claim.id, design, classes), math.nan)
                row |= {"effect": judgement.effect, "verdict": judgement.verdict}
                rows.append(row | {"overall": overall})
        return pd.DataFrame(rows)
