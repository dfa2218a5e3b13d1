"""The page on how verdicts are drawn."""

import math

import pandas as pd
import pytest

from lsce.judging import simulation
from lsce.judging.claims import Claim
from lsce.judging.judgements import Judgement
from lsce.judging.rule import Effect
from lsce.report import verdicts
from lsce.report.findings import Finding


def claim(name: str, **changes: object) -> Claim:
    fields = dict(
        id=name,
        claim=f"Smoothing does {name}.",
        notebook="02_made_up",
        figure="fig-made-up",
        family="made up",
        declared="2026-11-28",
        measure="top1_error",
        words="top-1 error",
        unit="points",
        better="lower",
        smallest=0.5,
        reason="Because.",
        advice={},
    )
    return Claim(**fields | changes)


CLAIMS = {"less": claim("less"), "as-well": claim("as-well", smallest=None, not_worse_by=2.0)}


def finding(effects: dict[str, list[Effect | None]]) -> Finding:
    judgements = {
        name: [Judgement("few", "judged", "ε = 0.1", "ε = 0", "undecided", e, ()) for e in part]
        for name, part in effects.items()
    }
    margins = {name: each.matters for name, each in CLAIMS.items()}
    return Finding("02_made_up", True, "cpu", 0, [], judgements, margins, ["as-well"], [])


def effect(n: int, se_seeds: float, se_images: float) -> Effect:
    return Effect(1.0, n, se_seeds, se_images, 0.0, 2.0)


def test_parts_of_seeds_and_images_by_hand():
    found = finding(
        {
            "less": [effect(4, 0.3, 0.4), effect(4, 0.3, math.nan), effect(4, 0.1, 0.0), None],
            "as-well": [effect(9, 1.0, 2.0)],
        }
    )
    numbers = verdicts.parts({"02_made_up": found, "03_other": finding({})})
    (row,) = numbers.to_dict("records")
    assert (row["page"], row["effects"], row["n"]) == ("02_made_up", 3, 9)
    # In margins of 0.5, 0.5 and 2: seeds 0.6, 0.2, 0.5; images 0.8, 0, 1; with √n = 2, 2, 3 the
    # deviations 1.2, 0.4, 1.5; shares 0.16 / 0.25, 0 and 4 / 5.
    expected = {"ratio": 1.2, "seeds": 0.5, "images": 0.8, "share": 0.64, "low": 0, "high": 0.8}
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    shown = verdicts.parts_table(numbers).data
    assert list(shown.iloc[0])[-1] == "64% (0% to 80%)"
    assert '<a href="02_made_up.ipynb">02_made_up</a>' in set(shown["page"])


def test_without_effects_that_have_both_parts_there_is_a_sentence():
    numbers = verdicts.parts({"02_made_up": finding({"less": [None]})})
    assert "No page has been run yet" in verdicts.parts_table(numbers).data


def test_margins_say_what_they_are_and_why():
    more = [claim("more", smallest=1.0), claim("like less")]
    rows = verdicts.margins([*CLAIMS.values(), *more]).data
    assert list(rows["margin"]) == ["0.5 points", "at most 2 points worse", "1 point"]
    assert set(rows["reason"]) == {"Because."}
    first, second = rows["claims"][0].split("<br>")
    assert first == '<a href="02_made_up.ipynb#fig-made-up">Smoothing does less.</a>'
    assert "Smoothing does like less." in second


def test_errors_are_counted_page_by_page():
    numbers = verdicts.errors(20)
    assert list(numbers["simulated"]) == list(simulation.DESIGNS) and set(numbers["pages"]) == {20}
    assert (numbers["wrong"] <= numbers["missed"]).all() and (numbers["missed"] <= 4).all()
    decided = ["supported", "opposite", "negligible", "undecided"]
    assert numbers[decided].sum(axis=1).to_numpy() == pytest.approx(1)
    by_words = numbers.set_index("simulated")
    assert by_words.loc["effects of just the margin, for or against", "undecided"] < 0.9
    assert by_words.loc["no effects, n = 3", "undecided"] == 1
    assert numbers["judged"].to_numpy() == pytest.approx(18, abs=1)  # 5 claims, 2 regimes, two ε
    assert verdicts.errors(20).equals(numbers)  # seeded


def test_tables_of_the_simulations():
    numbers = pd.DataFrame({"simulated": ["no effects"], "n": [5], "judged": [18.2]})
    numbers = numbers.assign(pages=400, wrong=8, missed=9, undecided=0.5)
    (row,) = verdicts.errors_table(numbers).data.to_dict("records")
    # Clopper and Pearson's limits for 8 of 400 are 0.87% and 3.90%.
    assert row["pages with a false verdict"] == "2.0% (0.9% to 3.9%)"
    found = pd.DataFrame(
        [
            {"images": 0.0, "ratio": ratio, "n": n}
            | {"negligible": 0.1, "at_margin": 0.2, "at_twice": 0.9 if ratio * 10 < n / 2 else 0.3}
            for ratio in (0.1, 0.4)
            for n in (5, 10)
        ]
    )
    shown = verdicts.power_table(found).data
    assert list(shown["twice: supported, n\u00a0=\u00a010"]) == ["90%", "90%"]
    assert list(shown["twice: supported, n\u00a0=\u00a05"]) == ["90%", "30%"]
    text = verdicts.summary(numbers, found).data
    assert "Of 400 simulated pages of each of 1 kinds, at most 2.0% hold a false verdict" in text
    assert "is up to 0.1 of the margin with 5 seeds and up to 0.4 of the margin with 10" in text
    assert "a standard error of 0 of the margin, at most 10% of what has no effect" in text


def test_preconditions_are_said_with_their_limits():
    assert "by 5% and 4 standard errors" in verdicts.untestable().data
