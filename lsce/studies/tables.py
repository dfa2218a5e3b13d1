"""Long tables for figures, from a page's tables of runs."""

from collections.abc import Mapping, Sequence

import pandas as pd

from lsce.judging import arms
from lsce.measures import temperature
from lsce.studies.evidence import Evidence
from lsce.studies.study import about

#: Suffix of a measure → the scores that it is of.
BEFORE_AND_AFTER = {"": "as trained", "_scaled": "after temperature scaling"}


def tidy(
    table: pd.DataFrame, columns: Sequence[tuple[str, str, str]], x: str = "epsilon"
) -> pd.DataFrame:
    """A table of runs in long form, for `lsce.report.figures.against`.

    Each of `columns` is (column, panel, arm); "{regime}" in a panel or an arm stands for the
    row's regime. Columns: panel, arm, epsilon and `x`, seed, value. What no run of a regime has is
    left out.
    """
    kept = list(dict.fromkeys(["epsilon", x, "seed"]))
    parts = [pd.DataFrame(columns=[*kept, "panel", "arm", "value"])]
    for column, panel, arm in columns:
        for regime, rows in table.groupby("regime", sort=False):
            if column in rows and rows[column].notna().any():
                names = {"panel": panel.format(regime=regime), "arm": arm.format(regime=regime)}
                parts.append(rows[kept].assign(**names, value=rows[column]))
    return _joined(parts)


def by_score(
    table: pd.DataFrame, measures: Mapping[str, str], scores: Mapping[str, str] = BEFORE_AND_AFTER
) -> pd.DataFrame:
    """`tidy` for measures of several scores, an arm a score; a panel a regime and measure."""
    columns = [
        (column + suffix, f"{{regime}}: {words}", score)
        for column, words in measures.items()
        for suffix, score in scores.items()
    ]
    return tidy(table, columns)


def compared(table: pd.DataFrame, measure: str, chosen_by: str) -> pd.DataFrame:
    """A measure by arm, for `lsce.report.figures.arms`: columns panel (the regime), method, arm,
    seed, value and chosen: whether its method's setting was the best by `chosen_by`. Plain cross
    entropy is a method of its own."""
    parts = []
    for regime, method, rows, best in arms.tuned(table, chosen_by):
        part = rows[["arm", "seed"]].assign(panel=regime, method=method, value=rows[measure])
        part["chosen"] = arms.of_arm(rows, best) if best else False
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def compared_measures(
    table: pd.DataFrame, measures: Mapping[str, str], chosen_by: str
) -> pd.DataFrame:
    """`compared` for several measures, each in panels of its own."""
    parts = [
        compared(table, column, chosen_by).assign(words=words) for column, words in measures.items()
    ]
    numbers = pd.concat(parts, ignore_index=True).rename(columns={"panel": "regime"})
    return panelled(numbers, "regime", "words")


def details(main: Evidence, quantity: str, x: str) -> pd.DataFrame:
    """What runs measured of a quantity (see `lsce.results.run.Run.details`), with the words for its
    x: columns regime, arm, epsilon, seed, case, x and value."""
    columns = ["case", "x", "value", "regime", "arm", "epsilon", "seed"]
    parts = [
        run.details[run.details["quantity"] == quantity].assign(**about(label))[columns]
        for label, run in main.pairs
    ]
    return _joined(parts).rename(columns={"x": x})


def unconverged(main: Evidence) -> pd.DataFrame:
    """The arms of which temperature fits did not converge: columns regime, arm, fits, failed, why
    (see `lsce.measures.temperature.Temperature`), and of the failed fits the means of the
    validation accuracy and of the validation NLL that they leave (nats)."""
    rows = [
        about(label) | run.scalars | {"why": _why(run.scalars["temperature"])}
        for label, run in main.pairs
        if "temperature_converged" in run.scalars
    ]
    columns = ["regime", "arm", "fits", "failed", "why", "accuracy", "nll"]
    found = []
    for (regime, arm), fits in pd.DataFrame(rows).groupby(["regime", "arm"], sort=False):
        failed = fits[fits["temperature_converged"] == 0]
        for why, part in failed.groupby("why", sort=False):
            means = part[["validation_accuracy", "validation_nll_scaled"]].mean()
            found.append((regime, arm, len(fits), len(part), why, *means))
    return pd.DataFrame(found, columns=columns)


def _why(fitted: float) -> str:
    """Why a fit that ended at a temperature did not converge."""
    if fitted in (temperature.LOWEST, temperature.HIGHEST):
        return f"the NLL still falls at T = {fitted:g}"
    return "the logits say nothing"


def panelled(numbers: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The same with a column `panel` that joins the words in `columns`, without those that are the
    same throughout."""
    varying = [name for name in columns if numbers[name].nunique() > 1] or columns[-1:]
    return numbers.assign(panel=[": ".join(row) for row in numbers[list(varying)].to_numpy()])


def stacked(table: pd.DataFrame, measures: Mapping[str, str]) -> pd.DataFrame:
    """Measures of a table under each other, those that it has: columns regime, arm, seed, words and
    value."""
    parts = [
        table[["regime", "arm", "seed"]].assign(words=words, value=table[name])
        for name, words in measures.items()
        if name in table
    ]
    return _joined([pd.DataFrame(columns=["regime", "arm", "seed", "words", "value"]), *parts])


def mean_histories(main: Evidence, columns: list[str]) -> pd.DataFrame:
    """Columns of the histories by regime, arm, ε and epoch, means over seeds."""
    groups = main.histories.groupby(["regime", "epsilon", "arm", "epoch"], sort=False)
    return groups[columns].mean().reset_index()


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The parts under each other, of which the first has the columns in order."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True)[list(parts[0])] if filled else parts[0]


def few(epsilons: Sequence[float], judged: float, most: int = 5) -> list[float]:
    """At most `most` of the values of ε, with 0, the judged one and the largest among them."""
    always = {0.0, judged, max(epsilons)}
    rest = sorted(set(epsilons) - always)
    room = min(max(0, most - len(always)), len(rest))
    # Evenly spaced among the rest, both ends included.
    picked = [rest[round(i * (len(rest) - 1) / max(1, room - 1))] for i in range(room)]
    return sorted({*always, *picked} & set(epsilons))
