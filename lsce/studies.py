"""Every study of the report: the runs it asks for, and the tables it makes of their digests."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from lsce import data, metrics
from lsce.digest import WIDTHS, Digest
from lsce.runs import Recipe, RunSpec

#: Whose runs a page shows: the larger set with the other beside it, or one alone.
Shown = Literal["both", "own", "recorded"]

#: The regime, in a study's labels, of runs on the built-in data beside runs on CIFAR-100.
KNOWN_POSTERIOR = "known posterior"


@dataclass(frozen=True)
class Study:
    """A set of runs that answers one question; `labels[i]` says what part `specs[i]` plays.

    The claims are judged at the ε `judged`, against 0.
    """

    labels: list[dict[str, Any]]
    specs: list[RunSpec]
    judged: float

    def in_full(self, spec: RunSpec) -> bool:
        """Whether figures show the run image by image, and not in sums alone."""
        return spec.epsilon in (0.0, self.judged) or spec.data == "built-in"

    def part(self, positions: Sequence[int]) -> "Study":
        """The study of some of its runs alone."""
        labels, specs = ([every[i] for i in positions] for every in (self.labels, self.specs))
        return Study(labels, specs, self.judged)

    def split(self, runs: Sequence[Digest]) -> tuple["Study", list[Digest], list[Digest]]:
        """The study without its `KNOWN_POSTERIOR` runs, its runs, and those."""
        known = [label["regime"] == KNOWN_POSTERIOR for label in self.labels]
        kept = [i for i, apart in enumerate(known) if not apart]
        apart = [run for run, away in zip(runs, known, strict=True) if away]
        return self.part(kept), [runs[i] for i in kept], apart

    def table(self, runs: Sequence[Digest]) -> pd.DataFrame:
        """One row a run: its labels, ε, seed, id, status and scalars (see `lsce.digest`)."""
        rows = [
            {**label, "epsilon": run.spec.epsilon, "seed": run.spec.seed}
            | {"run": run.spec.id, "status": run.status}
            | run.scalars
            for label, run in zip(self.labels, runs, strict=True)
        ]
        return pd.DataFrame(rows)

    def histories(self, runs: Sequence[Digest]) -> pd.DataFrame:
        """Every run's history (see `lsce.train.Outcome`), with its labels, ε and seed."""
        parts = [
            run.history.assign(**label, epsilon=run.spec.epsilon, seed=run.spec.seed)
            for label, run in zip(self.labels, runs, strict=True)
        ]
        return pd.concat(parts, ignore_index=True)

    def _completed(
        self, runs: Sequence[Digest], epsilons: Sequence[float]
    ) -> Iterator[tuple[str, Digest]]:
        """Regime and digest of the runs with one of `epsilons` that did not diverge."""
        for label, run in zip(self.labels, runs, strict=True):
            if run.spec.epsilon in epsilons and not run.diverged:
                yield label["regime"], run

    def histograms(self, runs: Sequence[Digest], epsilons: Sequence[float]) -> pd.DataFrame:
        """Densities over the test images, pooled over seeds, of the runs with one of `epsilons`.

        quantity is "confidence" or "gap": the largest logit less the mean of the others. Columns:
        regime, epsilon, quantity, left, right, density.
        """
        counts: dict[tuple[str, float, str], list[np.ndarray]] = {}
        for regime, run in self._completed(runs, epsilons):
            for quantity, found in run.counts.items():
                counts.setdefault((regime, run.spec.epsilon, quantity), []).append(found)
        rows = []
        for (regime, epsilon, quantity), found in counts.items():
            total = np.zeros(max(map(len, found)))
            for part in found:
                total[: len(part)] += part
            edges = WIDTHS[quantity] * np.arange(len(total) + 1)
            part = {"regime": regime, "epsilon": epsilon, "quantity": quantity}
            part |= {"left": edges[:-1], "right": edges[1:]}
            part["density"] = total / (total.sum() * WIDTHS[quantity])
            rows.append(pd.DataFrame(part))
        return pd.concat(rows, ignore_index=True)

    def reliability(
        self, runs: Sequence[Digest], epsilons: Sequence[float], seed: int, bins: int
    ) -> pd.DataFrame:
        """`lsce.metrics.reliability_table` of one seed's runs, as trained and with temperature.

        The columns `regime` and `panel` name each run.
        """
        parts = []
        for regime, run in self._completed(runs, epsilons):
            if run.spec.seed != seed:
                continue
            correct = run.samples["correct"]
            fitted = f"T = {run.scalars['temperature']:.2f}"
            for arm, words in (("confidence", "as trained"), ("scaled", fitted)):
                sure = run.samples[arm]
                ece = metrics.expected_calibration_error(sure, correct, bins)
                panel = f"ε = {run.spec.epsilon:g}, {words}\nECE {ece:.3f}"
                found = metrics.reliability_table(sure, correct, bins)
                parts.append(found.assign(regime=regime, panel=panel))
        return pd.concat(parts, ignore_index=True)


