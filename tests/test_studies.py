import numpy as np
import pandas as pd
import pytest
from made_up import digest_of

from lsce import studies
from lsce.judging import claims
from lsce.measures import calibration
from lsce.report import page
from lsce.studies import KNOWN_POSTERIOR, MAIN, Study
from lsce.studies.evidence import Evidence
from lsce.training.spec import Recipe

REGIMES = {
    "few": {"model": "resnet6", "train_size": 300, "epochs": 2},
    "many": {"model": "resnet6", "train_size": 600, "epochs": 1, "recipe": {"batch_size": 32}},
}


def smoothing(**changes) -> Study:
    given = dict(data_name="built-in", regimes=REGIMES, epsilons=[0.0, 0.1], seeds=[3, 4])
    return studies.smoothing(**given | {"judged_epsilon": 0.1} | changes)


def test_a_study_holds_every_cell_once_with_shared_seeds():
    study = smoothing()
    cells = {
        (label["regime"], s.epsilon, s.seed)
        for label, s in zip(study.labels, study.specs, strict=True)
    }
    assert len(study.specs) == len(cells) == 8
    assert {s.recipe for s in study.specs} == {Recipe(), Recipe(batch_size=32)}
    assert len({s.id for s in study.specs}) == 8


def test_a_parameter_changed_touches_only_its_runs():
    before = {s.id for s in smoothing().specs}
    after = {s.id for s in smoothing(epsilons=[0.0, 0.2], judged_epsilon=0.2).specs}
    assert len(before & after) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilons": [0.0, 1.5]}, r"epsilons is \[0.0, 1.5\]; it must be numbers in"),
        ({"epsilons": []}, r"epsilons is \[\]"),
        ({"epsilons": [0.1, 0.1]}, "must not name a value twice"),
        ({"judged_epsilon": 0.2}, "judged_epsilon is 0.2; it must be one of epsilons"),
        ({"judged_epsilon": 0.0}, "judged_epsilon is 0.0; it must be one of epsilons .* above 0"),
        ({"epsilons": [0.1, 0.2]}, r"epsilons is \[0.1, 0.2\]; 0 must be one of them"),
        ({"epsilons": [0.0]}, r"epsilons is \[0.0\]; one of them must be above 0"),
        ({"seeds": [0.5]}, "seed is 0.5"),
        ({"seeds": 3}, "seeds is 3"),
        ({"data_name": "cifar10"}, "data_name is 'cifar10'"),
        ({"regimes": {"a": {"model": "resnet9", "epochs": 1}}}, "model is 'resnet9'"),
        ({"regimes": {"a": {"model": "resnet6", "epocs": 1}}}, r"regimes\['a'\] is .*epocs"),
        ({"regimes": {"a": {"model": "resnet6", "epochs": 1, "recipe": {"lr": 1}}}}, "'lr'"),
    ],
)
def test_a_wrong_parameter_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        smoothing(**changes)


def group(study: Study, name: str) -> list:
    return [study.specs[i] for i in study.groups()[name]]


def over_fitting(**changes) -> Study:
    given = dict(data_name="built-in", regimes=REGIMES, more_regimes={}, epsilons=[0.0, 0.1])
    given |= dict(seeds=[3], judged_epsilon=0.1, fractions=[0.25, 1.0], fraction_epsilons=[0.0])
    given |= dict(fraction_run={"model": "resnet6", "train_size": 2000, "epochs": 2})
    given |= dict(compared_regimes=["few"], compared_epsilons=[0.1], weight_decays=[0.01])
    return studies.over_fitting(**given | changes)


def test_with_fewer_images_there_are_as_many_steps():
    sizes = [(s.train_size, s.epochs) for s in group(over_fitting(), "fractions")]
    assert sizes == [(500, 8), (2000, 2)]


def test_alternatives_keep_the_epoch_that_validation_chose():
    found = group(over_fitting(), "alternatives")
    assert [(s.epsilon, s.recipe.weight_decay) for s in found] == [
        (0.0, 5e-4),
        (0.1, 5e-4),
        (0.0, 0.01),
    ]
    assert {s.keep for s in found} == {("selected",)}


