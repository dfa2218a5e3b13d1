"""What the literature reports: each value, and the place where it stands."""

import re

import pandas as pd

from lsce.machine import paths


def published() -> pd.DataFrame:
    """Every published value, a row each, by its id.

    Columns: source, dataset, architecture, method, epsilon (NaN where it is not stated or not
    constant), epsilon_convention, metric, value, unit; and of the source paper, year, venue,
    arxiv_id, where_in_paper, setting, and confidence ("seen" there or "recalled"). The part of an
    id before its number is the paper's key in the bibliography.
    """
    sources = pd.read_csv(paths.SOURCES, index_col="source", dtype={"arxiv_id": str})
    values = pd.read_csv(paths.PUBLISHED, index_col="id")
    return values.join(sources, on="source", validate="many_to_one")


def in_units_of(measure: str, rows: pd.DataFrame) -> pd.Series:
    """Published values as a measure of ours has them: shares instead of percentages and, where the
    measure is an error, errors instead of accuracies."""
    values = rows["value"] / rows["unit"].map({"%": 100.0}).fillna(1.0)
    accuracies = rows["metric"].str.contains("accuracy")
    return values.mask(accuracies, 1 - values) if "error" in measure else values


def name(row: pd.Series) -> str:
    """Authors, year, network and condition of a published value in words, and its data set unless
    that is CIFAR-100."""
    parts = [f"{row['paper'].split(',')[0]} {row['year']}"]
    if isinstance(row["architecture"], str):
        parts.append(row["architecture"].split(" (")[0].replace("->", "→"))
    setting = row["setting"] if isinstance(row["setting"], str) else ""
    if temperature := re.search(r"temperature (?:T=)?(\d+)", setting):
        parts.append(f"T = {temperature[1]}")
    elif noise := re.search(r"(\w*symmetric) noise rate ([\d.]+)", setting):
        parts += [noise[1], f"{float(noise[2]):.0%}"]  # as our regimes are named
    if row["dataset"] != "CIFAR-100":
        parts.append(row["dataset"])
    return ", ".join(parts)
