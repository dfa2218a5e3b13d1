"""Arms of a comparison: what runs are trained by, in the rows of a table of runs."""

import math
from collections.abc import Iterator

import pandas as pd

#: Method and setting (NaN where it has none).
Arm = tuple[str, float]


def by_regime(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each regime with its rows, in order."""
    for regime, rows in table.groupby("regime", sort=False):
        yield str(regime), rows


def plain(table: pd.DataFrame) -> pd.Series:
    """Which rows are plain cross entropy; ε is 0 in many other arms, too."""
    return of_arm(table, ("smoothing", 0.0))


def of_arm(table: pd.DataFrame, arm: Arm) -> pd.Series:
    """Which rows are of an arm."""
    method, setting = arm
    same = table["setting"].isna() if math.isnan(setting) else table["setting"] == setting
    return (table["method"] == method) & same


def best_arm(runs: pd.DataFrame, chosen_by: str) -> Arm | None:
    """Method and setting of the best mean of `chosen_by`, a column measured on the validation split
    (the highest of an accuracy, else the lowest); None if each diverged with some seed."""
    arms = runs.groupby(["method", "setting"], dropna=False, sort=False)[chosen_by]
    # A mean over the seeds that did not diverge would favour an arm that does.
    means = arms.agg(lambda values: values.mean(skipna=False)).dropna()
    if means.empty:
        return None
    method, setting = means.index[
        int(means.argmax() if "accuracy" in chosen_by else means.argmin())
    ]
    return method, float(setting)


def tuned(
    table: pd.DataFrame, chosen_by: str
) -> Iterator[tuple[str, str, pd.DataFrame, Arm | None]]:
    """Regime, method, runs and `best_arm` of everything tuned; plain cross entropy is a method of
    its own."""
    methods = table["method"].mask(plain(table), "plain cross entropy")
    for regime, part in by_regime(table):
        for method, runs in part.groupby(methods, sort=False):
            yield regime, str(method), runs, best_arm(runs, chosen_by)


def words_of(table: pd.DataFrame, arm: Arm) -> str:
    """The words for an arm of a table."""
    return str(table.loc[of_arm(table, arm), "arm"].iloc[0])
