"""Which runs each page asks for, and the tables it makes of what they left."""

import inspect
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tiny_dataset
import torch
from made_up import GRID, REGIMES, build, on_tiny, run_of, seen, shown

from lsce import data, studies
from lsce.data import datasets
from lsce.judging import arms
from lsce.judging.claims import MAIN
from lsce.measures import calibration, features
from lsce.report import figures, notes, page
from lsce.studies.calibration import KNOWN_POSTERIOR, RIVALS
from lsce.studies.evidence import Evidence, grouped
from lsce.studies.number_of_classes import EQUAL_EPOCHS, SAME_IMAGES
from lsce.studies.profiles import Profile
from lsce.studies.study import Study
from lsce.training.methods import Distillation, WeightedSmoothing
from lsce.training.spec import LongTail, NoisyLabels, Recipe, RunSpec, SomeClasses, Superclasses

RUN = {"network": "resnet6", "train_size": 300, "epochs": 3}


def grid(**changes) -> Study:
    return build("00_overview", **GRID | changes)


def group(study: Study, name: str) -> list:
    return [label.task for label in study.groups()[name]]


def test_a_study_holds_every_cell_once_with_shared_seeds():
    study = grid()
    cells = {(label.regime, label.setting, label.task.seed) for label in study.labelled}
    assert len(study.tasks) == len(cells) == len({task.id for task in study.tasks}) == 8
    assert {task.recipe for task in study.tasks} == {Recipe(), Recipe(batch_size=32)}


def test_a_parameter_changed_touches_only_its_runs():
    before = {task.id for task in grid().tasks}
    after = {task.id for task in grid(epsilons=[0.0, 0.2], judged_epsilon=0.2).tasks}
    assert len(before & after) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilons": [0.0, 1.5]}, "epsilons.1 is 1.5; it must be at most 1"),
        ({"epsilons": []}, r"epsilons is \[\]; it must be of 1 or more entries"),
        ({"epsilons": [0.1, 0.1]}, "it must be of values that differ"),
        ({"judged_epsilon": 0.2}, "judged_epsilon is 0.2; it must be one of epsilons"),
        ({"judged_epsilon": 0.0}, "judged_epsilon is 0; it must be one of epsilons above 0"),
        ({"epsilons": [0.1, 0.2]}, r"epsilons is \[0.1, 0.2\]; it must hold 0, to compare with"),
        ({"epsilons": [0.0]}, r"epsilons is \[0.0\]; it must hold 0, to compare with, and more"),
        ({"seeds": [0.5]}, "seeds.0 is 0.5; it must be a valid integer"),
        ({"seeds": 3}, "seeds is 3; it must be a list"),
        ({"data_name": "cifar10"}, "data_name is 'cifar10'; it must be one of cifar-100, built-in"),
        ({"epsilon": [0.1]}, "no parameter 'epsilon'; did you mean 'epsilons'?"),
        ({"momentum": 0.5}, "no parameter 'momentum'; it has data_name, epsilons"),
        ({"regimes": {"a": {"network": "resnet6", "epocs": 1}}}, "'epocs'; did you mean 'epochs'"),
        ({"regimes": {"a": {"network": "resnet6", "epochs": 1, "recipe": {"lr": 1}}}}, "'lr'"),
    ],
)
def test_a_wrong_parameter_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        grid(**changes)


def test_a_network_that_is_not_known_is_named():
    with pytest.raises(ValueError, match="network is 'resnet9'"):
        grid(regimes={"a": {"network": "resnet9", "epochs": 1}})


# ---- the pages ----


def over_fitting(**changes) -> Study:
    given = GRID | dict(more_regimes={}, seeds=[3], fractions=[0.25, 1.0], fraction_epsilons=[0.0])
    given |= dict(fraction_run={"network": "resnet6", "train_size": 2000, "epochs": 2})
    given |= dict(compared_regimes=["few"], weight_decays=[5e-4, 0.01])
    return build("02_epsilon_study", **given | changes)


def test_with_fewer_images_there_are_as_many_steps():
    sizes = [(s.images, s.epochs) for s in group(over_fitting(), "fractions")]
    assert sizes == [(500, 8), (2000, 2)]


def test_plain_networks_beside_early_stopping_keep_the_epoch_that_validation_chose():
    study = over_fitting(epsilons=[0.0, 0.1, 0.3])
    kept = [(s.method.epsilon, set(s.keep)) for s in group(study, "early stopping")]
    assert kept == [(0.0, {"selected"}), (0.1, set()), (0.3, set())]
    few = {s.id for s in group(study, MAIN) if s.images == 300}
    assert {s.id for s in group(study, "early stopping")} == few


