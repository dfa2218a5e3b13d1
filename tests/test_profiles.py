"""How much of the report to run: what is wrong with a profile is said in one sentence."""

import copy
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up import enter

from lsce import studies
from lsce.machine import paths
from lsce.studies import cells, profiles
from lsce.studies.profiles import Content, Profile, ProfileError

FEW = '{network = "resnet6", train_size = 300, epochs = 2}'


def refused(tmp_path: Path, patch: pytest.MonkeyPatch, text: str) -> str:
    """What is said of a profile."""
    enter(tmp_path, patch, mine=text)
    with pytest.raises(ProfileError) as error:
        list(Profile("mine").studies())
    (line,) = str(error.value).splitlines()
    return line.removeprefix("notebooks/profiles/mine.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data = [", " is not valid TOML: "),
        ('note = "no data"', ": data is missing; Content needs it"),
        ('data = "cifar"', ": data is 'cifar'; it must be one of cifar-100, built-in"),
        ('notes = ""', ": Content has no parameter 'notes'; did you mean 'note'?"),
        ("shared.seads = [0]", ": shared has no parameter 'seads'; did you mean 'seeds'?"),
        (
            "[notebooks.02_epsilon]\nseeds = [0]",
            ": notebooks has no page '02_epsilon'; did you mean '02_epsilon_study'?",
        ),
        (
            "[notebooks.02_epsilon_study]\nfraction = [0.5]",
            ", 02_epsilon_study: EpsilonParameters has no parameter 'fraction'; "
            "did you mean 'fractions'?",
        ),
        ('shared.seeds = "0"', ", 00_overview: seeds is '0'; it must be a list"),
        (
            "[notebooks.03_calibration]\nbins = 1.5",
            ", 03_calibration: bins is 1.5; it must be a valid integer",
        ),
        (
            "[notebooks.05_noisy_labels]\ngce_qs = [0.7, 2.0]",
            ", 05_noisy_labels: gce_qs.1 is 2.0; it must be at most 1",
        ),
        (
            "[notebooks.10_costs]\nseen_classes = 99",
            ", 10_costs: seen_classes is 99; it must be at most 98",
        ),
        (
            '[shared.regimes.few]\nnetwork = "resnet6"\nepochs = 0',
            ", 00_overview: regimes.few: epochs is 0; it must be at least 1",
        ),
        (
            '[shared.regimes.few]\nnetwork = "resnet6"\nepochs = 1\ntrain_size = 50',
            ", 00_overview: 'few': train_size is 50; it must be a multiple of the 100 classes, "
            "at most 45,000",
        ),
        (
            "[notebooks.06_robustness]\nattacked_images = 150",
            ", 06_robustness: attacked_images is 150; it must be a multiple of the 100 classes, "
            "at most 10,000",
        ),
        (
            '[budgets.few]\nnetwork = "resnet6"\nepochs = -1',
            ": budgets.few: epochs is -1; it must be at least 1",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(text, words, tmp_path, monkeypatch):
    """It names file, page, parameter and value, and says what would be right."""
    text = text if "data" in text else f'data = "cifar-100"\n{text}'
    said = refused(tmp_path, monkeypatch, text)
    assert said.startswith(words) and (said == words or "TOML" in words)


def test_a_profile_that_there_is_not_is_named():
    with pytest.raises(ProfileError, match="PROFILE is 'mine'; it must be one of full, gpu, cpu"):
        Profile("mine")


def test_a_page_s_own_values_come_before_those_of_all(tmp_path, monkeypatch):
    text = f"""
        data = "built-in"
        [shared]
        seeds = [0, 1]
        regimes = {{few = {FEW}}}
        [notebooks.10_costs]
        seeds = [2]
        """
    enter(tmp_path, monkeypatch, mine=text)
    mine = Profile("mine")
    assert mine.study("10_costs").parameters.seeds == (2,)
    overview = mine.study("00_overview")
    assert overview.parameters.seeds == (0, 1) and {t.data for t in overview.tasks} == {"built-in"}
    assert {task.data for task in mine.study("00_overview", "cifar-100").tasks} == {"cifar-100"}


def test_those_that_pages_show_first_come_first(tmp_path, monkeypatch):
    text = 'data = "cifar-100"'
    enter(tmp_path, monkeypatch, mine=text, quick=text, cpu=text, another=text)
    assert profiles.names() == ["cpu", "quick", "another", "mine"]


# ---- no value is there twice ----


def entries(values: dict, *above: str) -> Iterator[tuple[str, ...]]:
    """Where in a profile there is a value, alone or in a value."""
    for name, value in values.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from entries(value, *above, name)


def without(values: dict, first: str, *rest: str) -> dict:
    changed = copy.copy(values)
    if rest:
        return changed | {first: without(values[first], *rest)}
    del changed[first]
    return changed


def asked(values: dict) -> dict[str, object]:
    """The parameters of every page, and the budgets; ValueError where one is wrong."""
    content = Content(**values)
    found: dict[str, object] = dict(content.budgets)
    for notebook, study in studies.with_runs().items():
        known = study.Parameters.model_fields
        given = {name: value for name, value in content.shared.items() if name in known}
        found[notebook] = study.Parameters(**given | content.notebooks.get(notebook, {}))
    return found


def repeated(text: str) -> list[tuple[str, ...]]:
    """What could be left out of a profile, and every page would have the same parameters."""
    values = tomllib.loads(text)
    everything, found = asked(values), []
    for entry in entries(values):
        if len(entry) < (3 if entry[0] == "notebooks" else 2):
            continue
        try:
            if asked(without(values, *entry)) == everything:
                found.append(entry)
        except ValueError:
            pass  # it is needed
    return found


@pytest.mark.parametrize("name", ["full", "gpu", "cpu", "small", "quick", "smoke"])
def test_no_profile_repeats_a_default(name):
    assert repeated((paths.PROFILES / f"{name}.toml").read_text(encoding="utf-8")) == []


def test_what_repeats_a_default_is_found():
    text = f"""
        data = "built-in"
        [shared]
        seeds = [0, 1, 2]
        regimes = {{few = {FEW[:-1]}, recipe = {{momentum = 0.9}}}}}}
        [notebooks.03_calibration]
        bins = 15
        """
    assert repeated(text) == [
        ("shared", "seeds"),
        ("shared", "regimes", "few", "recipe"),
        ("shared", "regimes", "few", "recipe", "momentum"),
        ("notebooks", "03_calibration", "bins"),
    ]


# ---- the cells of parameters ----


@pytest.mark.parametrize("notebook", studies.with_runs())
def test_a_notebook_begins_with_the_parameters_of_its_study(notebook):
    file = paths.NOTEBOOKS / f"{notebook}.ipynb"
    (cell,) = (
        "".join(each["source"])
        for each in json.loads(file.read_text(encoding="utf-8"))["cells"]
        if "parameters" in each["metadata"].get("tags", [])
    )
    assert cell == cells.cell(notebook)
    values: dict = {}
    exec(cell, values)
    parameters = studies.of(notebook).Parameters
    given = {name: values[name] for name in parameters.model_fields}
    assert parameters(**given) == parameters()


def test_a_page_without_runs_has_no_such_cell():
    with pytest.raises(ValueError, match="notebook is '01_loss'; it must be one of 00_overview"):
        cells.cell("01_loss")
