"""Which runs a page shows, and what it says of the others."""

from dataclasses import replace

import pytest
from IPython.display import Markdown
from made_up import enter, record, runs_of
from matplotlib.figure import Figure
from tiny_dataset import registered

from lsce import studies
from lsce.judging.claims import MAIN
from lsce.machine import paths
from lsce.report import findings, page
from lsce.results import recorded
from lsce.results.recorded import Recorded
from lsce.studies import evidence
from lsce.studies.evidence import Evidence, NothingToShow, gather
from lsce.studies.parameters import Shows
from lsce.studies.profiles import Profile
from lsce.sweeps import sweep

PAGES = ("00_overview", "02_epsilon_study", "03_calibration", "04_penultimate")
PAGE = PAGES[1]

#: Two profiles, of which pages show the larger one before the other.
PROFILE = """
data = "tiny"
[shared]
epsilons = {epsilons}
regimes = {{few = {run}, more = {run2}}}
seen_classes = 5
[notebooks.02_epsilon_study]
more_regimes = {{}}
fraction_run = {run}
"""
RUN = '{{network = "resnet6", train_size = {}, epochs = {}, monitor_size = 50}}'


def profile(epsilons: list[float], epochs: int) -> str:
    runs = {"run": RUN.format(100, epochs), "run2": RUN.format(200, epochs)}
    return PROFILE.format(epsilons=epsilons, **runs)


@pytest.fixture(autouse=True)
def _checkout(tmp_path, monkeypatch):
    texts = {"small": profile([0.0, 0.1, 0.3, 0.6], 4), "quick": profile([0.0, 0.1, 0.2], 2)}
    with registered():
        enter(tmp_path, monkeypatch, **texts)
        yield


@pytest.fixture
def own(monkeypatch):
    """This machine's runs are made up, too."""
    monkeypatch.setattr(sweep, "ensure", lambda tasks, **_: runs_of(tasks))


def tasks(*names: str, seeds=(0, 1, 2)) -> list:
    """What these profiles ask for on some of their pages."""
    found = [task for name in names for page in PAGES for task in Profile(name).study(page).tasks]
    return [task for task in found if task.seed in seeds]


def keep(condition) -> None:
    runs = [run for run in Recorded() if condition(run.spec)]
    recorded.write(runs, paths.RECORDED)


def ask(profile: str = "quick", notebook: str = PAGE, runs: str = "own", **changes) -> Evidence:
    study = type(Profile(profile).study(notebook))
    given = {"data_name": "tiny"} | Profile(profile).parameters(notebook) | changes
    return gather(study(study.Parameters(**given)), profile=profile, runs=runs)


def test_who_runs_a_notebook_sees_the_runs_that_the_parameters_ask_for(own):
    """Also where the recorded set is larger, and after a change of one parameter."""
    record(tasks("small"))
    shown = ask(epsilons=[0.0, 0.1, 0.7])
    assert not shown.recorded and sorted(shown.table["epsilon"].unique()) == [0.0, 0.1, 0.7]


def test_recorded_runs_are_those_that_the_parameters_ask_for():
    record(tasks("quick", "small"))
    assert [one.profile for one in evidence.recorded(PAGE)] == ["small", "quick"]
    shown = ask(runs="recorded")
    assert shown.recorded and len(shown.pairs) == 18 and not shown.lacking
    with pytest.raises(NothingToShow, match="6 of the .* runs that the parameters of 02_"):
        ask(runs="recorded", epsilons=[0.0, 0.1, 0.2, 0.7])


@pytest.mark.parametrize(
    ("notebook", "changes", "words"),
    [
        ("03_calibration", {"bins": 10}, "bins is 10; recorded runs were measured with 15"),
        ("04_penultimate", {"similar_classes": ["class 7", "class 8", "class 9"]}, "must be None"),
    ],
)
def test_what_recorded_runs_were_not_measured_with_is_refused(own, notebook, changes, words):
    record(tasks("quick"))
    assert ask(notebook=notebook, runs="recorded").recorded
    with pytest.raises(ValueError, match=words):
        ask(notebook=notebook, runs="recorded", **changes)


def test_whose_runs_they_are_must_be_said():
    with pytest.raises(ValueError, match="runs is 'both'; it must be 'own' or 'recorded'"):
        Shows(runs="both")
    with pytest.raises(ValueError, match="profile is '../mine'; it must be of letters, digits"):
        Shows(profile="../mine")


def test_without_recorded_results_there_is_nothing_to_show():
    with pytest.raises(NothingToShow, match="are not recorded"):
        ask(runs="recorded")
    assert evidence.recorded(PAGE) == []


def test_three_seeds_come_before_a_larger_set_of_one():
    record([*tasks("small", seeds=[0]), *tasks("quick")])
    assert [shown.profile for shown in evidence.recorded(PAGE)] == ["quick", "small"]


