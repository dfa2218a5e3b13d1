"""Where papers disagree: what made-up runs decide."""

import math

import pytest
from made_up import build, shown

from lsce import studies
from lsce.judging.statistics import mean_interval
from lsce.report import disagreements, literature
from lsce.report.disagreements import Here, Position, boundary, decide

QUESTIONS = disagreements.declared()
PUBLISHED = literature.published()
#: Three values with a mean of 2 and a t interval from 1.5 to 2.5.
SPREAD = 0.5 * math.sqrt(3) / 4.302653


def interval(mean, half=0.5):
    spread = SPREAD * half / 0.5
    return mean_interval([mean - spread, mean, mean + spread])


def sides(first, second, here, there=None):
    """Two sides with what they report and the means of ours by regime."""
    ours = {regime: interval(mean) for regime, mean in here.items()}
    if there is None:
        return Position("A", first, "runs", ours), Position("B", second, "runs", ours)
    others = {regime: interval(mean) for regime, mean in there.items()}
    return Position("A", first, "cold runs", ours), Position("B", second, "hot runs", others)


def test_half_way_decides_or_zero_between_a_gain_and_a_loss():
    assert boundary(1.87, 0.05) == pytest.approx(0.96)
    assert boundary(0.39, -2.5) == 0
    assert boundary(-1.0, -3.0) == -2


@pytest.mark.parametrize(
    ("here", "outcome"),
    [
        ({"few": 2.0, "many": 4.0}, "settled: as in A"),
        ({"few": 0.0, "many": -3.0}, "settled: as in B"),
        ({"few": 2.0, "many": 0.0}, "still open: our regimes disagree"),
        ({"few": 2.0, "many": 1.2}, "still open: undecided for runs in “many”"),
        ({}, "still open: no runs of runs are recorded"),
    ],
)
def test_every_regime_must_lie_on_the_same_side(here, outcome):
    assert decide(*sides(1.8, 0.2, here)) == outcome  # 1.0 decides
    # The same with the sides exchanged.
    first, second = sides(1.8, 0.2, here)
    assert decide(second, first) == outcome


@pytest.mark.parametrize(
    ("cold", "hot", "outcome"),
    [
        (1.0, -1.0, "settled: each side is right in its own condition"),
        (1.0, 1.0, "settled: as in A, in either condition"),
        (-1.0, -1.0, "settled: as in B, in either condition"),
        (-1.0, 1.0, "settled: each side is wrong in its own condition"),
        (1.0, 0.2, "still open: undecided for hot runs in “few”"),
    ],
)
def test_where_the_sides_differ_in_a_condition_each_is_asked_in_its_own(cold, hot, outcome):
    assert decide(*sides(0.4, -2.5, {"few": cold}, {"few": hot})) == outcome


def test_a_condition_without_runs_leaves_the_question_open():
    first, second = sides(0.4, -2.5, {"few": 1.0}, {})
    assert decide(first, second, "are on this machine") == (
        "still open: no runs of hot runs are on this machine"
    )


def test_a_single_seed_decides_nothing():
    ours = {"few": mean_interval([5.0])}
    first, second = (Position(name, x, "runs", ours) for name, x in (("A", 1.0), ("B", 0.0)))
    assert decide(first, second) == "still open: undecided for runs in “few”"


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_name_what_there_is(name):
    question = QUESTIONS[name]
    first, second = question.sides
    numbers = [question.reported(side, PUBLISHED) for side in (first, second)]
    assert boundary(*numbers) not in numbers  # else they would not disagree
    for side in question.sides:
        for ids in side.rows:
            rows = PUBLISHED.loc[ids]
            assert (rows["confidence"] == "seen").all()
            assert rows["metric"].nunique() == rows["paper"].nunique() == 1
            assert rows["setting"].fillna("").nunique() == 1
            assert len(ids) == 1 or rows["epsilon"].iloc[0] == 0
        here = question.of(side)
        assert studies.of(here.notebook) is not None
        assert (here.control is None) == (len(side.rows[0]) == 1)
    assert (first.here is None) == (second.here is None) == (question.here is not None)


