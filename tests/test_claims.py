"""The claims that are declared, and verdicts from tables of made-up runs."""

import numpy as np
import pandas as pd
import pytest
from made_up import GRID, REGIMES, build, shown

from lsce import studies
from lsce.judging import claims, judgements, preconditions, rule
from lsce.judging.claims import MAIN
from lsce.machine import paths
from lsce.measures.jackknife import GROUPS
from lsce.report import findings, page

DECLARED = studies.all_claims()


def made_up(arms: dict, measure: str = "top1_error", **more) -> pd.DataFrame:
    """A table in which a measure is 0.5, less the gains of each (method, setting), by seed; what is
    chosen by follows the gains."""
    rows = [
        {"regime": "r", "method": method, "setting": setting, "seed": seed, "train_size": 100}
        | {"epsilon": setting if method == "smoothing" else 0.0, "classes": 100}
        | {"arm": f"ε = {setting:g}" if method == "smoothing" else f"{method} {setting:g}"}
        | {"run": f"{method} {setting}, seed {seed}", "status": "completed"}
        | {measure: 0.5 - gain, "validation_accuracy": 0.5 + gain}
        | dict.fromkeys(("validation_nll", "validation_nll_scaled"), 0.5 - gain)
        | {"train_accuracy": 0.9}
        | more
        for (method, setting), gains in ({("smoothing", 0.0): [0.0] * 5} | arms).items()
        for seed, gain in enumerate(gains)
    ]
    return pd.DataFrame(rows)


def outcomes(*tables: pd.DataFrame, spread: float = 0.0) -> judgements.ByGroup:
    """How every measure of every run varies between groups of test images: like `spread`, the same
    way in all runs of an arm."""
    table, known = pd.concat(tables), {}
    for row in table.to_dict("records"):
        noise = np.random.default_rng(int(1000 * abs(row["setting"]))).normal(0, spread, GROUPS)
        known[row["run"]] = {name: noise for name, value in row.items() if isinstance(value, float)}
    return known


def judge(claim, table: pd.DataFrame, epsilon: float = 0.1, spread: float = 0.0, **groups):
    claim = DECLARED[claim] if isinstance(claim, str) else claim
    tables = groups or {next(iter(claim.groups)): table}
    known = outcomes(*tables.values(), spread=spread)
    return judgements.judge([claim], tables, epsilon, known)[claim.id]


def smoothed(gains: dict) -> dict:
    return {("smoothing", epsilon): values for epsilon, values in gains.items()}


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([0.010, 0.011, 0.012, 0.011, 0.010], "supported"),
        ([-0.010, -0.011, -0.012, -0.011, -0.010], "opposite"),
        ([0.001, 0.0, 0.001, 0.002, 0.001], "negligible"),
        ([0.03, -0.02, 0.02, -0.01, 0.0], "undecided"),
    ],
)
def test_a_gain_is_judged_in_the_unit_of_the_claim(gains, verdict):
    (judged,) = judge("lower-error", made_up(smoothed({0.1: gains})))
    assert (judged.verdict, judged.at, judged.reason) == (verdict, "judged", "")
    assert (judged.treatment, judged.control) == ("ε = 0.1", "ε = 0")
    assert judged.effect.mean == pytest.approx(100 * np.mean(gains))
    assert judged.effect.se_seeds == pytest.approx(100 * np.std(gains, ddof=1) / 5**0.5)
    arms = ("smoothing 0.1", "smoothing 0.0")
    assert judged.runs == {f"{arm}, seed {seed}" for arm in arms for seed in range(5)}


def test_which_test_images_were_drawn_can_leave_a_claim_undecided():
    table = made_up(smoothed({0.1: [0.010, 0.011, 0.012, 0.011, 0.010]}))
    (sure,), (unsure,) = (judge("lower-error", table, spread=spread) for spread in (0.001, 0.05))
    assert (sure.verdict, unsure.verdict) == ("supported", "undecided")
    # Two arms' groups differ by √2 of the spread, over 50 groups, in points.
    assert unsure.effect.se_images == pytest.approx(100 * 0.05 * (2 / 50) ** 0.5, rel=0.25)
    assert unsure.effect.se_seeds == sure.effect.se_seeds


