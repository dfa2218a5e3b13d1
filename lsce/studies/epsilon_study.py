"""Does smoothing reduce over-fitting, and does it lower the error, beside weight decay and early
stopping?"""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from lsce import data
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
    equal_effort,
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
    compared_epsilons: Epsilons | None = parameter(
        None, "ε beside other methods; None: as many as these have settings"
    )
    weight_decays: Settings = parameter((0.0005, 0.002), "weight decays for plain cross entropy")


class EpsilonStudy(Study):
    """Every ε in every regime; and two groups of runs beside it.

    "fractions": `fraction_run` with these fractions of its training images, for as many more
    epochs, so that all take the same number of steps. "alternatives": the compared regimes with
    plain cross entropy and each of `weight_decays`, and with `compared_epsilons`; these keep the
    epoch that validation chose.
    """

    Parameters = EpsilonParameters
    columns = {
        "top1_error": "top-1 error",
        "top5_error": "top-5 error",
        "train_accuracy": "train accuracy",
        "train_nll": "train NLL",
        "test_nll": "test NLL",
        "nll_gap": "gap",
    }
    percent = {"top1_error", "top5_error", "train_accuracy"}

    def runs(self) -> Iterator[Labelled]:
        p = self.parameters
        yield from self.smoothed(MAIN, p.regimes | p.more_regimes, p.epsilons)
        epsilons = p.fraction_epsilons or (0.0, p.judged)
        yield from self.smoothed("fractions", self._fractions(), epsilons)
        tuned, decays = equal_effort(p, "weight_decays")
        group, keep = "alternatives", ("selected",)
        yield from self.smoothed(group, p.compared, [0.0, *tuned], keep=keep)
        for (name, regime), decay in itertools.product(p.compared.items(), decays):
            recipe = regime.recipe.model_copy(update={"weight_decay": decay})
            words = f"weight decay {decay:g}".replace("-", "−")
            decayed = {name: regime.changed(recipe=recipe)}
            for label in self.smoothed(group, decayed, [0.0], keep=keep):
                yield replace(label, method="weight decay", setting=decay, arm=words)

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
        columns = [
            (f"{split}_{measure}", f"{{regime}}: {words}", arm)
            for measure, words in (("nll", "NLL"), ("accuracy", "accuracy"))
            for split, arm in (("train", "training"), ("test", "test"))
        ]
        return tables.tidy(main.table, columns)

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

    def alternatives(self, main: Evidence) -> pd.DataFrame:
        """The error by ε, by weight decay, and stopped early."""
        table = main.others["alternatives"].table
        smoothed = table[table["method"] == "smoothing"]
        chosen_by = "selected_validation_accuracy"
        stopped = tables.compared(smoothed, "top1_error_selected", chosen_by)
        stopped = stopped.assign(method="early stopping", arm=stopped["arm"] + ", stopped early")
        numbers = tables.compared(table, "top1_error", self.chosen_by)
        return pd.concat([numbers, stopped], ignore_index=True)
