"""Checks for masked gradients, against counts by hand."""

import numpy as np
import pandas as pd
import pytest

from lsce.measures import masking
from lsce.measures.masking import UNBOUNDED

LONGEST = "PGD-50 × 1"


def details(changes=(), radius: float = 1.0) -> pd.DataFrame:
    """What networks leave whose gradients are not masked, with other values of some rows."""
    values = {("attack", "clean", 0.0): 0.4, ("masking", "unbounded", UNBOUNDED): 1.0}
    values |= {
        ("attack", name, radius): error
        for name, error in {
            "FGSM": 0.60,
            "PGD-20": 0.65,
            "PGD-20, margin": 0.65,
            LONGEST: 0.66,
            "Square": 0.55,
            "transfer": 0.45,
        }.items()
    }
    for name in ("logits × 10", "logits ÷ 10", "float64"):
        values["masking", name, radius] = 0.66
    values |= dict(changes)
    rows = [(*key, value) for key, value in values.items()]
    return pd.DataFrame(rows, columns=["quantity", "case", "x", "value"])


def failed(*given, images: int = 1000, **options) -> list[str]:
    table = masking.checks(details(*given, **options), LONGEST, 1.0, images)
    return list(table.loc[~table["passes"], "check"])


def test_gradients_that_lead_attacks_pass_every_check():
    table = masking.checks(details(), LONGEST, 1.0, 1000)
    assert len(table) == 9 and table["passes"].all()


@pytest.mark.parametrize(
    ("row", "value", "words"),
    [
        (("attack", "FGSM", 1.0), 0.75, "many steps find more than one"),
        (("attack", LONGEST, 1.0), 0.5, "more steps find no less"),
        (("attack", "Square", 1.0), 0.75, "a black box finds no more than gradients"),
        (("attack", "transfer", 1.0), 0.75, "transferred attacks find no more than direct ones"),
        (("masking", "float64", 1.0), 0.75, "float64 finds no more"),
        (("masking", "unbounded", UNBOUNDED), 0.97, "a huge radius leaves nothing"),
    ],
)
def test_each_sign_of_masking_fails_its_check(row, value, words):
    assert words in failed({row: value})


def test_what_chance_allows_is_mcnemars_test_of_the_images_that_only_one_attack_finds():
    """Of 1,000 images the black box alone finds c and the gradients alone b: (c − b) / √(c + b) is
    normal where both are as good. Nine checks at 5%: one-sided z = 2.54."""
    z = 2.5392

    def fails(alone: int, other: int, images: int = 1000) -> bool:
        square = 0.66 + (alone - other) / images
        discordant = ("discordant", "Square", 1.0)
        changes = {("attack", "Square", 1.0): square, discordant: (alone + other) / images}
        return bool(failed(changes, images=images))

    for alone, other in ((9, 1), (10, 0), (20, 4), (18, 6), (30, 14), (70, 40), (60, 40)):
        assert fails(alone, other) == ((alone - other) / np.sqrt(alone + other) > z)
    assert fails(10, 0) and not fails(6, 0) and not fails(60, 40)
    # Ten times the images, with the same shares.
    assert not fails(12, 4) and fails(120, 40, images=10_000)


def test_false_alarms_are_as_rare_as_promised():
    """Attacks that are as good as each other, with 40 images that only one of both finds."""
    draws = np.random.default_rng(0).binomial(40, 0.5, size=(4000, 9))
    slack = masking._slack(40 / 1000, 1000)
    alarms = ((2 * draws - 40) / 1000 > slack).any(axis=1)
    assert 0.02 < alarms.mean() <= masking.LEVEL


def test_without_counts_images_are_taken_to_be_found_independently():
    """0.6 are right; of these 1/4 fall to one attack and 1/2 to the other: 0.6 (1/8 + 3/8)."""
    assert masking._independent(0.55, 0.7, clean=0.4) == pytest.approx(0.3)
    assert masking._independent(1.0, 1.0, clean=1.0) == 0
    error, least = 0.66 + 0.03, 0.6 * (0.4833 * 0.5667 + 0.4333 * 0.5167)
    slack = 2.5392 * np.sqrt(least / 1000)
    assert slack == pytest.approx(0.0439, abs=2e-4)
    assert not failed({("attack", "Square", 1.0): error})
    assert failed({("attack", "Square", 1.0): 0.66 + 0.05})


def test_what_was_repeated_at_another_radius_alone_is_compared_there():
    old = details()
    repeated = old["case"].isin(["logits × 10", "logits ÷ 10", "float64"])
    old.loc[repeated, ["x", "value"]] = 4.0, 0.9
    more = pd.DataFrame([("attack", LONGEST, 4.0, 0.95)], columns=old.columns)
    table = masking.checks(pd.concat([old, more]), LONGEST, 1.0, 300).set_index("check")
    row = table.loc["float64 finds no more"]
    assert (row["error"], row["against"]) == (0.9, 0.95)
    assert table.loc["more steps find no less", "against"] == 0.66


def test_networks_are_taken_together():
    """Means over networks: a mean error of 0.66, and of what only one attack finds, 0.02."""
    several = pd.concat(
        details({("attack", "Square", 1.0): error, ("discordant", "Square", 1.0): differ})
        for error, differ in ((0.60, 0.01), (0.72, 0.03))
    )
    table = masking.checks(several, LONGEST, 1.0, 1000).set_index("check")
    row = table.loc["a black box finds no more than gradients"]
    assert row["error"] == pytest.approx(0.66) and row["passes"]
    assert row["slack"] == pytest.approx(2.5392 * np.sqrt(0.02 / 1000), rel=1e-4)
