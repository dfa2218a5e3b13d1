"""Do numbers come out again: the rules on made-up runs."""

import dataclasses

import numpy as np
import pytest
from made_up import digest_of

from lsce import studies
from lsce.judging import claims
from lsce.report import reproduction
from lsce.results import recorded
from lsce.results.recorded import Recorded
from lsce.studies.evidence import Evidence

REGIMES = {
    "few": {"model": "resnet6", "train_size": 300, "epochs": 2},
    "many": {"model": "resnet6", "train_size": 600, "epochs": 1},
}


def evidence(seeds=(0, 1, 2, 3, 4), shift: float = 0.0, noise: float = 0.0) -> Evidence:
    """Runs whose top-1 error is that of the seed, `shift` higher at ε = 0.1 in "few", with noise
    from rerun to rerun."""
    study = studies.smoothing(
        data_name="cifar-100",
        regimes=REGIMES,
        epsilons=[0.0, 0.05, 0.1],
        seeds=seeds,
        judged_epsilon=0.1,
    )
    generator = np.random.default_rng(1)
    runs = [digest_of(spec, images=100) for spec in study.specs]
    for label, run in zip(study.labels, runs, strict=True):
        error = 0.5 + 0.01 * run.spec.seed + noise * generator.normal()
        if label["regime"] == "few" and run.spec.epsilon == 0.1:
            error += shift
        run.scalars["top1_error"] = error
    parameters = {"epsilons": [0.0, 0.05, 0.1]}
    return Evidence("12_reproduction", False, "tiny", parameters, study, runs, 15, others={})


@pytest.fixture
def results(tmp_path, monkeypatch) -> Recorded:
    monkeypatch.setattr(recorded, "PER_CLASS", 1)
    recorded.write(evidence().runs, tmp_path)
    return Recorded(tmp_path)


def outcomes(numbers) -> dict[tuple[str, str], str]:
    return {(r["regime"], r["number"]): r["outcome"] for _, r in numbers.iterrows()}


def test_the_very_numbers_recorded_are_the_same(results):
    numbers = reproduction.with_recorded(evidence(), results)
    assert set(numbers["outcome"]) == {"the same"}
    # Per regime: the effect of each claim on ε alone, and each level at two ε.
    effects = sum(claim.is_plain for claim in reproduction.declared())
    assert len(numbers) == 2 * (effects + 2 * len(reproduction.LEVELS))
    assert (numbers["n"] == 5).all() and (numbers["difference"] == 0).all()
    assert reproduction.summary(numbers, "tiny") == [
        f"Of {len(numbers)} headline numbers of profile tiny, this machine's against the "
        f"recorded: {len(numbers)} are exactly the same."
    ]


def test_noise_agrees_and_a_shift_differs(results):
    numbers = reproduction.with_recorded(evidence(shift=0.1, noise=1e-3), results)
    found = outcomes(numbers)
    assert found["few", "top-1 error, ε = 0.1"] == "differs"
    assert found["few", "effect: top-1 test error"] == "differs"
    assert found["few", "top-1 error, ε = 0"] == "agrees"
    assert found["many", "top-1 error, ε = 0.1"] == "agrees"
    assert found["many", "temperature, ε = 0"] == "the same"
    row = numbers[numbers["number"] == "top-1 error, ε = 0.1"].iloc[0]
    assert row["difference"] == pytest.approx(10, abs=0.3) and row["unit"] == "points"
    assert row["recorded"] == pytest.approx(52)
    text = "\n".join(reproduction.summary(numbers, "tiny"))
    assert "2 differ" in text and "differs: top-1 error, ε = 0.1 (few): recorded 52" in text


def test_a_single_seed_is_undecided_unless_the_same(results):
    numbers = reproduction.with_recorded(evidence(seeds=[3], noise=1e-3), results)
    assert set(numbers["outcome"]) == {"the same", "undecided"}


def test_only_runs_with_a_recorded_spec_are_compared(results):
    own = evidence(seeds=[3, 4, 7])
    assert set(reproduction.with_recorded(own, results)["n"]) == {2}
    none = reproduction.with_recorded(evidence(seeds=[8, 9]), results)
    assert none.empty
    assert reproduction.summary(none, "tiny") == [
        "No run of profile tiny on this machine is recorded with the same spec."
    ]