def test_a_claim_is_judged_at_the_usual_and_at_the_chosen_epsilon():
    gains = [0.010, 0.011, 0.012, 0.011, 0.010]
    better, worse = [2 * gain for gain in gains], [0.5 * gain for gain in gains]
    judged = judge("lower-error", made_up(smoothed({0.1: gains, 0.4: better})))
    assert [(each.at, each.treatment) for each in judged] == [
        ("judged", "ε = 0.1"),
        ("chosen", "ε = 0.4"),
    ]
    assert judged[1].effect.mean == pytest.approx(2 * judged[0].effect.mean)
    (judged,) = judge("lower-error", made_up(smoothed({0.1: gains, 0.4: worse})))
    assert (judged.at, judged.treatment) == ("both", "ε = 0.1")


def test_the_chosen_epsilon_is_that_of_the_claims_own_measure_where_all_runs_have_it():
    table = made_up(smoothed({0.1: [0.01] * 5, 0.4: [0.02] * 5}), "debiased_ce")
    table["debiased_ce"] += 0.001 * table["seed"] * (table["setting"] > 0)
    table["validation_debiased_ce"] = table["setting"].map({0.0: 0.3, 0.1: 0.1, 0.4: 0.2})
    assert [each.at for each in judge("better-calibration", table)] == ["both"]
    table.loc[3, "validation_debiased_ce"] = np.nan  # of a run with ε = 0: not to be chosen
    assert [each.at for each in judge("better-calibration", table)] == ["both"]
    table.loc[7, "validation_debiased_ce"] = np.nan
    judged = judge("better-calibration", table)
    assert [(each.at, each.chosen_by) for each in judged] == [
        ("judged", ""),
        ("chosen", "validation_nll"),
    ]


def test_intervals_hold_for_all_claims_of_a_page_in_all_regimes():
    gains = [0.010, 0.004, 0.012, 0.006, 0.008]
    alone = made_up(smoothed({0.1: gains}))
    (judged,) = judge("lower-error", alone)
    assert judged.verdict == "supported"
    many = [alone.assign(regime=f"r{i}", run=alone["run"] + f", r{i}") for i in range(20)]
    together = judge("lower-error", pd.concat(many))
    assert {each.verdict for each in together} == {"undecided"}
    assert together[0].effect.high > judged.effect.high


@pytest.mark.parametrize(
    ("rival", "verdict"), [(0.011, "supported"), (0.10, "opposite"), (0.015, "undecided")]
)
def test_as_good_as_any_other_compares_with_the_best_other_by_validation(rival, verdict):
    gains = [0.010, 0.012, 0.011, 0.009, 0.010]
    spread = [0.001, -0.001, 0.0, 0.001, 0.0]
    table = made_up(smoothed({0.1: gains, 0.3: [rival + s for s in spread], 0.9: [-0.2] * 5}))
    (judged,) = judge("epsilon-0.1", table)
    assert judged.control == "ε = 0.3" and judged.verdict == verdict


def test_another_epsilon_is_one_beside_0_and_the_judged_one():
    """Against ε = 0 alone it would be the claim of a lower error once more."""
    table = made_up(smoothed({0.1: [0.01] * 5}))
    assert judgements.judge([DECLARED["epsilon-0.1"]], {MAIN: table}, 0.1, outcomes(table)) == {}


