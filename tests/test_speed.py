"""Accuracy by core-minute: which recorded runs are in it, and what it says of them."""

from dataclasses import replace

import pytest
from made_up import run_of, spec

from lsce import data
from lsce.commands import record
from lsce.report import speed
from lsce.results.run import Run
from lsce.studies.profiles import Profile
from lsce.training import networks
from lsce.training.methods import Focal, Smoothing
from lsce.training.spec import Balanced, NoisyLabels, Recipe

USUAL = {"sample": Balanced(train_size=45_000), "network": "resnet8", "epochs": 15}


def run(accuracy: float, minutes: float, core: bool = True, **changes) -> Run:
    made = run_of(spec(**USUAL | changes))
    made.scalars["test_accuracy"] = accuracy
    seconds = {"training": 60 * minutes, "total": 60 * minutes}
    if core:
        seconds |= {"training": 600 * minutes, "core": 60 * minutes}
    return replace(made, origin=made.origin | {"seconds": seconds})


def test_a_point_is_the_mean_of_runs_that_differ_in_the_seed_alone():
    plain = Smoothing(epsilon=0.0)
    runs = [run(0.6 + 0.01 * seed, 8 + seed, method=plain, seed=seed) for seed in range(3)]
    runs += [run(0.5, 1, core=False, epochs=2, seed=seed) for seed in range(3)]
    numbers = speed.budgets(runs)
    short, long = numbers.to_dict("records")
    assert (short["epochs"], short["core_minutes"], short["accuracy"]) == (2, 1.0, 0.5)
    assert (long["n"], long["epsilon"]) == (3, 0.0)
    assert long["core_minutes"] == pytest.approx(9) and long["sd"] == pytest.approx(0.01)
    assert long["multiply_adds"] == pytest.approx(48, abs=0.1)
    shown = speed.budget_table(numbers).data
    assert list(shown["test accuracy, ε = 0.1"]) == ["50.0% ± 0.0", "–"]
    (single,) = speed.budget_table(speed.budgets(runs[:1])).data["test accuracy, ε = 0"]
    assert single == "60.0%"


@pytest.mark.parametrize(
    "changes",
    [
        {"method": Smoothing(epsilon=0.2)},
        {"method": Focal(gamma=1.0)},
        {"sample": Balanced(train_size=4_500)},
        {"labels": NoisyLabels(noise="symmetric", rate=0.4)},
        {"recipe": Recipe(augment=False)},
        {"recipe": Recipe(weight_decay=1e-3)},
        {"data": "built-in"},
    ],
)
def test_other_runs_are_left_out(changes):
    usual = run(0.6, 8)
    other = replace(usual, task=usual.spec.changed(**changes))
    assert speed.budgets([other]).empty and len(speed.budgets([usual, other])) == 1


def test_runs_on_a_gpu_are_left_out():
    on_cpu = run(0.6, 8, core=False)
    on_gpu = replace(on_cpu, origin=on_cpu.origin | {"step": {"mode": "captured"}})
    assert speed.budgets([on_gpu]).empty and len(speed.budgets([on_cpu])) == 1


def test_the_budgets_of_a_profile_are_recorded_without_a_page():
    cpu = Profile("cpu")
    tasks = [each.task for each in record.wanted(cpu).values()]
    wanted = [task for task in tasks if task.run.epochs in (8, 30, 90)]
    assert len(wanted) == 3 * 2 * 3 and {task.method.epsilon for task in wanted} == {0.0, 0.1}
    asked = {task.id for name, study in cpu.studies() if name[:2] != "A1" for task in study.tasks}
    assert not asked & {task.id for task in wanted}


def test_multiplications_of_a_network_are_those_that_others_report():
    """0.56 billion for ResNet-18 in its CIFAR form."""
    entry = data.entry("cifar-100")
    found = networks.multiply_adds("resnet18", entry.num_classes, entry.pixels)
    assert found == pytest.approx(0.556e9, rel=0.01)
