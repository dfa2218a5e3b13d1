"""`make reproduce` and `make report`: data, runs, notebooks, report, in that order."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
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
from lsce.studies.parameters import Shown
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

#: What `make report` says of a page that nothing is recorded for.
NO_RESULTS = "No run of this page is recorded yet; `make reproduce` trains them."

#: Notebooks that are executed at a time, at most; each takes up to 1 GiB.
MOST_NOTEBOOKS = 4

#: Expected seconds that a notebook and the report take beside training, for the estimate.
SECONDS_PER_NOTEBOOK, SECONDS_TO_BUILD = 8, 10

#: What a notebook takes of memory, and the report of disk, in bytes.
NOTEBOOK_MEMORY, REPORT_SIZE = 2**30, 20 * 2**20

#: Notebooks that say what the others show, and are executed after them.
LATER = ("00_overview", "11_summary")

#: The page that sets this machine's numbers beside the recorded ones.
REPRODUCTION = "12_reproduction"

#: The parameters of each notebook, by its name.
Given = dict[str, dict[str, Any]]


def default_profile() -> str:
    return "gpu" if default_device().type == "cuda" else "quick"


def find_data(profile: Profile, source: Path | None) -> tuple[str, str | None, str]:
    """The data to use: its name, the banner for every page, and words on where it comes from.

    The built-in set is used where the profile says so, or where CIFAR-100 cannot be had.
    """
    if profile.data == "built-in" and source is None:
        return "built-in", BUILT_IN_BANNER, "the built-in synthetic set, as this profile wants"
    found = data.locate(source)
    if found is None:
        print("CIFAR-100 is not on this machine yet: downloading it", flush=True)
        try:
            data.fetch()
        except data.DataUnavailable as error:
            return "built-in", FALLBACK_BANNER, f"the built-in synthetic set, since {error}"
        found = data.locate()
    data.load("cifar-100", source)  # decoded and checked here, once, before any worker needs it
    return "cifar-100", None, str(found)


def reproduce(profile_name: str | None, source: Path | None) -> Path:
    """Train what is missing, execute every notebook, build the report; returns its first page."""
    profile = Profile(profile_name or default_profile())
    for notebook in studies.with_runs():
        profile.study(notebook, "built-in")  # a parameter out of range is found before the data
    _check_writable()
    data_name, banner, words = find_data(profile, source)
    pages = {notebook: profile.study(notebook, data_name) for notebook in studies.with_runs()}
    tasks = [task for study in pages.values() for task in study.tasks]
    store = Store()
    todo = sweep.plan(tasks, store)
    _say_plan(profile, tasks, todo, words)
    sweep.execute(todo, store)
    given: Given = {}
    for notebook in studies.notebooks():
        given[notebook] = {"runs": "own"} if notebook in LATER else {}
        if notebook in pages:
            given[notebook] = _given("own", profile, data_name, notebook)
    index = _render(given, banner, _own_footer(profile, data_name, tasks, store))
    if len(recorded.results()):
        own = evidence.gather(
            pages[REPRODUCTION], profile=profile.name, runs="own", train_missing=False
        )
        numbers = reproduction.with_recorded(own, recorded.results())
        print("\n" + "\n".join(reproduction.summary(numbers, own.profile)))
    return index


def rerender() -> Path:
    """Build the report from the recorded results, training nothing.

    Each page shows what is recorded of it, with the parameters of that profile; a page of which
    nothing is recorded says so.
    """
    _check_writable()
    given: Given = {}
    stubs = []
    for notebook in studies.notebooks():
        given[notebook] = {"runs": "recorded"} if notebook in LATER else {}
        if studies.of(notebook) is None:
            continue
        if shown := next(iter(evidence.recorded(notebook)), None):
            profile = Profile(shown.profile)
            given[notebook] = _given("recorded", profile, profile.data, notebook)
        else:
            stubs.append(notebook)
    if set(stubs) == set(studies.with_runs()):
        stubs += [
            name for name in LATER if name in given and name not in stubs
        ]  # nothing to sum up
    index = _render(given, None, _footer(_recorded_facts()), stubs)
    for notebook in stubs:
        print(f"  {notebook}: no results yet")
    return index


def _given(runs: Shown, profile: Profile, data_name: str, notebook: str) -> dict[str, Any]:
    """The parameters of a notebook with runs that are not its own defaults."""
    common = {"runs": runs, "profile": profile.name, "data_name": data_name}
    return common | profile.parameters(notebook)


def _check_writable() -> None:
    for folder in (paths.DATA, paths.RUNS, paths.CACHE, paths.BUILD, paths.FIGURES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OSError(f"{folder} cannot be written to ({error.strerror})") from error


def _say_plan(profile: Profile, tasks: Sequence[Task], todo: sweep.Plan, words: str) -> None:
    total = len({task.id for task in (*tasks, *todo.missing)})
    at_a_time = _notebooks_at_a_time()
    rounds = math.ceil(len(studies.notebooks()) / at_a_time)
    expected = todo.expected + SECONDS_PER_NOTEBOOK * rounds + SECONDS_TO_BUILD
    workers = f", {todo.at_a_time} at a time" if todo.missing else ""
    disk = sum(map(cost.disk, todo.missing)) + REPORT_SIZE
    rows = {
        "profile": profile.name,
        "device": provenance.device_name(default_device().type),
        "data": words,
        "runs": f"{len(todo.missing)} of {total} to train{workers}",
        "work": f"{sum(map(cost.operations, todo.missing)):.1e} operations",
        "time": f"about {duration(expected)}, of which training {duration(todo.expected)}",
        "memory": f"{max(todo.memory, at_a_time * NOTEBOOK_MEMORY) / 2**30:.1f} GiB",
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
    return " · ".join([f"Recorded results: {len(results)} runs", *results.devices]) + "."


def _own_footer(profile: Profile, data_name: str, tasks: Sequence[Task], store: Store) -> str:
    own = [store.read(task) for task in {task.id: task for task in tasks}.values()]
    devices = sorted({run.origin["device"] for run in own})
    words = [f"This machine: profile {profile.name}", data_name, f"{len(own)} runs"]
    beside = f" Beside them: {_recorded_facts()}" if len(recorded.results()) else ""
    return _footer(" · ".join([*words, *devices]) + "." + beside)


def _footer(facts: str) -> str:
    """What every page of the report rests on, those without a run of their own too."""
    built = f"Built {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return f"lsce, MIT License. {facts} {built} · commit {provenance.commit() or 'unknown'}"


def _notebooks_at_a_time() -> int:
    return min(sweep.cores(), MOST_NOTEBOOKS)


def _render(
    given: Mapping[str, Mapping[str, Any]],
    banner: str | None,
    footer: str,
    stubs: Sequence[str] = (),
) -> Path:
    """Execute the notebooks with these parameters, but for `stubs`, and build the site."""
    executed = paths.BUILD / "executed"
    shutil.rmtree(executed, ignore_errors=True)

    def page(name: str) -> Path:
        notebook = paths.NOTEBOOKS / f"{name}.ipynb"
        if name in stubs:
            return site.stub(name, _title(notebook), NO_RESULTS, executed)
        start = time.monotonic()
        output = executed / f"{name}.ipynb"
        site.execute(notebook, given[name], output)
        print(f"  executed {name} in {duration(time.monotonic() - start)}", flush=True)
        return output

    with ThreadPoolExecutor(_notebooks_at_a_time()) as pool:
        pages = list(pool.map(page, [name for name in given if name not in LATER]))
        pages += pool.map(page, [name for name in given if name in LATER])
    start = time.monotonic()
    index = site.build(pages, paths.HTML, banner=banner, footer=footer)
    print(f"  built the report in {duration(time.monotonic() - start)}", flush=True)
    return index


def _title(notebook: Path) -> str:
    first = nbformat.read(notebook, as_version=4).cells[0].source
    return str(first.splitlines()[0].lstrip("# "))