def test_settings_of_rivals_are_chosen_on_validation():
    arms = smoothed({0.1: [0.01] * 5, 0.3: [0.02] * 5})
    arms |= {("mixup", 0.4): [0.03, 0.031, 0.03, 0.029, 0.03]}
    table = made_up(arms | {("mixup", 1.0): [0.0] * 5})
    # The test error of what validation rejects does not matter.
    table.loc[table["arm"] == "mixup 1", "top1_error"] = 0.1
    changes = {"group": MAIN, "control": ["mixup"]}
    claim = claims.Claim(**vars(DECLARED["lower-error"]) | changes)
    judged = {each.at: each for each in judge(claim, table)}
    assert judged["chosen"].treatment == "ε = 0.3"
    assert {each.control for each in judged.values()} == {"mixup 0.4"}
    assert judged["chosen"].effect.mean == pytest.approx(-1.0)
    assert judged["chosen"].verdict == "opposite"


def crossed(gains: dict) -> pd.DataFrame:
    """Gains of each (ε, weight decay), by seed."""
    arms = {(f"ε = {epsilon:g}", decay): gain for (epsilon, decay), gain in gains.items()}
    table = made_up(arms)
    table = table[table["method"] != "smoothing"]
    return table.assign(epsilon=table["method"].str.removeprefix("ε = ").astype(float))


def test_smoothing_and_none_each_have_the_weight_decay_of_their_best_validation_value():
    some = np.array([0.001, 0.0, -0.001, 0.0, 0.0])
    gains = {(0.0, 1e-3): 0.03, (0.0, 2e-3): 0.01, (0.1, 1e-3): 0.02, (0.1, 2e-3): 0.04}
    gains |= {(0.4, 1e-3): 0.05, (0.4, 2e-3): 0.0}
    table = crossed({arm: gain + some * (arm[0] > 0) for arm, gain in gains.items()})
    judged = judge("better-than-weight-decay", table)
    assert [(each.at, each.treatment) for each in judged] == [
        ("judged", "ε = 0.1 0.002"),
        ("chosen", "ε = 0.4 0.001"),
    ]
    assert {each.control for each in judged} == {"ε = 0 0.001"}
    assert [each.effect.mean for each in judged] == pytest.approx([1, 2])
    assert {each.verdict for each in judged} == {"supported"}
    # The test error of what validation rejects does not matter.
    rejected = table["arm"].isin(["ε = 0 0.002", "ε = 0.1 0.001", "ε = 0.4 0.002"])
    table.loc[rejected, "top1_error"] = 0.1
    assert judge("better-than-weight-decay", table) == judged
    # What diverged once is not chosen.
    lost = (table["arm"] == "ε = 0.4 0.001") & (table["seed"] == 2)
    table.loc[lost, ["top1_error", "validation_accuracy", "status"]] = [np.nan, np.nan, "diverged"]
    (both,) = judge("better-than-weight-decay", table)
    assert (both.at, both.treatment) == ("both", "ε = 0.1 0.002")


def test_without_smoothing_there_is_nothing_beside_a_tuned_weight_decay():
    """And with a single ε validation chooses its weight decay alone."""
    none = {(0.0, 1e-3): [0.0] * 5, (0.0, 2e-3): [0.01] * 5}
    assert judge("better-than-weight-decay", crossed({**none, (0.1, 1e-3): [0.02] * 5}))[0].at == (
        "judged"
    )
    table = crossed(none)
    claim = DECLARED["better-than-weight-decay"]
    assert judgements.judge([claim], {"weight decay": table}, 0.1, outcomes(table)) == {}


def test_an_arm_that_diverged_once_is_not_chosen():
    arms = smoothed({0.1: [0.01, 0.011, 0.01, 0.009, 0.01]})
    arms |= {("negative smoothing", -0.4): [0.2] * 5}
    arms |= {("negative smoothing, warmed up", -0.4): [0.05, 0.051, 0.05, 0.049, 0.05]}
    table = made_up(arms)
    wild = (table["method"] == "negative smoothing") & (table["seed"] == 2)
    table.loc[wild, ["top1_error", "validation_accuracy", "status"]] = [np.nan, np.nan, "diverged"]
    (judged,) = judge("negative-under-noise", table)
    assert judged.treatment == "negative smoothing, warmed up -0.4" and judged.effect.n == 5
    table.loc[table["method"].str.startswith("negative"), "validation_accuracy"] = np.nan
    with pytest.raises(KeyError):
        judge("negative-under-noise", table)


