"""What does smoothing do on long tails, with and without class weights?"""

import itertools
import math
from collections.abc import Iterator
from typing import Annotated

import pandas as pd
from pydantic import Field

from lsce import data
from lsce.judging import arms
from lsce.judging.claims import MAIN
from lsce.measures import long_tail
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import Epsilons, Parameters, Regime, Some, parameter
from lsce.studies.study import Labelled, Study
from lsce.training.methods import Method, Smoothing, WeightedSmoothing

#: Groups of classes (see `lsce.measures.long_tail.groups`) and their words.
SHOTS = {
    "many": "many-shot",
    "medium": "medium-shot",
    "few": "few-shot",
    "rare": "rarest fifth",
}


class WeightsParameters(Parameters):
    long_tail_run: Regime = parameter(
        Regime(network="resnet6", train_size=45000, epochs=4, monitor_size=1000),
        "what every run is, but for its images and loss; train_size is that of the balanced set",
    )
    imbalances: Some[Annotated[float, Field(gt=1)]] = parameter(
        (100.0,), "how many times more images the commonest class has than the rarest"
    )
    epsilons: Epsilons = parameter((0.0, 0.1), "values in [0, 1]; 0 must be one of them")


class ClassWeights(Study):
    """`long_tail_run` with each imbalance, a regime each: every ε without weights and with class
    weights; those above 0 with the weights on the samples (at ε = 0 that is the same), and the
    judged one with class weights in the other convention."""

    Parameters = WeightsParameters
    columns = {
        "top1_error": "error",
        "rare_accuracy": "accuracy, rarest fifth",
        "rare_predicted": "predicted as rarest fifth",
        "rare_elsewhere": "probability of it elsewhere",
        "debiased_ce": "debiased CE",
        "debiased_ce_scaled": "debiased CE, scaled",
    }
    percent = {"top1_error", "rare_accuracy", "rare_predicted", "rare_elsewhere"}

    def runs(self) -> Iterator[Labelled]:
        p, weighted = self.parameters, WeightedSmoothing
        methods: list[Method] = [Smoothing(epsilon=e) for e in p.epsilons]
        methods += [weighted(epsilon=e, weighting="terms") for e in p.epsilons]
        methods += [weighted(epsilon=p.judged, weighting="terms", convention="include-true")]
        methods += [weighted(epsilon=e, weighting="samples") for e in p.epsilons if e > 0]
        for imbalance in p.imbalances:
            run = {_regime(imbalance): p.long_tail_run}
            yield from self.trained(MAIN, run, methods, imbalance=imbalance)

    def errors(self, main: Evidence) -> pd.DataFrame:
        return tables.compared(main.table, "top1_error", self.chosen_by)

    def calibration(self, main: Evidence) -> pd.DataFrame:
        measures = {f"debiased_ce{end}": words for end, words in tables.BEFORE_AND_AFTER.items()}
        numbers = tables.compared_measures(main.table, measures, self.chosen_by)
        place = {regime: index for index, regime in enumerate(main.regimes)}
        return numbers.sort_values("regime", key=lambda names: names.map(place), kind="stable")

    def shots(self, main: Evidence) -> pd.DataFrame:
        measures = {f"{name}_accuracy": words for name, words in SHOTS.items()}
        return self._cases(main, measures).dropna(subset="value")

    def images(self, main: Evidence) -> pd.DataFrame:
        """What is behind each group of classes: columns imbalance, group, classes, training images
        of each class (the range), test images, and the accuracy of plain networks on these (mean
        over seeds, NaN if none was measured)."""
        rows = []
        for imbalance in self.parameters.imbalances:
            counts, entry = self._counts(imbalance), data.entry(self.parameters.data_name)
            plain = main.table[arms.plain(main.table)]
            plain = plain[plain["regime"] == _regime(imbalance)]
            for name, classes in long_tail.groups(counts).items():
                number = int(classes.sum())
                if not number:
                    continue
                sizes = [count for count, inside in zip(counts, classes, strict=True) if inside]
                row = {"imbalance": imbalance, "group": SHOTS[name], "classes": number}
                row["training images of each"] = f"{min(sizes):,} to {max(sizes):,}"
                row["test images"] = number * entry.per_class("test")
                accuracy = plain.get(f"{name}_accuracy")
                row["plain accuracy"] = math.nan if accuracy is None else accuracy.mean()
                rows.append(row)
        return pd.DataFrame(rows)

    def trap(self, main: Evidence) -> pd.DataFrame:
        """How often the rarest classes are predicted, and how probable they are elsewhere."""
        measures = {"rare_elsewhere": "probability elsewhere", "rare_predicted": "share predicted"}
        return self._cases(main, measures)

    def _cases(self, main: Evidence, measures: dict[str, str]) -> pd.DataFrame:
        numbers = tables.stacked(main.table, measures)
        return numbers.rename(columns={"regime": "panel", "words": "case"})

    def optimum(self) -> pd.DataFrame:
        """What class weights and smoothing ask for, see `lsce.measures.long_tail`."""
        p, rows = self.parameters, []
        for imbalance, epsilon in itertools.product(p.imbalances, sorted(p.epsilons)):
            counts = self._counts(imbalance)
            row = {"imbalance": imbalance, "images": sum(counts)}
            row |= {"commonest, rarest class": f"{counts[0]}, {counts[-1]}", "ε": epsilon}
            elsewhere = long_tail.optimal_elsewhere(counts, epsilon)
            rows.append(row | {"rarest fifth elsewhere, at the optimum": elsewhere})
        return pd.DataFrame(rows)

    def _counts(self, imbalance: float) -> list[int]:
        """Training images of each class."""
        p = self.parameters
        classes = data.entry(p.data_name).num_classes
        largest = p.long_tail_run.images(p.data_name) // classes
        return data.long_tail_counts(largest, classes, imbalance)


def _regime(imbalance: float) -> str:
    return f"imbalance {imbalance:g}"
