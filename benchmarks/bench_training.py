"""Training beside the peers' loops: images/s, time to the same accuracy, share of the matrix rate.

On a CPU ours is what a sweep does: as many one-thread processes as there are cores, each training
its own run; its rate is the sum over them and a run's time is the wall-clock time divided by their
number. The peers use all cores for one run, as they do.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import peers
import torch
from pairing import Row, compare, take_turns
from torch.utils.flop_counter import FlopCounterMode

from lsce import data
from lsce.losses import LabelSmoothingCrossEntropy
from lsce.sweeps import sweep, workers
from lsce.training import networks, precision, train
from lsce.training.batches import Augmenter, evaluate
from lsce.training.spec import Recipe
from lsce.training.step import Trainer

EPSILON = 0.1
#: Seconds that warm-up, compilation and capture may take, once a sweep.
WARM_UP_LIMIT = 30.0


@dataclass(frozen=True)
class Job:
    """A training that every method does; `images` of the training split, for `epochs`."""

    data_name: str
    network: str
    images: int
    epochs: int
    recipe: Recipe

    def split(self) -> tuple[torch.Tensor, torch.Tensor]:
        part = data.decoded(self.data_name).train
        return part.images[: self.images].clone(), part.labels[: self.images].clone()


class Ours:
    """`lsce`'s loop, with the interface of `peers.Loop`."""

    def __init__(self, job: Job, seed: int, device: torch.device):
        images, labels = (part.to(device) for part in job.split())
        self.device = device
        self.batches = Augmenter(images, labels, job.recipe.batch_size, seed)
        self.trainer = Trainer(job.network, peers.NUM_CLASSES, device)
        self.network = self.trainer.network
        with self.trainer.stream():
            self.trainer.begin(
                job.recipe,
                LabelSmoothingCrossEntropy(EPSILON),
                steps=job.epochs * self.batches.steps(),
                batch_size=self.batches.batch_size,
                pixels=self.batches.size,
                seed=seed,
            )

    def epoch(self) -> None:
        with self.trainer.stream():
            train.train_epoch(self.trainer, self.batches)

    def close(self) -> None:
        """Nothing is left to end: the batches come from this process."""


# --- processes of one thread ------------------------------------------------------------------


def _start(job: Job) -> None:
    global _ours
    workers.keep_freed_memory()
    torch.set_num_threads(1)
    _ours = Ours(job, 0, torch.device("cpu"))


def _epoch(_: int) -> None:
    _ours.epoch()


def _multiply(_: int) -> float:
    return matrix_rate(torch.device("cpu"), _ours.network.precision)


def _pool(job: Job) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        sweep.cores(), mp_context=get_context("spawn"), initializer=_start, initargs=(job,)
    )


# --- what is measured -------------------------------------------------------------------------


def test_accuracy(network: torch.nn.Module, job: Job, device: torch.device) -> float:
    test = data.decoded(job.data_name).test
    logits, _ = evaluate(network, test.images.to(device))
    return (logits.argmax(1).cpu() == test.labels).double().mean().item()


