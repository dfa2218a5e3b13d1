"""Which runs a page shows, and what it says of the others."""

import functools

import numpy as np
import pytest
from made_up import digest_of, record_of

from lsce import studies
from lsce.commands import record as record_command
from lsce.judging import claims
from lsce.machine import paths
from lsce.report import page
from lsce.results import recorded
from lsce.results.recorded import Recorded
from lsce.studies import evidence, profiles
from lsce.studies.evidence import Evidence, gather
from lsce.sweeps import sweep
from lsce.training import networks

PAGE = "02_epsilon_study"


def record(*names: str, seeds=(0, 1, 2)) -> None:
    """Record made-up runs of these profiles, for some of their pages."""
    specs = {}
    for name in names:
        wanted = record_command.wanted(profiles.load(name)).values()
        specs |= {
            run.spec.id: run.spec
            for run in wanted
            if run.spec.seed in seeds and run.spec.noise is None
        }
    recorded.write(map(made, specs.values()), paths.RECORDED)


@functools.cache
def made(spec):
    return digest_of(spec, images=images(spec))


def images(spec) -> int:
    """Built-in data have 10,000 test images, with which the true posterior is computed."""
    return 10_000 if spec.data == "built-in" else 4 * (spec.classes or 100)


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(recorded, "PER_CLASS", 4)


@pytest.fixture
def own(monkeypatch):
    """This machine's runs are made up, too."""
    monkeypatch.setattr(
        sweep, "ensure", lambda specs, **_: [record_of(spec, images=images(spec)) for spec in specs]
    )


def ask(profile: str = "quick", **changes) -> Evidence:
    parameters = profiles.load(profile).notebooks[PAGE]
    given = dict(profile=profile, data_name="cifar-100", runs="own", train_missing=True)
    return gather(PAGE, **given | parameters | changes)


def test_who_runs_a_notebook_sees_the_runs_that_the_parameters_ask_for(own):
    """Also where the recorded set is larger, and after a change of one parameter."""
    record("small")
    shown = ask(epsilons=[0.0, 0.1, 0.2])
    assert not shown.recorded and sorted(shown.table["epsilon"].unique()) == [0.0, 0.1, 0.2]
    assert (shown.beside.recorded, shown.beside.profile) == (True, "small")
    assert shown.beside.beside is None


def test_recorded_runs_are_those_that_the_parameters_ask_for():
    record("quick", "small")
    assert [one.profile for one in evidence.recorded(PAGE)] == ["small", "quick"]
    shown = ask(runs="recorded")
    assert shown.recorded and len(shown.runs) == 36 and shown.beside is None
    with pytest.raises(evidence.NothingToShow, match="9 of the .* runs that the parameters of 02_"):
        ask(runs="recorded", epsilons=[0.0, 0.1, 0.2, 0.3, 0.6])
    with pytest.raises(ValueError, match="bins is 10; recorded runs were measured with 15"):
        ask(runs="recorded", bins=10)


def test_a_page_is_remembered_as_it_was_last_run(own):
    assert evidence.last(PAGE) is None
    ask(epsilons=[0.0, 0.1, 0.2])
    shown = evidence.last(PAGE)
    assert sorted(shown.table["epsilon"].unique()) == [0.0, 0.1, 0.2]
    assert (shown.recorded, shown.profile) == (False, "quick")
    ask(seeds=[0, 1], epsilons=[0.0, *np.array([0.1, 0.2])])
    assert evidence.last(PAGE).seeds == [0, 1]
    (paths.RUNS / evidence.LAST / f"{PAGE}.json").write_text('{"profile": "quick", "epsilons')
    assert evidence.last(PAGE) is None


def test_three_seeds_come_before_a_larger_set_of_one():
    record("small", seeds=[0])
    small = list(Recorded())
    record("quick")
    recorded.write([*Recorded(), *small], paths.RECORDED)
    quick, larger = evidence.recorded(PAGE)
    assert (quick.profile, larger.profile) == ("quick", "small") and larger.work > quick.work


def test_whose_runs_they_are_must_be_said():
    with pytest.raises(ValueError, match="runs is 'both'; it must be one of own, recorded"):
        ask(runs="both")


def test_without_recorded_results_nothing_stands_beside(own):
    assert ask().beside is None
    with pytest.raises(evidence.NothingToShow, match="are not recorded"):
        ask(runs="recorded")


def keep(condition) -> None:
    recorded.write([run for run in Recorded() if condition(run.spec)], paths.RECORDED)


def test_a_seed_that_is_not_complete_is_left_out():
    record("quick")
    # One run of one arm that is beside the main ones, then one of a pair.
    keep(lambda spec: (spec.seed, spec.recipe.weight_decay) != (1, 0.002))
    (found,) = evidence.recorded(PAGE)
    assert found.seeds == [0, 1, 2] and len(found.runs) == 3 * 12
    assert found.others["alternatives"].seeds == [0, 2]
    assert found.others["fractions"].seeds == [0, 1, 2]
    pair = {"model": "inception-tiny", "seed": 1, "epsilon": 0.1}
    keep(lambda spec: any(getattr(spec, name) != value for name, value in pair.items()))
    (found,) = evidence.recorded(PAGE)
    assert found.seeds == [0, 2] and len(found.runs) == 2 * 12


