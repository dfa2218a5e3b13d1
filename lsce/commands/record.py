"""`lsce record` and `lsce merge`: train what the recorded results lack, within a time budget."""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
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


@dataclass(frozen=True)
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

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    if hasattr(os, "nice"):
        os.nice(19)


def record(
    profile_name: str, budget: float, out: Path | None = None, source: Path | None = None
) -> list[Run]:
    """Record runs of a profile that neither `data/recorded` nor `out` holds yet; returns those.

    Takes at most `budget` seconds: a run that would not end in time is not started. The most
    decisive come first: what several pages show before what one does, the pairs that claims compare
    before the rest, and seed by seed. Runs that are compared with one another are trained on one
    kind of device and in one precision; what was begun on another kind is left to it. `out`, by
    default `data/recorded`, is updated after each run. A run that this machine has already trained
    is recorded from its store. `source` is a folder that holds CIFAR-100.

    Raises ValueError or OSError, in a sentence, if something given is wrong.
    """
    deadline = time.monotonic() + budget
    profile, out = Profile(profile_name), out or paths.RECORDED
    recorded.check_folder(out)  # now, and not after the first run
    data.load(profile.data, source if profile.data == "cifar-100" else None)
    every = wanted(profile)
    reference, mine, store = Recorded(), Recorded(out), Store()
    have = {run.task.id: run for run in (*reference, *mine)}
    lacking = [w for w in every.values() if w.task not in reference and w.task not in mine]
    begun = _begun(every, have)
    here = {w.task.id: w for w in lacking if _fits(w, begun)}
    before = _widths(profile, here) if out == paths.RECORDED else {}
    new: dict[str, Run] = {}
    written = _manifest(out)

    def save(*tasks: Task) -> None:
        nonlocal mine, written
        for task in tasks:
            if task.id in here:  # the others are only trained because a task needs their network
                new[task.id] = _compact(store.read(task), here[task.id].in_full)
        if _manifest(out) != written:  # somebody else has added to it, or taken from it
            mine = Recorded(out)
        if new:
            recorded.write(({run.task.id: run for run in mine} | new).values(), out)
            written = _manifest(out)

    if trained := [w.task for w in here.values() if w.task in store]:
        save(*trained)
    missing = store.missing(w.task for w in here.values())
    plan = sweep.plan(missing, store, first=lambda task: here[task.id].rank)
    others = len(lacking) - len(here)
    print(
        f"{len(lacking)} of {len(every)} runs are not recorded; {len(trained)} of them are on this "
        f"machine, {len(missing)} take it about {duration(plan.expected)}"
        + f", {others} go with runs of other devices"
        * (others > 0),
        flush=True,
    )
    try:
        sweep.execute(plan, store, deadline=deadline, on_done=save)
    finally:
        pairs = len(_pairs(profile, {*have, *new}) - _pairs(profile, set(have)))
        print(
            f"{len(new)} runs recorded in {out} ({pairs} pairs), {len(lacking) - len(new)} still "
            f"to do; {_size(out)}"
        )
    if before:
        print(_narrower(before, _widths(profile, new)))
    return list(new.values())


def merge(folders: list[Path]) -> None:
    """Add what `record` left in `folders` to `data/recorded`; see `lsce.results.recorded.merge`."""
    new = recorded.merge(folders)
    print(
        f"{len(new)} runs are new; {len(Recorded())} are recorded in {paths.RECORDED}, "
        f"{_size(paths.RECORDED)}"
    )


def _manifest(folder: Path) -> bytes:
    file = folder / recorded.MANIFEST
    return file.read_bytes() if file.is_file() else b""


def _compact(run: Run, in_full: bool) -> Run:
    """A run as it is recorded: which images it gets right, and more where a page shows it."""
    run = replace(run, kept=run.kept - {"weights"})
    if in_full:
        return run
    correct = {name: values for name, values in run.samples.items() if name == "correct"}
    return replace(run, samples=correct, projections={})


