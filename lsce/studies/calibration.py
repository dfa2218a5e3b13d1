"""Does smoothing improve calibration, beside temperature scaling and other losses?"""

from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from lsce import data
from lsce.judging import arms
from lsce.measures import calibration
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import (
    ComparedParameters,
    EachOnce,
    Epsilons,
    Positive,
    Regime,
    Settings,
    Share,
    Some,
    equal_effort,
    parameter,
)
from lsce.studies.study import Labelled, Study
from lsce.training.methods import (
    Focal,
    LogitPenalty,
    MaxSup,
    MbLS,
    Method,
    Mixup,
    OnlineSmoothing,
    Smoothing,
    ZipfLS,
)

#: The group of runs on data whose posterior is known.
KNOWN_POSTERIOR = "known posterior"

#: The group of runs by label smoothing and its rivals.
PEERS = "peers"

#: The parameters with settings of rivals, and the rival with one of them. A schedule goes from the
#: setting to twice as much, as Zhou et al. (2025) have it: from 0.1 to 0.2.
RIVALS: dict[str, Callable[[float], Method]] = {
    "focal_gammas": lambda gamma: Focal(gamma=gamma),
    "mixup_alphas": lambda alpha: Mixup(alpha=alpha),
    "maxsup_weights": lambda weight: MaxSup(weight=weight),
    "scheduled_weights": lambda weight: MaxSup(weight=weight, final_weight=2 * weight),
    "scheduled_epsilons": lambda epsilon: Smoothing(epsilon=epsilon, final_epsilon=2 * epsilon),
    "online_alphas": lambda alpha: OnlineSmoothing(alpha=alpha),
    "zipf_weights": lambda weight: ZipfLS(weight=weight),
    "penalty_betas": lambda beta: LogitPenalty(beta=beta),
    "mbls_margins": lambda margin: MbLS(margin=margin),
}


class Score(NamedTuple):
    """What peers are compared by: its words, its unit and factor in tables, and what settings are
    chosen by for it on the validation split, the first of these columns that all runs have."""

    words: str
    chosen_by: tuple[str, ...]
    unit: str = ""
    scale: float = 1.0

    @property
    def heading(self) -> str:
        return self.words + f" ({self.unit})" * bool(self.unit)


#: The claims of this page about peers choose by the same columns.
SCORES = {
    "debiased_ce": Score("debiased CE", ("validation_debiased_ce", "validation_nll")),
    "debiased_ce_scaled": Score(
        "debiased CE, scaled", ("validation_debiased_ce_scaled", "validation_nll_scaled")
    ),
    "nll_scaled": Score("NLL, scaled", ("validation_nll_scaled",), "nats"),
    "top1_error": Score("top-1 error", ("validation_accuracy",), "points", 100.0),
}


def chosen_by(table: pd.DataFrame, score: str) -> str:
    """The column of a table of runs that settings are chosen by for one of `SCORES`."""
    completed, columns = table[table["status"] != "diverged"], SCORES[score].chosen_by
    known = (name for name in columns if name in table and completed[name].notna().all())
    return next(known, columns[-1])


#: Estimator → its function and the norm of the gap that it aims at.
ESTIMATORS = {
    "ECE": (calibration.expected_calibration_error, 1),
    "adaptive ECE": (calibration.adaptive_calibration_error, 1),
    "debiased CE": (calibration.debiased_calibration_error, 2),
}

#: Test images of the subsets that estimators see, and random subsets of each size.
SIZES, DRAWS = (500, 1_000, 2_000, 5_000, 10_000), 20


class CalibrationParameters(ComparedParameters):
    bins: int = parameter(15, "bins of every binned calibration error", ge=2)
    truth_epsilons: Epsilons | None = parameter(
        None, "ε that are trained on the built-in data, too; None: 0 and the judged one"
    )
    peer_run: Regime | None = parameter(
        None, "what runs by smoothing and its rivals are; None: those of the compared regimes"
    )
    compared_epsilons: Epsilons | None = parameter(
        None, "ε beside its rivals; None: as many as these have settings"
    )
    # Published: γ = 3 on CIFAR-100 (Mukhoti et al. 2020); α = 0.2 on ImageNet, 1 on CIFAR (Zhang et
    # al. 2018); MaxSup 0.1, rising to 0.2 (Zhou et al. 2025); online label smoothing 0.5 (Zhang et
    # al. 2021); Zipf-LS 0.1 on CIFAR-100, 1 on Tiny-ImageNet (command lines of Liang et al. 2022);
    # margin 10 (code of Liu et al. 2022); β = 6e-4 on ImageNet (Kornblith et al. 2021, recalled).
    focal_gammas: Settings = parameter((3.0,), "focal loss: γ ≥ 0")
    mixup_alphas: Some[Positive] = parameter(
        (0.2,), "mixup: shares are drawn from Beta(α, α), α > 0"
    )
    maxsup_weights: Settings = parameter((0.1,), "MaxSup: weight of its penalty, at least 0")
    scheduled_weights: EachOnce[Positive] = parameter(
        (), "MaxSup with a weight that grows to twice this"
    )
    scheduled_epsilons: EachOnce[Annotated[float, Field(gt=0, le=0.5)]] = parameter(
        (), "label smoothing with an ε in (0, 0.5] that grows to twice this"
    )
    online_alphas: EachOnce[Share] = parameter(
        (), "online label smoothing: share of the plain cross entropy, in (0, 1]"
    )
    zipf_weights: EachOnce[Positive] = parameter((), "Zipf-LS: weight of its divergence")
    penalty_betas: EachOnce[Positive] = parameter((), "penalty on the squared logits: β > 0")
    mbls_margins: EachOnce[Positive] = parameter(
        (), "MbLS: margin between logits that costs nothing"
    )


