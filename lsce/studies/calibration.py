"""Does smoothing improve calibration, beside temperature scaling and other losses?"""

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from lsce import data
from lsce.measures import calibration
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import (
    ComparedParameters,
    Epsilons,
    Positive,
    Settings,
    Some,
    equal_effort,
    parameter,
)
from lsce.studies.study import Labelled, Study
from lsce.training.methods import Focal, MaxSup, Method, Mixup

#: The group of runs on data whose posterior is known.
KNOWN_POSTERIOR = "known posterior"

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
    compared_epsilons: Epsilons | None = parameter(
        None, "ε beside other methods; None: as many as these have settings"
    )
    focal_gammas: Settings = parameter((1.0, 3.0), "focal loss: γ ≥ 0")
    mixup_alphas: Some[Positive] = parameter(
        (0.2, 1.0), "mixup: shares are drawn from Beta(α, α), α > 0"
    )
    maxsup_weights: Settings = parameter((0.1, 0.3), "MaxSup: weight of its penalty, at least 0")


class Calibration(Study):
    """Every ε in every regime; and two groups of runs beside it.

    `KNOWN_POSTERIOR`: the first regime and seed on data whose true posterior is known, for each of
    `truth_epsilons`. "peers": the compared regimes with focal loss, mixup and MaxSup, and with
    `compared_epsilons`.
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
        rivals = ("focal_gammas", "mixup_alphas", "maxsup_weights")
        tuned, gammas, alphas, weights = equal_effort(p, *rivals)
        yield from self.smoothed("peers", p.compared, [0.0, *tuned])
        peers: list[Method] = [Focal(gamma=gamma) for gamma in gammas]
        peers += [Mixup(alpha=alpha) for alpha in alphas]
        peers += [MaxSup(weight=weight) for weight in weights]
        for (name, regime), method in itertools.product(p.compared.items(), peers):
            yield from self.trained("peers", {name: regime}, [method])

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
        measures = {
            "nll_scaled": "NLL after temperature scaling",
            "debiased_ce": "debiased CE as trained",
            "debiased_ce_scaled": "debiased CE after temperature scaling",
        }
        numbers = tables.compared_measures(main.others["peers"].table, measures, self.chosen_by)
        numbers["panel"] = numbers["regime"] + ": " + numbers["words"]
        return numbers.drop(columns=["regime", "words"])
