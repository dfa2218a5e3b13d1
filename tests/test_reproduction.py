"""Do numbers come out again: the rules on made-up runs."""

import numpy as np
import pandas as pd
import pytest
from made_up import build, shown

from lsce import studies
from lsce.judging.claims import Published
from lsce.report import figures, literature, reproduction
from lsce.results import recorded
from lsce.results.recorded import Recorded
from lsce.studies.evidence import Evidence
from lsce.studies.study import Study

CLAIMS = studies.all_claims()
RUN = {"network": "resnet6", "train_size": 300, "epochs": 1}
REGIMES = {"few": RUN | {"epochs": 2}, "many": RUN | {"train_size": 600}}


def evidence(
    seeds=(0, 1, 2, 3, 4), shift: float = 0.0, noise: float = 0.0, part=lambda label: True
) -> Evidence:
    """Runs whose top-1 error is that of the seed, `shift` higher at ε = 0.1 in "few", with noise
    from rerun to rerun."""
    given = dict(data_name="cifar-100", regimes=REGIMES, epsilons=[0.0, 0.05, 0.1], seeds=seeds)
    study = build("12_reproduction", **given)
    generator, found = np.random.default_rng(1), shown(study.part(filter(part, study.labelled)))
    for label, run in found.pairs:
        error = 0.5 + 0.01 * run.spec.seed + noise * generator.normal()
        run.scalars["top1_error"] = error + shift * (label.regime == "few" and label.setting == 0.1)
    return found


@pytest.fixture
def results(tmp_path) -> Recorded:
    recorded.write(evidence().own_runs, tmp_path)
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
    numbers = reproduction.with_published(evidence(), [CLAIMS["robust-to-noise"]])
    names = numbers[numbers["source"] == "published"]["name"]
    wanted = [", symmetric, 40%", ", symmetric, 60%", ", CIFAR-100N"]
    assert list(names.str.partition("ResNet-34")[2]) == wanted


def test_published_students_stand_beside_the_arms_that_the_claim_compares():
    given = dict(data_name="built-in", teacher_run=RUN, student_run=RUN, seeds=[0, 1])
    study: Study = build("08_distillation", **given, temperatures=[1.0], student_epsilons=[0.1])
    found = shown(study)
    for label, run in found.pairs:
        worse = 0.03 * (label.method == "distilled, smoothed teacher")
        run.scalars["top1_error"] = 0.5 + worse + 0.001 * run.spec.seed
    numbers = reproduction.with_published(found, [CLAIMS["smoothed-teacher"]])
    (ours,) = numbers[numbers["source"] == "here"].to_dict("records")
    assert ours["effect"] == pytest.approx(-3) and ours["n"] == 2
    theirs = numbers[numbers["source"] == "published"].set_index("name")["effect"]
    name = "Chandrasegaran et al. 2022, ResNet-50 → ResNet-18 student, T = 2, ImageNet-1K"
    assert theirs[name] == pytest.approx(68.860 - 71.360)


def test_every_published_pair_is_one_network_without_and_with_smoothing():
    rows = literature.published()
    for claim in CLAIMS.values():
        for plain, smoothed in claim.published.pairs if claim.published else []:
            a, b = rows.loc[plain], rows.loc[smoothed]
            same = ["paper", "dataset", "metric", "unit"]
            assert list(a[same]) == list(b[same])
            assert literature.name(a) == literature.name(b)
            assert not b["epsilon"] <= 0  # NaN where the paper has no single one
            assert a["confidence"] == b["confidence"] == "seen"
            if claim.family != "distillation":  # there teachers differ, or one has none
                assert a["setting"] == b["setting"] and a["epsilon"] == 0
            if claim.family in reproduction.FAMILIES:
                assert a["dataset"] == "CIFAR-100"


def beside_zhou(shown: Evidence, measure: str = "top1_error") -> pd.DataFrame:
    """Their ε grows while the network is trained."""
    published = Published(measure=measure, pairs=[["zhou2025-001", "zhou2025-009"]])
    claim = CLAIMS["lower-error"].model_copy(update={"published": published})
    return reproduction.with_published(shown, [claim])


def test_papers_without_a_single_epsilon_stand_beside_the_judged_one():
    numbers = beside_zhou(evidence(shift=-0.1, noise=1e-3))
    assert set(numbers[numbers["source"] == "here"]["epsilon"]) == {0.1}
    (theirs,) = numbers[numbers["source"] == "published"].to_dict("records")
    assert theirs["effect"] == pytest.approx(77.05 - 76.16) and np.isnan(theirs["epsilon"])
    (row,) = reproduction.directions(numbers, 0.1).to_dict("records")
    assert row["few"] == "the same way" and row["many"] == "undecided"
    (axes,) = figures.beside_published(numbers).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert "Zhou et al. 2025, ResNet-18, no single ε" in [" ".join(n.split()) for n in names]


def test_a_measure_that_was_not_taken_gives_no_effects():
    assert set(beside_zhou(evidence(), "no_such_measure")["source"]) == {"published"}


@pytest.mark.parametrize(
    ("shift", "direction"),
    [(0.0, "undecided"), (-0.1, "the same way"), (0.1, "the opposite way")],
)
def test_the_direction_is_that_of_the_interval(shift, direction):
    numbers = reproduction.with_published(
        evidence(shift=shift, noise=1e-3), [CLAIMS["lower-error"]]
    )
    rows = reproduction.directions(numbers, 0.1)
    at_01 = rows[rows["published"].str.startswith("Mueller")].iloc[0]
    assert at_01["few"] == direction and at_01["many"] == "undecided"
    at_005 = rows[rows["published"].str.endswith("DenseNet-121")].iloc[0]
    assert at_005["few"] == "undecided"  # the shift is at ε = 0.1 alone


def test_regimes_may_have_other_epsilons():
    fewer = evidence(part=lambda label: (label.regime, label.setting) != ("many", 0.05))
    numbers = reproduction.with_published(fewer, [CLAIMS["lower-error"]])
    ours = numbers[numbers["source"] == "here"]
    assert set(ours[ours["name"] == "many"]["epsilon"]) == {0.1}
    assert set(ours[ours["name"] == "few"]["epsilon"]) == {0.05, 0.1}