def test_published_effects_are_differences_of_the_rows_named():
    numbers = reproduction.with_published(evidence(), reproduction.declared())
    muller = numbers[numbers["name"].str.startswith("Mueller")].set_index("claim")["effect"]
    # Table 2: accuracy 72.1 and 72.7; table 3: ECE 0.150 and 0.024.
    assert muller["Label smoothing lowers the test error."] == pytest.approx(0.6)
    assert muller["Label smoothing improves calibration."] == pytest.approx(0.126)
    scaled = numbers[numbers["claim"].str.contains("temperature")]
    resnet50 = scaled[scaled["name"].str.endswith("ResNet-50")].iloc[0]
    assert resnet50["effect"] == pytest.approx(0.0342 - 0.0401) and resnet50["epsilon"] == 0.05


def test_published_numbers_under_noise_say_which():
    numbers = reproduction.with_published(evidence(), [claims.load()["robust-to-noise"]])
    names = numbers[numbers["source"] == "published"]["name"]
    assert list(names.str.partition("ResNet-34")[2]) == [", symmetric, 40%", ", symmetric, 60%"]


def test_published_students_stand_beside_the_arms_that_the_claim_compares():
    study = studies.distillation(
        data_name="built-in",
        teacher_run={"model": "resnet6", "train_size": 300, "epochs": 1},
        student_run={"model": "resnet6-half", "train_size": 300, "epochs": 1},
        teacher_epsilons=[0.0, 0.1],
        temperatures=[1.0],
        student_epsilons=[0.1],
        seeds=[0, 1],
        judged_epsilon=0.1,
    )
    main = study.part(study.groups()[studies.MAIN])
    runs = [digest_of(spec) for spec in main.specs]
    for run in runs:
        smooth = run.spec.teacher is not None and run.spec.teacher.epsilon > 0
        run.scalars["top1_error"] = 0.5 + 0.03 * smooth + 0.001 * run.spec.seed
    shown = Evidence("08_distillation", False, "tiny", {}, main, runs, 15, others={})
    numbers = reproduction.with_published(shown, [claims.load()["smoothed-teacher"]])
    (ours,) = numbers[numbers["source"] == "here"].to_dict("records")
    assert ours["effect"] == pytest.approx(-3) and ours["n"] == 2
    theirs = numbers[numbers["source"] == "published"].set_index("name")["effect"]
    name = "Chandrasegaran et al. 2022, ResNet-50 → ResNet-18 student, T = 2, ImageNet-1K"
    assert theirs[name] == pytest.approx(68.860 - 71.360)


def test_every_published_pair_is_one_network_without_and_with_smoothing():
    import pandas as pd

    from lsce.machine import paths

    rows = pd.read_csv(paths.PUBLISHED, index_col="id")
    for claim in claims.load().values():
        for plain, smoothed in (claim.published or {"pairs": []})["pairs"]:
            a, b = rows.loc[plain], rows.loc[smoothed]
            same = ["paper", "dataset", "architecture", "metric", "unit"]
            assert list(a[same]) == list(b[same]) and b["epsilon"] > 0
            assert a["confidence"] == b["confidence"] == "seen"
            if claim.family != "distillation":  # there teachers differ, or one has none
                assert a["setting"] == b["setting"]
                assert a["epsilon"] == 0 and a["dataset"] == "CIFAR-100"


@pytest.mark.parametrize(
    ("shift", "direction"),
    [(0.0, "undecided"), (-0.1, "the same way"), (0.1, "the opposite way")],
)
def test_the_direction_is_that_of_the_interval(shift, direction):
    shown = evidence(shift=shift, noise=1e-3)
    claim = [claims.load()["lower-error"]]
    rows = reproduction.directions(reproduction.with_published(shown, claim))
    at_01 = rows[rows["published"].str.startswith("Mueller")].iloc[0]
    assert at_01["few"] == direction and at_01["many"] == "undecided"
    at_005 = rows[rows["published"].str.endswith("DenseNet-121")].iloc[0]
    assert at_005["few"] == "undecided"  # the shift is at ε = 0.1 alone


def test_regimes_may_have_other_epsilons(results):
    more = dataclasses.replace(evidence(noise=1e-3))
    keep = [i for i, run in enumerate(more.runs) if (i < 3) or run.spec.epsilon != 0.05]
    study = dataclasses.replace(
        more.study,
        labels=[more.study.labels[i] for i in keep],
        specs=[more.study.specs[i] for i in keep],
    )
    part = dataclasses.replace(more, study=study, runs=[more.runs[i] for i in keep])
    numbers = reproduction.with_published(part, [claims.load()["lower-error"]])
    ours = numbers[numbers["source"] == "here"]
    assert set(ours[ours["name"] == "many"]["epsilon"]) == {0.1}