def test_weight_decay_is_crossed_with_epsilon_and_the_usual_one_costs_nothing():
    study = over_fitting(epsilons=[0.0, 0.1, 0.3], crossed_epsilons=[0.0, 0.3])
    labels = study.groups()["weight decay"]
    cells = [(s.method.epsilon, s.recipe.weight_decay) for s in group(study, "weight decay")]
    assert cells == [(0.0, 5e-4), (0.3, 5e-4), (0.0, 0.01), (0.3, 0.01)]
    named = [(label.method, label.setting, label.arm) for label in labels]
    assert named[-1] == ("ε = 0.3", 0.01, "ε = 0.3, weight decay 0.01")
    main = {s.id for s in group(study, MAIN)}
    assert [s.id in main for s in group(study, "weight decay")] == [True, True, False, False]
    with pytest.raises(ValueError, match=r"crossed_epsilons is \[0.1\]; it must hold 0"):
        over_fitting(crossed_epsilons=[0.1])


def test_effects_at_each_weight_decay_are_of_pairs():
    found = shown(over_fitting(seeds=[3, 4, 5]))
    for run in found.all_runs:
        spec, of_seed = run.spec, (0.1, 0.3, 0.2)[run.spec.seed - 3]
        gain = (0.01 if spec.recipe.weight_decay == 0.01 else 0.02) * (spec.method.epsilon > 0)
        run.scalars.update(top1_error=0.5 + of_seed - gain, nll=of_seed + spec.method.epsilon)
    numbers = found.study.crossed(found)
    assert list(numbers["panel"].unique()) == [
        "top-1 error",
        "NLL",
        "NLL after temperature scaling",
        "top-1 error, less that at ε = 0",
        "NLL, less that at ε = 0",
        "NLL after temperature scaling, less that at ε = 0",
    ]
    less = numbers[numbers["panel"] == "top-1 error, less that at ε = 0"]
    values = less.groupby(["arm", "weight_decay"])["value"].agg(["min", "max"])
    assert values.loc[("ε = 0.1", 5e-4)].tolist() == pytest.approx([-2, -2])
    assert values.loc[("ε = 0.1", 0.01)].tolist() == pytest.approx([-1, -1])
    assert values.loc["ε = 0"].abs().to_numpy().max() == 0
    alone = shown(over_fitting(crossed_epsilons=[0.0]))
    assert alone.study.crossed(alone)["panel"].nunique() == 3


def peers(**changes) -> Study:
    given = dict(compared_epsilons=[0.1], focal_gammas=[2.0], mixup_alphas=[0.4])
    return build("03_calibration", **GRID | given | {"maxsup_weights": [0.2]} | changes)


def test_every_method_is_tuned_over_as_many_settings():
    with pytest.raises(ValueError, match=r"mixup_alphas is \[0.2, 0.4\]; it must be 1 values"):
        peers(mixup_alphas=[0.2, 0.4])
    with pytest.raises(ValueError, match=r"compared_epsilons is \[0.0\]; .* above 0"):
        peers(compared_epsilons=[0.0])
    with pytest.raises(ValueError, match=r"compared_regimes is \['some'\]; .*few, many"):
        peers(compared_regimes=["some"])


@pytest.mark.parametrize(
    ("epsilons", "alphas", "tuned"),
    [
        ([0.0, 0.05, 0.1, 0.3, 0.6], [0.2, 0.4], ([0.1, 0.3], [0.2, 0.4])),
        ([0.0, 0.1, 0.2], [0.2, 0.4], ([0.1, 0.2], [0.2, 0.4])),
        ([0.0, 0.02, 0.1], [0.2, 0.4], ([0.1, 0.02], [0.2, 0.4])),
        ([0.0, 0.3], [0.2, 0.4], ([0.3], [0.2])),
    ],
)
def test_what_follows_from_other_parameters_follows_them(epsilons, alphas, tuned):
    """One parameter is changed: the values of ε, or how many rivals there are."""
    derived = dict.fromkeys(("judged_epsilon", "compared_regimes"))
    judged = 0.1 if 0.1 in epsilons else 0.3
    study = over_fitting(epsilons=epsilons, **derived, fraction_epsilons=None)
    assert study.judged == judged
    for name in ("fractions", "weight decay"):
        assert {s.method.epsilon for s in group(study, name)} == {0.0, judged}
    rivals = dict.fromkeys(("focal_gammas", "mixup_alphas", "maxsup_weights"), alphas)
    given = derived | rivals | {"compared_epsilons": None}
    found = group(peers(epsilons=epsilons, seeds=[3], **given), "peers")
    smoothed = [s.method.epsilon for s in found if s.method.kind == "smoothing"]
    mixed = [s.method.alpha for s in found if s.method.kind == "mixup"]
    assert ([epsilon for epsilon in smoothed if epsilon], mixed) == tuned
    assert {s.images for s in found} == {300}  # the first regime


