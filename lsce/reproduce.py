"""`make reproduce` and `make report`: data, runs, notebooks, report, in that order."""

import json
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from lsce import data, paths, profiles, provenance, report, sweep, train
from lsce.profiles import Profile
from lsce.progress import duration
from lsce.runs import RunSpec, Store
from lsce.trainer import precision

FALLBACK_BANNER = (
    "CIFAR-100 could not be had on this machine: every result here is from the built-in "
    "synthetic data set, and says nothing of natural images."
)
BUILT_IN_BANNER = (
    "Every result here is from the built-in synthetic data set, and says nothing of natural images."
)

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
            common: dict[str, Any] = {"profile": self.profile.name}
            study = self.profile.study(name, self.data_name)
            if study is not None:
                common["data_name"] = self.data_name
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
    profile = profiles.load(profile_name or default_profile())
    for name in profile.notebooks:  # a wrong parameter is found before anything is fetched
        profile.study(name, "built-in")
    _check_writable()
    data_name, banner, words = find_data(profile, source)
    job = Job(profile, data_name, banner)
    _remember(job)
    store = Store()
    todo = sweep.plan(job.specs, store)
    _say_plan(job, todo, words)
    sweep.execute(todo, store)
    return _render(job)


def rerender() -> Path:
    """Build the report from what is recorded on this machine, training nothing.

    Of each notebook's study the seeds are shown whose runs are all there; a notebook without one
    gets a page that says so.
    """
    job = _recall()
    store = Store()
    stubs = []
    for name, parameters in job.notebooks.items():
        study = job.profile.study(name, job.data_name)
        if study is None:
            continue
        incomplete = {spec.seed for spec in store.missing(study.specs)}
        seeds = [seed for seed in parameters["seeds"] if seed not in incomplete]
        parameters |= {"seeds": seeds, "train_missing": False}
        # With fewer seeds a study may ask for other runs, as the one with a known posterior does.
        if not seeds or store.missing(job.profile.study(name, job.data_name, seeds=seeds).specs):
            stubs.append(name)
    return _render(job, stubs)


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
    last = paths.RUNS / LAST
    if not last.is_file():
        raise RuntimeError(
            f"nothing is recorded in {paths.RUNS} yet; `make reproduce` trains the runs"
        )
    remembered = json.loads(last.read_text())
    return Job(profiles.load(remembered["profile"]), remembered["data"], remembered["banner"])


def _say_plan(job: Job, todo: sweep.Plan, words: str) -> None:
    device = train.default_device()
    total = len({spec.id for spec in job.specs})
    rest = SECONDS_PER_NOTEBOOK * len(job.notebooks) + SECONDS_TO_BUILD
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
    store = Store()
    records = [store.load(spec) for spec in {s.id: s for s in job.specs}.values() if spec in store]
    devices = sorted({record.meta["device"] for record in records})
    facts = [
        f"Profile {job.profile.name}",
        job.data_name,
        f"{len(records)} runs",
        *devices,
        f"built {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"commit {provenance.commit() or 'unknown'}",
    ]
    return "lsce, MIT License. " + " · ".join(facts)


def _render(job: Job, stubs: list[str] = ()) -> Path:
    executed = paths.BUILD / "executed"
    shutil.rmtree(executed, ignore_errors=True)
    pages = []
    for name, parameters in job.notebooks.items():
        notebook = paths.NOTEBOOKS / f"{name}.ipynb"
        if name in stubs:
            message = (
                "No run of this page is recorded on this machine; `make reproduce` trains them."
            )
            pages.append(report.stub(name, _title(notebook), message, executed))
            continue
        start = time.monotonic()
        output = executed / f"{name}.ipynb"
        report.execute(notebook, parameters, output)
        pages.append(output)
        print(f"  executed {name} in {duration(time.monotonic() - start)}", flush=True)
    start = time.monotonic()
    index = report.build(pages, paths.HTML, banner=job.banner, footer=_footer(job))
    print(f"  built the report in {duration(time.monotonic() - start)}", flush=True)
    return index
