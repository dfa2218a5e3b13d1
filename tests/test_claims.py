"""The claims that are declared, and verdicts from tables of made-up runs."""

import numpy as np
import pandas as pd
import pytest
from made_up import GRID, REGIMES, build, shown

from lsce import studies
from lsce.judging import claims, statistics
from lsce.judging.claims import MAIN
from lsce.machine import paths
from lsce.report import findings, page

DECLARED = studies.all_claims()


def made_up(arms: dict, measure: str = "top1_error", **more) -> pd.DataFrame:
    """A table in which a measure is 0.5, less the gains of each (method, setting), by seed; what is
    chosen by follows the gains."""
    rows = [
        {"regime": "r", "method": method, "setting": setting, "seed": seed, "train_size": 100}
        | {"epsilon": setting if method == "smoothing" else 0.0}
        | {"arm": f"ε = {setting:g}" if method == "smoothing" else f"{method} {setting:g}"}
        | {"run": f"{method} {setting}, seed {seed}"}
        | {
            measure: 0.5 - gain,
            "validation_accuracy": 0.5 + gain,
            "validation_nll_scaled": 0.5 - gain,
        }
        | more
        for (method, setting), gains in ({("smoothing", 0.0): [0.0] * 4} | arms).items()
        for seed, gain in enumerate(gains)
    ]
    return pd.DataFrame(rows)


def judge(claim, table: pd.DataFrame, epsilon: float = 0.1):
    claim = DECLARED[claim] if isinstance(claim, str) else claim
    return claims.judge([claim], {claim.group: table}, epsilon)[claim.id]


def smoothed(gains: dict) -> dict:
    return {("smoothing", epsilon): values for epsilon, values in gains.items()}


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0.010, 0.011, 0.012, 0.011], "supported"),
        ([-0.010, -0.011, -0.012, -0.011], "refuted"),
        ([0.001, 0.0, 0.001, 0.002], "refuted"),
        ([0.03, -0.02, 0.02, -0.01], "undecided"),
    ],
)
def test_a_gain_is_judged_in_the_unit_of_the_claim(gains, verdict):
    (found,) = judge("lower-error", made_up(smoothed({0.1: gains})))
    assert found.verdict == verdict
    assert (found.treatment, found.control) == ("ε = 0.1", "ε = 0")
    assert found.effect.mean == pytest.approx(100 * np.mean(gains))
    assert (found.more_runs is not None) == (verdict == "undecided")
    arms = ("smoothing 0.1", "smoothing 0.0")
    assert found.runs == {f"{arm}, seed {seed}" for arm in arms for seed in range(4)}


@pytest.mark.parametrize(
    ("rival", "verdict"), [(0.011, "supported"), (0.10, "refuted"), (0.015, "undecided")]
)
def test_as_good_as_any_other_compares_with_the_best_other_by_validation(rival, verdict):
    gains = [0.010, 0.012, 0.011, 0.009]
    spread = [0.001, -0.001, 0.0, 0.001]
    table = made_up(smoothed({0.1: gains, 0.3: [rival + s for s in spread], 0.9: [-0.2] * 4}))
    (found,) = judge("epsilon-0.1", table)
    assert found.control == "ε = 0.3" and found.verdict == verdict


def test_settings_are_chosen_on_validation_for_both_sides():
    arms = smoothed({0.1: [0.01] * 4, 0.3: [0.02] * 4})
    arms |= {("weight decay", 0.002): [0.03, 0.031, 0.03, 0.029], ("weight decay", 0.1): [0.0] * 4}
    table = made_up(arms)
    # The test error of what validation rejects does not matter.
    table.loc[table["setting"] == 0.1, "top1_error"] = 0.0
    (found,) = judge("better-than-weight-decay", table)
    assert (found.treatment, found.control) == ("ε = 0.3", "weight decay 0.002")
    assert found.effect.mean == pytest.approx(-1.0) and found.verdict == "refuted"


def test_peers_are_chosen_by_validation_nll():
    arms = smoothed({0.1: [0.01] * 4}) | {
        ("mixup", 1.0): [0.02] * 4,
        ("focal loss", 2.0): [0.0] * 4,
    }
    table = made_up(arms, "nll_scaled")
    table["validation_accuracy"] = 0.5
    (found,) = judge("calibration-beside-peers", table)
    assert found.control == "mixup 1"