def test_the_calibration_study_adds_runs_with_a_known_posterior_and_peers():
    more = dict(truth_epsilons=[0.0, 0.3], compared_regimes=["many"], compared_epsilons=[0.1])
    more |= dict(focal_gammas=[2.0], mixup_alphas=[0.4], maxsup_weights=[0.2])
    study = build("03_calibration", **GRID | more | {"data_name": "cifar-100"})
    main, known, peers = (group(study, name) for name in (MAIN, KNOWN_POSTERIOR, "peers"))
    assert main == grid(data_name="cifar-100").tasks
    assert [(s.data, s.seed, s.method.epsilon) for s in known] == [
        ("built-in", 3, 0.0),
        ("built-in", 3, 0.3),
    ]
    words = ["ε = 0", "ε = 0.1", "focal loss, γ = 2", "mixup, α = 0.4", "MaxSup, weight 0.2"]
    assert list(dict.fromkeys(s.method.words for s in peers)) == words
    assert {s.seed for s in peers} == {3, 4} and {s.images for s in peers} == {600}
    in_full = {label.task.method.words for label in study.groups()["peers"] if study.in_full(label)}
    assert in_full == {"ε = 0", "ε = 0.1"}
    assert all(study.in_full(label) for label in study.groups()[KNOWN_POSTERIOR])


def test_rivals_have_as_many_settings_each_and_may_have_a_network_of_their_own():
    given = GRID | dict(seeds=[3], epsilons=[0.0, 0.1, 0.3], peer_run=RUN)
    given |= {name: [0.1, 0.3] for name in RIVALS}
    study = build("03_calibration", **given)
    labels = study.groups()["peers"]
    assert {label.regime for label in labels} == {"resnet6, 3 epochs"}
    assert {label.task.epochs for label in labels} == {3}
    settings: dict[str, list[float]] = {}
    for label in labels:
        settings.setdefault(label.method, []).append(label.setting)
    assert settings.pop("smoothing") == [0.0, 0.1, 0.3]
    assert len(settings) == len(RIVALS) and all(each == [0.1, 0.3] for each in settings.values())
    words = {label.arm for label in labels}
    assert words >= {"ε = 0.3 to 0.6", "MaxSup, weight 0.1 to 0.2", "MbLS, margin 0.3"}
    for claim in studies.claims_of("03_calibration")[-2:]:
        assert set(claim.control) == set(settings)
    with pytest.raises(ValueError, match=r"zipf_weights is \[0.1\]; it must be 2 values"):
        build("03_calibration", **given | {"zipf_weights": [0.1]})
    with pytest.raises(ValueError, match=r"scheduled_epsilons.1 is 0.6; it must be at most 0.5"):
        build("03_calibration", **given | {"scheduled_epsilons": [0.1, 0.6]})


@pytest.mark.parametrize(
    ("notebook", "keep"), [("04_penultimate", "features"), ("10_costs", "unseen")]
)
def test_networks_of_unseen_classes_see_as_many_images_of_each(notebook, keep):
    study = build(notebook, **GRID | dict(epsilons=[0.0, 0.1, 0.9], seeds=[3], seen_classes=80))
    unseen = group(study, "unseen")
    assert [(s.classes, s.images, s.method.epsilon) for s in unseen] == [
        (80, 240, 0),
        (80, 240, 0.1),
    ]
    assert {s.keep for s in unseen} == {frozenset({keep})}
    assert len(group(study, MAIN)) == 6


def noisy_labels(**changes) -> Study:
    given = dict(data_name="cifar-100", epsilons=[0.0, 0.1], seeds=[0, 1], noise_run=RUN)
    given |= dict(symmetric_rates=[0.2], asymmetric_rates=[0.4], negative_epsilons=[-0.5])
    return build("05_noisy_labels", **given | dict(warmup_epochs=1, gce_qs=[0.7]) | changes)


def test_arms_under_noise_share_seeds_and_flips():
    study = noisy_labels()
    assert len(group(study, "clean")) == 4 and len(group(study, MAIN)) == 2 * 2 * 7
    table = shown(study).table
    cell = table[(table["regime"] == "symmetric, 20%") & (table["seed"] == 1)]
    assert list(cell["arm"]) == [
        "ε = 0",
        "ε = 0.1",
        "ε = −0.5",
        "ε = −0.5 after a warm-up",
        "generalised CE, q = 0.7",
        "forward correction",
        "backward correction",
    ]
    assert set(cell["noise"]) == {"symmetric"} and set(cell["noise_rate"]) == {0.2}


