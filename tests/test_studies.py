import numpy as np
import pandas as pd
import pytest
from made_up import digest_of

from lsce import claims, metrics, pages, stats, studies
from lsce.evidence import Evidence
from lsce.runs import Recipe
from lsce.studies import KNOWN_POSTERIOR, Study

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
        ({"epsilons": [0.0, 1.5]}, "epsilon is 1.5; it must be a number in"),
        ({"epsilons": []}, r"epsilons is \[\]"),
        ({"epsilons": [0.1, 0.1]}, "must not name a value twice"),
        ({"judged_epsilon": 0.2}, "judged_epsilon is 0.2; it must be one of epsilons"),
        ({"epsilons": [0.1, 0.2]}, "other than 0, which must be there too"),
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


def test_the_calibration_study_adds_runs_with_a_known_posterior():
    arguments = dict(data_name="cifar-100", regimes=REGIMES, epsilons=[0.0, 0.1], seeds=[3, 4])
    arguments |= {"judged_epsilon": 0.1}
    study = studies.calibration(**arguments, truth_epsilons=[0.0, 0.3])
    main, runs, known = study.split(study.specs)
    assert main.specs == runs == studies.smoothing(**arguments).specs
    assert [(s.data, s.seed, s.epsilon) for s in known] == [
        ("built-in", 3, 0.0),
        ("built-in", 3, 0.3),
    ]
    assert KNOWN_POSTERIOR not in {label["regime"] for label in main.labels}
    assert all(study.in_full(spec) for spec in known)


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
    judged = claims.judge(claims.load()["lower-error"], table, 0.1)
    assert [found.effect.n for found in judged] == [1, 1]  # the pair of seed 4 is left out


def shown(study: Study, runs) -> Evidence:
    return Evidence(False, "tiny", {}, study, runs, [], 15)


def test_regimes_that_differ_in_the_recipe_alone_are_told_apart():
    """And one may leave the number of training images at its default."""
    regimes = {
        name: {"model": "resnet6", "epochs": 1, "recipe": {"peak_learning_rate": rate}}
        for name, rate in (("slow", 0.1), ("fast", 0.2))
    }
    study = smoothing(regimes=regimes)
    runs = digests(study)
    for run in runs:
        run.scalars["train_accuracy"] = run.spec.recipe.peak_learning_rate
    found = pages.regimes(shown(study, runs)).data.set_index("regime")
    assert list(found["training accuracy at ε = 0"]) == pytest.approx([0.1, 0.2])
    assert list(found["images"]) == [45_000, 45_000]


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
    table = metrics.reliability_table(run.samples["scaled"], run.samples["correct"], 10)
    fitted = numbers[numbers["panel"].str.contains("T = ")].head(10)
    pd.testing.assert_frame_equal(fitted[table.columns].reset_index(drop=True), table)


# ---- claims ----


def made_up(effects: dict[float, list[float]]) -> pd.DataFrame:
    """A table in which top-1 error is 0.5 at ε = 0 and lower by `effects` elsewhere."""
    rows = [
        {
            "regime": "r",
            "epsilon": e,
            "seed": seed,
            "top1_error": 0.5 - gain,
            "validation_accuracy": 0.5 + gain,
        }
        for e, gains in ({0.0: [0.0] * 4} | effects).items()
        for seed, gain in enumerate(gains)
    ]
    return pd.DataFrame(rows)


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
    (found,) = claims.judge(claims.load()["lower-error"], made_up({0.1: gains}), 0.1)
    assert found.verdict == verdict and found.control == 0
    assert found.effect.mean == pytest.approx(100 * np.mean(gains))
    assert (found.more_runs is not None) == (verdict == "undecided")


@pytest.mark.parametrize(
    ("rival", "verdict"), [(0.011, "supported"), (0.10, "refuted"), (0.015, "undecided")]
)
def test_as_good_as_any_other_compares_with_the_best_other_by_validation(rival, verdict):
    gains = [0.010, 0.012, 0.011, 0.009]
    spread = [0.001, -0.001, 0.0, 0.001]
    table = made_up({0.1: gains, 0.3: [rival + s for s in spread], 0.9: [-0.2] * 4})
    (found,) = claims.judge(claims.load()["epsilon-0.1"], table, 0.1)
    assert found.control == 0.3 and found.verdict == verdict


def test_the_judged_epsilon_must_be_there():
    with pytest.raises(ValueError, match="judged_epsilon is 0.2; it must be one of"):
        claims.judge(claims.load()["lower-error"], made_up({0.1: [0.0] * 4}), 0.2)


def test_every_claim_is_complete():
    measured = digest_of(smoothing().specs[0]).scalars
    for claim in claims.load().values():
        assert claim.measure in measured
        assert claim.published is None or claim.published["measure"] in measured
        assert claim.better in ("lower", "higher")
        assert (claim.smallest is None) != (claim.not_worse_by is None)


def test_a_verdict_says_effect_interval_and_n_of_every_set_of_runs():
    claim = claims.load()["lower-error"]
    study = smoothing(seeds=[0, 1, 2, 3], regimes={"r": REGIMES["few"]})
    first, second = shown(study, digests(study)), shown(study, digests(study))
    for gain, evidence in ((0.01, first), (-0.02, second)):
        for run in evidence.runs:
            worse = gain + 0.002 * run.spec.seed if run.spec.epsilon == 0 else 0.0
            run.scalars["top1_error"] = 0.5 + worse
    text = pages.verdict(claim, [first, second]).data
    effect = stats.mean_interval([1.0, 1.2, 1.4, 1.6])  # 1.3 ± 0.41
    assert "— supported" in text and text.count("n = 4 paired seeds") == 2
    assert f"+1.3 points, 95% interval {effect.low:+.1f} to {effect.high:+.1f}" in text
    assert "Beside it, this machine, profile tiny: *refuted*." in text


@pytest.mark.parametrize(
    ("half", "shown"),
    [(0.13, "+0.52 (+0.39 to +0.65)"), (0.31, "+0.5 (+0.2 to +0.8)"), (0.0062, "+0.521 (")],
)
def test_an_interval_decides_the_digits(half, shown):
    effect = stats.Interval(0.5214, 0.5214 - half, 0.5214 + half, 5, 1.0, 0.1)
    mean, interval = pages._mean_and_interval(effect)
    assert f"{mean} ({interval})".startswith(shown)