def matrix_rate(device: torch.device, precision: precision.Precision) -> float:
    """FLOP/s of a large matrix product."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    size, repeats = (8192, 50) if device.type == "cuda" else (1024, 20)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for repeat in range(repeats + 3):
        if repeat == 3:
            synchronize(device)
            start = time.perf_counter()
        a @ b
    synchronize(device)
    return 2 * size**3 * repeats / (time.perf_counter() - start)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def flops_per_image(name: str) -> int:
    """Floating-point operations of a forward and backward pass of one image."""
    network = networks.build(name, peers.NUM_CLASSES)
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(2, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() // 2


def peer_loops(job: Job, seed: int, device: torch.device) -> dict[str, Callable[[], peers.Loop]]:
    """Each peer at its best sensible setting; AMP where it is faster."""
    images, labels = job.split()
    on_cpu = device.type == "cpu"
    common = {
        "epsilon": EPSILON, "network": job.network, "epochs": job.epochs, "seed": seed,
        "device": device, "recipe": job.recipe,
        # On few cores the network's own threads leave nothing for loader processes.
        "workers": 0 if on_cpu and sweep.cores() <= 2 else min(16, sweep.cores()),
    }  # fmt: skip
    style = functools.partial(peers.torchvision_style, images, labels, **common)
    loops = {"torchvision's loop, float32": functools.partial(style, amp=False)}
    if precision.of(job.network, device) == "bf16":
        loops["torchvision's loop, AMP"] = functools.partial(style, amp=True)
    loops["popular loop, float32"] = functools.partial(
        peers.popular_style, images, labels, **common
    )
    with contextlib.suppress(ImportError):
        import timm  # noqa: F401

        loops["timm's loader, loss, optimiser"] = functools.partial(
            peers.timm_style, images, labels, **common
        )
    return loops


def throughput(job: Job, device: torch.device, turns: int) -> dict[str, list[float]]:
    """Images/s of each method, an epoch a turn; and the matrix rate, FLOP/s, in the same turns."""
    loops = {name: make() for name, make in peer_loops(job, 0, device).items()}

    def rate(epoch: Callable[[], object], images: int) -> float:
        start = time.perf_counter()
        epoch()
        return images / (time.perf_counter() - start)

    methods: dict[str, Callable[[], float]] = {
        name: functools.partial(rate, loop.epoch, loop.images) for name, loop in loops.items()
    }
    an_epoch = job.images // job.recipe.batch_size * job.recipe.batch_size
    with contextlib.ExitStack() as stack:
        for loop in loops.values():
            stack.callback(loop.close)
        if device.type == "cuda":
            ours = Ours(job, 0, device)
            methods["lsce"] = functools.partial(rate, ours.epoch, an_epoch)
            methods["matrix product"] = lambda: matrix_rate(device, ours.network.precision)
        else:
            pool, every = stack.enter_context(_pool(job)), range(sweep.cores())
            methods["lsce"] = lambda: rate(
                lambda: list(pool.map(_epoch, every)), len(every) * an_epoch
            )
            methods["matrix product"] = lambda: sum(pool.map(_multiply, every))
        return take_turns(methods, turns=turns)


def warm_up_rows(job: Job, device: torch.device) -> Iterable[Row]:
    """What the first run of a shape waits for: warm-up, compilation and capture."""
    start = time.perf_counter()
    Ours(job, 0, device)
    synchronize(device)
    seconds = {"lsce": [time.perf_counter() - start], "the limit": [WARM_UP_LIMIT]}
    return compare(
        seconds, benchmark="warm-up", case=job.network, quantity="time (s)", better="lower"
    )


def throughput_rows(job: Job, device: torch.device, turns: int) -> Iterator[Row]:
    values = throughput(job, device, turns)
    matrix = values.pop("matrix product")
    case = f"{job.network}, batch {job.recipe.batch_size}"
    yield from compare(
        values, benchmark="training throughput", case=case, quantity="images/s", better="higher"
    )
    work = flops_per_image(job.network)
    reached = {"lsce": [work * rate for rate in values["lsce"]], "matrix product": matrix}
    yield from compare(
        reached, benchmark="share of the matrix rate", case=case, quantity="FLOP/s", better="higher"
    )


def whole_run(job: Job, device: torch.device, make: Callable) -> tuple[float, float]:
    """Seconds of a run, all that it sets up included, and its test accuracy."""
    start = time.perf_counter()
    loop = make()
    for _ in range(job.epochs):
        loop.epoch()
    seconds = time.perf_counter() - start
    accuracy = test_accuracy(loop.network, job, device)
    loop.close()
    return seconds, accuracy


def whole_runs(job: Job, device: torch.device, seed: int) -> dict[str, tuple[float, float]]:
    """`whole_run` of each method."""
    loops = peer_loops(job, seed, device)
    found = {name: whole_run(job, device, make) for name, make in loops.items()}
    if device.type == "cuda":
        return found | {"lsce": whole_run(job, device, lambda: Ours(job, seed, device))}
    count = sweep.cores()
    ours = [functools.partial(Ours, job, seed + 1000 * i, device) for i in range(count)]
    with _pool(job) as pool:
        runs = list(pool.map(functools.partial(whole_run, job, device), ours))
    return found | {"lsce": (max(seconds for seconds, _ in runs) / count, runs[0][1])}


def accuracy_rows(job: Job, device: torch.device, seeds: int) -> Iterator[Row]:
    runs = [whole_runs(job, device, seed) for seed in range(seeds)]
    case = f"{job.network}, {job.images:,} images × {job.epochs} epochs"
    for part, quantity, better in ((0, "time (s)", "lower"), (1, "test accuracy", "higher")):
        values = {name: [run[name][part] for run in runs] for name in runs[0]}
        yield from compare(
            values,
            benchmark="whole runs by one recipe",
            case=case,
            quantity=quantity,
            better=better,
        )


def rows(*, quick: bool) -> Iterable[Row]:
    device = train.default_device()
    name = "cifar-100" if data.locate() and not quick else "built-in"
    data.load(name)
    job = functools.partial(Job, name)
    if device.type == "cuda":
        recipe = Recipe(batch_size=512, peak_learning_rate=0.4)
        yield from warm_up_rows(job("resnet18", 45_000, 20, recipe), device)
        yield from throughput_rows(job("resnet18", 45_000, 20, recipe), device, turns=3)
        yield from accuracy_rows(job("resnet18", 45_000, 6, recipe), device, seeds=3)
    elif quick:
        yield from throughput_rows(job("resnet6", 512, 5, Recipe()), device, turns=1)
        yield from accuracy_rows(job("resnet6", 512, 1, Recipe()), device, seeds=1)
    else:
        yield from throughput_rows(job("resnet6", 9_000, 20, Recipe()), device, turns=5)
        yield from throughput_rows(job("resnet18", 256, 20, Recipe()), device, turns=3)
        yield from accuracy_rows(job("resnet6", 45_000, 2, Recipe()), device, seeds=3)