def test_every_method_is_tuned_over_as_many_settings():
    with pytest.raises(ValueError, match=r"weight_decays is \[0.01, 0.02\]; it must be 1 values"):
        over_fitting(weight_decays=[0.01, 0.02])
    with pytest.raises(ValueError, match=r"compared_epsilons is \[0.0\]; .* above 0"):
        over_fitting(compared_epsilons=[0.0])
    with pytest.raises(ValueError, match=r"compared_regimes is \['some'\]; .*few, many"):
        over_fitting(compared_regimes=["some"])


@pytest.mark.parametrize(
    ("epsilons", "decays", "tuned"),
    [
        ([0.0, 0.05, 0.1, 0.3, 0.6], [0.01, 0.02], ([0.1, 0.3], [0.01, 0.02])),
        ([0.0, 0.1, 0.2], [0.01, 0.02], ([0.1, 0.2], [0.01, 0.02])),
        ([0.0, 0.02, 0.1], [0.01, 0.02], ([0.1, 0.02], [0.01, 0.02])),
        ([0.0, 0.3], [0.01, 0.02], ([0.3], [0.01])),
    ],
)
def test_what_follows_from_other_parameters_follows_them(epsilons, decays, tuned):
    """One parameter is changed: the values of ε, or how many rivals there are."""
    derived = dict.fromkeys(("judged_epsilon", "fraction_epsilons", "compared_epsilons"))
    study = over_fitting(epsilons=epsilons, weight_decays=decays, compared_regimes=None, **derived)
    judged = 0.1 if 0.1 in epsilons else 0.3
    assert study.judged == judged
    assert {s.epsilon for s in group(study, "fractions")} == {0.0, judged}
    rivals = group(study, "alternatives")
    smoothed = [s.epsilon for s in rivals if s.epsilon > 0]
    plain = [s.recipe.weight_decay for s in rivals if s.recipe.weight_decay != 5e-4]
    assert (smoothed, plain) == tuned
    assert {s.train_size for s in rivals} == {300}  # the first regime


def test_a_misspelt_parameter_is_an_error():
    given = {"regimes": REGIMES, "epsilons": [0.0, 0.1], "seeds": [0]}
    studies.build("00_overview", "built-in", given)
    with pytest.raises(ValueError, match="no parameter 'epsilon'; did you mean 'epsilons'?"):
        studies.build("00_overview", "built-in", given | {"epsilon": [0.0, 0.3]})
    with pytest.raises(ValueError, match="no parameter 'momentum'; it has data_name, epsilons,"):
        studies.build("00_overview", "built-in", given | {"momentum": 0.5})


def test_networks_of_unseen_classes_see_as_many_images_of_each():
    study = studies.penultimate(
        data_name="built-in",
        regimes=REGIMES,
        epsilons=[0.0, 0.1, 0.9],
        seeds=[3],
        judged_epsilon=0.1,
        compared_regimes=["few"],
        seen_classes=80,
    )
    assert {s.keep for s in group(study, MAIN)} == {("features", "information")}
    unseen = group(study, "unseen")
    assert [(s.classes, s.train_size, s.epsilon) for s in unseen] == [
        (80, 240, 0.0),
        (80, 240, 0.1),
    ]


def noisy_labels(**changes) -> Study:
    given = dict(data_name="cifar-100", epsilons=[0.0, 0.1], seeds=[0, 1], judged_epsilon=0.1)
    given |= dict(noise_run={"model": "resnet6", "train_size": 300, "epochs": 3})
    given |= dict(symmetric_rates=[0.2], asymmetric_rates=[0.4], negative_epsilons=[-0.5])
    given |= dict(warmup_epochs=1, gce_qs=[0.7])
    return studies.noisy_labels(**given | changes)


