"""Which runs a page shows, and what it says of the others."""

import functools

import pytest
from made_up import digest_of, record_of

from lsce import evidence, models, pages, paths, profiles, recorded, sweep
from lsce import record as record_command
from lsce.evidence import Evidence, gather
from lsce.recorded import Recorded

PAGE = "02_epsilon_study"


def record(*names: str, seeds=(0, 1, 2)) -> None:
    """Record made-up runs of these profiles, for some of their pages."""
    specs = {}
    for name in names:
        wanted = record_command._wanted(profiles.load(name)).values()
        specs |= {s.id: s for s, _, _ in wanted if s.seed in seeds and s.noise is None}
    recorded.write(map(made, specs.values()), paths.RECORDED)


@functools.cache
def made(spec):
    return digest_of(spec, images=images(spec))


def images(spec) -> int:
    """Built-in data have 10,000 test images, with which the true posterior is computed."""
    return 10_000 if spec.data == "built-in" else spec.classes or 100


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(recorded, "PER_CLASS", 1)


@pytest.fixture
def own(monkeypatch):
    """This machine's runs are made up, too."""
    monkeypatch.setattr(
        sweep, "ensure", lambda specs, **_: [record_of(spec, images=images(spec)) for spec in specs]
    )


def ask(profile: str = "quick", **changes) -> list[Evidence]:
    parameters = profiles.load(profile).notebooks[PAGE]
    given = dict(profile=profile, data_name="cifar-100", runs="both", train_missing=True)
    return gather(PAGE, **given | parameters | changes)


def test_the_larger_set_is_shown_and_the_other_beside_it(own):
    record("cpu")
    first, second = ask()
    assert (first.recorded, first.profile) == (True, "cpu")
    assert (second.recorded, second.profile) == (False, "quick")
    first, second = ask(profile="paper")
    assert (first.profile, second.profile) == ("paper", "cpu")


def test_of_the_recorded_sets_the_largest_is_shown():
    record("quick", "cpu")
    assert [one.profile for one in evidence.recorded(PAGE)] == ["cpu", "quick"]
    assert [one.profile for one in ask(runs="recorded")] == ["cpu"]


def test_three_seeds_come_before_a_larger_set_of_one():
    record("cpu", seeds=[0])
    cpu = list(Recorded())
    record("quick")
    recorded.write([*Recorded(), *cpu], paths.RECORDED)
    quick, larger = evidence.recorded(PAGE)
    assert (quick.profile, larger.profile) == ("quick", "cpu") and larger.work > quick.work


def test_synthetic_images_never_come_before_real_ones(own):
    record("quick")
    first, second = ask(profile="paper", data_name="built-in", seeds=[0])
    assert (first.recorded, first.profile) == (True, "quick")
    assert second.runs[0].spec.data == "built-in" and second.work > first.work


def test_one_set_alone_can_be_asked_for(own):
    record("quick")
    assert [one.recorded for one in ask(runs="own")] == [False]
    assert [one.recorded for one in ask(runs="recorded")] == [True]
    with pytest.raises(ValueError, match="runs is 'mine'; it must be one of both, own, recorded"):
        ask(runs="mine")


def test_without_recorded_results_this_machine_s_are_shown_or_nothing(own):
    assert [one.recorded for one in ask()] == [False]
    with pytest.raises(evidence.NothingToShow, match="no complete set of runs for 02_epsilon"):
        ask(runs="recorded")


def test_a_seed_that_is_not_complete_is_left_out():
    record("quick")
    # One run of one arm that is beside the main ones.
    runs = [r for r in Recorded() if (r.spec.seed, r.spec.recipe.weight_decay) != (1, 0.002)]
    recorded.write(runs, paths.RECORDED)
    (found,) = evidence.recorded(PAGE)
    assert found.seeds == [0, 2] == found.parameters["seeds"]
    assert len(found.runs) == 2 * 12 and set(found.others) == {"fractions", "alternatives"}


def test_a_page_s_other_runs_are_set_apart():
    record("quick")
    (found,) = evidence.recorded("03_calibration")
    known = found.others["known posterior"].runs
    assert len(found.runs) == 24 and {run.spec.data for run in known} == {"built-in"}
    assert {run.spec.data for run in found.runs} == {"cifar-100"}
    assert len(found.all_runs) == 24 + 2 + 3 * 6


def test_what_a_page_keeps_of_a_run_must_be_recorded():
    record("quick")
    assert evidence.recorded("04_penultimate")
    bare = list(Recorded())
    for run in bare:
        run.scalars.pop("nc1", None)
    recorded.write(bare, paths.RECORDED)
    assert evidence.recorded("04_penultimate") == [] and evidence.recorded("00_overview")


def test_work_counts_images_times_multiplications():
    record("quick", seeds=[0])
    (found,) = evidence.recorded(PAGE)
    work = sum(
        run.spec.epochs * run.spec.train_size * models.multiply_adds(run.spec.model)
        for run in found.all_runs
    )
    assert found.work == work
    # 0.56 billion for ResNet-18 in its CIFAR form, as is usually reported.
    assert models.multiply_adds("resnet18") == pytest.approx(0.556e9, rel=0.01)


def test_the_banner_tells_whose_runs_are_shown(own):
    record("cpu")
    text = pages.banner(*ask()).data
    shown, beside = text.split("**Beside it**")
    assert "**Shown**: **recorded results, profile cpu**" in shown
    assert "**this machine, profile quick**" in beside and "this machine" not in shown


def test_effects_beside_are_told_apart_from_those_shown(own):
    from lsce import claims

    record("cpu")
    declared = claims.of(PAGE)
    numbers = pages.effects(ask(), declared)
    theirs = numbers[numbers["recorded"]]["regime"]
    mine = numbers[~numbers["recorded"]]["regime"]
    assert mine.str.endswith("(this machine)").all() and not theirs.str.contains("machine").any()
    assert list(numbers["claim"].unique()) == [claim.claim for claim in declared]


def test_a_figure_of_this_machine_s_runs_never_replaces_one_of_the_recorded(
    own, tmp_path, monkeypatch
):
    from matplotlib.figure import Figure

    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    record("cpu")
    for one in ask():
        one.publish(Figure(), "some", one.table.head())
    assert (tmp_path / "figures" / "some.csv").is_file()
    assert (tmp_path / "figures" / "quick" / "some.csv").is_file()
