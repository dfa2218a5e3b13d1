"""The pages on classes, distillation and class weights: what they say first, and their tables."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tiny_dataset
from made_up import TINY, on_tiny, runs_of, shown

from lsce.judging import rule
from lsce.report import answers, figures, page
from lsce.studies.distillation import DIFFERENCE, ERROR, TEACHER
from lsce.studies.evidence import Evidence, grouped
from lsce.studies.profiles import Profile
from lsce.training import networks
from lsce.training.methods import Distillation
from lsce.training.spec import SomeClasses, Superclasses

# ---- number of classes ----

#: Error of plain networks, by how a run stands in a design; and what smoothing takes off it.
PLAIN = 0.5


def gained(of_few_steps: float, of_few_epochs: float, of_superclasses: float) -> Evidence:
    """A page on five of ten classes, where smoothing gains so many points with the fewest classes
    of each design (and a hundredth of that more with each seed), and 2 points with all."""
    with tiny_dataset.registered():
        run = TINY | {"recipe": {"batch_size": 10}}  # as many steps are more epochs, then
        study = on_tiny("07_number_of_classes", class_run=run)
        runs = {}
        for label in study.labelled:
            gain = 2.0
            if isinstance(label.task.sample, SomeClasses):
                gain = of_few_steps if label.group == "main" else of_few_epochs
            elif isinstance(label.task.labels, Superclasses):
                gain = of_superclasses
            gain *= 1 + 0.01 * label.task.seed
            run = runs_of([label.task])[label.task.id]
            error = PLAIN - gain / 100 * (label.setting > 0)
            runs[label.task.id] = replace(run, scalars=run.scalars | {"top1_error": error})
        found = grouped(study, runs, False, "mine")
        found.judgements  # noqa: B018 (while the data set is there)
        return found


def test_a_contrast_is_what_all_classes_gain_less_what_the_fewest_do():
    found = gained(1.0, 3.0, 2.0)
    rows = found.study.contrasts(found)
    rows = rows[rows["measure"] == "test error"].set_index("design")
    assert list(rows.index) == ["equal steps", "equal epochs", "same images"]
    # Seeds 0, 1 and 2 gain 1, 1.01 and 1.02 times as much.
    assert list(rows["gain_fewest"]) == pytest.approx([1.01, 3.03, 2.02])
    assert list(rows["gain_most"]) == pytest.approx([2.02] * 3)
    differences = [effect.mean for effect in rows["effect"]]
    assert differences == pytest.approx([1.01, -1.01, 0], abs=1e-9)
    width = networks.width("resnet6")
    assert list(rows["per_fewest"] * width) == list(rows["fewest"]) and rows["most"].eq(10).all()
    assert set(page.numbers(found).data["classes ÷ width"]) == {"0.039", "0.078"}


def test_gains_stand_side_by_side_on_equal_axes_without_a_line():
    found = gained(1.0, 3.0, 2.0)
    numbers = found.study.gains(found)
    assert list(numbers["row"].unique()) == ["error, points", "NLL gap, nats"]
    figure = figures.side_by_side(numbers, x="classes", xlabel="classes")
    panels = np.array(figure.axes).reshape(2, 3)
    assert [ax.get_title() for ax in panels[0]] == ["equal steps", "equal epochs", "same images"]
    for row in panels:
        assert len({ax.get_ylim() for ax in row}) == 1
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
    points = [line for line in panels[0, 0].lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in points] == [pytest.approx([1.01, 2.02])]
    assert {line.get_linestyle() for line in points} == {"None"}


def contrast(design: str, verdict: str, overall: str, low: float = -1.0) -> dict[str, object]:
    row: dict[str, object] = {"measure": "test error", "unit": "points", "design": design}
    row |= {"fewest": 5, "most": 100, "per_fewest": 5 / 128, "per_most": 100 / 128}
    effect = rule.Effect(-0.26, 3, 0.1, 0.1, low=low, high=0.5, family=6)
    row |= {"gain_fewest": 0.25, "gain_most": -0.01, "effect": effect}
    return row | {"verdict": verdict, "overall": overall}


def test_designs_are_named_by_what_they_say_of_the_gain():
    frame = pd.DataFrame(
        [
            contrast("equal steps", rule.OPPOSITE, rule.DEPENDS),
            contrast("equal epochs", rule.SUPPORTED, rule.DEPENDS),
            contrast("same images", rule.SUPPORTED, rule.DEPENDS, low=np.nan),
        ]
    )
    assert answers.designs(frame).data == (
        "- test error: the gain is larger with the most classes in *equal epochs* and *same "
        "images*; is smaller with the most classes in *equal steps*. Over the designs: "
        "**depends**."
    )
    rows = answers.contrasts(frame).data
    assert list(rows["difference"]) == ["−0.3 (−1.0 to +0.5)"] * 2 + ["−0.26"]
    assert list(rows.loc[0, ["classes", "÷ width"]]) == ["5 → 100", "0.039 → 0.78"]
    assert rows.loc[0, "gain with these"] == "+0.25 → −0.01"
    assert list(rows["gain"]) == ["test error, points", "", ""]


# ---- distillation ----


def taught(teacher: float, student: float = 0.1) -> Evidence:
    """A page of the profile smoke (100 classes), by the test accuracy of plain networks."""
    found = shown(Profile("smoke").study("08_distillation"))
    teachers = {run.task.id for run in found.others["teachers"].own_runs}
    for run in found.all_runs:
        accuracy = teacher if run.task.id in teachers else student
        run.scalars.update(test_accuracy=accuracy, train_accuracy=0.9)
    return found


@pytest.mark.parametrize(
    ("teacher", "student", "why"),
    [
        (TEACHER, 0.5, None),
        (TEACHER - 0.01, 0.5, "61.0% of the test images right, less than the 62% from which"),
        (0.7, 0.7, "plain teachers get 70.0% of the test images right, and plain students 70.0%"),
    ],
)
def test_a_teacher_must_be_worth_having(teacher, student, why):
    found = taught(teacher, student)
    judgements = [each for part in found.judgements.values() for each in part]
    assert len(judgements) == 5
    if why is None:
        assert not any("plain teachers" in each.reason for each in judgements)
    else:
        assert {each.verdict for each in judgements} == {rule.UNTESTABLE}
        assert why in found.judgements["smoothed-teacher"][0].reason
    said = answers.teachers(found).data
    assert ("Nothing is judged" in said) == (why is not None)
    assert said.startswith(f"Plain teachers get {teacher:.1%}")


def test_few_classes_need_no_teacher_of_a_certain_accuracy():
    with tiny_dataset.registered():
        found = shown(on_tiny("08_distillation", student_run=TINY | {"epochs": 1}))
        for run in found.others["teachers"].own_runs:
            run.scalars["test_accuracy"] = 0.3
        for run in found.own_runs:
            run.scalars["test_accuracy"] = 0.2
        reasons = [each.reason for part in found.judgements.values() for each in part]
        assert not any("plain teachers" in reason for reason in reasons)
        assert answers.teachers(found).data.endswith("plain students 20.0%.")


def by_temperature(steps: dict[float, list[float]]) -> pd.DataFrame:
    """What students of a smoothed teacher err more than those of a plain one, in points, by
    temperature, one value a seed; the latter err by half and a hundredth more with each seed."""
    with tiny_dataset.registered():
        given = {"temperatures": list(steps), "student_epsilons": [0.1, 0.2, 0.3][: len(steps)]}
        found = shown(on_tiny("08_distillation", **given))
        for label, run in found.pairs:
            if isinstance(label.task.method, Distillation):
                seed = label.task.seed
                more = steps[label.setting][seed] / 100
                smoothed = label.task.method.teacher.method.epsilon > 0
                run.scalars["top1_error"] = 0.5 + 0.01 * seed + more * smoothed
        return found.study.by_temperature(found)


def test_students_are_compared_with_those_of_plain_teachers_of_their_seed_and_temperature():
    numbers = by_temperature({1.0: [-1, -1.1, -0.9], 4.0: [2, 2.1, 1.9], 64.0: [1, -1, 0.5]})
    errors = numbers[numbers["panel"] == ERROR]
    assert len(errors) == 2 * 3 * 3 and set(errors["epsilon"]) == {0.0, 0.1}
    differences = numbers[numbers["panel"] == DIFFERENCE].set_index(["temperature", "seed"])
    assert differences.loc[(4.0, 1), "value"] == pytest.approx(0.021)
    assert len(differences) == 9 and set(differences["arm"]) == {"teacher with ε = 0.1"}
    assert answers.temperatures(numbers).data.endswith(
        "- teacher with ε = 0.1: its students err more at T = 4 (+2); err less at T = 1 (−1); "
        "do not clearly differ at T = 64 (+0.17)"
    )


def test_the_profiles_cross_three_teachers_with_their_temperatures():
    for name in ("cpu", "gpu"):
        study = Profile(name).study("08_distillation")
        cells = {
            (task.method.teacher.method.epsilon, task.method.temperature)
            for task in study.tasks
            if isinstance(task.method, Distillation)
        }
        assert {epsilon for epsilon, _ in cells} == {0.0, 0.1, 0.4}
        assert len(cells) == 3 * len(study.parameters.temperatures)


# ---- class weights ----


def long_tails() -> Evidence:
    """The page of the profile cpu, of one seed."""
    study = Profile("cpu").study("09_class_weights")
    return shown(study.part(label for label in study.labelled if label.task.seed == 0))


def test_behind_each_group_of_classes_are_so_many_test_images():
    """CIFAR-100-LT of 45,000 images: class k keeps ⌊450 ρ^(−k/99)⌋."""
    found = long_tails()
    for run in found.own_runs:
        run.scalars["few_accuracy"] = 0.25 if run.spec.method.kind == "smoothing" else 0.75
    rows = found.study.images(found).set_index(["imbalance", "group"])
    assert ("few-shot" in rows.loc[10].index, "few-shot" in rows.loc[50].index) == (False, True)
    counts = [int(450 * 50 ** (-k / 99)) for k in range(100)]
    few = [count for count in counts if count < 20]
    row = rows.loc[(50, "few-shot")]
    assert (row["classes"], row["test images"]) == (len(few), 100 * len(few))
    assert row["training images of each"] == f"{min(few)} to {max(few)}" == "9 to 19"
    assert row["plain accuracy"] == 0.25
    for imbalance in (10, 50):
        shots = rows.loc[imbalance].drop("rarest fifth")
        assert shots["test images"].sum() == 10_000
        assert rows.loc[(imbalance, "rarest fifth"), "test images"] == 2_000
    assert np.isnan(rows.loc[(10, "many-shot"), "plain accuracy"])  # not measured


def test_calibration_as_trained_stands_beside_calibration_after_scaling():
    found = long_tails()
    numbers = found.study.calibration(found)
    scores = ("as trained", "after temperature scaling")
    panels = [f"imbalance {imbalance}: {score}" for imbalance in (10, 50) for score in scores]
    assert list(numbers["panel"].unique()) == panels
    arms = {"ε = 0", "ε = 0.1", "class weights, ε = 0", "class weights, ε = 0.1"}
    assert arms <= set(numbers["arm"])
    assert set(found.study.errors(found)["panel"]) == {"imbalance 10", "imbalance 50"}


def test_the_verdict_on_every_claim_comes_first():
    found = shown(Profile("smoke").study("09_class_weights"))
    lines = answers.verdicts(found).data.splitlines()
    assert len(lines) == len(found.judgements) == 8
    assert lines[0].startswith("- Label smoothing lowers the error on long tails. *")