def test_human_noise_comes_last_and_changes_no_other_run():
    study = noisy_labels(human_noise=True)
    regimes = ["symmetric, 20%", "asymmetric, 40%", "human noise, 40%"]
    found = shown(study)
    assert found.regimes == regimes
    assert [task.id for task in study.tasks][:32] == [task.id for task in noisy_labels().tasks]
    rows = found.table[found.table["regime"] == regimes[-1]]
    assert set(rows["noise"]) == {"human"} and set(rows["noise_rate"]) == {0.402}
    assert len(rows) == 2 * 7
    panels = list(study.errors(found)["panel"].unique())
    kinds = ("symmetric", "asymmetric", "human")
    assert panels[::2] == [f"{kind} noise: last epoch" for kind in kinds]
    said = notes.human_noise(found).data
    assert "CIFAR-100's 50,000 training images, 40.2% are wrong, and 34% of these" in said
    assert said.endswith("pine tree for oak tree, shrew for mouse, streetcar for bus.")
    without = noisy_labels(data_name="built-in", human_noise=True)
    assert without.tasks == noisy_labels(data_name="built-in").tasks
    assert notes.human_noise(shown(without)).data == "None of these runs has human noise."


def test_the_labels_of_each_image_are_a_regime_of_their_own(monkeypatch):
    entry, read = data.entry("cifar-100"), lambda: data.HumanLabels(torch.tensor([]), "a" * 64)
    monkeypatch.setitem(datasets._ENTRIES, entry.name, replace(entry, human_labels=read))
    found = shown(noisy_labels(human_noise=True, human_labels=True))
    assert found.regimes[2:] == ["human noise, 40%", "instance-wise human noise, 40%"]
    assert found.study.errors(found)["panel"].iloc[-1] == "instance-wise human noise: chosen epoch"
    assert len(noisy_labels(data_name="built-in", human_labels=True).tasks) == 32


def test_what_each_method_against_noise_has_to_be_told():
    found = shown(noisy_labels(epsilons=[0.0, 0.1, 0.2]))
    tuned, matrix = "tuned on noisy validation labels", "the transition matrix of the noise"
    assert found.study.knowledge(found).to_numpy().tolist() == [
        ["plain cross entropy", "nothing", 1],
        ["smoothing", f"ε, {tuned}", 2],
        ["negative smoothing", f"ε, {tuned}", 1],
        [
            "negative smoothing, warmed up",
            f"ε, {tuned}, and the length of its warm-up, which is fixed",
            1,
        ],
        ["generalised cross entropy", f"q, {tuned}", 1],
        ["forward correction", f"{matrix}: here the true one", 1],
        ["backward correction", f"{matrix}: here the true one", 1],
    ]


def test_fits_that_did_not_converge_are_counted_by_arm_with_the_reason():
    found = shown(noisy_labels(asymmetric_rates=[]))
    assert notes.unconverged(found).data == "Every temperature fit converged."
    for run in found.own_runs:
        if run.spec.method.words == "ε = −0.5":
            run.scalars.update(temperature=100.0, temperature_converged=0.0)
            run.scalars.update(validation_accuracy=0.1 + 0.2 * run.spec.seed)
            run.scalars.update(validation_nll_scaled=5.0 + run.spec.seed)
        if run.spec.method.words == "backward correction" and run.spec.seed == 0:
            run.scalars.update(temperature=1.0, temperature_converged=0.0)
    rows = notes.unconverged(found).data.to_numpy().tolist()
    falls = "the NLL still falls at T = 100"
    assert rows == [
        ["symmetric, 20%", "ε = −0.5", "2 of 2", falls, "20.0%", "5.50"],
        ["", "backward correction", "1 of 2", "the logits say nothing", "60.0%", "0.50"],
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"symmetric_rates": [1.5]}, "symmetric_rates.0 is 1.5"),
        ({"negative_epsilons": [0.1]}, "negative_epsilons.0 is 0.1; it must be less than 0"),
        ({"warmup_epochs": 3}, "warmup_epochs is 3; it must be below the 3 epochs"),
        ({"gce_qs": ["much"]}, "gce_qs.0 is 'much'"),
    ],
)
def test_a_wrong_parameter_of_the_noise_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        noisy_labels(**changes)


def test_tried_networks_share_their_training_and_transfer_from_another_seed():
    tried = dict(corrupted_images=100, attacked_images=100, radii=[1, 2], judged_radius=2)
    tried |= dict(pgd_steps=3, pgd_restarts=1, square_queries=5, compared_regimes=["few"])
    study = build("06_robustness", **GRID | tried)
    assert {task.run.id for task in study.tasks} == {s.id for s in grid().tasks if s.images == 300}
    assert {(task.seed, task.source.seed) for task in study.tasks} == {(3, 4), (4, 5)}
    assert {task.source.method.epsilon for task in study.tasks} == {0.0}


ATTACKED = dict(corrupted_images=100, attacked_images=100, radii=[0.5, 1, 4])


def robustness(kept: dict[str, dict[float, list[float]]], **changes) -> Evidence:
    """A page on robustness whose networks, without attacks right on 0.6 of the images, keep these
    shares of them: regime → ε → a share a radius, the same for every seed."""
    given = GRID | ATTACKED | {"compared_regimes": list(kept)} | changes
    study, runs = build("06_robustness", **given), {}
    for label in study.labelled:
        run = seen(label.task)
        shares = dict(zip(ATTACKED["radii"], kept[label.regime][label.setting], strict=True))
        error = 1 - 0.6 * run.details["x"].map({0.0: 1.0} | shares)
        details = run.details.assign(value=error.fillna(1.0))
        details.loc[details["case"] == "FGSM", "value"] -= 0.06
        runs[label.task.id] = replace(run, details=details)
    return grouped(study, runs, False, "mine")


