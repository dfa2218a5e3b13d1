"""The claims that the report judges, and their verdicts from a study's table.

The claims are declared in `claims.yaml` beside this file, before the runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import pandas as pd
import yaml

from lsce import stats, studies


@dataclass(frozen=True, kw_only=True, eq=False)
class Claim:
    """A sentence about label smoothing that paired runs can judge; `claims.yaml` says the rest."""

    id: str
    claim: str
    notebook: str
    measure: str
    words: str
    unit: str
    scale: float = 1.0
    better: str
    smallest: float | None = None
    not_worse_by: float | None = None
    #: What the literature measured of it: `measure`, and `pairs` of rows of `data/published.csv`,
    #: without and with smoothing.
    published: Mapping[str, Any] | None = None

    @property
    def sign(self) -> float:
        """Turns a difference in the measure into an effect: in the unit, positive as claimed."""
        return self.scale * (1 if self.better == "higher" else -1)


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict in one regime; the effect is positive where it is as claimed.

    `control` is the ε that was compared against. With fewer than one complete pair the verdict is
    "undecided" and there is no effect.
    """

    regime: str
    control: float
    verdict: str
    effect: stats.Interval | None
    more_runs: int | None = None


def load() -> dict[str, Claim]:
    """Every declared claim by its id."""
    declared = yaml.safe_load(files("lsce").joinpath("claims.yaml").read_text(encoding="utf-8"))
    return {name: Claim(id=name, **fields) for name, fields in declared.items()}


def judge(claim: Claim, table: pd.DataFrame, epsilon: float) -> list[Judgement]:
    """Judge a claim at `epsilon` in every regime of a study's table (see `Study.table`).

    Raises ValueError as `lsce.studies.check_judged` does.
    """
    studies.check_judged(epsilon, sorted(set(table["epsilon"])))
    return [
        _judge(claim, part, regime, epsilon) for regime, part in table.groupby("regime", sort=False)
    ]


def seed_effects(
    claim: Claim, runs: pd.DataFrame, measure: str, epsilon: float, control: float = 0.0
) -> pd.Series:
    """The effect of `epsilon` against `control` on a measure, in the claim's unit and positive as
    claimed, for each seed of a regime's runs that has both."""
    pairs = runs.pivot(index="seed", columns="epsilon", values=measure)
    pairs = claim.sign * pairs[[epsilon, control]].dropna()
    return pairs[epsilon] - pairs[control]


def _judge(claim: Claim, table: pd.DataFrame, regime: str, epsilon: float) -> Judgement:
    control = 0.0 if claim.not_worse_by is None else _best_other(table, epsilon)
    effects = seed_effects(claim, table, claim.measure, epsilon, control)
    if effects.empty:
        return Judgement(regime, control, stats.UNDECIDED, None)
    effect = stats.mean_interval(effects)
    if claim.not_worse_by is None:
        found = stats.judge(effect, claim.smallest)
    else:  # non-inferiority: the effect, moved up by the margin, must be above 0
        margin = claim.not_worse_by
        moved = replace(
            effect, mean=effect.mean + margin, low=effect.low + margin, high=effect.high + margin
        )
        found = stats.judge(moved, 0.0)
    return Judgement(regime, control, found.verdict, effect, found.more_runs)


def _best_other(table: pd.DataFrame, epsilon: float) -> float:
    """The ε other than `epsilon` with the best mean accuracy on the validation split."""
    others = table[table["epsilon"] != epsilon]
    return float(others.groupby("epsilon")["validation_accuracy"].mean().idxmax())


def effects(judged: dict[Claim, list[Judgement]]) -> pd.DataFrame:
    """Every effect in smallest effects that matter, for `lsce.plots.effects`."""
    rows = []
    for claim, judgements in judged.items():
        matters = claim.smallest if claim.not_worse_by is None else claim.not_worse_by
        for found in judgements:
            if found.effect is not None:
                rows.append(
                    {
                        "claim": claim.claim,
                        "regime": found.regime,
                        "n": found.effect.n,
                        "effect": found.effect.mean / matters,
                        "low": found.effect.low / matters,
                        "high": found.effect.high / matters,
                        "verdict": found.verdict,
                    }
                )
    return pd.DataFrame(rows)
