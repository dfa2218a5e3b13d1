"""`lsce verify`: retrain recorded runs and see whether they fall where repeated seeds say."""

import math
import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lsce import data
from lsce.judging import statistics
from lsce.machine.progress import duration
from lsce.results.recorded import Recorded
from lsce.results.run import Run
from lsce.results.store import Store
from lsce.sweeps import sweep
from lsce.training.spec import LongTail, NoisyLabels, RunSpec

#: What is compared, in words.
MEASURES = {
    "top1_error": "top-1 test error",
    "test_nll": "test NLL",
    "debiased_ce": "debiased calibration error",
    "temperature": "temperature",
}

#: Recorded seeds that a prediction needs: with three, everything falls into the widened intervals.
SEEDS = 5

#: The probability that any retrained run misses a range by chance.
LEVEL = 0.05


class Check(NamedTuple):
    """A measure of a retrained run: its value, the recorded one, the range expected, and whether
    the value lies inside."""

    measure: str
    value: float
    recorded: float
    low: float
    high: float
    holds: bool


def verify(count: int, draw: int, longest: float, source: Path | None) -> bool:
    """Retrain `count` recorded runs drawn at random and compare; whether all fall where expected.

    A value is expected within the prediction interval of one more run like those recorded with
    the same spec but for the seed. The intervals are widened (Bonferroni) so that faithful reruns
    miss any of them with a probability of at most `LEVEL`. `draw` seeds the draw, which leaves out
    runs with fewer than `SEEDS` recorded seeds and those expected to take more than `longest`
    seconds on this machine, and prints how many these are. Raises ValueError if none is left.
    """
    recorded = Recorded()  # in the order of their ids, so that `draw` alone decides
    runs = [run for run in recorded if isinstance(run.task, RunSpec)]
    repeats = repeated(runs)
    enough = {key for key, same in repeats.items() if len(same) >= SEEDS}
    eligible = [run for run in runs if not run.diverged and but_for_the_seed(run) in enough]
    if not eligible:
        raise ValueError(f"{recorded.folder} holds no run with {SEEDS} recorded seeds to verify")
    if any(run.spec.data == "cifar-100" for run in eligible):
        data.load("cifar-100", source)
    with tempfile.TemporaryDirectory(prefix="lsce-verify-") as scratch:
        store = Store(Path(scratch))
        plan = sweep.plan([run.spec for run in eligible], store)
        short = [run for run in eligible if plan.seconds[run.spec.id] <= longest]
        chosen = random.Random(draw).sample(short, min(count, len(short)))
        print(
            f"{len(runs)} runs are recorded; {len(runs) - len(eligible)} diverged or have fewer "
            f"than {SEEDS} seeds and {len(eligible) - len(short)} would take more than "
            f"{duration(longest)} here.\n"
            f"Retraining {len(chosen)} of the others, drawn with seed {draw}.",
            flush=True,
        )
        missing = sweep.with_needed([run.spec for run in chosen], store)
        sweep.execute(replace(plan, missing=missing), store)
        inside = 0
        for run in chosen:
            same = repeats[but_for_the_seed(run)]
            checks = compare(store.load(run.spec), run, same, len(chosen))
            _say(run.spec, checks)
            inside += all(check.holds for check in checks)
    print(f"{inside} of {len(chosen)} retrained runs fall where repeated seeds say they should")
    return inside == len(chosen)


def compare(again: Run, run: Run, repeats: Sequence[Run], runs: int) -> list[Check]:
    """Every measure of a run trained `again`, one of `runs` in all; NaN, never inside, if it
    diverged."""
    level = 1 - LEVEL / (runs * len(MEASURES))
    checks = []
    for measure in MEASURES:
        values = [repeat.scalars[measure] for repeat in repeats]
        low, high = statistics.prediction_interval(values, level)
        value = again.scalars.get(measure, math.nan)
        inside = low <= value <= high
        checks.append(Check(measure, value, run.scalars[measure], low, high, inside))
    return checks


def repeated(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs that completed, those together that differ in the seed alone."""
    groups = defaultdict(list)
    for run in runs:
        if not run.diverged:
            groups[but_for_the_seed(run)].append(run)
    return groups


def but_for_the_seed(run: Run) -> str:
    """The spec without its seed and without that of its teacher, which goes with it."""
    return re.sub(r'"seed":\d+', "", run.spec.model_dump_json())


def _say(spec: RunSpec, checks: Sequence[Check]) -> None:
    parts = [spec.network, f"{spec.images:,} images of {spec.data}", f"{spec.epochs} epochs"]
    if spec.classes < spec.entry.num_classes:
        parts.append(f"{spec.classes} of {spec.entry.num_classes} classes")
    if isinstance(spec.sample, LongTail):
        parts.append(f"long tail, imbalance {spec.sample.imbalance:g}")
    if isinstance(spec.labels, NoisyLabels):
        parts.append(f"{spec.labels.noise} noise of {spec.labels.rate:g}")
    parts += [spec.method.words, f"weight decay {spec.recipe.weight_decay:g}", f"seed {spec.seed}"]
    print(f"\n{spec.id}: {', '.join(parts)}")
    for check in checks:
        recorded = "the same" if check.value == check.recorded else f"{check.recorded:.4f}"
        print(
            f"  {MEASURES[check.measure]:<27} {check.value:.4f}, recorded {recorded}, expected "
            f"{check.low:.4f} to {check.high:.4f}: {'inside' if check.holds else 'OUTSIDE'}"
        )
