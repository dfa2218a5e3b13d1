"""`make reproduce` and `make report`: data, runs, notebooks, report, in that order."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
from lsce.studies import Shown, evidence, profiles
from lsce.studies.profiles import Profile, ProfileError
from lsce.sweeps import sweep
from lsce.training import train
from lsce.training.spec import RunSpec

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


@dataclass
class Job:
    """A profile on a data set: which notebook gets which parameters, and the runs they need."""

    profile: Profile
    data_name: str
    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    specs: list[RunSpec] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, parameters in self.profile.notebooks.items():
            study = self.profile.study(name, self.data_name)
            self.specs += study.specs if study else []
            self.notebooks[name] = _given(name, "own", self.profile.name, self.data_name)
            self.notebooks[name] |= parameters


def _given(notebook: str, runs: Shown, profile: str, data_name: str) -> dict[str, Any]:
    """The parameters that notebooks with runs have beside those of their studies."""
    if notebook in studies.BY_NOTEBOOK:
        return {"runs": runs, "profile": profile, "data_name": data_name}
    return {"runs": runs} if notebook in studies.SHOW_RUNS else {}


def default_profile() -> str:
    return "gpu" if train.default_device().type == "cuda" else "quick"


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
    profile = _checked(profile_name or default_profile())
    _check_writable()
    data_name, banner, words = find_data(profile, source)
    job = Job(profile, data_name)
    store = Store()
    todo = sweep.plan(job.specs, store)
    _say_plan(job, todo, words)
    sweep.execute(todo, store)
    index = _render(job.notebooks, banner, _own_footer(job, store))
    _say_reproduction(job)
    return index


def rerender() -> Path:
    """Build the report from the recorded results, training nothing.

    Each page shows the largest recorded set of its runs, with the parameters that it was made
    with; a page of which nothing is recorded says so.
    """
    _check_writable()
    notebooks: dict[str, dict[str, Any]] = {}
    stubs = []
    for name in profiles.notebooks():
        notebooks[name] = _given(name, "recorded", "", "")
        if name not in studies.BY_NOTEBOOK:
            continue
        if shown := next(iter(evidence.recorded(name)), None):
            data_name = profiles.load(shown.profile).data
            notebooks[name] = _given(name, "recorded", shown.profile, data_name)
            notebooks[name] |= shown.parameters
        else:
            stubs.append(name)
    if set(stubs) == set(studies.BY_NOTEBOOK) & set(notebooks):
        stubs += set(studies.SHOW_RUNS) & set(notebooks) - set(stubs)  # nothing to sum up
    index = _render(notebooks, None, _footer(_recorded_facts()), stubs)
    for name in stubs:
        print(f"  {name}: no results yet")
    return index


def _checked(profile_name: str) -> Profile:
    """A profile whose parameters are those of its notebooks and in range."""
    profile = profiles.load(profile_name)
    for name, parameters in profile.notebooks.items():
        try:
            site.check_parameters(paths.NOTEBOOKS / f"{name}.ipynb", parameters)
        except ValueError as error:
            raise ProfileError(f"{profiles.file(profile_name)}, {name}: {error}") from error
        profile.study(name, "built-in")
    return profile


def _check_writable() -> None:
    for folder in (paths.DATA, paths.RUNS, paths.CACHE, paths.BUILD, paths.FIGURES):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise OSError(f"{folder} cannot be written to ({error.strerror})") from error


def _say_plan(job: Job, todo: sweep.Plan, words: str) -> None:
    device = train.default_device()
    total = len({spec.id for spec in (*job.specs, *todo.missing)})
    at_a_time = _notebooks_at_a_time()
    rounds = math.ceil(len(job.notebooks) / at_a_time)
    rest = SECONDS_PER_NOTEBOOK * rounds + SECONDS_TO_BUILD
    expected = todo.expected + rest
    workers = f", {todo.workers} at a time" if todo.missing else ""
    rows = {
        "profile": job.profile.name,
        "device": provenance.device_name(device.type),
        "data": words,
        "runs": f"{len(todo.missing)} of {total} to train{workers}",
        "work": f"{todo.operations:.1e} operations",
        "time": f"about {duration(expected)}, of which training {duration(todo.expected)}",
        "memory": f"{max(todo.memory, at_a_time * NOTEBOOK_MEMORY) / 2**30:.1f} GiB",
        "disk": f"{(todo.disk + REPORT_SIZE) / 2**20:,.0f} MiB",
        "commit": provenance.commit() or "unknown",
    }
    for name, value in rows.items():
        print(f"  {name:<8} {value}")
    if job.profile.note:
        print(job.profile.note)
    print(flush=True)


def _title(notebook: Path) -> str:
    first = nbformat.read(notebook, as_version=4).cells[0].source
    return first.splitlines()[0].lstrip("# ")


def _recorded_facts() -> str:
    results = recorded.results()
    return " · ".join([f"Recorded results: {len(results)} runs", *results.devices]) + "."


def _own_footer(job: Job, store: Store) -> str:
    own = [store.load(spec) for spec in {s.id: s for s in job.specs}.values()]
    devices = sorted({record.meta["device"] for record in own})
    words = [f"This machine: profile {job.profile.name}", job.data_name, f"{len(own)} runs"]
    beside = f" Beside them: {_recorded_facts()}" if len(recorded.results()) else ""
    return _footer(" · ".join([*words, *devices]) + "." + beside)


def _footer(facts: str) -> str:
    """What every page of the report rests on, those without a run of their own too."""
    built = f"Built {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return f"lsce, MIT License. {facts} {built} · commit {provenance.commit() or 'unknown'}"


def _say_reproduction(job: Job) -> None:
    """End with how this machine's numbers compare with the recorded ones."""
    page = "12_reproduction"
    if page not in job.notebooks or not len(recorded.results()):
        return
    own = evidence.gather(page, **job.notebooks[page] | {"train_missing": False})
    numbers = reproduction.with_recorded(own, recorded.results())
    print("\n" + "\n".join(reproduction.summary(numbers, own.profile)))


def _notebooks_at_a_time() -> int:
    return min(sweep.cores(), MOST_NOTEBOOKS)


def _render(
    notebooks: Mapping[str, Mapping[str, Any]],
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
        site.execute(notebook, notebooks[name], output)
        print(f"  executed {name} in {duration(time.monotonic() - start)}", flush=True)
        return output

    with ThreadPoolExecutor(_notebooks_at_a_time()) as pool:
        pages = list(pool.map(page, [name for name in notebooks if name not in LATER]))
        pages += pool.map(page, [name for name in notebooks if name in LATER])
    start = time.monotonic()
    index = site.build(pages, paths.HTML, banner=banner, footer=footer)
    print(f"  built the report in {duration(time.monotonic() - start)}", flush=True)
    return index