def test_a_seed_that_is_not_complete_is_left_out():
    record(tasks("quick"))
    # One run of one arm that is beside the main ones, then one of a pair.
    keep(lambda spec: (spec.seed, spec.recipe.weight_decay) != (1, 0.002))
    (found,) = evidence.recorded(PAGE)
    assert found.seeds == [0, 1, 2] and len(found.pairs) == 3 * 6
    assert found.others["weight decay"].seeds == [0, 2]
    assert found.others["early stopping"].seeds == [0, 1, 2]
    assert found.others["fractions"].seeds == [0, 1, 2]
    keep(lambda spec: (spec.images, spec.seed, spec.method.setting) != (200, 1, 0.1))
    (found,) = evidence.recorded(PAGE)
    assert found.seeds == [0, 2] and len(found.pairs) == 2 * 6


def test_a_regime_of_which_nothing_is_recorded_is_left_out():
    record(tasks("quick"))
    keep(lambda spec: spec.images == 100)
    (found,) = evidence.recorded("00_overview")
    assert {label.regime for label, _ in found.pairs} == {"few"} and found.seeds == [0, 1, 2]
    assert found.lacking == 9


def test_what_profiles_say_that_have_too_few_seeds_yet_stands_below_each_verdict(monkeypatch):
    record([*tasks("small", seeds=[0]), *tasks("quick")])
    quick, small = evidence.recorded(PAGE)
    said = page.banner(quick).data
    assert "The profile small, which is to take their place, is recorded with n = 1 so far" in said
    assert "is to take" not in page.banner(small).data
    displayed: list[Markdown] = []
    monkeypatch.setattr(page, "display", displayed.append)
    page.verdicts(quick)
    lines = sum("Recorded runs (profile small): " in each.data for each in displayed)
    of_main = [claim for claim in studies.claims_of(PAGE) if claim.group == MAIN]
    assert 0 < lines == sum(claim.id in small.judgements for claim in of_main)


def test_an_epsilon_is_shown_once_all_seeds_have_it():
    """Plain cross entropy and the judged ε are enough to begin with."""
    record(tasks("quick"))
    keep(lambda spec: (spec.method.setting, spec.seed) != (0.2, 1))
    (found,) = evidence.recorded("00_overview")
    assert found.study.epsilons == [0.0, 0.1] and found.seeds == [0, 1, 2]
    assert found.lacking == 2 and "2 of this page's runs are not there" in page.banner(found).data
    assert ask(notebook="00_overview", runs="recorded").study.epsilons == found.study.epsilons
    with pytest.raises(NothingToShow):  # these are not the profile's parameters
        ask(notebook="00_overview", runs="recorded", seeds=[0, 1])


def test_a_group_that_a_profile_lacks_comes_from_another():
    record(tasks("quick", "small"))
    keep(lambda spec: spec.epochs != 4 or spec.method.kind == "smoothing")
    small, quick = evidence.recorded("03_calibration")
    assert (small.profile, quick.profile) == ("small", "quick")
    assert small.others["peers"].profile == "quick" and not quick.lacking
    assert small.others["known posterior"].profile == "small"
    said = page.banner(small).data
    assert "**profile** small (peers: quick, with that profile's parameters" in said


def test_a_page_s_other_runs_are_set_apart():
    record(tasks("quick"))
    (found,) = evidence.recorded("03_calibration")
    known = found.others["known posterior"].own_runs
    assert len(found.own_runs) == 18 and {run.spec.data for run in known} == {"built-in"}
    assert {run.spec.data for run in found.own_runs} == {"tiny"}
    assert len(found.all_runs) == 18 + 2 + 3 * 3


def test_what_a_page_keeps_of_a_run_must_be_recorded():
    record(tasks("quick"))
    assert evidence.recorded("04_penultimate")
    recorded.write([replace(run, kept=frozenset()) for run in Recorded()], paths.RECORDED)
    assert evidence.recorded("04_penultimate") == [] and evidence.recorded("00_overview")


def test_the_banner_tells_whose_runs_are_shown(own):
    record(tasks("small"))
    theirs = ask("small", runs="recorded")
    findings.write(findings.of(theirs))
    mine = page.banner(ask()).data
    assert "These are the runs of this machine" in mine and "**profile** quick" in mine
    assert "what the recorded runs (profile small) say" in mine
    said = page.banner(theirs).data
    assert "These are the recorded runs" in said and "**profile** small" in said
    assert "this machine" not in said


def test_a_figure_of_this_machine_s_runs_never_replaces_one_of_the_recorded(own):
    record(tasks("small"))
    for shown in (ask(), ask("small", runs="recorded")):
        page.publish(shown, "some", shown.table.head(), lambda numbers: Figure())
    assert (paths.FIGURES / "some.csv").is_file()
    assert (paths.FIGURES / "quick" / "some.csv").is_file()