def test_what_the_papers_report_is_computed_from_their_rows():
    def reported(name):
        question = QUESTIONS[name]
        return [question.reported(side, PUBLISHED) for side in question.sides]

    assert reported("zipf-ls") == pytest.approx([77.38 - 75.51, 76.21 - 76.16])
    assert reported("ece-at-0.05") == pytest.approx([17.52 - 7.81, 9.19 - 3.96])
    assert reported("linear-transfer") == pytest.approx([81.4 - 74.6, 91.74 - 90.14])
    assert reported("smoothed-teacher") == pytest.approx([71.816 - 71.425, 68.86 - 71.36])
    assert reported("selective-classification") == pytest.approx([6.53 - 7.55, 6.56 - 6.22])
    assert reported("robustness") == pytest.approx([25, 98])  # 75% of answers stay right
    zhou = [77.33 - 76.16, 78.79 - 78.69, 79.25 - 79.11, 68.91 - 68.06]
    own = [26.81 - 25.24, 20.92 - 18.81]
    assert reported("online-label-smoothing") == pytest.approx([sum(own) / 2, sum(zhou) / 4])
    assert reported("accuracy") == pytest.approx([0.19, (0.02 - 0.13) / 2])


def reproduction_runs(gain):
    """Networks whose ECE is `gain` points lower at ε = 0.05, up to the seed."""
    run = {"network": "resnet6", "train_size": 300, "epochs": 1}
    regimes = {"few": run, "many": run | {"train_size": 600}}
    given = dict(data_name="cifar-100", regimes=regimes, epsilons=[0.0, 0.05, 0.1], seeds=range(5))
    page = shown(build("12_reproduction", **given | {"seeds": [0, 1, 2]}))
    for label, run in page.pairs:
        run.scalars["test_accuracy"] = 0.64 if label.regime == "few" else 0.5
        run.scalars["ece"] = 0.2 - (label.setting == 0.05) * gain * (1 + 0.01 * run.spec.seed) / 100
    return page


@pytest.mark.parametrize(
    ("gain", "outcome"),
    [
        (9.0, "settled: as in Mukhoti et al. 2020 (15 bins)"),
        (4.0, "settled: as in Xie et al. 2026 (20 bins)"),
    ],
)
def test_runs_settle_a_question_and_the_others_stay_open(gain, outcome):
    rows = disagreements.answers({"12_reproduction": [reproduction_runs(gain)]})
    assert len(rows) == len(QUESTIONS)
    outcomes = dict(zip(QUESTIONS, rows["outcome"], strict=True))
    assert outcomes["ece-at-0.05"] == outcome
    assert outcomes["online-label-smoothing"] == (
        "still open: no runs of online label smoothing are recorded"
    )
    row = rows.iloc[list(QUESTIONS).index("ece-at-0.05")]
    assert row["decides"] == "+7.47"
    first, second = row["reported"].split("<br>")
    assert first == "+9.71: Mukhoti et al. 2020, ResNet-50, 15 bins"
    assert second == "+5.23: Xie et al. 2026, ResNet-50, 20 bins"
    words, few, many = row["here"].split("<br>")
    assert words == "<i>label smoothing with ε = 0.05, profile mine</i>"
    assert few.startswith(f"few: +{gain * 1.01:.2f} (+") and many.startswith("many: ")
    html = disagreements.table_of(rows).to_html()
    assert outcome in html and words in html


def test_weak_networks_settle_nothing():
    page = reproduction_runs(9.0)
    for _, run in page.pairs:
        run.scalars["test_accuracy"] = 0.38
    rows = disagreements.answers({"12_reproduction": [page]})
    outcomes = dict(zip(QUESTIONS, rows["outcome"], strict=True))
    assert outcomes["ece-at-0.05"] == (
        "still open: plain networks get only 38% of the test images right"
    )


