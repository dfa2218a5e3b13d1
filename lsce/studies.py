"""Every study of the report: the runs it asks for, and the table it makes of their records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lsce import builtin, data, metrics
from lsce.runs import Recipe, Record, RunSpec


@dataclass(frozen=True)
class Study:
    """A set of runs that answers one question; `labels[i]` says what part `specs[i]` plays."""

    labels: list[dict[str, Any]]
    specs: list[RunSpec]

    def table(self, records: Sequence[Record], bins: int = 15) -> pd.DataFrame:
        """One row a run: its labels, ε, seed, and what `measure` finds in its record."""
        rows = [
            {**label, "epsilon": spec.epsilon, "seed": spec.seed} | measure(record, bins)
            for label, spec, record in zip(self.labels, self.specs, records, strict=True)
        ]
        return pd.DataFrame(rows)

    def histories(self, records: Sequence[Record]) -> pd.DataFrame:
        """Every run's history (see `lsce.train.Outcome`), with its labels, ε and seed."""
        parts = [
            record.history.assign(**label, epsilon=spec.epsilon, seed=spec.seed)
            for label, spec, record in zip(self.labels, self.specs, records, strict=True)
        ]
        return pd.concat(parts, ignore_index=True)

    def _completed(
        self, records: Sequence[Record], epsilons: Sequence[float]
    ) -> Iterator[tuple[str, RunSpec, Record]]:
        """Regime, spec and record of the runs with one of `epsilons` that did not diverge."""
        for label, spec, record in zip(self.labels, self.specs, records, strict=True):
            if spec.epsilon in epsilons and not record.diverged:
                yield label["regime"], spec, record

    def histograms(
        self, records: Sequence[Record], epsilons: Sequence[float], bins: int = 40
    ) -> pd.DataFrame:
        """Densities over the test images, pooled over seeds, of the runs with one of `epsilons`.

        quantity is "confidence" or "gap": the largest logit less the mean of the others. Columns:
        regime, epsilon, quantity, left, right, density.
        """
        values: dict[tuple[str, float, str], list[np.ndarray]] = {}
        for regime, spec, record in self._completed(records, epsilons):
            logits = record.outputs()["test_logits"].double().numpy()
            top, classes = logits.max(axis=1), logits.shape[1]
            gap = (classes * top - logits.sum(axis=1)) / (classes - 1)
            confidence = metrics.softmax(logits).max(axis=1)
            for quantity, found in (("confidence", confidence), ("gap", gap)):
                values.setdefault((regime, spec.epsilon, quantity), []).append(found)
        widest = max((max(map(np.max, v)) for k, v in values.items() if k[2] == "gap"), default=1.0)
        rows = []
        for (regime, epsilon, quantity), found in values.items():
            edges = np.linspace(0, 1.0 if quantity == "confidence" else widest, bins + 1)
            density, _ = np.histogram(np.concatenate(found), edges, density=True)
            rows.append(
                pd.DataFrame(
                    {
                        "regime": regime,
                        "epsilon": epsilon,
                        "quantity": quantity,
                        "left": edges[:-1],
                        "right": edges[1:],
                        "density": density,
                    }
                )
            )
        return pd.concat(rows, ignore_index=True)

    def reliability(
        self, records: Sequence[Record], epsilons: Sequence[float], seed: int, bins: int
    ) -> pd.DataFrame:
        """`lsce.metrics.reliability_table` of one seed's runs, as trained and with temperature.

        The columns `regime` and `panel` name each run.
        """
        parts = []
        for regime, spec, record in self._completed(records, epsilons):
            if spec.seed != seed:
                continue
            outputs = record.outputs()
            fitted = record.meta["temperature"]["value"]
            for temperature, words in ((1.0, "as trained"), (fitted, f"T = {fitted:.2f}")):
                probs = metrics.softmax(outputs["test_logits"], temperature)
                found = metrics.reliability_table(probs, outputs["test_labels"], bins)
                ece = metrics.expected_calibration_error(probs, outputs["test_labels"], bins)
                panel = f"ε = {spec.epsilon:g}, {words}\nECE {ece:.3f}"
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