def test_arms_under_noise_share_seeds_and_flips():
    study = noisy_labels()
    assert len(group(study, "clean")) == 4 and len(group(study, MAIN)) == 2 * 2 * 7
    table = study.table([digest_of(s) for s in study.specs])
    cell = table[(table["regime"] == "symmetric, 20%") & (table["seed"] == 1)]
    arms = [studies.arm(*each) for each in zip(cell["method"], cell["setting"], strict=True)]
    assert arms == [
        "ε = 0",
        "ε = 0.1",
        "ε = −0.5",
        "ε = −0.5 after a warm-up",
        "generalised CE, q = 0.7",
        "forward correction",
        "backward correction",
    ]
    assert set(cell["noise"]) == {"symmetric"} and set(cell["noise_rate"]) == {0.2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"symmetric_rates": [1.5]}, "noise_rate is 1.5"),
        ({"negative_epsilons": [0.1]}, r"negative_epsilons is \[0.1\]; .* below 0"),
        ({"warmup_epochs": 3}, "warmup_epochs is 3; it must be a whole number below the 3 epochs"),
        ({"gce_qs": ["much"]}, "loss_parameter is 'much'"),
    ],
)
def test_a_wrong_parameter_of_the_noise_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        noisy_labels(**changes)


def test_the_calibration_study_adds_runs_with_a_known_posterior_and_peers():
    arguments = dict(data_name="cifar-100", regimes=REGIMES, epsilons=[0.0, 0.1], seeds=[3, 4])
    arguments |= {"judged_epsilon": 0.1}
    study = studies.calibration(
        **arguments,
        truth_epsilons=[0.0, 0.3],
        compared_regimes=["many"],
        compared_epsilons=[0.1],
        focal_gammas=[2.0],
        mixup_alphas=[0.4],
        maxsup_weights=[0.2],
    )
    main, known, peers = (group(study, name) for name in (MAIN, KNOWN_POSTERIOR, "peers"))
    assert main == studies.smoothing(**arguments).specs
    assert [(s.data, s.seed, s.epsilon) for s in known] == [
        ("built-in", 3, 0.0),
        ("built-in", 3, 0.3),
    ]
    assert all(study.in_full(spec) for spec in known)
    assert {(s.loss, s.loss_parameter, s.mixup, s.epsilon) for s in peers} == {
        (None, None, None, 0.0),
        (None, None, None, 0.1),
        ("focal", 2.0, None, 0.0),
        (None, None, 0.4, 0.0),
        ("maxsup", 0.2, None, 0.0),
    }
    assert {s.seed for s in peers} == {3, 4} and {s.train_size for s in peers} == {600}
    assert not any(study.in_full(spec) for spec in peers if spec.loss or spec.mixup)


def test_a_study_adds_regimes_of_a_published_recipe_with_its_own_epsilons():
    theirs = {"theirs": {"model": "resnet56", "epochs": 2, "recipe": {"milestones": [0.5]}}}
    arguments = dict(data_name="built-in", regimes=REGIMES, epsilons=[0.0, 0.1, 0.9], seeds=[3])
    arguments |= {"judged_epsilon": 0.1, "published_epsilons": [0.0, 0.1]}
    both = studies.reproduction(**arguments, published_regimes=theirs)
    without = studies.reproduction(**arguments, published_regimes={})
    assert both.specs[: len(without.specs)] == without.specs
    more = both.specs[len(without.specs) :]
    assert [(s.model, s.epsilon) for s in more] == [("resnet56", 0.0), ("resnet56", 0.1)]
    assert more[0].recipe.milestones == (0.5,)


def digests(study: Study, **changes):
    return [digest_of(spec, **changes) for spec in study.specs]


def test_a_diverged_run_is_a_gap_and_not_a_number():
    study = smoothing()
    runs = [
        digest_of(s, status="diverged" if s.seed == 4 and s.epsilon == 0 else "completed")
        for s in study.specs
    ]
    table = study.table(runs)
    gaps = table[table["status"] == "diverged"]
    assert len(gaps) == 2 and gaps["top1_error"].isna().all()
    judged = claims.judge([claims.load()["lower-error"]], {MAIN: table}, 0.1)["lower-error"]
    assert [found.effect.n for found in judged] == [1, 1]  # the pair of seed 4 is left out


def shown(study: Study, runs) -> Evidence:
    return Evidence("02_epsilon_study", False, "tiny", {}, study, runs, 15, others={})


