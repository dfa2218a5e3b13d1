"""What must hold for a claim to be testable: else no verdict is drawn.

Every check returns a sentence that says what fails, or None.
"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lsce.judging.arms import Arm, of_arm, plain

if TYPE_CHECKING:
    from lsce.judging.claims import Claim

#: How many standard errors a mean must lie away from what makes a test void.
ERRORS = 4

#: By how much plain networks must be more accurate on their training images than guessing is.
LEARNED = 0.05

NO_PAIRS = "no pair of runs has a value of each measure"

NO_OUTCOMES = "these runs were recorded before it was kept how they did on groups of test images"


def failed(claim: "Claim", runs: pd.DataFrame, arms: tuple[Arm, Arm]) -> str | None:
    """Why a claim cannot be tested in these runs of a regime, with these arms as treatment and
    control."""
    compared = runs[of_arm(runs, arms[0]) | of_arm(runs, arms[1])]
    measures = {claim.measure, claim.control_measure or claim.measure}
    checks = [
        _learned(runs, arms[1]),
        _bounded(claim, runs, arms[1]),
        _damaged(claim, runs, arms),
    ]
    if any(measure.endswith("_scaled") for measure in measures):
        checks.append(_converged(compared))
    return next(filter(None, checks), None)


def _learned(runs: pd.DataFrame, control: Arm) -> str | None:
    """Plain networks fit their training images better than guessing does."""
    if "train_accuracy" not in runs:
        return None
    rows = runs[plain(runs)] if plain(runs).any() else runs[of_arm(runs, control)]
    guessing = 1 / float(rows["classes"].iloc[0])
    mean, error = _mean(rows["train_accuracy"])
    if not mean - guessing < LEARNED + ERRORS * error:
        return None
    return (
        f"plain networks get {mean:.1%} of their training images right, and guessing {guessing:.1%}"
    )


def _bounded(claim: "Claim", runs: pd.DataFrame, control: Arm) -> str | None:
    """The control's measure is so far from the ends of its scale that an effect of the margin can
    show."""
    measure = claim.control_measure or claim.measure
    rows = runs[of_arm(runs, control)]
    mean, error = _mean(rows[measure])
    room = claim.matters / claim.scale + ERRORS * error
    for bound, end, words in zip(claim.bounds, (-1, 1), ("floor", "ceiling"), strict=True):
        if bound is None:
            continue
        value = bound
        if bound == "guessing":
            guessing = 1 / float(rows["classes"].iloc[0])
            value, words = (1 - guessing if "error" in measure else guessing), "level of guessing"
        if end * (float(value) - mean) < room:
            there, limit = claim.scale * mean, claim.scale * float(value)
            return (
                f"the control's value is {there:.3g}, too near the {words} {limit:.3g} for an "
                f"effect of {claim.margin_in_words} to show"
            )
    return None


def _damaged(claim: "Claim", runs: pd.DataFrame, arms: tuple[Arm, Arm]) -> str | None:
    """What a claim says is repaired, the treatment does damage, by the margin at least."""
    if claim.repairs is None:
        return None
    treatment, control = (float(runs.loc[of_arm(runs, arm), claim.repairs].mean()) for arm in arms)
    if claim.sign * (treatment - control) <= -claim.matters:
        return None
    return (
        f"there is too little to repair: the treatment's value is {claim.scale * treatment:.3g} "
        f"before and the control's {claim.scale * control:.3g}"
    )


def _converged(compared: pd.DataFrame) -> str | None:
    """Every temperature was fitted within its bounds."""
    if "temperature_converged" not in compared:
        return None
    failing = int((compared["temperature_converged"] == 0).sum())
    if not failing:
        return None
    return f"the fit of the temperature ended at its bound in {failing} of {len(compared)} runs"


def _mean(values: pd.Series) -> tuple[float, float]:
    """The mean and its standard error, which is 0 for a single value."""
    known = values.dropna()
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else 0.0
    return float(known.mean()), float(error)
