"""Many small runs: how the runs an hour grow with how many go on at a time, and a sweep's overhead.

The overhead is the workers' time that is neither training nor evaluation: their start, the short
timing, loading the data, writing records, and waiting for the last run.
"""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from pairing import Row, compare, take_turns

from lsce import data
from lsce.results.store import Store
from lsce.sweeps import sweep
from lsce.training.methods import Smoothing
from lsce.training.spec import Balanced, Recipe, RunSpec
from lsce.training.train import default_device

#: A sweep may take this long to its first training step.
START_LIMIT = 5.0


def a_run(*, quick: bool) -> RunSpec:
    """A run of the kind that this machine's profile has most of."""
    network, images, monitored, epochs, recipe = "resnet6", 4_500, 1_000, 20, Recipe()
    if default_device().type == "cuda":
        recipe = Recipe(peak_learning_rate=0.1)
        network, images, monitored, epochs = "resnet18", 45_000, 5_000, 6
    elif quick:
        images, monitored, epochs = 500, 100, 1
    return RunSpec(
        data="cifar-100" if data.locate() and not quick else "built-in",
        sample=Balanced(train_size=images),
        method=Smoothing(epsilon=0.1),
        network=network,
        recipe=recipe,
        epochs=epochs,
        monitor_size=monitored,
        seed=0,
    )


def swept(spec: RunSpec, runs: int, workers: int) -> tuple[float, float, float]:
    """Seconds of a sweep: wall-clock, before its first training step, and the workers' together
    that went into training and evaluation."""
    specs = [spec.changed(seed=seed) for seed in range(runs)]
    with tempfile.TemporaryDirectory() as folder:
        store, start = Store(Path(folder)), time.perf_counter()
        todo = sweep.plan(specs, store, workers)
        ready = time.perf_counter() - start
        sweep.execute(todo, store)
        wall = time.perf_counter() - start
        return wall, ready, sum(store.load(s).origin["seconds"]["total"] for s in specs)


def rows(*, quick: bool) -> Iterable[Row]:
    spec = a_run(quick=quick)
    data.load(spec.data)  # decoded before the clock starts
    on_gpu = default_device().type == "cuda"
    counts = [1, 2, 4] if on_gpu else [1, sweep.cores()]
    most, runs = counts[-1], 2 * counts[-1]
    short = spec.changed(epochs=max(1, spec.epochs // 4))
    starts = []

    def runs_per_hour(workers: int) -> float:
        wall, ready, _ = swept(short, runs, workers)
        starts.append(ready)
        return 3600 * runs / wall

    methods = {f"{count} at a time": lambda count=count: runs_per_hour(count) for count in counts}
    values = take_turns(methods, turns=1 if quick else 2, warmups=0)
    values["lsce"] = values.pop(f"{most} at a time")
    case = f"{spec.network}, {most} at a time"
    yield from compare(
        values, benchmark="many small runs", case=case, quantity="runs/hour", better="higher"
    )
    lower = {"case": case, "quantity": "time (s)", "better": "lower"}
    limit = {"lsce": starts, "the limit": [START_LIMIT] * len(starts)}
    yield from compare(limit, benchmark="start to the first step", **lower)
    runs = most if quick else 12 * most
    wall, _, busy = swept(spec, runs, most)
    share = {"lsce": [wall * most - busy], "training and evaluation": [busy]}
    yield from compare(share, benchmark=f"overhead of a sweep of {runs} runs", **lower)