def test_regimes_that_differ_in_the_recipe_alone_are_told_apart():
    """And one may leave the number of training images at its default."""
    regimes = {
        name: {"model": "resnet6", "epochs": 1, "recipe": {"peak_learning_rate": rate}}
        for name, rate in (("slow", 0.1), ("fast", 0.2))
    }
    study = smoothing(regimes=regimes)
    runs = digests(study)
    for run in runs:
        rate = run.spec.recipe.peak_learning_rate
        run.scalars.update(train_accuracy=rate, test_accuracy=0.05)
    found = page.regimes(shown(study, runs)).data.set_index("regime")
    assert list(found["train, test accuracy at ε = 0"]) == ["10.0%, 5.0%", "20.0%, 5.0%"]
    assert all(words.startswith("45,000 images × 1 epochs") for words in found["training"])


def test_a_fit_that_did_not_converge_is_counted_and_not_averaged():
    study = smoothing(regimes={"few": REGIMES["few"]})
    runs = digests(study)
    for run in runs:
        run.scalars.update(temperature=2.0, ece_scaled=0.1, ece=0.2)
        if (run.spec.epsilon, run.spec.seed) == (0.1, 4) or run.spec.epsilon == 0:
            run.scalars.update(temperature=100.0, temperature_converged=0.0, ece_scaled=0.9)
    evidence = shown(study, runs)
    rows = page.means(evidence, {"ece": "ECE", "ece_scaled": "scaled", "temperature": "T"}).data
    rows = rows.set_index("arm")
    assert list(rows.loc["ε = 0", ["runs", "ECE", "scaled", "T"]]) == [2, "0.200", "–", "–"]
    assert list(rows.loc["ε = 0.1", ["scaled", "T"]]) == ["0.100 (1/2)", "2.000 (1/2)"]
    said = page.temperatures(evidence).data
    assert said.startswith("Of 4 temperature fits of these runs, 1 converged.")
    assert "0.01 to 100" in said and said.endswith("ε = 0 (2), ε = 0.1 (1).")


def test_what_was_chosen_at_the_edge_of_the_settings_is_named():
    arms = [("smoothing", 0.0, 0.9), ("smoothing", 0.1, 0.5), ("smoothing", 0.3, 0.6)]
    arms += [
        ("mixup", 0.2, 0.4),
        ("mixup", 0.4, 0.5),
        ("mixup", 1.0, 0.4),
        ("weight decay", 0.1, 0.7),
    ]
    columns = ["method", "setting", "validation_accuracy"]
    table = pd.DataFrame(arms, columns=columns).assign(regime="tiny", seed=0)
    said = page.edges(table, "validation_accuracy").data
    assert "- ε = 0.3: *tiny*" in said and "mixup" not in said and "weight decay" not in said
    inside = page.edges(table[table["setting"] != 0.3], "validation_accuracy").data
    assert inside.startswith("No method")


def test_histograms_are_densities():
    study = smoothing()
    numbers = study.histograms(digests(study), [0.1])
    area = (
        (numbers["density"] * (numbers["right"] - numbers["left"]))
        .groupby([numbers["regime"], numbers["quantity"]])
        .sum()
    )
    assert len(area) == 4 and np.allclose(area, 1)


def test_reliability_shows_each_run_before_and_after_temperature():
    study = smoothing()
    runs = digests(study)
    numbers = study.reliability(runs, (0.0, 0.1), 3, bins=10)
    assert numbers.groupby("regime")["panel"].nunique().tolist() == [4, 4]
    run = runs[0]
    table = calibration.reliability_table(run.samples["scaled"], run.samples["correct"], 10)
    fitted = numbers[numbers["panel"].str.contains("T = ")].head(10)
    pd.testing.assert_frame_equal(fitted[table.columns].reset_index(drop=True), table)


def test_tried_networks_share_their_training_and_transfer_from_another_seed():
    study = studies.robustness(
        data_name="built-in",
        regimes=REGIMES,
        compared_regimes=["few"],
        epsilons=[0.0, 0.1],
        seeds=[3, 4],
        judged_epsilon=0.1,
        corrupted_images=100,
        attacked_images=100,
        radii=[1, 2],
        judged_radius=2,
        pgd_steps=3,
        pgd_restarts=1,
        square_queries=5,
    )
    bases = {s.base.id for s in study.specs}
    assert bases == {s.id for s in smoothing().specs if s.train_size == 300}
    sources = {(s.seed, s.examination.source.seed) for s in study.specs}
    assert sources == {(3, 4), (4, 5)}
    assert {s.examination.source.epsilon for s in study.specs} == {0.0}


