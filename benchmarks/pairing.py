"""Comparing by turns: A B A B …, so that a busy machine slows all alike.

Every benchmark of this folder yields `Row`s: ours beside one rival on one case. The ratio is ours
over the rival's, taken turn by turn; a row gives its median and quartiles.
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Quantity = Literal[
    "time (s)", "images/s", "peak memory (MiB)", "test accuracy", "runs/hour", "FLOP/s"
]


@dataclass(frozen=True)
class Row:
    """Ours beside a rival: medians over `n` turns; the ratio is the median of the turns' ratios.

    `ratio_low` and `ratio_high` are its quartiles; `better` says which way ours wins.
    """

    benchmark: str
    case: str
    rival: str
    quantity: Quantity
    better: Literal["higher", "lower"]
    n: int
    ours: float
    theirs: float
    ratio: float
    ratio_low: float
    ratio_high: float


def take_turns(
    methods: dict[str, Callable[[], float]], *, turns: int, warmups: int = 1
) -> dict[str, list[float]]:
    """What each method returns, a value a turn, all of them in each turn and in their order."""
    for method in methods.values():
        for _ in range(warmups):
            method()
    values: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(turns):
        for name, method in methods.items():
            values[name].append(method())
    return values


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; of a single value, that value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def compare(
    values: dict[str, list[float]],
    *,
    benchmark: str,
    case: str,
    quantity: Quantity,
    better: Literal["higher", "lower"],
    ours: str = "lsce",
) -> Iterable[Row]:
    """A row for each rival in `values` (see `take_turns`), whose first key need not be ours."""
    for rival, theirs in values.items():
        if rival == ours:
            continue
        ratios = [a / b for a, b in zip(values[ours], theirs, strict=True)]
        low, ratio, high = quartiles(ratios)
        yield Row(
            benchmark, case, rival, quantity, better, len(ratios),
            statistics.median(values[ours]), statistics.median(theirs), ratio, low, high,
        )  # fmt: skip