class Calibration(Study):
    """Every ε in every regime; and two groups of runs beside it.

    `KNOWN_POSTERIOR`: the first regime and seed on data whose true posterior is known, for each of
    `truth_epsilons`. `PEERS`: `peer_run`, or the compared regimes, with plain cross entropy,
    `compared_epsilons` and every rival that has settings, all with as many of them.
    """

    Parameters = CalibrationParameters
    by_image = True
    chosen_by = "validation_nll_scaled"
    columns = {
        "ece": "ECE",
        "ece_scaled": "ECE, scaled",
        "debiased_ce": "debiased CE",
        "overconfidence": "over-confident part",
        "underconfidence": "under-confident part",
        "debiased_ce_scaled": "debiased CE, scaled",
        "nll": "NLL",
        "nll_scaled": "NLL, scaled",
        "temperature": "T",
    }

    def runs(self) -> Iterator[Labelled]:
        p = self.parameters
        yield from super().runs()
        known = next(name for name in data.names() if data.entry(name).posterior)
        first = {name: regime.fitted(known) for name, regime in [*p.regimes.items()][:1]}
        epsilons, seeds = p.truth_epsilons or (0.0, p.judged), p.seeds[:1]
        yield from self.smoothed(KNOWN_POSTERIOR, first, epsilons, data_name=known, seeds=seeds)
        rivals = [name for name in RIVALS if getattr(p, name)]
        tuned, *settings = equal_effort(p, *rivals)
        yield from self.smoothed(PEERS, self._peer_runs(), [0.0, *tuned])
        for name, values in zip(rivals, settings, strict=True):
            yield from self.trained(PEERS, self._peer_runs(), [RIVALS[name](v) for v in values])

    def _peer_runs(self) -> dict[str, Regime]:
        """The regimes of `PEERS` by their names."""
        p = self.parameters
        if (run := p.peer_run) is None:
            compared: dict[str, Regime] = p.compared
            return compared
        return {f"{run.network}, {run.epochs} epochs": run}

    def reliability(self, main: Evidence) -> pd.DataFrame:
        """`lsce.measures.calibration.reliability_table` of the first seed's runs, as trained and
        with temperature, without smoothing and at the judged ε. The columns `regime` and `panel`
        name each run."""
        bins, parts = self.parameters.bins, []
        for label, run in main.pairs:
            if not self.decisive(label) or run.spec.seed != main.seeds[0] or run.diverged:
                continue
            correct, fitted = run.samples["correct"], f"T = {run.scalars['temperature']:.2f}"
            for score, words in (("confidence", "as trained"), ("scaled", fitted)):
                confidence = run.samples[score]
                ece = calibration.expected_calibration_error(confidence, correct, bins)
                panel = f"ε = {label.setting:g}, {words}\nECE {ece:.3f}"
                table = calibration.reliability_table(confidence, correct, bins)
                parts.append(table.assign(regime=label.regime, panel=panel))
        return pd.concat(parts, ignore_index=True)

    def errors(self, main: Evidence) -> pd.DataFrame:
        measures = {
            "ece": "ECE",
            "adaptive_ece": "adaptive ECE",
            "classwise_ece": "classwise ECE",
            "mce": "maximum CE",
            "debiased_ce": "debiased CE",
        }
        return tables.by_score(main.table, measures)

    def scores(self, main: Evidence) -> pd.DataFrame:
        measures = {"nll": "NLL", "brier": "Brier score", "confidence_gap": "confidence − accuracy"}
        temperature = [("temperature", "{regime}: temperature T", "as trained")]
        parts = [tables.by_score(main.table, measures), tables.tidy(main.table, temperature)]
        return pd.concat(parts, ignore_index=True)

    def parts(self, main: Evidence) -> pd.DataFrame:
        """Calibration errors and NLL in their parts, and confident errors."""
        measures = {
            "overconfidence": "over-confident part",
            "underconfidence": "under-confident part",
            "confident_errors": "errors with confidence above 0.9",
        }
        of_nll = [
            ("nll_calibration", "{regime}: NLL", "calibration part"),
            ("nll_scaled", "{regime}: NLL", "refinement part"),
        ]
        columns = [
            (f"{name}{suffix}", f"{{regime}}: {words}", score)
            for name, words in measures.items()
            for suffix, score in tables.BEFORE_AND_AFTER.items()
        ]
        return tables.tidy(main.table, [*columns, *of_nll])

    def best_epochs(self, main: Evidence) -> pd.DataFrame:
        """The epoch with the least NLL of the monitored validation images, with the least of its
        refinement part, and with the least of its calibration part."""
        criteria = {"NLL": "validation_nll", "refinement": "validation_refinement"}
        rows = []
        for label, run in main.pairs:
            history = run.history
            if run.diverged or "validation_refinement" not in history:
                continue
            values = {words: history[column] for words, column in criteria.items()}
            values["calibration"] = values["NLL"] - values["refinement"]
            for words, value in values.items():
                epoch = history["epoch"][value.argmin()]
                rows.append((label.regime, words, label.setting, run.spec.seed, float(epoch)))
        return pd.DataFrame(rows, columns=["panel", "arm", "epsilon", "seed", "value"])

    def estimators(self, main: Evidence) -> pd.DataFrame:
        """How far calibration estimators are from the true error, by the number of test images.

        Each estimator sees random subsets of the test images; the true errors use the known
        posterior and all of them. Columns: panel, estimator, images, mean, low and high (the middle
        90% of the draws), norm, truth.
        """
        rows = []
        for label, run in main.others[KNOWN_POSTERIOR].pairs:
            confidence, correct = run.samples["confidence"], run.samples["correct"]
            likely, images = run.samples["true_probability"], len(correct)
            truth = {
                norm: calibration.true_calibration_error(confidence, likely, norm=norm)
                for norm in (1, 2)
            }
            rng = np.random.default_rng(0)
            for size in [size for size in SIZES if size < images] + [images]:
                draws = 1 if size == images else DRAWS
                subsets = [rng.permutation(images)[:size] for _ in range(draws)]
                for name, (estimate, norm) in ESTIMATORS.items():
                    values = [estimate(confidence[part], correct[part]) for part in subsets]
                    middle = np.quantile(values, [0.05, 0.95])
                    mean, true = np.mean(values), truth[norm]
                    rows.append((label.arm, name, size, mean, *middle, norm, true))
        columns = ["panel", "estimator", "images", "mean", "low", "high", "norm", "truth"]
        return pd.DataFrame(rows, columns=columns)

    def smooth_errors(self, main: Evidence) -> pd.DataFrame:
        """ECE and the smooth calibration error (Błasiok & Nakkiran 2024) without smoothing and at
        the judged ε, as trained and after temperature scaling."""
        from relplot import smECE  # two seconds to import

        rows = []
        for label, run in main.pairs:
            if "confidence" not in run.samples or not self.decisive(label):
                continue
            correct = run.samples["correct"]
            for score, words in (("confidence", "as trained"), ("scaled", "scaled")):
                confidence = run.samples[score]
                ece = calibration.expected_calibration_error(confidence, correct)
                smooth = float(smECE(confidence, correct.astype(float)))
                for name, error in (("ECE", ece), ("smooth CE", smooth)):
                    arm = f"{name}, {words}"
                    rows.append((label.regime, arm, label.setting, run.spec.seed, error))
        return pd.DataFrame(rows, columns=["panel", "arm", "epsilon", "seed", "value"])

    def peers(self, main: Evidence) -> pd.DataFrame:
        """Scores by arm, see `lsce.report.figures.arms`. The method whose chosen setting has the
        least debiased calibration error comes first, and each one's settings ascend."""
        table = _by_rank(main.others[PEERS].table, "debiased_ce")
        parts = []
        for name, score in SCORES.items():
            part = tables.compared(table, name, chosen_by(table, name))
            parts.append(part.assign(words=score.heading, value=score.scale * part["value"]))
        numbers = pd.concat(parts, ignore_index=True).rename(columns={"panel": "regime"})
        return tables.panelled(numbers, "regime", "words").drop(columns=["regime", "words"])


def _by_rank(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """The rows of a table of runs by regime, then by method, in the order of their scores in the
    first regime at the setting that validation chose, then by setting."""
    means: dict[str, float] = {}
    for _, method, runs, best in arms.tuned(table, chosen_by(table, score)):
        mean = runs.loc[arms.of_arm(runs, best), score].mean() if best else np.inf
        means.setdefault(method, float(mean))
    regimes = list(table["regime"].unique())
    keys = table.assign(
        regime=table["regime"].map(regimes.index),
        method=table["method"].mask(arms.plain(table), "plain cross entropy").map(means),
    )
    order = keys.sort_values(["regime", "method", "setting"], kind="stable").index
    return table.loc[order]