def test_an_epsilon_is_shown_once_all_seeds_have_it():
    """Plain cross entropy and the judged ε are enough to begin with."""
    record("quick")
    keep(lambda spec: spec.epsilon != 0.6 or spec.seed != 1)
    (found,) = evidence.recorded("00_overview")
    assert found.study.epsilons == [0.0, 0.1, 0.3] and found.seeds == [0, 1, 2]
    assert found.lacking == 2 and "2 of this page's runs are not there" in page.banner(found).data
    shown = gather("00_overview", runs="recorded", **asked("00_overview"))
    assert shown.study.epsilons == found.study.epsilons
    with pytest.raises(evidence.NothingToShow):  # these are not the profile's parameters
        gather("00_overview", runs="recorded", **asked("00_overview") | {"seeds": [0, 1]})


def asked(notebook: str) -> dict:
    given = dict(profile="quick", data_name="cifar-100", train_missing=False)
    return given | profiles.load("quick").notebooks[notebook]


def test_a_group_that_a_profile_lacks_comes_from_another():
    record("quick", "small")
    rivals = ("loss", "mixup")
    keep(lambda s: s.epochs != 60 or all(getattr(s, name) is None for name in rivals))
    small, quick = evidence.recorded("03_calibration")
    assert (small.profile, quick.profile) == ("small", "quick")
    assert small.others["peers"].profile == "quick" and not quick.lacking
    assert small.others["known posterior"].profile == "small"
    html = page.banner(small).data
    assert "**profile** small (peers: quick, with that profile's parameters" in html


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
        run.spec.epochs * run.spec.train_size * networks.multiply_adds(run.spec.model)
        for run in found.all_runs
    )
    assert found.work == work
    # 0.56 billion for ResNet-18 in its CIFAR form, as is usually reported.
    assert networks.multiply_adds("resnet18") == pytest.approx(0.556e9, rel=0.01)


def test_the_banner_tells_whose_runs_are_shown(own):
    record("small")
    mine = page.banner(ask()).data
    assert "These are the runs of this machine" in mine and "**profile** quick" in mine
    assert "what the recorded runs (profile small) say" in mine
    theirs = page.banner(ask(profile="small", runs="recorded", seeds=[0, 1, 2])).data
    assert "These are the recorded runs" in theirs and "**profile** small" in theirs
    assert "this machine" not in theirs


def test_effects_say_whose_they_are(own):
    declared = claims.of(PAGE)
    numbers = page.effects(ask(), declared)
    assert set(numbers["profile"]) == {"quick"} and not numbers["recorded"].any()
    assert list(numbers["claim"].unique()) == [claim.claim for claim in declared]


def test_a_figure_of_this_machine_s_runs_never_replaces_one_of_the_recorded(
    own, tmp_path, monkeypatch
):
    from matplotlib.figure import Figure

    monkeypatch.setattr(paths, "FIGURES", tmp_path / "figures")
    record("small")
    for one in (ask(), ask(profile="small", runs="recorded", seeds=[0, 1, 2])):
        one.publish(Figure(), "some", one.table.head())
    assert (tmp_path / "figures" / "some.csv").is_file()
    assert (tmp_path / "figures" / "quick" / "some.csv").is_file()


def plainly_trained(spec) -> bool:
    """Plain cross entropy, by the spec alone."""
    changed = ("loss", "mixup", "teacher", "weighting")
    usual = spec.recipe.weight_decay in (5e-4, 0.0)
    return usual and spec.epsilon == 0 and not any(getattr(spec, name) for name in changed)


@pytest.mark.parametrize("page", studies.BY_NOTEBOOK)
def test_epsilon_0_in_every_table_is_plain_cross_entropy(page):
    """Of a record set in which every other arm is far off, whatever its ε."""
    study = profiles.load("smoke").study(page, "built-in")
    runs = {spec.id: digest_of(spec, images=images(spec)) for spec in study.specs}
    for run in runs.values():
        accuracies = (0.9, 0.8) if plainly_trained(run.spec) else (0.2, 0.1)
        run.scalars.update(zip(("train_accuracy", "test_accuracy"), accuracies, strict=True))
    whole = evidence._evidence(page, False, "smoke", {}, study, runs, 15)
    for group in (whole, *whole.others.values()):
        found = page.regimes(group).data["train, test accuracy at ε = 0"]
        assert set(found) == {"90.0%, 80.0%"}
        means = page.means(group, {"train_accuracy": "training"}).data
        assert set(means[means["arm"] == "ε = 0"]["training"]) == {"0.900"}