def test_without_any_runs_every_question_is_open():
    rows = disagreements.answers({}, "are on this machine")
    assert rows["outcome"].str.fullmatch("still open: no runs of .+ are on this machine").all()
    assert (rows["here"] == "–").all()


def test_the_first_set_of_runs_with_an_effect_counts():
    page = reproduction_runs(9.0)
    without = page.study.part(x for x in page.study.labelled if x.setting != 0.05)
    rows = disagreements.answers({"12_reproduction": [shown(without, "first"), page]})
    here = dict(zip(QUESTIONS, rows["here"], strict=True))
    assert "profile mine" in here["ece-at-0.05"] and "first" not in here["ece-at-0.05"]
    assert "profile first" in here["accuracy"]


def test_students_are_compared_at_the_temperature_of_each_side():
    run = {"network": "resnet6", "train_size": 300, "epochs": 1}
    given = dict(data_name="built-in", teacher_run=run, student_run=run, seeds=[0, 1, 2])
    given |= dict(temperatures=[1.0, 2.0], student_epsilons=[0.05, 0.1])
    page = shown(build("08_distillation", **given))
    better = {1.0: 0.02, 2.0: -0.03}
    for label, run in page.pairs:
        gain = better.get(label.setting, 0) * (label.method == "distilled, smoothed teacher")
        run.scalars["top1_error"] = 0.5 - gain * (1 + 0.01 * run.spec.seed)
    rows = disagreements.answers({"08_distillation": [page]})
    row = rows.iloc[list(QUESTIONS).index("smoothed-teacher")]
    assert row["outcome"] == "settled: each side is right in its own condition"
    assert "students at T = 1" in row["here"] and ": +2.02 (" in row["here"]
    assert "students at T = 2" in row["here"] and ": −3.03 (" in row["here"]


def test_attacked_networks_lose_a_share_of_what_they_got_right():
    page = shown(build("06_robustness", data_name="built-in", seeds=[0, 1, 2], radii=[1.0, 4.0]))
    for _, run in page.pairs:
        for (case, x), value in {
            ("clean", 0): 0.2,
            ("worst case", 4): 0.9,
            ("PGD-20", 4): 0.6,
        }.items():
            rows = (run.details["case"] == case) & (run.details["x"] == x)
            assert rows.sum() == 1
            run.details.loc[rows, "value"] = value
    question = QUESTIONS["robustness"]
    pgd, worst = (
        disagreements.effects(question, question.of(side), page) for side in question.sides
    )
    for values in pgd.values():
        assert list(values) == pytest.approx([50.0] * 3)  # 0.4 of 0.8 are lost
    for values in worst.values():
        assert list(values) == pytest.approx([87.5] * 3)


def test_the_best_setting_is_chosen_on_validation():
    given = dict(data_name="built-in", focal_gammas=[1.0, 2.0], seeds=[0, 1])
    given |= dict(mixup_alphas=[0.2, 1.0], maxsup_weights=[0.1, 0.3])
    page = shown(build("03_calibration", **given))
    for label, run in page.others["peers"].pairs:
        run.scalars["validation_accuracy"] = 0.5 + 0.1 * (label.setting == 2.0)
        gain = {1.0: 0.3, 2.0: 0.1}.get(label.setting, 0) * (label.method == "focal loss")
        run.scalars["top1_error"] = 0.6 - gain
    here = Here(
        words="focal loss",
        notebook="03_calibration",
        group="peers",
        measure="top1_error",
        treatment={"focal loss": "tuned"},
    )
    for values in disagreements.effects(QUESTIONS["zipf-ls"], here, page).values():
        assert list(values) == pytest.approx([10.0, 10.0])
    absent = here.model_copy(update={"treatment": {"Zipf-LS": "tuned"}})
    assert disagreements.effects(QUESTIONS["zipf-ls"], absent, page) == {}
    unmeasured = here.model_copy(update={"measure": "no_such_measure"})
    assert disagreements.effects(QUESTIONS["zipf-ls"], unmeasured, page) == {}
