"""Does smoothing reduce over-fitting, and does it lower the error, beside weight decay and early
stopping?"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Self

import numpy as np
import pandas as pd
from pydantic import model_validator

from lsce import data
from lsce.judging.arms import by_regime, plain
from lsce.judging.claims import MAIN
from lsce.results.run import WIDTHS
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import (
    ComparedParameters,
    Epsilons,
    Regime,
    Settings,
    Share,
    Some,
    parameter,
)
from lsce.studies.study import Labelled, Study


class EpsilonParameters(ComparedParameters):
    more_regimes: dict[str, Regime] = parameter(
        {
            "10% of images, 5 epochs, Inception": Regime(
                network="inception-tiny", train_size=4500, epochs=5, monitor_size=1000
            )
        },
        "regimes of this page alone: here another network",
    )
    fractions: Some[Share] = parameter((0.1, 1.0), "shares of the training images")
    fraction_run: Regime = parameter(
        Regime(network="resnet6", epochs=1, monitor_size=1000),
        "the run with all training images; with fewer it has as many more epochs",
    )
    fraction_epsilons: Epsilons | None = parameter(
        None, "the values of ε at each share; None: 0 and the judged one"
    )
    weight_decays: Settings = parameter(
        (0.0005, 0.002), "weight decays in the compared regimes, the usual one among them"
    )
    crossed_epsilons: Epsilons | None = parameter(
        None, "the values of ε at each weight decay; None: 0 and the judged one"
    )

    @model_validator(mode="after")
    def _check_crossed(self) -> Self:
        crossed = list(self.crossed_epsilons or (0.0,))
        if 0 not in crossed:
            raise ValueError(f"crossed_epsilons is {crossed}; it must hold 0, to compare with")
        return self


class EpsilonStudy(Study):
    """Every ε in every regime; and three groups of runs beside it.

    "fractions": `fraction_run` with these fractions of its training images, for as many more
    epochs, so that all take the same number of steps. "early stopping": every ε in the compared
    regimes, where plain cross entropy keeps the epoch that validation chose. "weight decay": there,
    too, each of `crossed_epsilons` with each of `weight_decays`; an ε is a method here, and the
    weight decay its setting.
    """

    Parameters = EpsilonParameters
    columns = {
        "top1_error": "top-1 error",
        "top5_error": "top-5 error",
        "train_accuracy": "train accuracy",
        "train_nll": "train NLL",
        "test_nll": "test NLL",
        "nll_scaled": "test NLL, scaled",
        "nll_gap": "gap",
    }
    percent = {"top1_error", "top5_error", "train_accuracy"}

    def runs(self) -> Iterator[Labelled]:
        p = self.parameters
        yield from self.smoothed(MAIN, p.regimes | p.more_regimes, p.epsilons)
        epsilons = p.fraction_epsilons or (0.0, p.judged)
        yield from self.smoothed("fractions", self._fractions(), epsilons)
        for epsilon in p.epsilons:
            keep = ("selected",) if epsilon == 0 else ()
            yield from self.smoothed("early stopping", p.compared, [epsilon], keep=keep)
        yield from self._crossed()

    def _crossed(self) -> Iterator[Labelled]:
        p = self.parameters
        epsilons = p.crossed_epsilons or (0.0, p.judged)
        for (name, regime), decay in itertools.product(p.compared.items(), p.weight_decays):
            recipe = regime.recipe.model_copy(update={"weight_decay": decay})
            words = f"weight decay {decay:g}".replace("-", "−")
            decayed = {name: regime.changed(recipe=recipe)}
            for label in self.smoothed("weight decay", decayed, epsilons):
                arm = f"{label.arm}, {words}"
                yield replace(label, method=label.arm, setting=decay, arm=arm)

    def _fractions(self) -> dict[str, Regime]:
        p, run = self.parameters, self.parameters.fraction_run
        classes, images = data.entry(p.data_name).num_classes, run.images(p.data_name)
        return {
            f"{fraction:.0%} of the images": run.changed(
                train_size=classes * max(1, round(fraction * images / classes)),
                epochs=round(run.epochs / fraction),
            )
            for fraction in p.fractions
        }

    def errors(self, main: Evidence) -> pd.DataFrame:
        columns = ("top1_error", "top-1 error"), ("top5_error", "top-5 error")
        return tables.tidy(main.table, [(*names, "{regime}") for names in columns])

    def both_sides(self, main: Evidence) -> pd.DataFrame:
        """NLL on both sides of the gap, the gap itself, and accuracy on both sides: three panels a
        regime."""
        columns = [
            ("train_nll", "{regime}: NLL", "training"),
            ("test_nll", "{regime}: NLL", "test"),
            ("nll_scaled", "{regime}: NLL", "test, temperature scaled"),
            ("nll_gap", "{regime}: gap in NLL", "test − training"),
            ("train_accuracy", "{regime}: accuracy", "training"),
            ("test_accuracy", "{regime}: accuracy", "test"),
        ]
        parts = [tables.tidy(rows, columns) for _, rows in by_regime(main.table)]
        return pd.concat(parts, ignore_index=True)

    def histories(self, main: Evidence) -> pd.DataFrame:
        numbers = tables.mean_histories(main, ["train_nll", "validation_nll"])
        return numbers[numbers["epsilon"].isin(tables.few(self.epsilons, self.judged))]

    def histograms(self, main: Evidence) -> pd.DataFrame:
        """Densities over the test images, pooled over seeds, for a few values of ε.

        quantity is "confidence" or "gap": the largest logit less the mean of the others. Columns:
        regime, epsilon, quantity, left, right, density.
        """
        shown = tables.few(self.epsilons, self.judged)
        histograms: dict[tuple[str, float, str], list[np.ndarray]] = {}
        for label, run in main.pairs:
            if label.smoothed and label.setting in shown:  # a run that diverged has no counts
                for quantity, counts in run.counts.items():
                    key = label.regime, label.setting, quantity
                    histograms.setdefault(key, []).append(counts)
        parts = []
        for (regime, epsilon, quantity), histogram in histograms.items():
            width, bins = WIDTHS[quantity], max(map(len, histogram))
            total = np.sum([np.pad(part, (0, bins - len(part))) for part in histogram], axis=0)
            edges = width * np.arange(bins + 1)
            names = {"regime": regime, "epsilon": epsilon, "quantity": quantity}
            bars = {"left": edges[:-1], "right": edges[1:]}
            density = total / (total.sum() * width)
            parts.append(pd.DataFrame({**names, **bars, "density": density}))
        return pd.concat(parts, ignore_index=True)

    def by_images(self, main: Evidence) -> pd.DataFrame:
        columns = [
            ("nll_gap", "test NLL − training NLL, nats", "ε"),
            ("top1_error", "top-1 error", "ε"),
        ]
        numbers = tables.tidy(main.others["fractions"].table, columns, x="train_size")
        return numbers.assign(arm=numbers["epsilon"].map("ε = {:g}".format))

    def stopped(self, main: Evidence) -> pd.DataFrame:
        """The error by ε, and of plain cross entropy that is stopped early."""
        table = main.others["early stopping"].table
        chosen_by = "selected_validation_accuracy"
        stopped = tables.compared(table[plain(table)], "top1_error_selected", chosen_by)
        stopped = stopped.assign(method="early stopping", arm=stopped["arm"] + ", stopped early")
        numbers = tables.compared(table, "top1_error", self.chosen_by)
        return pd.concat([numbers, stopped], ignore_index=True)

    def crossed(self, main: Evidence) -> pd.DataFrame:
        """Error (percent) and NLL by weight decay and ε; then the same less that of ε = 0 with the
        same weight decay and seed."""
        table = main.others["weight decay"].table
        measures = {
            "error": "top-1 error",
            "nll": "NLL",
            "nll_scaled": "NLL after temperature scaling",
        }
        table = table.assign(weight_decay=table["setting"], error=100 * table["top1_error"])
        shown = {"": table}
        if (table["epsilon"] > 0).any():
            pair, names, less = ["regime", "weight_decay", "seed"], [*measures], table.copy()
            unsmoothed = table[table["epsilon"] == 0].set_index(pair)[names]
            less[names] -= unsmoothed.loc[pd.MultiIndex.from_frame(table[pair])].to_numpy()
            shown[", less that at ε = 0"] = less
        parts = [
            tables.tidy(part, [(name, "{regime}", words + ending)], x="weight_decay")
            for ending, part in shown.items()
            for name, words in measures.items()
        ]
        numbers = pd.concat(parts, ignore_index=True)
        numbers = numbers.rename(columns={"panel": "regime", "arm": "words"})
        numbers["arm"] = numbers["epsilon"].map("ε = {:g}".format)
        return tables.panelled(numbers, "regime", "words")
