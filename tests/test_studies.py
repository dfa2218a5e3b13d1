import numpy as np
import pandas as pd
import pytest

from lsce import claims, metrics, pages, stats, studies
from lsce.runs import Recipe, Record
from lsce.studies import Study

REGIMES = {
    "few": {"model": "resnet6", "train_size": 300, "epochs": 2},
    "many": {"model": "resnet6", "train_size": 600, "epochs": 1, "recipe": {"batch_size": 32}},
}


def smoothing(**changes) -> Study:
    given = dict(data_name="built-in", regimes=REGIMES, epsilons=[0.0, 0.1], seeds=[3, 4])
    return studies.smoothing(**given | changes)


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
    after = {s.id for s in smoothing(epsilons=[0.0, 0.2]).specs}
    assert len(before & after) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilons": [0.0, 1.5]}, "epsilon is 1.5; it must be a number in"),
        ({"epsilons": []}, r"epsilons is \[\]"),
        ({"epsilons": [0.1, 0.1]}, "must not name a value twice"),
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
    arguments = dict(regimes=REGIMES, seeds=[3, 4], truth_epsilons=[0.0, 0.3])
    study = studies.calibration(data_name="cifar-100", epsilons=[0.0, 0.1], **arguments)
    truth = studies.known_posterior(**arguments)
    assert study.specs == smoothing(data_name="cifar-100").specs + truth.specs
    assert {(s.data, s.seed) for s in truth.specs} == {("built-in", 3)}


class FakeRecord(Record):
    """A record whose logits are in memory."""

    def outputs(self):
        return self.meta["outputs"]


def record(spec, status="completed") -> Record:
    generator = np.random.default_rng(spec.seed)
    labels = generator.integers(0, 100, 500)
    logits = generator.normal(size=(500, 100))
    logits[np.arange(500), labels] += 3
    import torch

    outputs = {"test_logits": torch.from_numpy(logits), "test_labels": torch.from_numpy(labels)}
    final = {
        f"{s}_{m}": 0.5 + 0.1 * i
        for i, s in enumerate(("train", "validation", "test"))
        for m in ("nll", "accuracy")
    }
    meta = {"final": final, "temperature": {"value": 2.0}, "outputs": outputs}
    return FakeRecord(None, spec, status, meta)


def test_a_table_measures_before_and_after_temperature():
    study = smoothing()
    table = study.table([record(s) for s in study.specs])
    outputs = record(study.specs[0]).outputs()
    scaled = metrics.softmax(outputs["test_logits"], 2.0)
    first = table.iloc[0]
    assert first["ece_scaled"] == metrics.expected_calibration_error(scaled, outputs["test_labels"])
    assert first["ece"] != first["ece_scaled"]
    assert first["nll_gap"] == pytest.approx(0.2) and first["accuracy_gap"] == pytest.approx(-0.2)


def test_a_diverged_run_is_a_gap_and_not_a_number():
    study = smoothing()
    records = [
        record(s, "diverged" if s.seed == 4 and s.epsilon == 0 else "completed")
        for s in study.specs
    ]
    table = study.table(records)
    gaps = table[table["status"] == "diverged"]
    assert len(gaps) == 2 and gaps["top1_error"].isna().all()
    judged = claims.judge(claims.load()["lower-error"], table, 0.1)
    assert [found.effect.n for found in judged] == [1, 1]  # the pair of seed 4 is left out


def test_regimes_that_differ_in_the_recipe_alone_are_told_apart():
    """And one may leave the number of training images at its default."""
    regimes = {
        name: {"model": "resnet6", "epochs": 1, "recipe": {"peak_learning_rate": rate}}
        for name, rate in (("slow", 0.1), ("fast", 0.2))
    }
    study = smoothing(regimes=regimes)
    records = [record(s) for s in study.specs]
    for spec, found in zip(study.specs, records, strict=True):
        found.meta["final"]["train_accuracy"] = spec.recipe.peak_learning_rate
    shown = pages.regimes(study, study.table(records)).data.set_index("regime")
    assert list(shown["training accuracy at ε = 0"]) == pytest.approx([0.1, 0.2])
    assert list(shown["images"]) == [45_000, 45_000]


def test_histograms_are_densities():
    study = smoothing()
    numbers = study.histograms([record(s) for s in study.specs], [0.1])
    area = (
        (numbers["density"] * (numbers["right"] - numbers["left"]))
        .groupby([numbers["regime"], numbers["quantity"]])
        .sum()
    )
    assert len(area) == 4 and np.allclose(area, 1)


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
    measured = studies.measure(record(smoothing().specs[0]))
    for claim in claims.load().values():
        assert claim.measure in measured
        assert claim.better in ("lower", "higher")
        assert (claim.smallest is None) != (claim.not_worse_by is None)


def test_a_verdict_says_effect_interval_and_n():
    claim = claims.load()["lower-error"]
    judged = claims.judge(claim, made_up({0.1: [0.01, 0.011, 0.012, 0.011]}), 0.1)
    text = pages.verdict(claim, judged, 0.1).data
    effect = stats.mean_interval([1.0, 1.1, 1.2, 1.1])
    assert "— supported" in text and "n = 4 paired seeds" in text
    assert f"{effect.mean:+.2g} points, 95% interval {effect.low:+.2g} to" in text
