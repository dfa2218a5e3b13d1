"""`lsce record`: train what the recorded results lack, within a time budget, as compact files."""

import dataclasses
import time
from pathlib import Path

from lsce import data, digest, paths, profiles, recorded, studies, sweep
from lsce.digest import Digest
from lsce.profiles import Profile
from lsce.progress import duration
from lsce.recorded import Recorded
from lsce.runs import RunSpec, Store


def record(profile_name: str, budget: float, out: Path, source: Path | None) -> list[Digest]:
    """Record runs of a profile that neither `data/recorded` nor `out` holds yet; returns those.

    Takes at most `budget` seconds: a run that would not end in time is not started. The most
    decisive come first: study by study in the order of the notebooks, seed by seed, and of a seed
    the pair that the claims compare. `out` is updated after each run. A run that this machine has
    already trained is recorded from its store. `source` is a folder that holds CIFAR-100.

    Raises ValueError or OSError, in a sentence, if something given is wrong.
    """
    deadline = time.monotonic() + budget
    profile = profiles.load(profile_name)
    wanted = _wanted(profile)
    if out.exists() and any(out.iterdir()) and not (out / recorded.MANIFEST).is_file():
        raise ValueError(f"OUT is {out}; it must be a new or empty folder, or hold recorded runs")
    reference, mine, store = Recorded(), Recorded(out), Store()
    todo = reference.missing(mine.missing(spec for spec, _, _ in wanted.values()))
    data.load(profile.data, source if profile.data == "cifar-100" else None)
    lacking, new = {spec.id for spec in todo}, []

    def save(*specs: RunSpec) -> None:
        for spec in specs:
            if spec.id not in lacking:  # only trained because others need its network
                continue
            run, (_, in_full, _) = digest.of(store.load(spec)), wanted[spec.id]
            new.append(run if in_full else dataclasses.replace(run, samples={}, projections={}))
        if new:
            recorded.write({run.spec.id: run for run in (*mine, *new)}.values(), out)

    missing = store.missing(todo)
    if trained := [spec for spec in todo if spec in store]:
        save(*trained)
    plan = sweep.plan(missing, store, first=lambda spec: wanted[spec.id][2])
    print(
        f"{len(todo)} of {len(wanted)} runs are not recorded; {len(trained)} of them "
        f"are on this machine, the others take about {duration(plan.expected)}",
        flush=True,
    )
    sweep.execute(plan, store, deadline=deadline, on_done=save)
    left = len(todo) - len(new)
    print(f"{len(new)} runs recorded in {out}, {left} still to do")
    return new


def _wanted(profile: Profile) -> dict[str, tuple[RunSpec, bool, tuple]]:
    """Every run of a profile by its id: its spec with all that a study keeps of it, whether one
    shows it in full, and its rank."""
    wanted: dict[str, tuple[RunSpec, bool, tuple]] = {}
    for position, notebook in enumerate(profile.notebooks):
        study = profile.study(notebook, profile.data)
        for spec in study.specs if study else []:
            rank = (position, spec.seed, spec.epsilon not in (0.0, study.judged))
            known, in_full, rank = wanted.get(spec.id, (spec, False, rank))
            keep = tuple(sorted({*known.keep, *spec.keep}))
            full = in_full or (notebook in studies.BY_IMAGE and study.in_full(spec))
            wanted[spec.id] = dataclasses.replace(spec, keep=keep), full, rank
    return wanted


def merge(folders: list[Path]) -> None:
    """Add what `record` left in `folders` to `data/recorded`; see `lsce.recorded.merge`."""
    new = recorded.merge(folders)
    size = sum(file.stat().st_size for file in paths.RECORDED.iterdir())
    print(
        f"{len(new)} runs are new; {len(Recorded())} are recorded in {paths.RECORDED}, "
        f"{size / 2**20:.1f} MiB"
    )
