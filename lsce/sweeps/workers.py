"""Who performs tasks: one-thread processes on a CPU, one a core, threads on a GPU."""

import ctypes
import functools
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from threadpoolctl import threadpool_limits
from torch import Tensor

from lsce import data
from lsce.machine import provenance
from lsce.measures import information, robustness
from lsce.results import by_groups
from lsce.results.measure import Tensors, measure
from lsce.results.run import Run, details_of
from lsce.results.store import Store
from lsce.sweeps import cost
from lsce.training import precision
from lsce.training.spec import Evaluation, RunSpec, Task
from lsce.training.train import default_device, network_of, one_thread, train


class SweepFailed(RuntimeError):
    """A sweep that could not be finished; what it had trained is in the store."""


_dataset = functools.cache(data.decoded)


def perform(task: Task, store: Store, on_epoch: Callable[[int], None] = lambda epoch: None) -> None:
    """Do a task and save what it leaves; `on_epoch` is called with the number of epochs done.
    Raises ValueError if a run that it needs diverged."""
    started, device = time.perf_counter(), default_device()
    tensors: Tensors = {}
    if isinstance(task, Evaluation):
        run = _evaluate(task, store)
    else:
        run, tensors = _train(task, store, on_epoch)
    run.origin["seconds"]["total"] = time.perf_counter() - started
    run.origin.update(
        device=provenance.device_name(device.type),
        precision=precision.of(task.run.network, device),
        versions=provenance.versions(),
        commit=provenance.commit(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    store.save(run, tensors)
    if isinstance(task, Evaluation):
        for epoch in range(task.run.epochs):  # they have been done before
            on_epoch(epoch + 1)


def _train(spec: RunSpec, store: Store, on_epoch: Callable[[int], None]) -> tuple[Run, Tensors]:
    examples, watched = spec.entry.examples, "information" in spec.keep
    with train(
        spec,
        _dataset(spec.data),
        networks=functools.partial(_weights, store),
        monitors=lambda material: [information.monitor(material, examples)] if watched else [],
        on_epoch=on_epoch,
    ) as trained:
        return measure(trained, {"step": trained.step, "seconds": trained.seconds})


def _weights(store: Store, spec: RunSpec) -> dict[str, Tensor]:
    weights = store.tensors(spec, "weights")
    if not weights:
        raise ValueError(f"run {spec.id}, whose network it needs, diverged")
    return weights


def _evaluate(task: Evaluation, store: Store) -> Run:
    status, origin = store.load(task.run).status, {"seconds": dict[str, float]()}
    if status == "diverged":
        return Run(task, status, origin)
    device = default_device()
    network, source = (
        network_of(spec, _weights(store, spec), device) for spec in (task.run, task.source)
    )
    test = _dataset(task.run.data).test
    images, labels = test.images.to(device), test.labels.to(device)
    with one_thread(device), threadpool_limits(1):
        scalars, details, samples = robustness.examine(
            network, source, images, labels, task.protocol, task.seed
        )
    run = Run(task, status, origin, scalars, samples=samples, details=details_of(details))
    by_groups.of_evaluation(run, task.protocol, test.labels)
    return run


#: Where a process puts the id of a task for each epoch that is done.
_epochs: Any = None


def _start_process(epochs: Any) -> None:
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
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 2**30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def _perform_in_process(task: Task, store: Store) -> None:
    perform(task, store, lambda epoch: _epochs.put(task.id))


class Workers:
    """Processes on a CPU, threads on a GPU."""

    def __init__(self, count: int, *, processes: bool):
        self.count, self._processes = count, processes
        self._stopped = threading.Event()
        self._epochs: Any = queue.SimpleQueue()
        self._pool: Executor = ThreadPoolExecutor(count)
        if processes:
            context = multiprocessing.get_context("spawn")
            self._epochs = context.Queue()
            self._pool = ProcessPoolExecutor(count, context, _start_process, (self._epochs,))

    def speed(self, spec: RunSpec) -> cost.Speed:
        """`cost.speed` with all workers busy at once: mean times, and the sum of their memory."""
        speeds = list(self._pool.map(cost.speed, [spec] * self.count))
        training, evaluation, memory = (sum(column) for column in zip(*speeds, strict=True))
        return cost.Speed(training / self.count, evaluation / self.count, int(memory))

    def submit(self, task: Task, store: Store) -> "Future[None]":
        if self._processes:
            return self._pool.submit(_perform_in_process, task, store)

        def on_epoch(epoch: int) -> None:
            if self._stopped.is_set():
                raise SweepFailed("the sweep was stopped")
            self._epochs.put(task.id)

        return self._pool.submit(perform, task, store, on_epoch)

    def finished_epochs(self) -> Iterator[str]:
        """Ids of tasks, one for each epoch finished since the last call."""
        while True:
            try:
                yield self._epochs.get_nowait()
            except queue.Empty:
                return

    def close(self, *, stop: bool) -> None:
        """Take no more tasks; with `stop` end the running ones, processes at once, threads after
        their epoch."""
        if stop:
            self._stopped.set()
        if stop and isinstance(self._pool, ProcessPoolExecutor):
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(cancel_futures=True)
