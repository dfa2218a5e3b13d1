"""Which runs are missing, who trains them, and in what order.

On a CPU the runs are trained by one-thread worker processes, one a core, which is faster than one
process with many threads; on a GPU by threads of this process, which share what is compiled. Either
way all arms of a seed come before the next seed, so that an interrupted sweep leaves complete
pairs. The workers that time the networks for the plan are those that train.
"""

import ctypes
import dataclasses
import functools
import math
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from torch import Tensor

from lsce import data
from lsce.machine import provenance
from lsce.machine.progress import Progress
from lsce.results.store import Record, Store, size
from lsce.training import networks, precision, train
from lsce.training.spec import RunSpec

#: Runs at a time on a GPU.
GPU_WORKERS = 1


class SweepFailed(RuntimeError):
    """A sweep that could not be finished; what it had trained is in the store."""


@dataclass(frozen=True)
class Plan:
    """What a sweep has to do. `seconds` maps a spec's id to its expected time in one worker."""

    missing: list[RunSpec]
    seconds: dict[str, float]
    workers: int
    #: Started by the timing, ready to train.
    crew: "_Workers | None" = field(default=None, compare=False, repr=False)
    #: Bytes of memory that all workers take together.
    memory: int = 0

    @property
    def expected(self) -> float:
        """Expected wall-clock seconds."""
        if not self.missing:
            return 0.0
        seconds = [self.seconds[spec.id] for spec in self.missing]
        return max(max(seconds), sum(seconds) / self.workers)

    @property
    def operations(self) -> int:
        """Floating-point operations: multiplications and additions, forward and backward."""
        done = ((spec.model, train.workload(spec)) for spec in self.missing)
        return sum(
            2 * networks.multiply_adds(model) * (3 * trained + evaluated)
            for model, (trained, evaluated) in done
        )

    @property
    def disk(self) -> int:
        """Bytes that the records take, about."""
        return sum(size(spec) for spec in self.missing)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_process(epochs: multiprocessing.Queue) -> None:
    """A process leaves Ctrl-C to its parent and ends when the parent does."""
    global _epochs
    _epochs = epochs
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    provenance.commit()  # of the code that is at work, whatever is committed meanwhile
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def keep_freed_memory() -> None:
    """Tell glibc to reuse a step's tensors: given back to the system, each costs page faults."""
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 2**30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


@functools.cache
def _dataset(name: str) -> data.Dataset:
    return data.decoded(name)


def _outcome(spec: RunSpec, store: Store, on_epoch: Callable[[int], None]) -> train.Outcome:
    dataset, device = _dataset(spec.data), train.default_device()
    if spec.examination is None:
        networks = functools.partial(_network, store)
        return train.train(spec, dataset, device=device, networks=networks, on_epoch=on_epoch)
    outcome = train.examine(spec, dataset, *map(store.load, spec.needs), device=device)
    for epoch in range(spec.epochs):  # they have been done before
        on_epoch(epoch + 1)
    return outcome


def _network(store: Store, spec: RunSpec) -> dict[str, Tensor]:
    record = store.load(dataclasses.replace(spec, keep=("weights",)))
    if record.diverged:
        raise ValueError(f"its teacher, run {spec.id}, diverged")
    return record.weights()


