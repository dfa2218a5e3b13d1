"""`make reproduce` and `make report`: data, runs, notebooks, report, in that order."""

import json
import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from lsce import (
    data,
    evidence,
    paths,
    profiles,
    provenance,
    recorded,
    report,
    reproduction,
    studies,
    sweep,
    train,
)
from lsce.profiles import Profile, ProfileError
from lsce.progress import duration
from lsce.runs import RunSpec, Store
from lsce.trainer import precision

FALLBACK_BANNER = (
    "CIFAR-100 could not be had on this machine: what it trained itself is from the built-in "
    "synthetic data set, and says nothing of natural images."
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

#: What the last `make reproduce` was, so that `make report` can render the same again.
LAST = "last.json"


@dataclass
class Job:
    """A profile on a data set: which notebook gets which parameters, and the runs they need."""

    profile: Profile
    data_name: str
    banner: str | None
    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    specs: list[RunSpec] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, parameters in self.profile.notebooks.items():
            common: dict[str, Any] = {}
            if name in studies.SHOW_RUNS:
                common = {"profile": self.profile.name, "data_name": self.data_name}
                common["runs"] = self.profile.runs
            study = self.profile.study(name, self.data_name)
            if study is not None:
                self.specs += study.specs
            self.notebooks[name] = common | parameters


def default_profile() -> str:
    return "paper" if train.default_device().type == "cuda" else "quick"


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
    job = Job(profile, data_name, banner)
    if profile.runs != "own":  # what shows nothing else is not worth showing again
        _remember(job)
    store = Store()
    todo = sweep.plan(job.specs, store)
    _say_plan(job, todo, words)
    sweep.execute(todo, store)
    index = _render(job)
    _say_reproduction(job)
    return index


def rerender() -> Path:
    """Build the report from the recorded results and what this machine has trained, training
    nothing.

    Of this machine's studies the seeds are shown whose runs are all there; a notebook without
    any run gets a page that says so.
    """
    job, store, stubs = _recall(), Store(), []
    for name, parameters in job.notebooks.items():
        if name not in studies.BY_NOTEBOOK:
            continue
        study, seeds = evidence.complete(job.profile, name, job.data_name, store)
        if study is None:
            parameters["runs"] = "recorded"
        else:
            parameters |= {"seeds": seeds, "train_missing": False}
        if parameters["runs"] == "recorded" and not evidence.recorded(name):
            stubs.append(name)
    if set(stubs) == set(studies.BY_NOTEBOOK) & set(job.notebooks):
        stubs += set(studies.SHOW_RUNS) & set(job.notebooks) - set(stubs)  # nothing to sum up
    index = _render(job, stubs)
    for name in stubs:
        print(f"  {name}: no results yet")
    return index


def _checked(profile_name: str) -> Profile:
    """A profile whose parameters are those of its notebooks and in range."""
    profile = profiles.load(profile_name)
    for name, parameters in profile.notebooks.items():
        try:
            report.check_parameters(paths.NOTEBOOKS / f"{name}.ipynb", parameters)
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


def _remember(job: Job) -> None:
    text = json.dumps({"profile": job.profile.name, "data": job.data_name, "banner": job.banner})
    (paths.RUNS / LAST).write_text(text)


def _recall() -> Job:
    """The last `make reproduce`; where there was none, the default profile on its data."""
    last = paths.RUNS / LAST
    if not last.is_file():
        profile = _checked(default_profile())
        return Job(profile, profile.data, None)
    remembered = json.loads(last.read_text())
    return Job(_checked(remembered["profile"]), remembered["data"], remembered["banner"])


def _say_plan(job: Job, todo: sweep.Plan, words: str) -> None:
    device = train.default_device()
    total = len({spec.id for spec in (*job.specs, *todo.missing)})
    rounds = math.ceil(len(job.notebooks) / _notebooks_at_a_time())
    rest = SECONDS_PER_NOTEBOOK * rounds + SECONDS_TO_BUILD
    expected = todo.expected + rest
    workers = f", {todo.workers} at a time" if todo.missing else ""
    rows = {
        "profile": job.profile.name,
        "device": f"{provenance.device_name(device.type)} ({precision(device)})",
        "data": words,
        "runs": f"{len(todo.missing)} of {total} to train{workers}",
        "time": f"about {duration(expected)}, of which training {duration(todo.expected)}",
        "commit": provenance.commit() or "unknown",
    }
    for name, value in rows.items():
        print(f"  {name:<8} {value}")
    print(flush=True)


def _title(notebook: Path) -> str:
    first = nbformat.read(notebook, as_version=4).cells[0].source
    return first.splitlines()[0].lstrip("# ")


def _footer(job: Job) -> str:
    """What every page of the report rests on, those without a run of their own too."""
    store, facts = Store(), ["lsce, MIT License."]
    own = [store.load(spec) for spec in {s.id: s for s in job.specs}.values() if spec in store]
    if job.profile.runs != "own":
        results = recorded.results()
        words = [f"Recorded results: {len(results)} runs", *results.devices]
        facts.append(" · ".join(words) + ".")
    if own:
        devices = sorted({record.meta["device"] for record in own})
        words = [f"This machine: profile {job.profile.name}", job.data_name, f"{len(own)} runs"]
        facts.append(" · ".join([*words, *devices]) + ".")
    built = (
        f"Built {datetime.now(UTC):%Y-%m-%d %H:%M} UTC · commit {provenance.commit() or 'unknown'}"
    )
    return " ".join([*facts, built])


def _say_reproduction(job: Job) -> None:
    """End with how this machine's numbers compare with the recorded ones."""
    page = "12_reproduction"
    if job.profile.runs == "own" or page not in job.notebooks:
        return
    (own,) = evidence.gather(page, **job.notebooks[page] | {"runs": "own", "train_missing": False})
    numbers = reproduction.with_recorded(own, recorded.results())
    print("\n" + "\n".join(reproduction.summary(numbers, own.profile)))


def _notebooks_at_a_time() -> int:
    return min(sweep.cores(), MOST_NOTEBOOKS)


def _render(job: Job, stubs: list[str] = ()) -> Path:
    executed = paths.BUILD / "executed"
    shutil.rmtree(executed, ignore_errors=True)

    def page(name: str) -> Path:
        notebook = paths.NOTEBOOKS / f"{name}.ipynb"
        if name in stubs:
            return report.stub(name, _title(notebook), NO_RESULTS, executed)
        start = time.monotonic()
        output = executed / f"{name}.ipynb"
        report.execute(notebook, job.notebooks[name], output)
        print(f"  executed {name} in {duration(time.monotonic() - start)}", flush=True)
        return output

    with ThreadPoolExecutor(_notebooks_at_a_time()) as pool:
        pages = list(pool.map(page, job.notebooks))
    start = time.monotonic()
    index = report.build(pages, paths.HTML, banner=job.banner, footer=_footer(job))
    print(f"  built the report in {duration(time.monotonic() - start)}", flush=True)
    return index
