"""Which tasks are missing, in what order they are done, and doing them.

All arms of a seed come before the next seed, so that an interrupted sweep leaves complete pairs.
The workers that time the networks for the plan are those that train.
"""

import itertools
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from lsce.machine.progress import Progress
from lsce.results.run import Run
from lsce.results.store import Store
from lsce.sweeps.workers import SweepFailed, Workers
from lsce.training import precision
from lsce.training.spec import Task
from lsce.training.train import default_device

#: Tasks at a time on a GPU.
GPU_WORKERS = 1


@dataclass(frozen=True)
class Plan:
    """What a sweep has to do. `seconds` maps a task's id to its expected time in one worker."""

    missing: list[Task]
    seconds: dict[str, float]
    #: Started by the timing, ready to train; None where nothing is missing.
    workers: Workers | None = None
    #: Bytes of memory that all workers take together.
    memory: int = 0

    @property
    def at_a_time(self) -> int:
        return self.workers.count if self.workers else 0

    @property
    def expected(self) -> float:
        """Expected wall-clock seconds."""
        if not self.missing:
            return 0.0
        seconds = [self.seconds[task.id] for task in self.missing]
        return max(max(seconds), sum(seconds) / self.at_a_time)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_needed(tasks: Iterable[Task], store: Store) -> list[Task]:
    """The tasks that the store lacks, each once, after the missing runs that they need."""
    ordered: list[Task] = []

    def add(task: Task) -> None:
        if task not in store:
            for need in task.needs:
                add(need)
            ordered.append(task)

    for task in tasks:
        add(task)
    return store.missing(ordered)


def plan(
    tasks: Sequence[Task],
    store: Store | None = None,
    workers: int | None = None,
    first: Callable[[Task], Any] = lambda task: task.seed,
) -> Plan:
    """Find the tasks that the store lacks and estimate their time from a short timing.

    `workers` at a time, by default one a core, on a GPU `GPU_WORKERS`. Tasks with the lowest
    `first` come first: by default all arms of a seed together.
    """
    missing = with_needed(tasks, store or Store())
    if not missing:
        return Plan(missing, {})
    device = default_device()
    on_gpu = device.type == "cuda"
    count = min(workers or (GPU_WORKERS if on_gpu else cores()), len(missing))
    pool = Workers(count, processes=not on_gpu)
    specs = {task.run.network: task.run for task in missing}
    for network in specs:  # measured here, once, before any worker needs it
        precision.of(network, device)
    speeds = {network: pool.speed(spec) for network, spec in specs.items()}
    seconds = {task.id: speeds[task.run.network].seconds(task) for task in missing}
    rank = {task.id: first(task) for task in tasks}
    for task in reversed(missing):  # what a task needs comes before it in this list
        for need in task.needs:
            rank[need.id] = min(rank.get(need.id, rank[task.id]), rank[task.id])
    # Of equal rank what waits for others last, and else the longest first, so that no worker ends
    # long after the rest.
    missing.sort(key=lambda task: (rank[task.id], bool(task.needs), -seconds[task.id]))
    return Plan(missing, seconds, pool, max(speed.memory for speed in speeds.values()))


def execute(
    todo: Plan,
    store: Store | None = None,
    *,
    deadline: float = math.inf,
    on_done: Callable[[Task], None] = lambda task: None,
) -> None:
    """Do the tasks of a plan, once, and call `on_done` after each. One that would not end before
    `deadline` (of `time.monotonic`) is not started. Raises SweepFailed if a task or worker fails.
    """
    workers = todo.workers
    if workers is None:
        return
    store, pace = store or Store(), _Pace(todo.seconds)
    available = max(1.0, workers.count * (deadline - time.monotonic()))
    work = sum(todo.seconds[task.id] for task in todo.missing)
    progress = Progress("training", min(available, work), len(todo.missing))
    an_epoch = {task.id: todo.seconds[task.id] / task.run.epochs for task in todo.missing}
    waiting, running = list(todo.missing), dict[Future[None], Task]()
    try:
        while True:
            waiting = [task for task in waiting if pace.end(task) <= deadline]
            ready = (task for task in waiting if all(need in store for need in task.needs))
            for task in list(itertools.islice(ready, workers.count - len(running))):
                waiting.remove(task)
                running[workers.submit(task, store)] = task
            if not running:
                break
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for task_id in workers.finished_epochs():
                progress.advance(an_epoch[task_id])
            for future in done:
                task = running[future]
                future.result()
                del running[future]
                pace.learn(store.load(task))
                on_done(task)
                progress.advance(0, finished=1)
    except BrokenProcessPool as error:
        raise SweepFailed(
            "a training process was killed, perhaps for lack of memory; "
            "the same command goes on from here"
        ) from error
    except Exception as error:
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise SweepFailed(f"run {task.id} failed: {kind}{error}") from error
    finally:
        workers.close(stop=bool(running))
        progress.close()


class _Pace:
    """When a task would end, from the plan's estimates and how those of its network turned out."""

    def __init__(self, seconds: dict[str, float]):
        self._seconds = seconds
        #: The largest ratio of actual to expected time, by network and type of task.
        self._slowest: dict[tuple[str, type], float] = defaultdict(lambda: 1.0)

    def end(self, task: Task) -> float:
        with_margin = 1.05 * self._slowest[task.run.network, type(task)]
        return time.monotonic() + with_margin * self._seconds[task.id]

    def learn(self, run: Run) -> None:
        ratio = run.origin["seconds"]["total"] / self._seconds[run.task.id]
        kind = run.spec.network, type(run.task)
        self._slowest[kind] = max(ratio, self._slowest[kind])


def ensure(
    tasks: Sequence[Task], *, train_missing: bool = True, store: Store | None = None
) -> dict[str, Run]:
    """The runs of `tasks` by their ids, training first what the store lacks; with
    `train_missing=False` a missing run is a SweepFailed that says how many there are."""
    store = store or Store()
    missing = store.missing(tasks)
    if missing and not train_missing:
        raise SweepFailed(
            f"{len(missing)} of {len(tasks)} runs have not been trained on this machine; "
            "`make reproduce` trains them"
        )
    if missing:
        todo = plan(missing, store)
        total = len({task.id for task in (*tasks, *todo.missing)})
        print(
            f"{len(todo.missing)} of {total} runs are not trained yet: training them on "
            f"{default_device().type}, {todo.at_a_time} at a time",
            flush=True,
        )
        execute(todo, store)
    return {task.id: store.load(task) for task in {task.id: task for task in tasks}.values()}