def number_of_classes(**changes) -> Study:
    given = dict(data_name="built-in", class_counts=[5, 20, 100], seeds=[0], judged_epsilon=0.1)
    run = {"model": "resnet6", "train_size": 4500, "epochs": 8, "monitor_size": 100}
    return studies.number_of_classes(**given | {"class_run": run} | changes)


def test_fewer_classes_have_as_many_images_of_each_and_as_many_steps_or_epochs():
    study = number_of_classes()
    steps = 8 * (4500 // 128)
    for name in (MAIN, studies.EQUAL_EPOCHS):
        specs = [s for s in group(study, name) if s.epsilon == 0]
        assert [(s.classes, s.train_size) for s in specs] == [(5, 225), (20, 900), (None, 4500)]
        for s in specs:
            if name == MAIN:
                assert abs(s.epochs * (s.train_size // 128) / steps - 1) < 0.03
            else:
                assert s.epochs == 8
    same = [s for s in group(study, studies.SAME_IMAGES) if s.epsilon == 0]
    assert [(s.labels, s.train_size, s.epochs) for s in same] == [
        ("superclasses", 4500, 8),
        (None, 4500, 8),
    ]


@pytest.mark.parametrize("counts", [[], [5, 5], [1, 100], [5.0, 100]])
def test_wrong_numbers_of_classes_are_named(counts):
    with pytest.raises(ValueError, match="class_counts is"):
        number_of_classes(class_counts=counts)


def distillation(**changes) -> Study:
    run = {"model": "resnet6", "train_size": 300, "epochs": 1}
    given = dict(data_name="built-in", teacher_run=run, student_run=run, seeds=[0, 1])
    given |= dict(teacher_epsilons=[0.0, 0.1, 0.3], temperatures=[1.0, 4.0])
    given |= dict(student_epsilons=[0.1, 0.3], judged_epsilon=0.1)
    return studies.distillation(**given | changes)


def test_students_have_the_teachers_of_their_seed():
    study = distillation()
    students = [s for s in group(study, MAIN) if s.teacher is not None]
    assert len(students) == 3 * 2 * 2 and len(group(study, MAIN)) == len(students) + 3 * 2
    teachers = {s.id for s in group(study, "teachers")}
    assert {s.teacher.id for s in students} == teachers
    assert all(s.teacher.seed == s.seed for s in students)
    labels = [label for label in study.labels if label["group"] == MAIN]
    assert {label["arm"] for label in labels} >= {
        "plain teacher, T = 1",
        "smoothed teacher, T = 4",
        "distilled, teacher with ε = 0.3, T = 1",
    }


def test_a_student_alone_is_tuned_as_much_as_one_with_a_teacher():
    with pytest.raises(ValueError, match=r"student_epsilons is \[0.1, 0.3\]; .*1 values"):
        distillation(temperatures=[1.0])


def test_weights_are_crossed_with_smoothing_in_both_conventions():
    study = studies.class_weights(
        data_name="built-in",
        long_tail_run={"model": "resnet6", "train_size": 45_000, "epochs": 1},
        imbalances=[10, 100],
        epsilons=[0.0, 0.1],
        seeds=[0],
        judged_epsilon=0.1,
    )
    cell = [s for s in study.specs if s.imbalance == 10]
    assert [(s.weighting, s.epsilon, s.convention) for s in cell] == [
        (None, 0.0, "exclude-true"),
        (None, 0.1, "exclude-true"),
        ("terms", 0.0, "exclude-true"),
        ("terms", 0.1, "exclude-true"),
        ("terms", 0.1, "include-true"),
        ("samples", 0.1, "exclude-true"),
    ]


def test_costs_are_asked_of_the_runs_of_other_pages():
    study = studies.costs(
        data_name="built-in",
        regimes=REGIMES,
        epsilons=[0.0, 0.1],
        seeds=[3],
        judged_epsilon=0.1,
        compared_regimes=["few"],
        seen_classes=80,
    )
    assert {s.id for s in group(study, MAIN)} == {s.id for s in smoothing(seeds=[3]).specs}
    assert {s.keep for s in group(study, MAIN)} == {("selective",)}
    assert {(s.classes, s.keep) for s in group(study, "unseen")} == {(80, ("unseen",))}
