"""`make reproduce` and `make report`: data, runs, notebooks, report, in that order."""

import math
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from lsce import data, studies
from lsce.machine import paths, provenance
from lsce.machine.progress import duration
from lsce.report import reproduction, site
from lsce.results import recorded
from lsce.results.store import Store
from lsce.studies import evidence
from lsce.studies.profiles import Profile
from lsce.sweeps import cost, sweep
from lsce.training.spec import Task
from lsce.training.train import default_device

FALLBACK_BANNER = (
    "CIFAR-100 could not be had on this machine: what it trained is from the built-in synthetic "
    "data set, and says nothing of natural images."
)
BUILT_IN_BANNER = (
    "Every result here is from the built-in synthetic data set, and says nothing of natural images."
)

#: Notebooks that are executed at a time, at most, and the bytes of memory that each takes.
MOST_NOTEBOOKS, NOTEBOOK_MEMORY = 4, 2**30

#: For the estimate: seconds that a notebook and the report take, and bytes of the report.
SECONDS_PER_NOTEBOOK, SECONDS_TO_BUILD, REPORT_SIZE = 8, 10, 20 * 2**20

#: Notebooks that read what the others found, and are executed after them.
LATER = ("00_overview", "11_summary", "A2_verdicts")


def find_data(profile: Profile, source: Path | None) -> tuple[str, str | None, str]:
    """The data to use: its name, the banner for every page, and words on where it comes from.

    The built-in set is used where the profile says so, or where CIFAR-100 cannot be had.
    """
    if profile.data == "built-in" and source is None:
        return "built-in", BUILT_IN_BANNER, "the built-in synthetic set, as this profile wants"
    location = data.locate(source)
    if location is None:
        print("CIFAR-100 is not on this machine yet: downloading it", flush=True)
        try:
            data.fetch()
        except data.DataUnavailable as error:
            return "built-in", FALLBACK_BANNER, f"the built-in synthetic set, since {error}"
        location = data.locate()
    data.load("cifar-100", source)  # decoded and checked here, once, before any worker needs it
    return "cifar-100", None, str(location)


def reproduce(profile_name: str | None, source: Path | None) -> Path:
    """Train what is missing, execute every notebook, build the report; returns its first page."""
    default = "gpu" if default_device().type == "cuda" else "quick"
    profile = Profile(profile_name or default)
    for notebook in studies.with_runs():
        profile.study(notebook, "built-in")  # a parameter out of range is found before the data
    _check_writable()
    data_name, banner, words = find_data(profile, source)
    pages = {notebook: profile.study(notebook, data_name) for notebook in studies.with_runs()}
    tasks = [task for study in pages.values() for task in study.tasks]
    store, results = Store(), recorded.results()
    plan = sweep.plan(tasks, store)
    _print_plan(profile, tasks, plan, words)
    sweep.execute(plan, store)
    runs = [store.read(task) for task in {task.id: task for task in tasks}.values()]
    facts = _facts(
        [f"This machine: profile {profile.name}", data_name, f"{len(runs)} runs"],
        {run.origin["device"] for run in runs},
    )
    if len(results):
        facts += f" Beside them: {_recorded_facts()}"
    parameters = {name: _parameters("own", profile, data_name, name) for name in pages}
    index = _build(parameters, "own", banner, facts)
    if len(results):
        compared = pages["12_reproduction"]
        own = evidence.gather(compared, profile=profile.name, train_missing=False)
        summary = reproduction.summary(reproduction.with_recorded(own, results), profile.name)
        print("\n" + "\n".join(summary))
    return index


def rerender() -> Path:
    """Build the report from the recorded results, training nothing.

    Each page shows what is recorded of it, with the parameters of that profile; a page of which
    nothing is recorded says so.
    """
    _check_writable()
    parameters = {}
    for notebook in studies.with_runs():
        if sets := evidence.recorded(notebook):
            profile = Profile(sets[0].profile)
            parameters[notebook] = _parameters("recorded", profile, profile.data, notebook)
    return _build(parameters, "recorded", None, _recorded_facts())