def test_a_regime_is_judged_where_its_plain_networks_keep_half_of_their_accuracy():
    """Whatever smoothed ones keep; and claims see the errors there."""
    few, many = {0.0: [0.9, 0.6, 0.3], 0.1: [0.5, 0.2, 0.1]}, {0.0: [0.45, 0.3, 0], 0.1: [1, 1, 1]}
    main = robustness({"few": few, "many": many})
    judged = main.study.judged_radii(main.pairs)
    assert {name: each.radius for name, each in judged.items()} == {"few": 1.0, "many": 0.5}
    assert judged["few"].kept == pytest.approx(0.6) and judged["few"].testable
    rows = main.table.set_index(["regime", "setting"])
    for regime, epsilon, kept in (("few", 0.0, 0.6), ("few", 0.1, 0.2), ("many", 0.0, 0.45)):
        there = rows.loc[(regime, epsilon)]
        assert list(there["worst_error"]) == pytest.approx([1 - 0.6 * kept] * 2)
        assert list(there["overstated"]) == pytest.approx([0.06] * 2)
        assert set(there["judged_radius"]) == {judged[regime].radius}
    effect = main.judgements["robust-to-attacks"][0].effect.mean
    assert effect == pytest.approx(100 * 0.6 * (0.2 - 0.6))
    shown = main.study.at_judged_radius(main)
    assert set(shown.loc[shown["regime"] == "many", "x"]) == {0.0, 0.5}
    errors = main.study.errors(main.pairs)
    assert len(errors) == 2 * 2 * 2 * 3 and set(errors["clean_error"]) == {0.4}


def test_a_radius_that_is_given_is_judged_whatever_networks_keep_there():
    main = robustness({"few": {0.0: [0.9, 0.6, 0.1], 0.1: [0.5, 0.2, 0.1]}}, judged_radius=4)
    (judged,) = main.study.judged_radii(main.pairs).values()
    assert judged.radius == 4 and not judged.testable
    assert {t.id for t in robustness({"few": {0.0: [1] * 3, 0.1: [1] * 3}}).study.tasks} == {
        t.id for t in main.study.tasks
    }
    with pytest.raises(ValueError, match="judged_radius is 2; it must be one of radii"):
        robustness({"few": {}}, judged_radius=2)


def test_radii_at_which_nothing_can_be_told_are_named():
    kept = {
        "few": {0.0: [0.15, 0.1, 0], 0.1: [0.5] * 3},
        "many": {0.0: [1, 0.95, 0.9], 0.1: [0] * 3},
    }
    main = robustness(kept)
    judged = main.study.judged_radii(main.pairs)
    assert not any(each.testable for each in judged.values())
    assert notes.judged_radii(judged).data.splitlines() == [
        "- *few*: 0.5/255, where plain networks keep 15% of their accuracy. That is less than "
        "20%: accuracy is at its floor, and nothing can be judged here.",
        "- *many*: 4/255, where plain networks keep 90% of their accuracy. That is more than "
        "80%: accuracy is at its ceiling, and nothing can be judged here.",
    ]


def test_without_plain_networks_nothing_is_judged():
    main = shown(build("06_robustness", **GRID | ATTACKED | {"compared_regimes": ["few"]}))
    diverged = {
        label.task.id: run_of(label.task, status="diverged") if label.setting == 0 else run
        for label, run in main.pairs
    }
    main = grouped(main.study, diverged, False, "mine")
    assert main.study.judged_radii(main.pairs) == {} and main.study.masked(main) == {}
    assert main.table["worst_error"].isna().all()


def test_failed_checks_are_known_by_regime_and_arm():
    main = robustness({"few": {0.0: [0.9, 0.5, 0.1], 0.1: [0.9, 0.5, 0.1]}})
    assert main.study.masked(main) == {("few", "ε = 0"): [], ("few", "ε = 0.1"): []}
    for label, run in main.pairs:
        if label.setting == 0.1:
            square = (run.details["case"] == "Square") & (run.details["x"] == 1)
            run.details.loc[square, "value"] = 0.95
    assert main.study.masked(main) == {
        ("few", "ε = 0"): [],
        ("few", "ε = 0.1"): ["a black box finds no more than gradients"],
    }
    checks = main.study.masking(main)
    assert len(checks) == 18 and checks["error"].max() == 100


def number_of_classes(**changes) -> Study:
    run = {"network": "resnet6", "train_size": 4500, "epochs": 8, "monitor_size": 100}
    given = dict(data_name="built-in", class_counts=[5, 20, 100], seeds=[0], class_run=run)
    return build("07_number_of_classes", **given | changes)