def measure(record: Record, bins: int = 15) -> dict[str, Any]:
    """A record's scalars: hard-label NLL (nats) and accuracy on each split, the differences
    between test and training, and `lsce.metrics.summarize` on the test split, with the logits as
    they are and, with the suffix `_scaled`, after dividing them by the temperature that was
    fitted on the validation split. A diverged run has its status only.
    """
    row: dict[str, Any] = {"run": record.spec.id, "status": record.status}
    if record.diverged:
        return row
    final, temperature = record.meta["final"], record.meta["temperature"]["value"]
    outputs = record.outputs()
    logits, labels = outputs["test_logits"], outputs["test_labels"]
    as_is = metrics.summarize(metrics.softmax(logits), labels, bins)
    scaled = metrics.summarize(metrics.softmax(logits, temperature), labels, bins)
    return (
        row
        | final
        | {
            "nll_gap": final["test_nll"] - final["train_nll"],
            "accuracy_gap": final["train_accuracy"] - final["test_accuracy"],
            "temperature": temperature,
        }
        | as_is
        | {f"{name}_scaled": value for name, value in scaled.items()}
    )


def _named(name: str, value: Any, kind: type, want: str) -> None:
    if not isinstance(value, kind) or not value:
        raise ValueError(f"{name} is {value!r}; it must be {want}")


def smoothing(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
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
    return Study(labels, specs)


def _spec(data_name, regime, fields, epsilon, seed) -> RunSpec:
    common = {"data": data_name, "data_checksum": data.CHECKSUMS[data_name]}
    try:
        recipe = Recipe(**fields.get("recipe", {}))
        return RunSpec(**common | fields | {"recipe": recipe}, epsilon=epsilon, seed=seed)
    except TypeError as error:
        raise ValueError(f"regimes[{regime!r}] is {dict(fields)}: {error}") from error


def known_posterior(
    *,
    regimes: Mapping[str, Mapping[str, Any]],
    truth_epsilons: Sequence[float],
    seeds: Sequence[int],
) -> Study:
    """The first regime and seed on the built-in data, whose true posterior is known."""
    first = dict(list(regimes.items())[:1])
    return smoothing(data_name="built-in", regimes=first, epsilons=truth_epsilons, seeds=seeds[:1])


def calibration(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    truth_epsilons: Sequence[float],
) -> Study:
    """All runs of the calibration page: `smoothing` and `known_posterior`."""
    main = smoothing(data_name=data_name, regimes=regimes, epsilons=epsilons, seeds=seeds)
    truth = known_posterior(regimes=regimes, truth_epsilons=truth_epsilons, seeds=seeds)
    return Study(main.labels + truth.labels, main.specs + truth.specs)


def estimators(records: Sequence[Record], sizes: Sequence[int], draws: int = 20) -> pd.DataFrame:
    """How far calibration estimators are from the true error, by the number of test images.

    `records` are runs on the built-in data. Each estimator sees `draws` random subsets of the
    test images of each size; the true errors use the known posterior and all of them. Columns:
    panel, estimator, images, mean, low and high (the middle 90% of the draws), norm, truth.
    """
    dataset = data.load("built-in")
    posterior = builtin.posterior(dataset.test.images)
    found = {
        "ECE": (metrics.expected_calibration_error, 1),
        "adaptive ECE": (metrics.adaptive_calibration_error, 1),
        "debiased CE": (metrics.debiased_calibration_error, 2),
    }
    rows = []
    for record in records:
        outputs = record.outputs()
        probs, labels = metrics.softmax(outputs["test_logits"]), outputs["test_labels"].numpy()
        truth = {
            norm: metrics.true_calibration_error(probs, posterior, norm=norm) for norm in (1, 2)
        }
        rng = np.random.default_rng(0)
        for size in sizes:
            whole = size == len(labels)
            chosen = [rng.permutation(len(labels))[:size] for _ in range(1 if whole else draws)]
            for name, (estimate, norm) in found.items():
                values = [estimate(probs[part], labels[part]) for part in chosen]
                low, high = np.quantile(values, [0.05, 0.95])
                rows.append(
                    {
                        "panel": f"ε = {record.spec.epsilon:g}",
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
}
