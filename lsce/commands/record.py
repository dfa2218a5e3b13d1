"""`lsce record` and `lsce merge`: train what the recorded results lack, within a time budget."""

import math
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lsce import data, studies
from lsce.machine import paths, provenance
from lsce.machine.progress import duration
from lsce.results import recorded
from lsce.results.recorded import Recorded
from lsce.results.run import Run
from lsce.results.store import Store
from lsce.studies import evidence
from lsce.studies.profiles import Profile
from lsce.studies.study import Labelled, Study
from lsce.sweeps import sweep
from lsce.training import precision
from lsce.training.spec import RunSpec, Task
from lsce.training.train import default_device

#: What recorded results may take in git, in MiB.
MOST = 12


@dataclass
class Wanted:
    """A task that a profile asks for."""

    #: With all that a study keeps of it.
    task: Task
    #: Whether a page shows it image by image.
    in_full: bool
    #: The lower the sooner.
    rank: tuple[Any, ...]
    #: The tasks that it is compared with have the same; they share device and precision.
    block: str


def step_aside() -> None:
    """Work at the lowest priority, and end at SIGTERM as at Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.nice(19)


def record(
    profile_name: str, budget: float, out: Path | None = None, source: Path | None = None
) -> None:
    """Record runs of a profile that neither `data/recorded` nor `out` holds yet.

    A run that would not end within `budget` seconds is not started. What several pages show comes
    before what one does, the pairs that claims compare before the rest, and then seed by seed. Runs
    that are compared share their precision and are all of CPUs or all of GPUs; what was begun
    otherwise is left to such machines. `out`,
    by default `data/recorded`, is updated after each run. What this machine has already trained is
    recorded from its store. `source` is a folder that holds CIFAR-100. Raises ValueError or
    OSError, in a sentence, if something given is wrong.
    """
    deadline = time.monotonic() + budget
    profile, out = Profile(profile_name), out or paths.RECORDED
    recorded.check_folder(out)  # now, and not after the first run
    data.load(profile.data, source if profile.data == "cifar-100" else None)
    tasks = wanted(profile)
    reference, mine, store = Recorded(), Recorded(out), Store()
    old = {run.task.id: run for run in (*reference, *mine)}
    lacking = mine.missing(reference.missing(entry.task for entry in tasks.values()))
    here = {task.id: task for task in _fitting(lacking, tasks, old)}
    before = _widths(profile, here) if out == paths.RECORDED else {}
    new: dict[str, Run] = {}
    written = recorded.manifest_of(out)

    def save(*finished: Task) -> None:
        nonlocal mine, written
        for task in finished:
            if task.id in here:  # the others are only trained because a task needs their network
                new[task.id] = _compact(store.read(task), tasks[task.id].in_full)
        if recorded.manifest_of(out) != written:  # another process has changed it
            mine = Recorded(out)
        if new:
            recorded.write(({run.task.id: run for run in mine} | new).values(), out)
            written = recorded.manifest_of(out)

    if trained := [task for task in here.values() if task in store]:
        save(*trained)
    missing = store.missing(here.values())
    plan = sweep.plan(missing, store, first=lambda task: tasks[task.id].rank)
    others = len(lacking) - len(here)
    print(
        f"{len(lacking)} of {len(tasks)} runs are not recorded; {len(trained)} of them are on this "
        f"machine, {len(missing)} take it about {duration(plan.expected)}"
        + (f", {others} go with runs of other devices" if others else ""),
        flush=True,
    )
    try:
        sweep.execute(plan, store, deadline=deadline, on_done=save)
    finally:
        pairs = len(_pairs(profile, {*old, *new}) - _pairs(profile, set(old)))
        print(
            f"{len(new)} runs recorded in {out} ({pairs} pairs), {len(lacking) - len(new)} still "
            f"to do; {_size(out)}"
        )
    if before:
        print(_narrower(before, _widths(profile, new)))


def merge(folders: list[Path]) -> None:
    """Add what `record` left in `folders` to `data/recorded`; see `lsce.results.recorded.merge`."""
    new = recorded.merge(folders)
    print(
        f"{len(new)} runs are new; {len(Recorded())} are recorded in {paths.RECORDED}, "
        f"{_size(paths.RECORDED)}"
    )


def _compact(run: Run, in_full: bool) -> Run:
    """A run as it is recorded: which images it gets right, and more where a page shows it."""
    samples, projections = run.samples, run.projections
    if not in_full and isinstance(run.task, RunSpec):
        samples, projections = {k: v for k, v in samples.items() if k == "correct"}, {}
    kept = run.kept - {"weights"}
    return replace(run, kept=kept, samples=samples, projections=projections)


def _size(folder: Path) -> str:
    """How large what is recorded is, and a warning where it is too large for git."""
    size = sum(file.stat().st_size for file in folder.glob("*")) / 2**20
    warning = f", more than the {MOST} MiB that git should hold" if size > MOST else ""
    return f"{size:.1f} MiB{warning}"


# ---- which runs, in which order ----


def ordered(profile: Profile) -> list[tuple[str, Study]]:
    """A profile's pages with their studies, those first that it wants to be recorded first."""
    first = profile.content.recorded_first
    pages = list(profile.studies())
    return sorted(pages, key=lambda page: first.index(page[0]) if page[0] in first else len(first))