def test_early_stopping_is_the_control_at_the_chosen_epoch():
    table = made_up(smoothed({0.1: [0.01, 0.012, 0.011, 0.01, 0.01]}), top1_error_selected=0.48)
    (judged,) = judge("better-than-early-stopping", table)
    assert judged.control == "ε = 0, stopped early"
    assert judged.effect.mean == pytest.approx(100 * (0.48 - 0.5 + 0.0106))


def test_temperature_scaling_is_the_control_after_it():
    gains = smoothed({0.1: [0.01, 0.012, 0.011, 0.01, 0.01]})
    table = made_up(gains, "debiased_ce", debiased_ce_scaled=0.48)
    (judged,) = judge("calibration-instead-of-temperature", table)
    assert judged.control == "ε = 0, temperature scaled"


def test_more_with_fewer_images_is_the_difference_between_fewest_and_most():
    parts = [
        made_up(
            smoothed({0.1: [gain + 0.001 * s for s in range(5)]}), "nll_gap", regime=f"{size:,}"
        ).assign(train_size=size)
        for size, gain in ((100, 0.3), (1_000, 5.0), (10_000, 0.1))
    ]
    parts = [part.assign(run=part["run"] + part["regime"]) for part in parts]
    parts[0]["nll_gap"] += 0.001 * parts[0]["seed"] ** 2 * (parts[0]["setting"] > 0)
    (judged,) = judge("more-with-fewer-images", pd.concat(parts))
    assert judged.regime == "100 against 10,000"
    assert judged.effect.mean == pytest.approx(0.2 - 0.006) and judged.verdict == "supported"


def test_designs_that_disagree_make_a_claim_depend():
    claim, designs = DECLARED["more-with-more-classes"], {}
    for group, change in zip(claim.groups, (0.03, 0.03, -0.03), strict=True):
        parts = [
            made_up(
                smoothed({0.1: [gain + 0.00001 * s * count for s in range(5)]}),
                regime=f"{count} classes",
            ).assign(classes=count)
            for count, gain in ((10, 0.01), (50, 0.5), (100, 0.01 + change))
        ]
        designs[group] = pd.concat(
            part.assign(run=f"{group}, " + part["regime"] + part["run"]) for part in parts
        )
    judged = judge(claim, pd.DataFrame(), **designs)
    assert [each.verdict for each in judged] == ["supported", "supported", "opposite"]
    assert rule.combine(each.verdict for each in judged) == "depends"
    assert judged[1].regime == "equal epochs: 100 classes against 10 classes"


def test_what_a_study_lacks_is_not_judged():
    table = made_up({}).drop(columns="top1_error")
    assert judgements.judge(DECLARED.values(), {MAIN: table}, 0.1, {}) == {}


def test_a_method_may_be_named_with_the_rule_for_its_epsilon():
    table = made_up(
        {
            ("class weights", 0.0): [0.1] * 5,
            ("class weights", 0.1): [0.12, 0.13, 0.12, 0.13, 0.125],
            ("sample weights", 0.1): [0.2, 0.2, 0.21, 0.21, 0.205],
        }
    )
    (judged,) = judge("weights-and-smoothing", table)
    assert (judged.treatment, judged.control) == ("class weights 0.1", "class weights 0")
    assert judged.effect.mean == pytest.approx(2.5)
    (judged,) = judge("weights-on-samples", table)
    assert (judged.treatment, judged.control) == ("sample weights 0.1", "class weights 0.1")
    assert judged.effect.mean == pytest.approx(8) and judged.verdict == "supported"


