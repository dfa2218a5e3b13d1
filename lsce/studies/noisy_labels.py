"""Does smoothing make training robust to wrong labels?"""

from collections.abc import Iterator, Mapping
from typing import Annotated

import pandas as pd
from pydantic import Field

from lsce import data
from lsce.judging.claims import MAIN
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import EachOnce, Epsilons, Parameters, Regime, Share, parameter
from lsce.studies.study import Labelled, Study
from lsce.training.methods import Correction, GeneralizedCE, Method, Smoothing
from lsce.training.spec import NoisyLabels, Recipe


class NoiseParameters(Parameters):
    # Few images for long, and no weight decay: wrong labels get learned by heart.
    noise_run: Regime = parameter(
        Regime(
            network="resnet6",
            train_size=1500,
            epochs=20,
            monitor_size=1000,
            recipe=Recipe(weight_decay=0.0),
        ),
        "what every run with wrong labels is, apart from its labels and its loss",
    )
    symmetric_rates: EachOnce[Share] = parameter(
        (0.4,), "shares of the labels that become any other class"
    )
    asymmetric_rates: EachOnce[Share] = parameter(
        (), "shares of the labels that become the next class of their superclass"
    )
    human_noise: bool = parameter(
        False, "wrong labels as people gave them, too, if the data set has such (CIFAR-100)"
    )
    human_labels: bool = parameter(
        False,
        "the label that a person gave each image; needs data/CIFAR-100_human.pt",
    )
    epsilons: Epsilons = parameter((0.0, 0.1, 0.6), "values in [0, 1]; 0 must be one of them")
    negative_epsilons: EachOnce[Annotated[float, Field(lt=0)]] = parameter(
        (-0.4,), "values of ε below 0, from the start and after a warm-up"
    )
    warmup_epochs: int = parameter(8, "epochs of plain cross entropy in such a warm-up", ge=1)
    gce_qs: EachOnce[Share] = parameter((0.7,), "generalised cross entropy: q in (0, 1]")


class NoisyLabelsStudy(Study):
    """`noise_run` with labels flipped at each rate, and as people err, a regime a kind and rate.

    By smoothing, negative smoothing with and without a warm-up, generalised cross entropy, and
    forward and backward correction with the true noise; and the group "clean" without noise, by
    smoothing. All keep the epoch that (noisy) validation chose."""

    Parameters = NoiseParameters
    columns = {
        "top1_error": "error",
        "top1_error_selected": "error, chosen",
        "memorised": "memorised",
        "recovered": "recovered",
        "debiased_ce": "debiased CE",
        "temperature": "T",
    }
    percent = {"top1_error", "top1_error_selected", "memorised", "recovered"}

    def runs(self) -> Iterator[Labelled]:
        p, keep = self.parameters, ("selected",)
        rivals: list[Method] = []
        for epsilon in p.negative_epsilons:
            rivals.append(Smoothing(epsilon=epsilon))
            rivals.append(Smoothing(epsilon=epsilon, warmup_epochs=p.warmup_epochs))
        rivals += [GeneralizedCE(q=q) for q in p.gce_qs]
        rivals += [Correction(direction="forward"), Correction(direction="backward")]
        yield from self.smoothed("clean", {"no noise": p.noise_run}, p.epsilons, keep=keep)
        for labels in self._flipped():
            run = {labels.words: p.noise_run}
            yield from self.smoothed(MAIN, run, p.epsilons, labels=labels, keep=keep)
            for method in rivals:
                yield from self.trained(MAIN, run, [method], labels=labels, keep=keep)

    def _flipped(self) -> list[NoisyLabels]:
        """Every kind and rate of noise. The built-in data, which stand in where CIFAR-100 cannot be
        had, go without human noise."""
        p, entry = self.parameters, data.entry(self.parameters.data_name)
        flipped = [NoisyLabels(noise="symmetric", rate=rate) for rate in p.symmetric_rates]
        flipped += [NoisyLabels(noise="asymmetric", rate=rate) for rate in p.asymmetric_rates]
        if p.human_noise and entry.human_counts is not None:
            flipped.append(NoisyLabels.of_people(entry))
        if p.human_labels and entry.human_labels is not None:
            flipped.append(NoisyLabels.of_people(entry, by_image=True))
        return flipped

    def _by_rate(self, main: Evidence, measures: Mapping[str, str]) -> pd.DataFrame:
        """Measures of smoothed runs against the share of wrong labels: columns panel (kind of noise
        and words of the measure), arm, rate, seed and value; clean runs are those of rate 0."""
        clean, parts = main.others["clean"].table, []
        for kind, rows in main.table.groupby("noise", sort=False):
            rows = pd.concat([clean, rows])
            rows = rows[rows["method"] == "smoothing"]
            for column, words in measures.items():
                part = rows[["arm", "seed"]].assign(panel=f"{kind} noise: {words}")
                parts.append(part.assign(rate=rows["noise_rate"], value=rows[column]))
        return pd.concat(parts, ignore_index=True)

    def errors(self, main: Evidence) -> pd.DataFrame:
        measures = {"top1_error": "last epoch", "top1_error_selected": "chosen epoch"}
        return self._by_rate(main, measures)

    def methods(self, main: Evidence) -> pd.DataFrame:
        return tables.compared(main.table, "top1_error", self.chosen_by)

    def knowledge(self, main: Evidence) -> pd.DataFrame:
        """What each method has to be told: columns method, what it needs to know, and how many
        settings of it were tried."""
        rows: dict[str, tuple[str, set[str]]] = {}
        for label, run in main.pairs:
            plain = label.smoothed and label.setting == 0
            name = "plain cross entropy" if plain else label.method
            needs = "nothing" if plain else _needs(run.spec.method)
            rows.setdefault(name, (needs, set()))[1].add(label.arm)
        return pd.DataFrame(
            [(name, needs, len(arms)) for name, (needs, arms) in rows.items()],
            columns=["method", "needs to know", "settings tried"],
        )

    def memorisation(self, main: Evidence) -> pd.DataFrame:
        """Memorised and recovered shares by epoch, means over seeds."""
        shown = ["smoothing", "forward correction", "generalised cross entropy"]
        histories = main.histories[main.histories["method"].isin(shown)]
        groups = histories.groupby(["regime", "arm", "epoch"], sort=False)
        return groups[["memorised", "recovered"]].mean().reset_index()

    def calibration(self, main: Evidence) -> pd.DataFrame:
        measures = {"debiased_ce": "debiased CE", "debiased_ce_scaled": "debiased CE, scaled"}
        return self._by_rate(main, measures | {"confidence_gap": "confidence − accuracy"})


def _needs(method: Method) -> str:
    """What a method has to be told, in words."""
    if isinstance(method, Correction):
        return "the transition matrix of the noise: here the true one"
    assert method.parameter is not None
    words = f"{method.parameter[1].removesuffix(' =')}, tuned on noisy validation labels"
    warmed = isinstance(method, Smoothing) and method.warmup_epochs
    return words + ", and the length of its warm-up, which is fixed" * bool(warmed)