def _train_and_save(spec: RunSpec, store: Store, on_epoch: Callable[[int], None]) -> None:
    outcome, device = _outcome(spec, store, on_epoch), train.default_device()
    meta = {
        "final": outcome.final,
        "temperature": outcome.temperature,
        "seconds": outcome.seconds,
        "step": outcome.step,
        "device": provenance.device_name(device.type),
        "precision": precision.of(spec.model, device),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    store.save(
        spec,
        status=outcome.status,
        meta=meta,
        history=pd.DataFrame(outcome.history),
        outputs=outcome.outputs,
        extras=outcome.extras,
        details=pd.DataFrame(outcome.details),
    )


def _train_in_process(spec: RunSpec, store: Store) -> None:
    _train_and_save(spec, store, lambda epoch: _epochs.put(spec.id))


class _Workers:
    """Processes on a CPU, threads on a GPU."""

    def __init__(self, count: int, *, processes: bool):
        self.count, self._processes = count, processes
        self._stopped = threading.Event()
        self._pool: Executor
        if self._processes:
            context = multiprocessing.get_context("spawn")
            self._epochs = context.Queue()
            self._pool = ProcessPoolExecutor(
                count, mp_context=context, initializer=_start_process, initargs=(self._epochs,)
            )
        else:
            self._epochs = queue.SimpleQueue()
            self._pool = ThreadPoolExecutor(count)

    def speed(self, spec: RunSpec) -> train.Speed:
        """`train.speed` with all at work at once, since they share the memory, of which it is the
        sum."""
        each = list(self._pool.map(train.speed, [spec] * self.count))
        training, evaluation, memory = (sum(column) for column in zip(*each, strict=True))
        return train.Speed(training / self.count, evaluation / self.count, memory)

    def submit(self, spec: RunSpec, store: Store) -> Future:
        if self._processes:
            return self._pool.submit(_train_in_process, spec, store)

        def on_epoch(epoch: int) -> None:
            if self._stopped.is_set():
                raise SweepFailed("the sweep was stopped")
            self._epochs.put(spec.id)

        return self._pool.submit(_train_and_save, spec, store, on_epoch)

    def finished_epochs(self) -> Iterator[str]:
        """Ids of runs, one for each epoch finished since the last call."""
        while True:
            try:
                yield self._epochs.get_nowait()
            except queue.Empty:
                return

    def stop(self) -> None:
        """End what is going on: processes at once, threads after their epoch."""
        self._stopped.set()
        if self._processes:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def with_needed(specs: Sequence[RunSpec], store: Store) -> list[RunSpec]:
    """The specs that the store lacks, and before each the runs that it needs and that the store
    lacks, too, each once."""
    ordered: list[RunSpec] = []

    def add(spec: RunSpec) -> None:
        for need in spec.needs:
            if need not in store:
                add(need)
        ordered.append(spec)

    for spec in specs:
        if spec not in store:
            add(spec)
    return store.missing(ordered)


def plan(
    specs: Sequence[RunSpec],
    store: Store | None = None,
    workers: int | None = None,
    first: Callable[[RunSpec], Any] = lambda spec: spec.seed,
) -> Plan:
    """Find the runs that the store lacks and estimate their time from a short timing.

    `workers` is how many runs go on at a time; by default as many as there are cores, on a GPU
    `GPU_WORKERS`. Runs with the lowest `first` come first: by default all arms of a seed together.
    """
    missing = with_needed(specs, store or Store())
    if not missing:
        return Plan(missing, {}, 0)
    on_gpu = train.default_device().type == "cuda"
    workers = workers or (GPU_WORKERS if on_gpu else cores())
    crew = _Workers(min(workers, len(missing)), processes=not on_gpu)
    kinds = {spec.model: spec for spec in missing}  # the network is what the speed depends on
    for name in kinds:  # measured here, once, before any worker needs it
        precision.of(name, train.default_device())
    speed = {name: crew.speed(spec) for name, spec in kinds.items()}
    seconds = {}
    for spec in missing:
        trained, evaluated = train.workload(spec)
        here = speed[spec.model]
        seconds[spec.id] = trained * here.train + evaluated * here.evaluate
    rank = {spec.id: first(spec) for spec in specs}
    for spec in reversed(missing):  # what a run needs comes before it in this list
        for need in spec.needs:
            rank[need.id] = min(rank.get(need.id, rank[spec.id]), rank[spec.id])
    # What waits for others last, and else the longest first, so that no worker ends long after
    # the rest.
    missing.sort(key=lambda spec: (rank[spec.id], bool(spec.needs), -seconds[spec.id]))
    memory = max(each.memory for each in speed.values())
    return Plan(missing, seconds, crew.count, crew, memory)


def execute(
    todo: Plan,
    store: Store | None = None,
    *,
    deadline: float = math.inf,
    on_done: Callable[[RunSpec], None] = lambda spec: None,
) -> None:
    """Train the runs of a plan, once, and call `on_done` after each.

    A run that would not end before `deadline` (in `time.monotonic`'s seconds) is not started.
    Raises SweepFailed if a run or a worker fails.
    """
    if not todo.missing:
        if todo.crew:
            todo.crew.close()
        return
    store = store or Store()
    pace = _Pace(todo.seconds)
    room = max(1.0, todo.workers * (deadline - time.monotonic()))
    work = sum(todo.seconds[spec.id] for spec in todo.missing)
    progress = Progress("training", min(room, work), len(todo.missing))
    waiting, running = list(todo.missing), {}
    share = {spec.id: todo.seconds[spec.id] / spec.epochs for spec in todo.missing}
    try:
        while True:
            waiting = [spec for spec in waiting if pace.end(spec) <= deadline]
            while len(running) < todo.workers and (spec := _ready(waiting, store)):
                waiting.remove(spec)
                running[todo.crew.submit(spec, store)] = spec
            if not running:
                break
            done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for run in todo.crew.finished_epochs():
                progress.advance(share[run])
            for future in done:
                spec = running[future]
                future.result()
                del running[future]
                pace.learn(store.load(spec))
                on_done(spec)
                progress.advance(0, finished=1)
    except BrokenProcessPool as error:
        raise SweepFailed(
            "a training process was killed, perhaps for lack of memory; "
            "the same command goes on from here"
        ) from error
    except Exception as error:
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise SweepFailed(f"run {spec.id} failed: {kind}{error}") from error
    finally:
        if running:
            todo.crew.stop()
        todo.crew.close()
        progress.close()


def _ready(waiting: Sequence[RunSpec], store: Store) -> RunSpec | None:
    """The first spec that has all that it needs."""
    return next((s for s in waiting if all(need in store for need in s.needs)), None)


class _Pace:
    """When a run would end, from the plan's estimates and how those of its network turned out."""

    #: What a run may take beyond what the slowest so far of its network took.
    MARGIN = 1.05

    def __init__(self, seconds: dict[str, float]):
        self._seconds = seconds
        self._slowest: dict[tuple[str, bool], float] = {}

    def end(self, spec: RunSpec) -> float:
        slow = self._slowest.get(self._kind(spec), 1.0)
        return time.monotonic() + self.MARGIN * slow * self._seconds[spec.id]

    def learn(self, record: Record) -> None:
        ratio = record.meta["seconds"]["total"] / self._seconds[record.spec.id]
        kind = self._kind(record.spec)
        self._slowest[kind] = max(ratio, self._slowest.get(kind, 1.0))

    @staticmethod
    def _kind(spec: RunSpec) -> tuple[str, bool]:
        return spec.model, spec.examination is not None


def ensure(
    specs: Sequence[RunSpec], *, train_missing: bool = True, store: Store | None = None
) -> list[Record]:
    """The records of `specs`, in their order, training first what the store lacks.

    With `train_missing=False` a missing run is a SweepFailed that says how many there are.
    """
    store = store or Store()
    missing = store.missing(specs)
    if missing and not train_missing:
        raise SweepFailed(
            f"{len(missing)} of {len(specs)} runs have not been trained on this machine; "
            "`make reproduce` trains them"
        )
    if missing:
        todo = plan(missing, store)
        total = len({spec.id for spec in (*specs, *todo.missing)})
        print(
            f"{len(todo.missing)} of {total} runs are not trained yet: training them on "
            f"{train.default_device().type}, {todo.workers} at a time",
            flush=True,
        )
        execute(todo, store)
    return [store.load(spec) for spec in specs]
