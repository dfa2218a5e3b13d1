"""Long tables for the figures, from a study's table or from its runs."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from lsce import studies
from lsce.judging import claims
from lsce.judging.claims import Claim
from lsce.measures import calibration
from lsce.results.measurements import Digest
from lsce.studies import Study
from lsce.training import networks
from lsce.training.spec import Recipe


def tidy(
    table: pd.DataFrame, columns: Sequence[tuple[str, str, str]], x: str = "epsilon"
) -> pd.DataFrame:
    """A study's table in long form, for `lsce.report.figures.against`.

    Each of `columns` is (column, panel, arm); "{regime}" in a panel or an arm stands for the
    row's regime. Columns: panel, arm, epsilon and `x`, seed, value.
    """
    parts = []
    for column, panel, arm in columns:
        for regime, rows in table.groupby("regime", sort=False):
            names = {"panel": panel.format(regime=regime), "arm": arm.format(regime=regime)}
            kept = rows[list(dict.fromkeys(["epsilon", x, "seed"]))]
            parts.append(kept.assign(**names, value=rows[column]))
    return pd.concat(parts, ignore_index=True)


def before_and_after(table: pd.DataFrame, measures: Mapping[str, str]) -> pd.DataFrame:
    """`tidy` for measures as trained and after temperature scaling; a panel a regime, measure."""
    arms = {"as trained": "", "after temperature scaling": "_scaled"}
    return tidy(
        table,
        [
            (column + suffix, f"{{regime}}: {words}", arm)
            for column, words in measures.items()
            for arm, suffix in arms.items()
        ],
    )


def budgets(runs: Iterable[Digest]) -> pd.DataFrame:
    """Test accuracy against the processor time of training, of recorded runs on CPUs with all
    training images, augmented, without smoothing and with ε = 0.1: a row a network, recipe, ε and
    kind of processor.

    Columns: network, parameters and multiply_adds (millions), epochs, epsilon, device, precision,
    core_minutes (mean), accuracy (mean) and its standard deviation sd (NaN for one run), n. Runs
    recorded before 27 November 2026 have the time on the clock instead, which other work may have
    lengthened.
    """
    rows = [
        {
            "network": run.spec.model,
            "epochs": run.spec.epochs,
            "recipe": repr(run.spec.recipe),
            "epsilon": run.spec.epsilon,
            "device": run.origin["device"],
            "precision": run.origin["precision"],
            "core_minutes": run.seconds / 60,
            "accuracy": run.scalars["test_accuracy"],
        }
        for run in runs
        if _usual(run)
    ]
    keys = [name for name in rows[0] if name not in ("core_minutes", "accuracy")] if rows else []
    found = []
    for key, part in pd.DataFrame(rows).groupby(keys) if rows else []:
        row = dict(zip(keys, key, strict=True))
        size = {"parameters": networks.parameters(row["network"]) / 1e6}
        size["multiply_adds"] = networks.multiply_adds(row["network"]) / 1e6
        accuracy = part["accuracy"]
        row |= size | {"core_minutes": part["core_minutes"].mean()}
        row |= {"accuracy": accuracy.mean(), "sd": accuracy.std(), "n": len(part)}
        found.append(row)
    columns = ["network", "parameters", "multiply_adds", "epochs", "epsilon", "device"]
    columns += ["precision", "core_minutes", "accuracy", "sd", "n"]
    return pd.DataFrame(found, columns=columns).sort_values("core_minutes", ignore_index=True)


#: What the spec of a run of plain smoothing says.
_SMOOTHING_ALONE = {
    *("data", "data_checksum", "train_size", "model", "epsilon", "convention", "recipe"),
    *("epochs", "monitor_size", "seed"),
}


def _usual(run: Digest) -> bool:
    """Whether a run is of smoothing alone, on all images of CIFAR-100 and augmented, on a CPU."""
    spec, on_cpu = run.spec, "core" in run.origin["seconds"] or "step" not in run.origin
    whole = (spec.data, spec.train_size) == ("cifar-100", 45_000)
    settled = spec.recipe.weight_decay == Recipe().weight_decay and spec.recipe.augment is None
    alone = set(spec.to_dict()) <= _SMOOTHING_ALONE and spec.epsilon in (0.0, 0.1)
    return whole and settled and alone and on_cpu and not run.diverged


def estimators(runs: Sequence[Digest], sizes: Sequence[int], draws: int = 20) -> pd.DataFrame:
    """How far calibration estimators are from the true error, by the number of test images.

    `runs` are on the built-in data. Each estimator sees `draws` random subsets of the test images
    of each size; the true errors use the known posterior and all of them. Columns: panel,
    estimator, images, mean, low and high (the middle 90% of the draws), norm, truth.
    """
    found = {
        "ECE": (calibration.expected_calibration_error, 1),
        "adaptive ECE": (calibration.adaptive_calibration_error, 1),
        "debiased CE": (calibration.debiased_calibration_error, 2),
    }
    rows = []
    for run in runs:
        confidence, correct = run.samples["confidence"], run.samples["correct"]
        likely = run.samples["true_probability"]
        truth = {
            norm: calibration.true_calibration_error(confidence, likely, norm=norm)
            for norm in (1, 2)
        }
        rng = np.random.default_rng(0)
        for size in sizes:
            whole = size == len(correct)
            chosen = [rng.permutation(len(correct))[:size] for _ in range(1 if whole else draws)]
            for name, (estimate, norm) in found.items():
                values = [estimate(confidence[part], correct[part]) for part in chosen]
                low, high = np.quantile(values, [0.05, 0.95])
                rows.append(
                    {
                        "panel": f"ε = {run.spec.epsilon:g}",
                        "estimator": name,
                        "images": size,
                        "mean": np.mean(values),
                        "low": low,
                        "high": high,
                        "norm": norm,
                        "truth": truth[norm],
                    }
                )
    return pd.DataFrame(rows)


def smooth_errors(study: Study, runs: Sequence[Digest]) -> pd.DataFrame:
    """ECE and the smooth calibration error (Błasiok & Nakkiran 2024) without smoothing and at the
    judged ε, as trained and after temperature scaling, for `lsce.report.figures.against_epsilon`."""
    from relplot import smECE  # two seconds to import

    found = {
        "ECE": calibration.expected_calibration_error,
        "smooth CE": lambda sure, correct: smECE(sure, correct.astype(float)),
    }
    rows = [
        {"panel": label["regime"], "arm": f"{name}, {words}", "epsilon": run.spec.epsilon}
        | {"seed": run.spec.seed, "value": error(run.samples[arm], run.samples["correct"])}
        for label, run in zip(study.labels, runs, strict=True)
        if "confidence" in run.samples and label["method"] == "smoothing"
        if label["setting"] in (0.0, study.judged)
        for arm, words in (("confidence", "as trained"), ("scaled", "scaled"))
        for name, error in found.items()
    ]
    return pd.DataFrame(rows)


def compared(table: pd.DataFrame, measure: str, chosen_by: str) -> pd.DataFrame:
    """A measure by arm, for `lsce.report.figures.arms`: columns panel (the regime), method, arm, seed,
    value and chosen: whether its method's setting was the best by `chosen_by`. Plain cross entropy
    is a method of its own."""
    parts = []
    for regime, method, rows, best in studies.tuned(table, chosen_by):
        part = rows[["arm", "seed"]].assign(panel=regime, method=method, value=rows[measure])
        part["chosen"] = part["arm"] == studies.arm(*best) if best else False
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def details(study: Study, runs: Sequence[Digest], quantity: str) -> pd.DataFrame:
    """What runs measured of a quantity (see `lsce.results.measurements.Digest.details`): columns regime, arm,
    epsilon, seed, case, x and value."""
    parts = []
    for label, run in zip(study.labels, runs, strict=True):
        about = {"regime": label["regime"], "arm": label["arm"]}
        about |= {"epsilon": run.spec.epsilon, "seed": run.spec.seed}
        found = run.details[run.details["quantity"] == quantity]
        parts.append(found[["case", "x", "value"]].assign(**about))
    return pd.concat(parts, ignore_index=True)


def panelled(numbers: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The same with a column `panel`, which tells apart what differs in `columns`; one that has the
    same value throughout is left out of its words."""
    varying = [name for name in columns if numbers[name].nunique() > 1] or columns[-1:]
    return numbers.assign(panel=numbers[list(varying)].agg(": ".join, axis=1))