def wanted(profile: Profile) -> dict[str, Wanted]:
    """Every task of a profile by its id."""
    tasks: dict[str, Wanted] = {}
    pages, compared = defaultdict[str, set[str]](set), defaultdict[Any, set[str]](set)
    for position, (notebook, study) in enumerate(ordered(profile)):
        for label in study.labelled:
            for task in (label.task.run, label.task):  # pages show the run of an evaluation, too
                decisive = study.decisive(label)
                rank = (not decisive, position, 0.0 if decisive else _distance(label), task.seed)
                entry = tasks.setdefault(task.id, Wanted(task, False, rank, task.id))
                if isinstance(entry.task, RunSpec):
                    entry.task = entry.task.keeping(*task.keep)
                entry.in_full |= study.in_full(label)
                entry.rank = min(entry.rank, rank)
                pages[task.id].add(notebook)
                compared[_comparison(notebook, label)].add(task.id)
    blocks: dict[str, set[str]] = {}  # what is compared, directly or by way of others
    for runs in compared.values():
        block = runs.union(*(blocks[run] for run in runs if run in blocks))
        blocks |= dict.fromkeys(block, block)
    for name, entry in tasks.items():
        entry.rank = (len(pages[name]) < 2, *entry.rank)
        entry.block = min(blocks[name])
    return tasks


def _distance(label: Labelled) -> float:
    """How far an ε is from those that validation mostly chooses: one is recorded with every seed
    before the next."""
    apart = label.smoothed and label.setting > 0
    return abs(math.log2(label.setting / 0.25)) if apart else 0.0


def _comparison(notebook: str, label: Labelled) -> tuple[Any, ...]:
    """What a run shares with those that it is compared with."""
    return notebook, label.group, label.regime, label.task.seed


def _fitting(
    lacking: Iterable[Task], tasks: Mapping[str, Wanted], runs: Mapping[str, Run]
) -> list[Task]:
    """The lacking tasks whose blocks, as far as recorded, are of this machine's kind."""
    begun = defaultdict[str, set[tuple[bool, str]]](set)
    for name in tasks.keys() & runs.keys():
        begun[tasks[name].block].add(_kind(**runs[name].origin))
    device = default_device()
    name = provenance.device_name(device.type)

    def fits(task: Task) -> bool:
        block = tasks[task.id].block
        here = _kind(name, precision.of(task.run.network, device))
        return block not in begun or begun[block] == {here}

    return list(filter(fits, lacking))


def _kind(device: str, precision: str, **_: Any) -> tuple[bool, str]:
    """Whether a device is a GPU, and the precision of what is trained there."""
    return device.startswith("NVIDIA"), precision


# ---- what it brought ----


def _pairs(profile: Profile, recorded_ids: set[str]) -> set[frozenset[str]]:
    """The recorded pairs of runs, without smoothing and with it, that claims compare."""
    compared = defaultdict[Any, set[str]](set)
    for notebook, study in profile.studies():
        for label in study.labelled:
            if study.decisive(label) and label.task.id in recorded_ids:
                compared[_comparison(notebook, label)].add(label.task.id)
    return {frozenset(runs) for runs in compared.values() if len(runs) == 2}


def _widths(profile: Profile, runs: Iterable[str]) -> dict[tuple[str, str], float]:
    """The width of the interval of each claim in each regime, of the pages that show some of the
    runs."""
    widths, runs = {}, set(runs)
    for notebook in studies.with_runs():
        if runs.isdisjoint(task.id for task in profile.study(notebook).tasks):
            continue
        for shown in evidence.recorded(notebook)[:1]:
            for claim, judgements in shown.judgements.items():
                for judgement in judgements:
                    effect = judgement.effect
                    if effect is not None and not math.isnan(effect.low):
                        widths[claim, judgement.regime] = effect.high - effect.low
    return widths


def _narrower(
    before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float]
) -> str:
    """Which claims can be judged, or more narrowly, that could not."""
    changed = [
        f"{claim} in {regime} "
        + (f"to {width / before[claim, regime]:.0%}" if (claim, regime) in before else "(new)")
        for (claim, regime), width in after.items()
        if width < before.get((claim, regime), float("inf"))
    ]
    return "narrower intervals: " + (", ".join(changed) or "none")