def _size(folder: Path) -> str:
    """How large what is recorded is, and a warning where it is too large for git."""
    size = sum(file.stat().st_size for file in folder.glob("*")) / 2**20
    return f"{size:.1f} MiB" + f", more than the {MOST} MiB that git should hold" * (size > MOST)


# ---- which runs, in which order ----


def wanted(profile: Profile) -> dict[str, Wanted]:
    """Every task of a profile by its id."""
    found: dict[str, Wanted] = {}
    pages: dict[str, set[str]] = {}
    compared: dict[tuple[Any, ...], set[str]] = {}
    for position, (notebook, study) in enumerate(profile.studies()):
        for label, task in _tasks(study):
            rank = (not study.decisive(label), position, task.seed)
            known = found.get(task.id, Wanted(task, False, rank, task.id))
            if isinstance(known.task, RunSpec):
                known = replace(known, task=known.task.keeping(*task.keep))
            in_full = known.in_full or study.in_full(label)
            found[task.id] = replace(known, in_full=in_full, rank=min(known.rank, rank))
            pages.setdefault(task.id, set()).add(notebook)
            compared.setdefault(_among(notebook, label), set()).add(task.id)
    blocks = _blocks(compared.values())
    return {
        name: replace(each, rank=(len(pages[name]) < 2, *each.rank), block=blocks[name])
        for name, each in found.items()
    }


def _tasks(study: Study) -> Iterator[tuple[Labelled, Task]]:
    """The tasks of a study; before an evaluation its run, which pages show, too."""
    for label in study.labelled:
        if label.task.run is not label.task:
            yield label, label.task.run
        yield label, label.task


def _among(notebook: str, label: Labelled) -> tuple[Any, ...]:
    """What a run shares with those that it is compared with."""
    return notebook, label.group, label.regime, label.task.seed


def _blocks(compared: Iterable[set[str]]) -> dict[str, str]:
    """For each task the name of all that it is compared with, directly or by way of others."""
    found: dict[str, set[str]] = {}
    for runs in compared:
        joined = runs.union(*(found[run] for run in runs if run in found))
        found |= dict.fromkeys(joined, joined)
    names = {id(block): min(block) for block in found.values()}
    return {run: names[id(block)] for run, block in found.items()}


#: Device and precision.
Kind = tuple[str, str]


def _begun(every: Mapping[str, Wanted], have: Mapping[str, Run]) -> dict[str, set[Kind]]:
    """The kinds that the recorded runs of each block are of."""
    found: dict[str, set[Kind]] = {}
    for run in every.keys() & have.keys():
        origin = have[run].origin
        kinds = found.setdefault(every[run].block, set())
        kinds.add((origin["device"], origin["precision"]))
    return found


def _fits(each: Wanted, begun: Mapping[str, set[Kind]]) -> bool:
    """Whether all that is recorded of a task's block is of this device and precision."""
    if each.block not in begun:
        return True
    device = default_device()
    here = (provenance.device_name(device.type), precision.of(each.task.run.network, device))
    return begun[each.block] == {here}


# ---- what it brought ----


def _pairs(profile: Profile, have: set[str]) -> set[frozenset[str]]:
    """The pairs of runs, without smoothing and with it, that claims compare and that are there."""
    found: dict[tuple[Any, ...], set[str]] = {}
    for notebook, study in profile.studies():
        for label in study.labelled:
            if study.decisive(label) and label.task.id in have:
                found.setdefault(_among(notebook, label), set()).add(label.task.id)
    return {frozenset(runs) for runs in found.values() if len(runs) == 2}


def _widths(profile: Profile, runs: Iterable[str]) -> dict[tuple[str, str], float]:
    """The width of the interval of each claim in each regime, of the pages that show some of the
    runs."""
    found, runs = {}, set(runs)
    for notebook in studies.with_runs():
        study = profile.study(notebook)
        if not {task.id for task in study.tasks} & runs:
            continue
        for shown in evidence.recorded(notebook)[:1]:
            for claim, judged in shown.judgements.items():
                for each in judged:
                    if each.effect is not None and each.effect.n > 1:
                        found[claim, each.regime] = each.effect.high - each.effect.low
    return found


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