def test_an_arm_that_diverged_once_is_not_chosen():
    arms = smoothed({0.1: [0.01, 0.011, 0.01, 0.009]})
    arms |= {("negative smoothing", -0.4): [0.2] * 4}
    arms |= {("negative smoothing, warmed up", -0.4): [0.05, 0.051, 0.05, 0.049]}
    table = made_up(arms)
    wild = (table["method"] == "negative smoothing") & (table["seed"] == 2)
    table.loc[wild, ["top1_error", "validation_accuracy"]] = np.nan
    (found,) = judge("negative-under-noise", table)
    assert found.treatment == "negative smoothing, warmed up -0.4" and found.effect.n == 4
    table.loc[table["method"].str.startswith("negative"), "validation_accuracy"] = np.nan
    assert "negative-under-noise" not in claims.judge(
        [DECLARED["negative-under-noise"]], {MAIN: table}, 0.1
    )


def test_early_stopping_is_the_control_at_the_chosen_epoch():
    table = made_up(smoothed({0.1: [0.01, 0.012, 0.011, 0.01]}), top1_error_selected=0.48)
    (found,) = judge("better-than-early-stopping", table)
    assert found.control == "ε = 0, stopped early"
    assert found.effect.mean == pytest.approx(100 * (0.48 - 0.5 + 0.01075))


def test_temperature_scaling_is_the_control_after_it():
    table = made_up(smoothed({0.1: [0.01] * 4}), "debiased_ce", debiased_ce_scaled=0.48)
    (found,) = judge("calibration-instead-of-temperature", table)
    assert found.control == "ε = 0, temperature scaled"


def test_more_with_fewer_images_is_a_slope():
    parts = [
        made_up(
            smoothed({0.1: [gain + 0.001 * s for s in range(4)]}), "nll_gap", regime=str(size)
        ).assign(train_size=size)
        for size, gain in ((100, 0.3), (1_000, 0.2), (10_000, 0.1))
    ]
    (found,) = judge("more-with-fewer-images", pd.concat(parts))
    assert found.regime == "100 to 10,000 images"
    assert found.effect.mean == pytest.approx(0.1) and found.verdict == "supported"


def test_a_family_is_corrected_for_together():
    gains = [0.010, 0.004, 0.012, 0.006]
    alone = made_up(smoothed({0.1: gains}))
    assert judge("lower-error", alone)[0].verdict == "supported"
    many = pd.concat([alone.assign(regime=f"r{i}") for i in range(8)])
    found = judge("lower-error", many)
    assert {each.verdict for each in found} == {"undecided"}
    assert found[0].p == pytest.approx(8 * judge("lower-error", alone)[0].p)


def test_another_epsilon_is_one_beside_0_and_the_judged_one():
    """Against ε = 0 alone it would be the claim of a lower error once more."""
    table = made_up(smoothed({0.1: [0.01] * 4, 0.2: [0.02, 0.021, 0.02, 0.021]}))
    (found,) = judge("epsilon-0.1", table)
    assert found.control == "ε = 0.2"
    found = claims.judge([DECLARED["epsilon-0.1"]], {MAIN: table[table["setting"] < 0.2]}, 0.1)
    assert found == {}


def test_what_a_study_lacks_is_not_judged():
    assert (
        claims.judge(DECLARED.values(), {MAIN: made_up({}).drop(columns="top1_error")}, 0.1) == {}
    )


def test_every_claim_is_complete():
    """That its page measures what it needs, the tests of studies show."""
    for claim in DECLARED.values():
        assert (claim.smallest is None) != (claim.not_worse_by is None) and claim.matters > 0
        assert set(claim.advice) == {statistics.SUPPORTED, statistics.REFUTED, statistics.DEPENDS}
        notebook = (paths.NOTEBOOKS / f"{claim.notebook}.ipynb").read_text(encoding="utf-8")
        assert f'"name": "{claim.figure}"' in notebook and "page.verdicts(main)" in notebook


def test_a_misspelt_field_of_a_claim_is_refused(tmp_path):
    (tmp_path / "some.yaml").write_text("family: some\none: {mesure: nll}")
    with pytest.raises(ValueError, match="Claim has no parameter 'mesure'; did you mean 'measure'"):
        claims.declared(tmp_path / "some.yaml", "00_some")