def _parameters(runs: str, profile: Profile, data_name: str, notebook: str) -> dict[str, Any]:
    """The parameters of a notebook with runs that are not its own defaults."""
    common = {"runs": runs, "profile": profile.name, "data_name": data_name}
    return common | profile.parameters(notebook)


def _check_writable() -> None:
    for folder in (paths.DATA, paths.RUNS, paths.CACHE, paths.BUILD, paths.FIGURES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise OSError(f"{folder} cannot be written to ({error.strerror})") from error


def _print_plan(profile: Profile, tasks: Sequence[Task], plan: sweep.Plan, words: str) -> None:
    total = len({task.id for task in (*tasks, *plan.missing)})
    notebooks = _notebooks_at_a_time()
    rounds = math.ceil(len(studies.notebooks()) / notebooks)
    expected = plan.expected + SECONDS_PER_NOTEBOOK * rounds + SECONDS_TO_BUILD
    workers = f", {plan.at_a_time} at a time" if plan.missing else ""
    disk = sum(map(cost.disk, plan.missing)) + REPORT_SIZE
    rows = {
        "profile": profile.name,
        "device": provenance.device_name(default_device().type),
        "data": words,
        "runs": f"{len(plan.missing)} of {total} to train{workers}",
        "work": f"{sum(map(cost.operations, plan.missing)):.1e} operations",
        "time": f"about {duration(expected)}, of which training {duration(plan.expected)}",
        "memory": f"{max(plan.memory, notebooks * NOTEBOOK_MEMORY) / 2**30:.1f} GiB",
        "disk": f"{disk / 2**20:,.0f} MiB",
        "commit": provenance.commit() or "unknown",
    }
    for name, value in rows.items():
        print(f"  {name:<8} {value}")
    if profile.content.note:
        print(profile.content.note)
    print(flush=True)


def _recorded_facts() -> str:
    results = recorded.results()
    return _facts([f"Recorded results: {len(results)} runs"], results.devices)


def _facts(words: Sequence[str], devices: Iterable[str]) -> str:
    return " · ".join([*words, *sorted(devices)]) + "."


def _notebooks_at_a_time() -> int:
    return min(sweep.cores(), MOST_NOTEBOOKS)


def _build(
    parameters: Mapping[str, Mapping[str, Any]], runs: str, banner: str | None, facts: str
) -> Path:
    """Execute the notebooks and build the site, whose pages all end with `facts`.

    `parameters` has those of the pages with runs; one that it lacks only says so. `runs` is for
    the pages that summarise these.
    """
    stubs = set(studies.with_runs()) - set(parameters)
    if not parameters:
        stubs |= set(LATER)
    executed = paths.BUILD / "executed"
    shutil.rmtree(executed, ignore_errors=True)

    def page(name: str) -> Path:
        notebook, output = paths.NOTEBOOKS / f"{name}.ipynb", executed / f"{name}.ipynb"
        if name in stubs:
            title = nbformat.read(notebook, as_version=4).cells[0].source.splitlines()[0]
            message = "No run of this page is recorded yet; `make reproduce` trains them."
            return site.stub(name, title.lstrip("# "), message, executed)
        start = time.monotonic()
        default = {"runs": runs} if name in LATER else {}
        site.execute(notebook, parameters.get(name, default), output)
        print(f"  executed {name} in {duration(time.monotonic() - start)}", flush=True)
        return output

    notebooks = studies.notebooks()
    with ThreadPoolExecutor(_notebooks_at_a_time()) as pool:
        pages = list(pool.map(page, [name for name in notebooks if name not in LATER]))
        pages += pool.map(page, [name for name in notebooks if name in LATER])
    start = time.monotonic()
    built = f"Built {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    commit = provenance.commit() or "unknown"
    footer = f"lsce, MIT License. {facts} {built} · commit {commit}"
    index = site.build(pages, paths.HTML, banner=banner, footer=footer)
    print(f"  built the report in {duration(time.monotonic() - start)}", flush=True)
    for name in notebooks:
        if name in stubs:
            print(f"  {name}: no results yet")
    return index
