"""The files around the package agree with each other."""

import itertools
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pybtex.database import parse_file

from lsce import studies
from lsce.commands import record
from lsce.machine import paths
from lsce.studies import profiles
from lsce.studies.parameters import Shows
from lsce.studies.profiles import Profile

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
    for line in itertools.chain(
        declared["dependencies"], *declared["optional-dependencies"].values()
    ):
        wanted = Requirement(line)
        if wanted.name != "lsce":
            version, hashes = pins[wanted.name]
            assert version in wanted.specifier and hashes, line
    assert "://" not in lock


def test_the_loss_and_training_need_only_the_dependencies_declared_for_them():
    """A bare GPU machine has nothing that the report is made with."""
    distributions = packages_distributions()

    def modules(*extras: str) -> set[str]:
        lines = itertools.chain(*(project()["optional-dependencies"][extra] for extra in extras))
        wanted = {canonicalize_name(Requirement(line).name) for line in lines} - {"lsce"}
        names = {m: {canonicalize_name(d) for d in found} for m, found in distributions.items()}
        return {module for module, found in names.items() if found & wanted}

    study, report = modules("study"), modules("report", "bench", "test")
    assert {"sklearn", "yaml"} <= study and {"papermill", "seaborn"} <= report
    script = f"""
import sys
missing = {study | report | {"IPython"}}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"{{name}} is missing")
sys.meta_path.insert(0, Missing())
import lsce.losses.alternatives
missing -= {study}
from lsce.commands import record, verify
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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


def test_in_jupyter_notebooks_are_the_quick_profile():
    quick = Profile("quick")
    for notebook, study in studies.with_runs().items():
        assert quick.study(notebook).parameters == study.Parameters()
    assert (Shows().profile, quick.data) == ("quick", study.Parameters().data_name)


@pytest.mark.parametrize("name", profiles.names())
def test_a_profile_is_of_every_page(name):
    found = dict(Profile(name).studies())
    assert set(studies.with_runs()) <= set(found) and all(s.tasks for s in found.values())


def test_the_hours_that_the_recorded_profile_took_are_said_alike():
    """A run was trained by one core of two."""
    runs = json.loads((paths.RECORDED / "manifest.json").read_text())["runs"]
    wanted = record.wanted(Profile("small"))
    hours = sum(runs[run]["seconds"]["total"] for run in wanted) / 2 / 3600
    words = {5: "five", 6: "six", 7: "seven"}[round(hours)]
    for file in ("README.md", "report/how_to.md", "notebooks/profiles/small.toml"):
        assert f"some {words} hours of two CPU cores" in (ROOT / file).read_text(), file


def test_claims_belong_to_notebooks():
    declared = {path.stem for path in (ROOT / "lsce" / "studies").glob("*.yaml")}
    assert declared <= {path.stem.partition("_")[2] for path in NOTEBOOKS}
    for claim in studies.all_claims().values():
        text = (paths.NOTEBOOKS / f"{claim.notebook}.ipynb").read_text(encoding="utf-8")
        assert f'"name": "{claim.figure}"' in text, claim.id


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
