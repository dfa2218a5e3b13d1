"""Accuracy by core-minute: which recorded runs are in it, and what it says of them."""

import dataclasses

import pytest
from made_up import digest_of, spec

from lsce.commands import record
from lsce.report import page, tables
from lsce.studies import profiles

USUAL = {"train_size": 45_000, "model": "resnet8", "epochs": 15}


def run(accuracy: float, minutes: float, core: bool = True, **changes):
    made = digest_of(spec(**USUAL | changes))
    made.scalars["test_accuracy"] = accuracy
    seconds = {"training": 60 * minutes, "total": 60 * minutes}
    if core:
        seconds |= {"training": 600 * minutes, "core": 60 * minutes}
    return dataclasses.replace(made, origin=made.origin | {"seconds": seconds})


def test_a_point_is_the_mean_of_runs_that_differ_in_the_seed_alone():
    runs = [run(0.6 + 0.01 * seed, 8 + seed, epsilon=0.0, seed=seed) for seed in range(3)]
    runs += [run(0.5, 1, core=False, epsilon=0.1, epochs=2, seed=seed) for seed in range(3)]
    short, long = tables.budgets(runs).to_dict("records")
    assert (short["epochs"], short["core_minutes"], short["accuracy"]) == (2, 1.0, 0.5)
    assert (long["n"], long["epsilon"]) == (3, 0.0)
    assert long["core_minutes"] == pytest.approx(9) and long["sd"] == pytest.approx(0.01)
    assert long["multiply_adds"] == pytest.approx(48, abs=0.1)
    shown = page.budgets(tables.budgets(runs)).data
    assert list(shown["test accuracy, ε = 0.1"]) == ["50.0% ± 0.0", "–"]
    (single,) = page.budgets(tables.budgets(runs[:1])).data["test accuracy, ε = 0"]
    assert single == "60.0%"


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 0.2},
        {"epsilon": 0.0, "loss": "focal", "loss_parameter": 1.0},
        {"train_size": 4_500},
        {"noise": "symmetric", "noise_rate": 0.4},
        {"recipe": dataclasses.replace(spec().recipe, augment=False)},
        {"recipe": dataclasses.replace(spec().recipe, weight_decay=1e-3)},
    ],
)
def test_other_runs_are_left_out(changes):
    assert tables.budgets([run(0.6, 8, seed=seed, **changes) for seed in range(3)]).empty
    assert not tables.budgets([run(0.6, 8, seed=seed) for seed in range(3)]).empty


def test_runs_on_a_gpu_are_left_out():
    runs = [run(0.6, 8, core=False, seed=seed) for seed in range(3)]
    on_gpu = [
        dataclasses.replace(r, origin=r.origin | {"step": {"mode": "captured"}}) for r in runs
    ]
    assert tables.budgets(on_gpu).empty and len(tables.budgets(runs)) == 1


def test_the_budgets_of_a_profile_are_recorded_without_a_page():
    cpu = profiles.load("cpu")
    wanted = [run for run in record.wanted(cpu).values() if run.spec.epochs in (8, 30, 90)]
    assert len(wanted) == 3 * 2 * 3 and {run.spec.epsilon for run in wanted} == {0.0, 0.1}
    asked = {s.id for n in cpu.notebooks if (study := cpu.study(n, cpu.data)) for s in study.specs}
    assert not asked & {run.spec.id for run in wanted}