def test_students_are_compared_at_the_temperature_that_validation_chose():
    table = made_up(
        {
            ("distilled, plain teacher", 1.0): [0.1, 0.11, 0.1, 0.11, 0.105],
            ("distilled, plain teacher", 4.0): [0.05] * 5,
            ("distilled, smoothed teacher", 1.0): [0.01] * 5,
            ("distilled, smoothed teacher", 4.0): [0.08, 0.08, 0.09, 0.09, 0.085],
        }
    )
    (judged,) = judge("smoothed-teacher", table)
    arms = ("distilled, smoothed teacher 4", "distilled, plain teacher 1")
    assert (judged.treatment, judged.control) == arms
    assert judged.effect.mean == pytest.approx(-2) and judged.verdict == "opposite"


GAIN = smoothed({0.1: [0.010, 0.011, 0.012, 0.011, 0.010]})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train_accuracy": 0.02}, "plain networks get 2.0% of their training images right"),
        ({"top1_error": 0.988}, "98.8, too near the level of guessing 99 for an effect of 0.5"),
        ({"top1_error": 0.002}, "0.2, too near the floor 0 for an effect of 0.5 points to show"),
    ],
)
def test_a_claim_is_not_judged_where_nothing_could_show(changes, reason):
    table = made_up(GAIN)
    table.loc[table["setting"] == 0, [*changes]] = [*changes.values()]
    (judged,) = judge("lower-error", table)
    assert judged.verdict == "not testable here" and reason in judged.reason
    assert judged.effect.n == 5 and np.isnan(judged.effect.low)


def test_a_claim_is_not_judged_where_a_temperature_was_not_fitted():
    table = made_up(GAIN, "debiased_ce_scaled", temperature_converged=1.0)
    (judged,) = judge("calibration-beyond-temperature", table)
    assert judged.reason == ""
    table.loc[2, "temperature_converged"] = 0.0
    (judged,) = judge("calibration-beyond-temperature", table)
    assert judged.reason == "the fit of the temperature ended at its bound in 1 of 10 runs"


@pytest.mark.parametrize(("damage", "testable"), [(0.003, True), (0.001, False), (-0.003, False)])
def test_nothing_is_repaired_where_there_is_no_damage(damage, testable):
    table = made_up(smoothed({0.1: [0.0001 * seed for seed in range(5)]}), "excess_aurc_scaled")
    table["excess_aurc"] = 0.05 + damage * (table["setting"] > 0)
    (judged,) = judge("costs-selective-scaled", table)
    assert (judged.verdict != "not testable here") == testable
    value = f"{50 + 1000 * damage:.3g}"
    sentence = f"too little to repair: the treatment's value is {value} before and the control's 50"
    assert testable or sentence in judged.reason


def test_a_claim_is_not_judged_without_outcomes_of_test_images():
    table = made_up(GAIN)
    judged = judgements.judge([DECLARED["lower-error"]], {MAIN: table}, 0.1, {})["lower-error"]
    assert [(each.verdict, each.reason) for each in judged] == [
        ("not testable here", preconditions.NO_OUTCOMES)
    ]
    # A measure of training images needs none.
    tight = DECLARED["tighter-clusters"]
    table = made_up(smoothed({0.1: [0.1, 0.11, 0.12, 0.1, 0.1]}), tight.measure)
    (judged,) = judgements.judge([tight], {MAIN: table}, 0.1, {})[tight.id]
    assert judged.verdict == "supported" and np.isnan(judged.effect.se_images)


def test_a_study_may_object():
    table = made_up(GAIN)
    objection = lambda claim, regime, arms: f"{claim.id}, {regime}, {arms[0][1]:g} is masked"  # noqa: E731
    family = [DECLARED["lower-error"]]
    (judged,) = judgements.judge(family, {MAIN: table}, 0.1, outcomes(table), objection)[
        "lower-error"
    ]
    assert (judged.verdict, judged.reason) == ("not testable here", "lower-error, r, 0.1 is masked")


def test_what_cannot_be_tested_does_not_widen_the_others():
    table = made_up(GAIN)
    hopeless = table.assign(regime="hopeless", train_accuracy=0.01, run=table["run"] + " again")
    (alone,), both = judge("lower-error", table), judge("lower-error", pd.concat([table, hopeless]))
    assert both[0].effect == alone.effect and both[1].verdict == "not testable here"


