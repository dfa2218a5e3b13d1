"""The rule for verdicts, tried on simulated pages: how often it errs, and what it finds."""

import numpy as np
import pytest

from lsce.judging import rule, simulation
from lsce.judging.simulation import DESIGNS, Design, Judged
from lsce.measures.jackknife import GROUPS

FAMILIES = 2_000

#: As many claims and regimes as the largest page has, that on label noise.
LARGEST = {"claims": 7, "regimes": 9}

#: With margins as small as this no verdict is kept from erring by its margin.
SEEDS = {"sd_seeds": 5.0, "sd_images": 0.1, "sd_both": 0.1}

slow = pytest.mark.slow


def wrong(pages: list[list[Judged]]) -> float:
    return float(np.mean([any(each.wrong for each in page) for page in pages]))


def missed(pages: list[list[Judged]]) -> float:
    return float(np.mean([any(each.missed for each in page) for page in pages]))


def simulated(
    design: Design, truth: float | tuple[float, ...], seed: int = 1
) -> list[list[Judged]]:
    """Pages whose claims' true effects are drawn from those given."""
    drawn = np.random.default_rng(seed).choice(np.atleast_1d(truth), (FAMILIES, design.claims))
    return list(simulation.families(design, drawn, seed))


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, marks=slow if index else ()) for index, words in enumerate(DESIGNS)],
)
def test_at_most_one_page_in_twenty_has_a_false_verdict(words):
    design, truth = DESIGNS[words]
    if truth == (0,):
        design = design._replace(**LARGEST)
    pages = simulated(design, truth)
    cells = design.claims * design.regimes
    assert len(pages) == FAMILIES
    # Of five ε validation chooses another than the fixed one in four of five regimes.
    assert np.mean([len(page) for page in pages]) == pytest.approx(1.8 * cells, rel=0.01)
    assert wrong(pages) <= 0.05
    assert missed(pages) <= 0.05  # so the verdicts of "not worse than" are right as well


def test_it_would_show_intervals_that_hold_one_by_one(monkeypatch):
    monkeypatch.setattr(rule, "family_size", lambda effects, chosen_among: 1)
    assert wrong(simulated(Design(**SEEDS), 0)) > 0.4


@slow
def test_it_shows_why_a_chosen_setting_counts_for_more_than_one(monkeypatch):
    design = Design(10, **SEEDS, shared=0.1, validation=0.9)
    assert wrong(simulated(design, 0)) <= 0.05
    both = lambda effects, chosen_among: effects + len(chosen_among)  # noqa: E731
    monkeypatch.setattr(rule, "family_size", both)
    assert wrong(simulated(design, 0)) > 0.055


def test_a_simulated_page_is_what_its_design_says():
    design = Design(
        4, claims=40, regimes=50, sd_seeds=2, sd_images=0.7, sd_both=1.5, shared=0.3, validation=0
    )
    truth, rng = np.linspace(-3, 3, 40), np.random.default_rng(0)
    effects, by_group, judged = simulation._page(design, truth, rng)
    assert effects.shape == (40, 50, 2, 4) and by_group.shape == (40, 50, 2, 4, GROUPS)
    assert judged[..., 0].all() and judged[..., 1].mean() == pytest.approx(0.8, abs=0.03)
    assert effects.mean((1, 2, 3)) == pytest.approx(truth, abs=0.8)
    own = effects - truth[:, None, None, None] - by_group.mean(-1)
    assert own.var() == pytest.approx(4, rel=0.06)
    chosen = own[judged[..., 1]]
    found = np.corrcoef(chosen[:, 0].ravel(), chosen[:, 1].ravel())[0, 1]
    assert found == pytest.approx(0.3, abs=0.05)
    # The images' part is the variance between groups of what all seeds have in common.
    _, of_images = rule.standard_errors(effects, by_group)
    assert np.mean(of_images**2) == pytest.approx(0.7**2, rel=0.06)
    alike = simulation._page(design._replace(epsilons=1), truth, rng)
    assert not alike[2][..., 1].any()


@pytest.mark.parametrize(
    ("verdict", "truths"),
    [
        ("supported", [-2.0, -1.0, -0.5, 0.0]),
        ("opposite", [0.0, 0.5, 1.0, 2.0]),
        ("negligible", [-2.0, -1.0, 1.0, 2.0]),
        ("undecided", []),
    ],
)
def test_which_verdicts_are_false(verdict, truths):
    effect = rule.Effect(0.0, 5, 1.0, 1.0, -0.5, 0.5)
    for truth in (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0):
        judged = Judged(truth, effect, verdict)
        assert judged.wrong == (truth in truths)
        assert judged.missed == (abs(truth) > 0.5)


def test_power_grows_with_seeds_and_falls_with_spread():
    pages = {"pages": 60}
    few, many = simulation.power(5, 0.2, **pages), simulation.power(10, 0.2, **pages)
    wide, images = simulation.power(10, 0.6, **pages), simulation.power(10, 0.2, 0.4, **pages)
    for more, less in ((many, few), (many, wide), (many, images)):
        assert more.negligible >= less.negligible and more.at_twice >= less.at_twice
        assert more != less
    # Half of the effects that are just the margin are estimated below it.
    assert many.at_margin == pytest.approx(0.5, abs=0.12) and many.at_twice > 0.99
    assert simulation.power(5, 5.0, **pages).at_twice < 0.02
