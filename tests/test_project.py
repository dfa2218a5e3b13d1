"""The files around the package agree with each other."""

import ast
import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import papermill
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from pybtex.database import parse_file

from lsce import studies
from lsce.commands import record
from lsce.judging import claims
from lsce.machine import paths
from lsce.studies import profiles

ROOT = paths.ROOT
NOTEBOOKS = sorted(paths.NOTEBOOKS.glob("*.ipynb"))


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_lock_pins_every_dependency_by_hash():
    lock = (ROOT / "requirements.lock").read_text()
    pins = {
        name: (Version(version), hashes)
        for name, version, hashes in re.findall(
            r"^([\w.-]+)==([\w.+]+)[^\n]*\\\n((?:\s+--hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)",
            lock,
            re.M,
        )
    }
    declared = project()
    for line in [
        *declared["dependencies"],
        *declared["optional-dependencies"]["report"],
        *declared["optional-dependencies"]["test"],
    ]:
        wanted = Requirement(line)
        version, hashes = pins[wanted.name]
        assert version in wanted.specifier and hashes, line
    assert "://" not in lock


def test_the_training_core_needs_only_the_core_dependencies():
    """A bare GPU machine has PyTorch and the like, and nothing that the report is made with."""
    extras = ["IPython", "papermill", "yaml", "matplotlib", "seaborn", "scipy", "torchmetrics",
              "sphinx", "myst_nb", "sklearn"]  # fmt: skip
    script = f"import sys; sys.modules.update(dict.fromkeys({extras})); "
    script += "from lsce import studies; from lsce.measures import temperature; from lsce.commands import record; from lsce.sweeps import sweep; from lsce.training import train"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_conda_installs_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.lock"]}
    python = next(d for d in environment["dependencies"] if str(d).startswith("python="))
    assert (
        Version(python.split("=")[1]) in Requirement(f"p{project()['requires-python']}").specifier
    )


def test_make_lists_its_targets():
    shown = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    for target in ("reproduce", "report", "lab", "serve", "test", "clean"):
        assert re.search(rf"make {target} +\w", shown), target


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean_and_opens_with_its_claim(notebook):
    content = json.loads(notebook.read_text())
    cells = content["cells"]
    assert all(not c.get("outputs") and c.get("execution_count") is None for c in cells)
    assert "papermill" not in json.dumps(content["metadata"])
    assert any("parameters" in cell["metadata"].get("tags", []) for cell in cells)
    first = "".join(cells[0]["source"])
    headings = re.findall(r"^## (.+)$", "\n".join("".join(c["source"]) for c in cells), re.M)
    if notebook.stem.startswith("A"):  # an appendix judges nothing
        assert first.startswith("# Appendix: ")
    else:
        assert re.match(r"# .+\n\n\*\*Claims?\.\*\* \*", first)
        assert any(h.startswith("Verdict") for h in headings)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_reads_well_in_plain_jupyter(notebook):
    """Plain Markdown alone, captions under their figures, and links that lead somewhere."""
    cells = json.loads(notebook.read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    keys = parse_file(paths.REPORT / "references.bib").entries
    figures = []
    for before, cell in itertools.pairwise([*cells, {"metadata": {}, "source": []}]):
        if "figure" in before["metadata"].get("mystnb", {}):
            assert before["metadata"]["mystnb"]["image"]["alt"]
            assert cell["metadata"].get("tags") == ["caption"]
            assert cell["source"][0].startswith("**Figure.** ")
            figures.append(before["metadata"]["mystnb"]["figure"]["name"])
    for cell in cells:
        if cell["cell_type"] != "markdown":
            continue
        source = "".join(cell["source"])
        assert not re.search(r"\{[\w:]+\}`|^:::|^```\{", source, re.M), source
        for words, target, key in re.findall(r"\[([^\]]*)\]\(([^\s)]+)(?: \"(\w+)\")?\)", source):
            assert words and (not key or key in keys), (words, key)
            if target.startswith("#"):
                assert target[1:] in figures, target
            elif not target.startswith("https://"):
                assert (notebook.parent / target).is_file(), target
    assert all(f"](#{name})" in text for name in figures)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_in_jupyter_a_notebook_is_the_quick_profile(notebook):
    found = papermill.inspect_notebook(notebook)
    defaults = {name: ast.literal_eval(p["default"]) for name, p in found.items()}
    quick = profiles.load("quick")
    for name, value in quick.notebooks[notebook.stem].items():
        assert defaults[name] == value, name
    if notebook.stem in studies.BY_NOTEBOOK:
        assert (defaults["profile"], defaults["data_name"]) == ("quick", quick.data)
        assert (defaults["runs"], defaults["train_missing"]) == ("own", True)
        common = {"profile", "data_name", "runs", "train_missing"}
        assert set(defaults) - {"bins"} == common | set(studies.parameters(notebook.stem))


@pytest.mark.parametrize("name", ["smoke", "quick", "cpu", "gpu", "full", "small"])
def test_a_profile_covers_every_notebook_with_parameters_that_it_has(name):
    profile = profiles.load(name)
    assert sorted(profile.notebooks) == [path.stem for path in NOTEBOOKS]
    for notebook, parameters in profile.notebooks.items():
        assert set(parameters) <= set(
            papermill.inspect_notebook(paths.NOTEBOOKS / f"{notebook}.ipynb")
        )
        study = profile.study(notebook, "cifar-100")
        assert (study is None) == (notebook not in studies.BY_NOTEBOOK)


def test_the_hours_that_the_recorded_profile_took_are_said_alike():
    """A run was trained by one core of two."""
    runs = json.loads((paths.RECORDED / "manifest.json").read_text())["runs"]
    wanted = record.wanted(profiles.load("small"))
    hours = sum(runs[run]["seconds"]["total"] for run in wanted) / 2 / 3600
    words = {5: "five", 6: "six", 7: "seven"}[round(hours)]
    for file in ("README.md", "report/how_to.md", "notebooks/profiles/small.toml"):
        assert f"some {words} hours of two CPU cores" in (ROOT / file).read_text(), file


def test_the_pages_of_a_profile_share_their_runs():
    profile = profiles.load("quick")
    main = {s.id for s in profile.study("00_overview", "cifar-100").specs}
    for page in ("02_epsilon_study", "03_calibration", "04_penultimate"):
        assert main < {s.id for s in profile.study(page, "cifar-100").specs}


def test_claims_belong_to_notebooks():
    assert {c.notebook for c in claims.load().values()} <= {path.stem for path in NOTEBOOKS}


def test_nothing_tracked_is_large():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True)
    sizes = {
        name: Path(ROOT, name).stat().st_size
        for name in listed.stdout.split("\0")
        if name and Path(ROOT, name).is_file()
    }
    assert sum(sizes.values()) < 18 * 2**20
