"""Label smoothing beside its rivals: how settings are chosen, and intervals of their own."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_up import GRID, REGIMES, build
from scipy import stats

from lsce.judging import rule
from lsce.measures.jackknife import GROUPS
from lsce.report import figures, rivals
from lsce.results.run import Run
from lsce.studies.calibration import PEERS, SCORES, chosen_by
from lsce.studies.evidence import Evidence

VALIDATION = ("debiased_ce", "debiased_ce_scaled", "nll", "nll_scaled")


def page(values: dict[str, float], spread: float = 0.0, **changes) -> Evidence:
    """Rivals with four seeds and two settings each, whose arms have these values by every score,
    on the test images and on validation; that of the seed s is (s − 1.5)/1000 more. spread: how
    much they vary between groups of test images, otherwise in each arm."""
    given = dict(regimes={"few": REGIMES["few"]}, seeds=[0, 1, 2, 3], epsilons=[0.0, 0.1, 0.3])
    given |= dict(focal_gammas=[1.0, 3.0], mixup_alphas=[0.2, 1.0], maxsup_weights=[0.1, 0.3])
    study, runs = build("03_calibration", **GRID | given | changes), {}
    study = study.part(study.groups()[PEERS])
    arms = sorted({label.arm for label in study.labelled})
    for label in study.labelled:
        value = values.get(label.arm, 0.5)
        of_seed = (label.task.seed - 1.5) / 1000 * (label.method != "smoothing")
        scalars = dict.fromkeys(SCORES, value + of_seed) | {"validation_accuracy": 1 - value}
        scalars |= {f"validation_{name}": value for name in VALIDATION}
        noise = np.random.default_rng(arms.index(label.arm)).normal(0, spread, GROUPS)
        by_group = dict.fromkeys(SCORES, noise)
        runs[label.task.id] = Run(label.task, "completed", {}, scalars, by_group=by_group)
    return Evidence(study, runs, False, "mine")


ARMS = {
    "ε = 0.1": 0.3,
    "ε = 0.3": 0.2,
    "focal loss, γ = 1": 0.25,
    "mixup, α = 0.2": 0.1,
    "MaxSup, weight 0.1": 0.2,
}


def test_each_rival_is_set_against_smoothing_where_validation_is_best():
    """Also if another setting is better on the test images."""
    found = page(ARMS)
    for label, run in found.pairs:
        if label.arm == "focal loss, γ = 3":
            run.scalars.update(dict.fromkeys(SCORES, 0.0))
    numbers = rivals.differences(found)
    assert len(numbers) == 3 * 4 and set(numbers["smoothing"]) == {"ε = 0.3"}
    assert set(numbers["rival"]) == {*ARMS} - {"ε = 0.1", "ε = 0.3"} and set(numbers["n"]) == {4}
    rows = numbers.set_index(["score", "method"])
    assert rows.loc[("debiased CE", "focal loss"), "mean"] == pytest.approx(0.05)
    assert rows.loc[("top-1 error", "mixup"), "mean"] == pytest.approx(-10.0)  # points
    # All differences of the table together: twelve, two-sided, over four seeds.
    error = np.std([-1.5, -0.5, 0.5, 1.5], ddof=1) / 1000 / 2
    half = stats.t.ppf(1 - 0.05 / 2 / 12, 3) * error
    row = rows.loc[("NLL, scaled", "MaxSup")]
    assert (row["low"], row["high"]) == pytest.approx((-half, half))


def test_intervals_count_the_test_images_and_are_those_of_the_rule():
    peers = page(ARMS, spread=0.01)
    (row,) = (
        row
        for row in rivals.differences(peers).itertuples()
        if (row.score, row.method) == ("debiased CE", "mixup")
    )
    runs = {(label.arm, run.spec.seed): run for label, run in peers.pairs}
    both = [(runs["mixup, α = 0.2", seed], runs["ε = 0.3", seed]) for seed in range(4)]
    name = "debiased_ce"
    effects = [rival.scalars[name] - ours.scalars[name] for rival, ours in both]
    groups = [rival.by_group[name] - ours.by_group[name] for rival, ours in both]
    (alone,) = rule.intervals([rule.estimate(effects, groups)], level=1 - 0.05 / 12)
    assert (row.low, row.high) == pytest.approx((alone.low, alone.high)) and alone.se_images > 0


def test_the_summary_counts_what_is_better_and_worse():
    numbers = rivals.differences(page(ARMS))
    said = rivals.summary(numbers).data
    assert said.startswith("Of 3 rivals against label smoothing:\n\n- debiased CE, where smoothing")
    assert said.count("ε = 0.3: 1 better, 1 worse, 1 undecided") == 4
    assert "over 4 paired seeds" in said and "Its 12 intervals hold together with 95%" in said
    table = rivals.table(numbers).data
    assert list(table["rival"]) == ["mixup", "MaxSup", "focal loss"]
    assert table.columns[1:].tolist() == [score.heading for score in SCORES.values()]
    assert table.loc[0, "debiased CE"].startswith("<b>−0.100 (−0.10")
    assert table.loc[0, "debiased CE"].endswith("</b><br>α = 0.2")
    assert "<b>" not in table.loc[1, "debiased CE"]


def test_without_groups_of_test_images_there_are_no_intervals():
    found = page(ARMS)
    for run in found.own_runs:
        run.by_group.clear()
    numbers = rivals.differences(found)
    assert numbers["low"].isna().all() and numbers["mean"].notna().all()
    said = rivals.summary(numbers).data
    assert "there are none" in said and "ε = 0.3: 1 lower, 1 higher" in said
    assert "(" not in rivals.table(numbers).data.loc[0, "debiased CE"]


def test_every_regime_has_its_own_rows_and_choice():
    numbers = rivals.differences(page(ARMS, regimes=REGIMES, compared_regimes=[*REGIMES]))
    table = rivals.table(numbers).data
    assert list(table["regime"]) == ["few", "", "", "many", "", ""]
    assert list(table["rival"]) == 2 * ["mixup", "MaxSup", "focal loss"]


def test_a_rival_that_always_diverged_is_left_out_and_others_go_on():
    found = page(ARMS)
    for label, run in found.pairs:
        if label.method == "mixup" and run.spec.seed == 1:
            run.scalars.update({f"validation_{name}": math.nan for name in VALIDATION})
            run.scalars["validation_accuracy"] = math.nan
    numbers = rivals.differences(found)
    assert set(numbers["method"]) == {"focal loss", "MaxSup"}
    none = rivals.differences(page({}, focal_gammas=[1.0, 3.0])).head(0)
    assert rivals.summary(none).data == "No rival finished training with every seed."
    assert rivals.table(none).data.empty


def test_the_column_that_settings_are_chosen_by_is_the_first_that_all_runs_have():
    peers = page(ARMS)
    assert chosen_by(peers.table, "debiased_ce") == "validation_debiased_ce"
    peers = page(ARMS)
    del peers.own_runs[0].scalars["validation_debiased_ce"]
    assert chosen_by(peers.table, "debiased_ce") == "validation_nll"


def test_settings_at_an_edge_are_named_by_score():
    given = dict(focal_gammas=[0.5, 1.0, 3.0], mixup_alphas=[0.2, 0.4, 1.0])
    given |= dict(maxsup_weights=[0.1, 0.3, 0.6], epsilons=[0.0, 0.05, 0.1, 0.3])
    given |= dict(compared_epsilons=[0.05, 0.1, 0.3])
    arms = {"ε = 0.1": 0.1, "focal loss, γ = 1": 0.1, "mixup, α = 0.2": 0.1}
    found = page(arms | {"MaxSup, weight 0.6": 0.1}, **given)
    for label, run in found.pairs:
        run.scalars["validation_accuracy"] = 0.5 + 0.1 * (label.setting in (0.1, 0.3, 0.4, 1.0))
    lines = rivals.edges(found).data.splitlines()
    assert "a better one may lie beyond" in lines[0]
    ends = "mixup, α = 0.2 (least); MaxSup, weight 0.6 (greatest)"
    assert lines[2] == f"- by debiased CE: {ends}" and lines[4] == f"- by NLL, scaled: {ends}"
    assert lines[5] == "- by top-1 error: MaxSup, weight 0.1 (least)"


def test_one_setting_each_leaves_nothing_to_choose():
    one = dict(focal_gammas=[1.0], mixup_alphas=[0.2], maxsup_weights=[0.1])
    assert "nothing was chosen" in rivals.edges(page(ARMS, **one)).data


def test_the_figure_has_the_best_method_on_top_and_marks_each_score_s_choice():
    found = page(ARMS)
    for label, run in found.pairs:
        if label.arm == "focal loss, γ = 3":
            run.scalars["validation_nll_scaled"] = 0.0
    numbers = found.study.peers(replace(found, others={PEERS: found}))
    assert list(numbers["panel"].unique()) == [score.heading for score in SCORES.values()]
    assert list(numbers["arm"].unique()) == [
        "mixup, α = 0.2",
        "mixup, α = 1",
        "ε = 0.1",
        "ε = 0.3",
        "MaxSup, weight 0.1",
        "MaxSup, weight 0.3",
        "focal loss, γ = 1",
        "focal loss, γ = 3",
        "ε = 0",
    ]
    chosen = numbers[numbers["chosen"]].groupby("panel")["arm"].unique()
    assert "focal loss, γ = 3" in chosen["NLL, scaled (nats)"]
    assert "focal loss, γ = 1" in chosen["debiased CE"]
    assert len(figures.arms(numbers, columns=4).axes) == 4