def test_fewer_classes_have_as_many_images_of_each_and_as_many_steps_or_epochs():
    study = number_of_classes()
    steps = 8 * (4500 // 128)
    for name in (MAIN, EQUAL_EPOCHS):
        specs = [s for s in group(study, name) if s.method.epsilon == 0]
        assert [(s.classes, s.images) for s in specs] == [(5, 225), (20, 900), (100, 4500)]
        assert [s.monitor_size for s in specs] == [5, 20, 100]
        for s in specs:
            if name == MAIN:
                assert abs(s.epochs * (s.images // 128) / steps - 1) < 0.03
            else:
                assert s.epochs == 8
    same = [s for s in group(study, SAME_IMAGES) if s.method.epsilon == 0]
    assert [(s.num_classes, s.images, s.epochs) for s in same] == [(20, 4500, 8), (100, 4500, 8)]
    assert isinstance(same[0].labels, Superclasses)


@pytest.mark.parametrize("counts", [[], [5, 5], [1, 100], [5.0, 100], [5, 101]])
def test_wrong_numbers_of_classes_are_named(counts):
    with pytest.raises(ValueError, match="class_counts|must hold one or more values"):
        number_of_classes(class_counts=counts)


def distillation(**changes) -> Study:
    given = dict(data_name="built-in", teacher_run=RUN, student_run=RUN, seeds=[0, 1])
    given |= dict(teacher_epsilons=[0.0, 0.1, 0.3], temperatures=[1.0, 4.0])
    return build("08_distillation", **given | dict(student_epsilons=[0.1, 0.3]) | changes)


def test_students_have_the_teachers_of_their_seed():
    study = distillation()
    labels = study.groups()[MAIN]
    taught = [label for label in labels if isinstance(label.task.method, Distillation)]
    assert len(taught) == 3 * 2 * 2 and len(labels) == len(taught) + 3 * 2
    teachers = {s.id for s in group(study, "teachers")}
    assert {label.task.method.teacher.id for label in taught} == teachers
    assert all(label.task.method.teacher.seed == label.task.seed for label in taught)
    assert {label.arm for label in taught} >= {
        "plain teacher, T = 1",
        "smoothed teacher, T = 4",
        "distilled, teacher with ε = 0.3, T = 1",
    }


def test_a_student_alone_is_tuned_as_much_as_one_with_a_teacher():
    with pytest.raises(ValueError, match=r"student_epsilons is \[0.1, 0.3\]; .*1 values"):
        distillation(temperatures=[1.0])


def test_weights_are_crossed_with_smoothing_in_both_conventions():
    run = {"network": "resnet6", "epochs": 1}
    given = dict(data_name="built-in", long_tail_run=run, imbalances=[10, 100], seeds=[0])
    study = build("09_class_weights", **given, epsilons=[0.0, 0.1])
    cell = [s.method for s in study.tasks if s.sample.imbalance == 10]
    weighted = [m for m in cell if isinstance(m, WeightedSmoothing)]
    assert [m.setting for m in cell] == [0.0, 0.1, 0.0, 0.1, 0.1, 0.1]
    assert [(m.weighting, m.convention) for m in weighted] == [
        ("terms", "exclude-true"),
        ("terms", "exclude-true"),
        ("terms", "include-true"),
        ("samples", "exclude-true"),
    ]


def test_a_study_adds_regimes_of_a_published_recipe_with_its_own_epsilons():
    theirs = {"theirs": {"network": "resnet56", "epochs": 2, "recipe": {"milestones": [0.5]}}}
    given = GRID | {"published_epsilons": [0.0, 0.1]}
    both = build("12_reproduction", **given, published_regimes=theirs).tasks
    without = build("12_reproduction", **given, published_regimes={}).tasks
    more = both[len(without) :]
    assert both[: len(without)] == without and len(more) == 4
    assert {(s.network, s.recipe.milestones) for s in more} == {("resnet56", (0.5,))}


# ---- tables ----


def test_a_diverged_run_is_a_gap_and_not_a_number():
    study = grid(data_name="cifar-100")
    lost = [task for task in study.tasks if task.seed == 4 and task.method.epsilon == 0]
    runs = {t.id: run_of(t, "diverged" if t in lost else "completed") for t in study.tasks}
    table = grouped(study, runs, False, "tiny").table
    gaps = table[table["status"] == "diverged"]
    assert len(gaps) == 2 and gaps["top1_error"].isna().all()


def test_regimes_that_differ_in_the_recipe_alone_are_told_apart():
    """And one may leave the number of training images at its default."""
    regimes = {
        name: {"network": "resnet6", "epochs": 1, "recipe": {"peak_learning_rate": rate}}
        for name, rate in (("slow", 0.1), ("fast", 0.2))
    }
    found = shown(grid(regimes=regimes))
    for run in found.runs.values():
        rate = run.spec.recipe.peak_learning_rate
        run.scalars.update(train_accuracy=rate, test_accuracy=0.05)
    rows = page.regimes(found).data.set_index("regime")
    assert list(rows["train, test accuracy at ε = 0"]) == ["10.0%, 5.0%", "20.0%, 5.0%"]
    assert all(words.startswith("45,000 images × 1 epochs") for words in rows["training"])


def test_a_fit_that_did_not_converge_is_counted_and_not_averaged():
    found = shown(build("03_calibration", **GRID | {"regimes": {"few": REGIMES["few"]}}))
    for run in found.own_runs:
        run.scalars.update(temperature=2.0, ece_scaled=0.1, ece=0.2)
        if (run.spec.method.epsilon, run.spec.seed) == (0.1, 4) or run.spec.method.epsilon == 0:
            run.scalars.update(temperature=100.0, temperature_converged=0.0, ece_scaled=0.9)
    rows = page.numbers(found).data.set_index("arm")
    columns = ["runs", "ECE", "ECE, scaled", "T"]
    assert list(rows.loc["ε = 0", columns]) == [2, "0.200", "–", "–"]
    assert list(rows.loc["ε = 0.1", columns[2:]]) == ["0.100 (1/2)", "2.000 (1/2)"]
    said = notes.temperatures(found).data
    assert said.startswith("Of 4 temperature fits of these runs, 1 converged.")
    assert "0.01 to 100" in said and said.endswith("ε = 0 (2), ε = 0.1 (1).")


def test_what_was_chosen_at_the_edge_of_the_settings_is_named():
    rows = [("smoothing", 0.0, 0.9), ("smoothing", 0.1, 0.5), ("smoothing", 0.3, 0.6)]
    rows += [("mixup", 0.2, 0.4), ("mixup", 0.4, 0.5), ("mixup", 1.0, 0.4)]
    rows += [("weight decay", 0.1, 0.7)]
    table = pd.DataFrame(rows, columns=["method", "setting", "validation_accuracy"])
    table = table.assign(regime="tiny", seed=0, arm=table["method"] + table["setting"].map(str))
    said = notes.edges(table, "validation_accuracy").data
    assert "- smoothing0.3: *tiny*" in said and "mixup" not in said and "decay" not in said
    inside = notes.edges(table[table["setting"] != 0.3], "validation_accuracy").data
    assert inside.startswith("No method")


def test_histograms_are_densities():
    found = shown(over_fitting(epsilons=[0.0, 0.1]))
    numbers = found.study.histograms(found)
    area = numbers["density"] * (numbers["right"] - numbers["left"])
    area = area.groupby([numbers["regime"], numbers["epsilon"], numbers["quantity"]]).sum()
    assert len(area) == 8 and np.allclose(area, 1)


def test_reliability_shows_each_run_before_and_after_temperature():
    found = shown(build("03_calibration", **GRID, bins=10))
    numbers = found.study.reliability(found)
    assert numbers.groupby("regime")["panel"].nunique().tolist() == [4, 4]
    run = found.pairs[0][1]
    table = calibration.reliability_table(run.samples["scaled"], run.samples["correct"], 10)
    fitted = numbers[numbers["panel"].str.contains("T = ")].head(10)
    pd.testing.assert_frame_equal(fitted[table.columns].reset_index(drop=True), table)


def plainly_trained(spec: RunSpec) -> bool:
    """Plain cross entropy, by the spec alone."""
    usual = spec.recipe.weight_decay in (5e-4, 0.0)
    return usual and spec.method.kind == "smoothing" and spec.method.epsilon == 0


@pytest.mark.parametrize("notebook", studies.with_runs())
def test_epsilon_0_in_every_table_is_plain_cross_entropy(notebook):
    """Of runs in which every other arm is far off, whatever its ε."""
    whole = shown(Profile("smoke").study(notebook))
    for run in whole.runs.values():
        accuracies = (0.9, 0.8) if plainly_trained(run.spec) else (0.2, 0.1)
        run.scalars.update(zip(("train_accuracy", "test_accuracy"), accuracies, strict=True))
    crossed = whole.others.get("weight decay")  # whose arms are of a weight decay
    for part in (whole, *(other for other in whole.others.values() if other is not crossed)):
        found = page.regimes(part).data["train, test accuracy at ε = 0"]
        assert set(found) == {"90.0%, 80.0%"}
        assert set(part.table[arms.plain(part.table)]["train_accuracy"]) == {0.9}


# ---- measures that older runs lack ----


NEW = {
    "03_calibration": ("parts", "best_epochs"),
    "04_penultimate": ("transfer", "probes"),
    "10_costs": ("sets", "far"),
}
DRAWN = {"probes": (figures.slopes, {"x": "strength", "logarithmic": True})}
DRAWN["far"] = figures.cases, {}


@pytest.mark.parametrize("notebook", NEW)
def test_of_runs_recorded_before_a_measure_was_taken_the_rest_is_shown(notebook):
    given = GRID | {"seen_classes": 80} if notebook != "03_calibration" else GRID
    study = build(notebook, **given)
    found = shown(study)
    whole = {name: getattr(found.study, name)(found) for name in NEW[notebook]}
    older = {}
    for name, run in found.runs.items():
        new = ("overconf", "underconf", "confident_", "aps", "raps", "far_")
        kept = {
            key: value
            for key, value in run.scalars.items()
            if not key.startswith(new) and not key.endswith(("_calibration", "_usual"))
        }
        details = run.details[run.details["quantity"] != "probe"]
        history = run.history.drop(columns="validation_refinement")
        older[name] = replace(run, scalars=kept, details=details, history=history)
    found = grouped(study, older, True, "older")
    for name, before in whole.items():
        numbers = getattr(found.study, name)(found)
        assert len(numbers) < len(before) and set(numbers) == set(before)
        draw, options = DRAWN.get(name, (figures.against, {}))
        words = [text.get_text() for text in draw(numbers, **options).axes[0].texts]
        assert numbers.empty == any(text.startswith("Nothing to show yet") for text in words)
    assert "–" in page.numbers(found).to_html()


def test_the_best_epoch_is_that_of_the_least_value():
    found = shown(build("03_calibration", **GRID))
    for run in found.runs.values():
        run.history["validation_nll"] = [2.0, 3.0][: len(run.history)]
        run.history["validation_refinement"] = [1.5, 1.0][: len(run.history)]
    numbers = found.study.best_epochs(found)
    few = numbers[numbers["panel"] == "few"].groupby("arm")["value"].unique()
    assert {arm: list(epochs) for arm, epochs in few.items()} == {
        "NLL": [1],
        "refinement": [2],
        "calibration": [1],
    }
    assert set(numbers[numbers["panel"] == "many"]["value"]) == {1}  # of one epoch


def test_probes_are_shown_by_strength_and_task():
    found = shown(build("04_penultimate", **GRID | {"seen_classes": 80}))
    numbers = found.study.probes(found)
    assert set(numbers["case"]) == {"20 superclasses", "classes never seen"}
    assert sorted(numbers["strength"].unique()) == list(features.STRENGTHS)
    panels = {"few: 20 superclasses", "few: classes never seen", "many: 20 superclasses"}
    assert set(numbers["panel"]) == panels
    assert set(found.study.transfer(found)["panel"]) == {
        f"{task}, {strength}"
        for task in ("20 superclasses", "classes never seen")
        for strength in ("strength chosen", "usual strength")
    }


# ---- another data set ----


def tables_of(found: Evidence) -> dict[str, pd.DataFrame]:
    """Every table that a study makes of its runs."""
    study, made = found.study, {}
    for name, method in inspect.getmembers(type(study), inspect.isfunction):
        arguments = [*inspect.signature(method).parameters]
        if name in vars(Study) or name.startswith("_") or arguments[1:] not in ([], ["main"]):
            continue
        made[name] = method(study, found) if arguments[1:] else method(study)
    return {name: table for name, table in made.items() if isinstance(table, pd.DataFrame)}


@pytest.mark.parametrize("notebook", studies.with_runs())
def test_every_page_can_be_about_another_data_set(notebook):
    with tiny_dataset.registered() as entry:
        found = shown(on_tiny(notebook))
        of_data = {run.spec.data for run in found.all_runs}
        assert of_data <= {entry.name, "built-in"} and entry.name in of_data
        assert set(found.table["classes"]) <= {5, 10}
        made = tables_of(found)
        assert all(len(table) and table.notna().any().all() for table in made.values())
        assert bool(made) == bool(found.study.columns) and len(page.regimes(found).data)
        if made:
            assert len(page.numbers(found).data) == found.table.groupby(["regime", "arm"]).ngroups
        judges = studies.claims_of(notebook)
        assert set(found.judgements) == {claim.id for claim in judges}
        for claim in judges:
            assert " = 3 paired seeds" in page.verdict(claim, found).data


def test_samples_and_labels_of_the_pages_are_those_of_their_names():
    kinds = {
        "05_noisy_labels": NoisyLabels,
        "09_class_weights": LongTail,
    }
    for notebook, kind in kinds.items():
        tasks = group(Profile("quick").study(notebook), MAIN)
        assert all(isinstance(t.labels, kind) or isinstance(t.sample, kind) for t in tasks)
    unseen = group(Profile("quick").study("10_costs"), "unseen")
    assert all(isinstance(t.sample, SomeClasses) for t in unseen)


def test_pages_of_a_profile_share_their_runs():
    quick = Profile("quick")
    main = {task.id for task in quick.study("00_overview").tasks}
    for notebook in ("02_epsilon_study", "03_calibration", "04_penultimate"):
        assert main < {task.id for task in quick.study(notebook).tasks}