def test_what_was_changed_after_runs_had_been_seen_is_dated_and_in_order():
    found = claims.changes()
    assert list(found) == ["date", "change", "seen"] and found.notna().all(axis=None)
    assert pd.to_datetime(found["date"]).is_monotonic_increasing
    assert {claim.declared for claim in DECLARED.values()} == {"2026-11-24", "2026-11-25"}


def test_a_family_is_the_claims_of_one_page():
    pairs = {(claim.family, claim.notebook) for claim in DECLARED.values()}
    assert len(pairs) == len({family for family, _ in pairs}) == len({page for _, page in pairs})


def test_a_verdict_says_effect_interval_and_n_and_what_the_recorded_runs_say():
    claim = DECLARED["lower-error"]
    given = {"seeds": [0, 1, 2, 3], "regimes": {"r": REGIMES["few"]}, "more_regimes": {}}
    study = build("02_epsilon_study", **GRID | {"data_name": "cifar-100"} | given)
    first, second = shown(study), shown(study, "tiny", of_recorded=True)
    for gain, evidence in ((0.01, first), (-0.02, second)):
        for label, run in evidence.pairs:
            worse = gain + 0.002 * run.spec.seed if label.setting == 0 else 0.0
            run.scalars["top1_error"] = 0.5 + worse
    text = page.verdict(claim, first, beside=findings.of(second)).data
    effect = statistics.mean_interval([1.0, 1.2, 1.4, 1.6])  # 1.3 ± 0.41
    assert "— supported" in text and "n = 4 paired seeds" in text
    assert f"+1.3 points, 95% interval {effect.low:+.1f} to {effect.high:+.1f}" in text
    assert text.endswith("Recorded runs (profile tiny): *refuted*, −1.7 points, n = 4.")
    assert "Recorded" not in page.verdict(claim, first).data


@pytest.mark.parametrize(
    ("half", "shown"),
    [(0.13, "+0.52 (+0.39 to +0.65)"), (0.31, "+0.5 (+0.2 to +0.8)"), (0.0062, "+0.521 (")],
)
def test_an_interval_decides_the_digits(half, shown):
    effect = statistics.Interval(0.5214, 0.5214 - half, 0.5214 + half, 5, 1.0, 0.1)
    mean, interval = findings.mean_and_interval(effect)
    assert f"{mean} ({interval})".startswith(shown)


def test_more_with_more_classes_is_a_slope_in_points_or_of_the_error_itself():
    parts = [
        made_up(smoothed({0.1: [gain + 0.0001 * s for s in range(4)]}), regime=str(count)).assign(
            classes=count
        )
        for count, gain in ((10, 0.01), (100, 0.03))
    ]
    (found,) = judge("more-with-more-classes", pd.concat(parts))
    assert found.regime == "10 to 100 classes"
    assert found.effect.mean == pytest.approx(2) and found.verdict == "supported"
    (found,) = judge("more-with-more-classes-relative", pd.concat(parts))
    assert found.effect.mean == pytest.approx(4)  # of an error of 50%


def test_a_method_may_be_named_with_the_rule_for_its_epsilon():
    table = made_up(
        {
            ("class weights", 0.0): [0.1, 0.1, 0.1, 0.1],
            ("class weights", 0.1): [0.12, 0.13, 0.12, 0.13],
            ("sample weights", 0.1): [0.2, 0.2, 0.21, 0.21],
        }
    )
    (found,) = judge("weights-and-smoothing", table)
    assert (found.treatment, found.control) == ("class weights 0.1", "class weights 0")
    assert found.effect.mean == pytest.approx(2.5)
    (found,) = judge("weights-on-samples", table)
    assert found.effect.mean == pytest.approx(8) and found.verdict == "supported"


def test_students_are_compared_at_the_temperature_that_validation_chose():
    table = made_up(
        {
            ("distilled, plain teacher", 1.0): [0.1, 0.11, 0.1, 0.11],
            ("distilled, plain teacher", 4.0): [0.05] * 4,
            ("distilled, smoothed teacher", 1.0): [0.01] * 4,
            ("distilled, smoothed teacher", 4.0): [0.08, 0.08, 0.09, 0.09],
        }
    )
    (found,) = judge("smoothed-teacher", table)
    arms = ("distilled, smoothed teacher 4", "distilled, plain teacher 1")
    assert (found.treatment, found.control) == arms
    assert found.effect.mean == pytest.approx(-2) and found.verdict == "refuted"