def stacked(table: pd.DataFrame, measures: Mapping[str, str]) -> pd.DataFrame:
    """Measures of a study's table under each other: columns regime, arm, seed, words and value."""
    kept = table[["regime", "arm", "seed"]]
    parts = [kept.assign(words=words, value=table[name]) for name, words in measures.items()]
    return pd.concat(parts, ignore_index=True)


def gains(
    tables: Mapping[str, pd.DataFrame], measures: Mapping[str, Claim], judged: float
) -> pd.DataFrame:
    """What the judged ε gains by the number of classes, for `lsce.report.figures.slopes`: columns panel,
    arm, classes, seed and value. `tables` are a study's by design; `measures`, each with a claim
    that says what an effect is."""
    parts = []
    for (words, claim), (design, table) in itertools.product(measures.items(), tables.items()):
        names = {"panel": f"{design}: {words}", "arm": f"gain of ε = {judged:g}"}
        for classes, rows in table.groupby("classes"):
            gain = claims.smoothing_effects(claim, rows, claim.measure, judged).rename("value")
            parts.append(gain.reset_index().assign(**names, classes=classes))
    return pd.concat(parts, ignore_index=True)


def by_smoothness(students: pd.DataFrame, teachers: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy against the smoothness of the targets that a network learned from (γ of Müller
    et al. 2019), for `lsce.report.figures.slopes`: columns panel, arm, smoothness, seed and value."""
    alone = students[students["method"] == "smoothing"]
    parts = []
    for arm, rows in (
        ("teacher", teachers),
        ("student, smoothed alone", alone),
        *students[students["method"] != "smoothing"].groupby("method", sort=False),
    ):
        if "distilled" in arm:
            # The seeds' teachers differ a little; their mean keeps them together.
            smoothness = rows.groupby("arm")["smoothness"].transform("mean")
            arm = arm.replace("distilled", "student")
        else:
            smoothness = rows["epsilon"] * rows["classes"] / (rows["classes"] - 1)
        part = rows[["seed"]].assign(smoothness=smoothness, value=rows["test_accuracy"])
        parts.append(part.assign(arm=arm, panel="test accuracy"))
    return pd.concat(parts, ignore_index=True)


def by_noise_rate(
    noisy: pd.DataFrame, clean: pd.DataFrame, measures: Mapping[str, str]
) -> pd.DataFrame:
    """Measures of smoothed runs against the share of wrong labels: columns panel (kind of noise and
    words of the measure), arm, rate, seed and value; clean runs are those of rate 0."""
    parts = []
    for column, words in measures.items():
        for kind, rows in noisy.groupby("noise", sort=False):
            rows = pd.concat([clean, rows])
            rows = rows[rows["method"] == "smoothing"]
            part = rows[["arm", "seed"]].assign(panel=f"{kind} noise: {words}")
            parts.append(part.assign(rate=rows["noise_rate"], value=rows[column]))
    return pd.concat(parts, ignore_index=True)


def projections(
    study: Study,
    runs: Sequence[Digest],
    regime: str,
    seed: int,
    epsilons: Sequence[float],
    classes: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """One seed's projections in a regime, for `lsce.report.figures.projections`."""
    parts = []
    for label, run in zip(study.labels, runs, strict=True):
        wanted = label["regime"] == regime and run.spec.seed == seed
        if not wanted or run.spec.epsilon not in epsilons or run.diverged:
            continue
        for group, split in itertools.product(classes, ("train", "validation")):
            points = run.projections[f"{group}.{split}"]
            for name, cloud in zip(classes[group], points, strict=True):
                part = pd.DataFrame(cloud, columns=["x", "y"])
                row = f"{group} classes\n{'training' if split == 'train' else split}"
                parts.append(part.assign(row=row, column=label["arm"], name=name))
    return pd.concat(parts, ignore_index=True)