def test_a_page_says_by_what_epsilon_was_chosen():
    columns = {name for claim in DECLARED.values() for name in claim.chosen_by}
    assert columns == set(page.CHOSEN_BY)


def test_every_claim_is_complete():
    """That its page measures what it needs, the tests of studies show."""
    for claim in DECLARED.values():
        assert (claim.smallest is None) != (claim.not_worse_by is None) and claim.matters > 0
        wanted = {rule.SUPPORTED, rule.OPPOSITE, rule.NEGLIGIBLE, rule.DEPENDS}
        assert set(claim.advice) == wanted - ({rule.NEGLIGIBLE} if claim.not_worse_by else set())
        assert claim.reason.endswith(".")
        notebook = (paths.NOTEBOOKS / f"{claim.notebook}.ipynb").read_text(encoding="utf-8")
        assert f'"name": "{claim.figure}"' in notebook and "page.verdicts(main)" in notebook


GIVEN = """
  claim: It helps.
  declared: "2026-11-28"
  figure: fig
  measure: nll
  words: NLL
  unit: nats
  better: lower
  smallest: 0.1
  reason: It is.
  advice: {}
"""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("mesure: nll", "Claim has no parameter 'mesure'; did you mean 'measure'"),
        ("treatment: tunned", "treatment.* is 'tunned'; it must be 'smoothing' or 'judged'"),
        ("control: plane", "control.* is 'plane'; it must be 'plain', 'tuned' or"),
        ("control: []", r"control.* is \[\]; it must be"),
        ("treatment: {a: smoothing, b: smoothing}", "it must be one method with its ε"),
        ("scale: -1.0", "scale is -1"),
        ("bounds: [1, 0]", "bounds is .*; the second must be above the first"),
        ("contrast: [mor, classes]", "contrast is .*; it must be .more or fewer, a column"),
        ("chosen_by: []", "chosen_by is"),
        ("not_worse_by: 0.1", "one of smallest and not_worse_by must be given, and not both"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused_by_name(tmp_path, change, sentence):
    file = tmp_path / "some.yaml"
    file.write_text(f"family: some\none:{GIVEN}", encoding="utf-8")
    assert len(claims.declared(file, "00_some")) == 1
    file.write_text(f"family: some\none:{GIVEN}  {change}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"some.yaml, one: .*{sentence}"):
        claims.declared(file, "00_some")


def test_what_was_changed_after_runs_had_been_seen_is_dated_and_in_order():
    rows = claims.changes()
    assert list(rows) == ["date", "change", "seen", "claims"] and rows.notna().all(axis=None)
    assert pd.to_datetime(rows["date"]).is_monotonic_increasing
    touched = {name for names in rows["claims"] for name in names.split("; ")}
    families = {claim.family for claim in DECLARED.values()}
    assert {"all"} < touched and families & touched
    of_one = claims.changes_of(DECLARED["lower-error"])
    assert 0 < len(of_one) < len(rows)


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
    text = page.verdict(claim, first, beside=[findings.of(second)]).data
    assert "— supported" in text and "+1.3 points, interval +" in text
    assert "n = 4 paired seeds" in text and claim.reason in text
    assert "Recorded runs (profile tiny): *opposite" in text and "−1.7 points, n = 4." in text
    assert "<details><summary>Changed after runs had been seen (" in text
    assert "Recorded" not in page.verdict(claim, first).data


@pytest.mark.parametrize(
    ("half", "shown"),
    [(0.13, "+0.52 (+0.39 to +0.65)"), (0.31, "+0.5 (+0.2 to +0.8)"), (0.0062, "+0.521 (")],
)
def test_an_interval_decides_the_digits(half, shown):
    effect = rule.Effect(0.5214, 5, 0.1, 0.1, low=0.5214 - half, high=0.5214 + half, family=1.0)
    mean, interval = findings.mean_and_interval(effect)
    assert f"{mean} ({interval})".startswith(shown)