def tidy(table: pd.DataFrame, columns: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """A study's table in long form, for `lsce.plots.against_epsilon`.

    Each of `columns` is (column, panel, arm); "{regime}" in a panel or an arm stands for the
    row's regime. Columns: panel, arm, epsilon, seed, value.
    """
    parts = []
    for column, panel, arm in columns:
        for regime, rows in table.groupby("regime", sort=False):
            names = {"panel": panel.format(regime=regime), "arm": arm.format(regime=regime)}
            parts.append(rows[["epsilon", "seed"]].assign(**names, value=rows[column]))
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


def _named(name: str, value: Any, kind: type, want: str) -> None:
    if not isinstance(value, kind) or not value:
        raise ValueError(f"{name} is {value!r}; it must be {want}")


def check_judged(epsilon: float, epsilons: Sequence[float]) -> None:
    """Raise ValueError unless `epsilon` is one of `epsilons`, and can be compared with 0."""
    if epsilon not in epsilons or epsilon == 0 or 0 not in epsilons:
        raise ValueError(
            f"judged_epsilon is {epsilon}; it must be one of epsilons {list(epsilons)} other than "
            "0, which must be there too"
        )


def smoothing(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
) -> Study:
    """Every ε with every seed in every regime.

    A regime is a name and the fields of `RunSpec` that make it, for example
    ``{"small data": {"model": "resnet6", "train_size": 4500, "epochs": 30}}``.

    Raises ValueError, naming the parameter and its value, if one is out of range.
    """
    if data_name not in data.CHECKSUMS:
        raise ValueError(f"data_name is {data_name!r}; it must be {' or '.join(data.CHECKSUMS)}")
    _named("regimes", regimes, Mapping, "a mapping from a name to the fields of a run")
    _named("epsilons", epsilons, Sequence, "a list of numbers in [0, 1]")
    _named("seeds", seeds, Sequence, "a list of whole numbers")
    for name, values in (("epsilons", epsilons), ("seeds", seeds)):
        if len(set(values)) < len(values):
            raise ValueError(f"{name} is {list(values)}; it must not name a value twice")
    labels, specs = [], []
    for regime, fields in regimes.items():
        for seed in seeds:
            for epsilon in epsilons:
                labels.append({"regime": regime})
                specs.append(_spec(data_name, regime, fields, epsilon, seed))
    check_judged(judged_epsilon, epsilons)
    return Study(labels, specs, float(judged_epsilon))


def _spec(data_name, regime, fields, epsilon, seed) -> RunSpec:
    common = {"data": data_name, "data_checksum": data.CHECKSUMS[data_name]}
    try:
        recipe = Recipe(**fields.get("recipe", {}))
        return RunSpec(**common | fields | {"recipe": recipe}, epsilon=epsilon, seed=seed)
    except TypeError as error:
        raise ValueError(f"regimes[{regime!r}] is {dict(fields)}: {error}") from error


def calibration(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
    truth_epsilons: Sequence[float],
) -> Study:
    """`smoothing`, and the first regime and seed on the built-in data, whose true posterior is
    known, for each of `truth_epsilons`; the regime of these is `KNOWN_POSTERIOR`."""
    main = smoothing(
        data_name=data_name,
        regimes=regimes,
        epsilons=epsilons,
        seeds=seeds,
        judged_epsilon=judged_epsilon,
    )
    _named("truth_epsilons", truth_epsilons, Sequence, "a list of numbers in [0, 1]")
    (first, fields), *_ = regimes.items()
    truth = [_spec("built-in", first, fields, epsilon, seeds[0]) for epsilon in truth_epsilons]
    labels = [{"regime": KNOWN_POSTERIOR}] * len(truth)
    return Study(main.labels + labels, main.specs + truth, main.judged)


def reproduction(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
    published_regimes: Mapping[str, Mapping[str, Any]],
    published_epsilons: Sequence[float],
) -> Study:
    """`smoothing`, and regimes that follow a published recipe, if any, with the ε of the paper."""
    study = functools.partial(
        smoothing, data_name=data_name, seeds=seeds, judged_epsilon=judged_epsilon
    )
    main = study(regimes=regimes, epsilons=epsilons)
    if not published_regimes:
        return main
    more = study(regimes=published_regimes, epsilons=published_epsilons)
    return Study(main.labels + more.labels, main.specs + more.specs, main.judged)


def estimators(runs: Sequence[Digest], sizes: Sequence[int], draws: int = 20) -> pd.DataFrame:
    """How far calibration estimators are from the true error, by the number of test images.

    `runs` are on the built-in data. Each estimator sees `draws` random subsets of the test images
    of each size; the true errors use the known posterior and all of them. Columns: panel,
    estimator, images, mean, low and high (the middle 90% of the draws), norm, truth.
    """
    found = {
        "ECE": (metrics.expected_calibration_error, 1),
        "adaptive ECE": (metrics.adaptive_calibration_error, 1),
        "debiased CE": (metrics.debiased_calibration_error, 2),
    }
    rows = []
    for run in runs:
        confidence, correct = run.samples["confidence"], run.samples["correct"]
        likely = run.samples["true_probability"]
        truth = {
            norm: metrics.true_calibration_error(confidence, likely, norm=norm) for norm in (1, 2)
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


#: Notebook → the study it asks for; a notebook that is not here trains nothing.
BY_NOTEBOOK: dict[str, Callable[..., Study]] = {
    "00_overview": smoothing,
    "02_epsilon_study": smoothing,
    "03_calibration": calibration,
    "12_reproduction": reproduction,
}


def build(notebook: str, data_name: str, parameters: Mapping[str, Any]) -> Study:
    """The study of a notebook with those of `parameters` that it has.

    Raises ValueError or TypeError, naming the parameter and its value, if one is out of range.
    """
    build = BY_NOTEBOOK[notebook]
    known = inspect.signature(build).parameters
    given = {"data_name": data_name} | parameters
    return build(**{name: value for name, value in given.items() if name in known})
