"""Which runs are missing, who trains them, and in what order.

On a CPU the runs are trained by one-thread worker processes, one a core, which is faster than one
process with many threads; on a GPU one after another in this process. Either way all arms of a
seed come before the next seed, so that an interrupted sweep leaves complete pairs.
"""

import functools
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from lsce import data, provenance, train
from lsce.progress import Progress
from lsce.runs import Record, RunSpec, Store


class SweepFailed(RuntimeError):
    """A sweep that could not be finished; what it had trained is in the store."""


@dataclass(frozen=True)
class Plan:
    """What a sweep has to do. `seconds` maps a spec's id to its expected time in one worker."""

    missing: list[RunSpec]
    workers: int
    seconds: dict[str, float]

    @property
    def expected(self) -> float:
        """Expected wall-clock seconds."""
        if not self.missing:
            return 0.0
        longest = max(self.seconds.values())
        return max(longest, sum(self.seconds.values()) / self.workers)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker(messages) -> None:
    """A worker leaves Ctrl-C to its parent and ends when the parent does."""
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@functools.cache
def _dataset(name: str) -> data.Dataset:
    return data.decoded(name)


def _train_and_save(spec: RunSpec, store: Store, on_epoch: Callable[[int], None]) -> None:
    device = train.default_device()
    outcome = train.train(spec, _dataset(spec.data), device=device, on_epoch=on_epoch)
    meta = {
        "final": outcome.final,
        "temperature": outcome.temperature,
        "seconds": outcome.seconds,
        "device": provenance.device_name(device.type),
        "precision": train.precision(device),
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
        features=outcome.features,
    )


def _work(spec: RunSpec, store: Store) -> None:
    _train_and_save(spec, store, lambda epoch: _messages.put(spec.id))


def _pool(workers: int) -> tuple[ProcessPoolExecutor, multiprocessing.Queue]:
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(messages,)
    )
    return pool, messages


def plan(specs: Sequence[RunSpec], store: Store | None = None) -> Plan:
    """Find the runs that the store lacks and estimate their time from a short timing.

    The timing runs in as many processes as the sweep will use, since they share the memory.
    """
    missing = (store or Store()).missing(specs)
    kinds = {spec.model: spec for spec in missing}  # the network is what the speed depends on
    if train.default_device().type == "cuda":
        workers = 1
        speed = {name: train.time_per_image(spec) for name, spec in kinds.items()}
    else:
        workers = max(1, min(_cores(), len(missing)))
        speed = {}
        if missing:
            pool, _ = _pool(workers)
            with pool:
                for name, spec in kinds.items():
                    times = list(pool.map(train.time_per_image, [spec] * workers))
                    speed[name] = tuple(
                        sum(column) / workers for column in zip(*times, strict=True)
                    )
    seconds = {}
    for spec in missing:
        trained, evaluated = train.workload(spec)
        per_trained, per_evaluated = speed[spec.model]
        seconds[spec.id] = trained * per_trained + evaluated * per_evaluated
    # All arms of a seed together, the longest first, so that no worker ends long after the rest.
    missing.sort(key=lambda spec: (spec.seed, -seconds[spec.id]))
    return Plan(missing, workers, seconds)


def execute(todo: Plan, store: Store | None = None) -> None:
    """Train the runs of a plan. Raises SweepFailed if a run or a worker fails."""
    store = store or Store()
    if not todo.missing:
        return
    progress = Progress("training", sum(todo.seconds.values()), len(todo.missing))
    try:
        if train.default_device().type == "cuda":
            _in_this_process(todo, store, progress)
        else:
            _in_workers(todo, store, progress)
    finally:
        progress.close()


def _failed(spec: RunSpec, error: Exception) -> SweepFailed:
    kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
    return SweepFailed(f"run {spec.id} failed: {kind}{error}")


def _per_epoch(todo: Plan) -> dict[str, float]:
    return {spec.id: todo.seconds[spec.id] / spec.epochs for spec in todo.missing}


def _in_this_process(todo: Plan, store: Store, progress: Progress) -> None:
    share = _per_epoch(todo)
    for spec in todo.missing:
        work = share[spec.id]
        try:
            _train_and_save(spec, store, lambda epoch, work=work: progress.advance(work))
        except Exception as error:
            raise _failed(spec, error) from error
        progress.advance(0, finished=1)


def _in_workers(todo: Plan, store: Store, progress: Progress) -> None:
    share = _per_epoch(todo)
    pool, messages = _pool(todo.workers)

    def drain() -> None:
        while True:
            try:
                run = messages.get_nowait()
            except queue.Empty:
                return
            progress.advance(share[run])

    waiting = {pool.submit(_work, spec, store): spec for spec in todo.missing}
    try:
        while waiting:
            done, _ = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            drain()
            for future in done:
                spec = waiting.pop(future)
                future.result()
                progress.advance(0, finished=1)
    except BrokenProcessPool as error:
        raise SweepFailed(
            "a training process was killed, perhaps for lack of memory; "
            "the same command goes on from here"
        ) from error
    except Exception as error:
        raise _failed(spec, error) from error
    finally:
        for process in list((pool._processes or {}).values()) if waiting else ():
            process.terminate()
        pool.shutdown(cancel_futures=True)


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
            f"{len(missing)} of {len(specs)} runs are not recorded; `make reproduce` trains them"
        )
    if missing:
        todo = plan(missing, store)
        print(
            f"{len(todo.missing)} of {len(specs)} runs are not recorded yet: training them on "
            f"{train.default_device().type}, {todo.workers} at a time",
            flush=True,
        )
        execute(todo, store)
    return [store.load(spec) for spec in specs]
