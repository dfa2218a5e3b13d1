"""The precision that a network trains in on a device: measured once, and kept.

On a CPU bfloat16 pays where the processor multiplies it faster than float32, and only in networks
wide enough that the multiplications are what takes the time. So both are timed.
"""

import json
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional as F

from lsce import data
from lsce.machine import paths, provenance
from lsce.training import networks

Precision = Literal["bf16", "float32"]

#: How many times as fast bfloat16 has to be on a CPU. Where it hardly matters, a second timing
#: should choose the same.
PAYS = 1.2

#: Below `paths.CACHE`: device and version of torch → network → images a second in each precision.
KEPT = "precision.json"

#: Multiplications of a timed step, forward pass only, and the least images that it has.
STEP, FEWEST = 4e9, 16
ROUNDS = 4


def of(network: str, device: torch.device) -> Precision:
    """The precision of a network, one of `lsce.training.networks.NETWORKS`, on a device.

    On CUDA it is "bf16" where the device has it. On a CPU the first call times the network, for a
    few seconds, and keeps what it found below `lsce.machine.paths.CACHE`.
    """
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if fast else "float32"
    if provenance.fast_bfloat16() is None:
        return "float32"
    rates = _kept().get(_machine(), {}).get(network) or _keep(network, measure(network))
    return "bf16" if rates["bf16"] >= PAYS * rates["float32"] else "float32"


def autocast(network: networks.ImageClassifier, device: torch.device) -> torch.autocast:
    """bfloat16 autocast if that is the network's precision, else nothing."""
    enabled = network.precision == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def measure(name: str) -> dict[Precision, float]:
    """Images that one thread of this CPU trains on in a second, in each precision.

    Counted in the thread's own time, so that other work on the machine changes little.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _rates(name)
    finally:
        torch.set_num_threads(threads)


def _rates(name: str) -> dict[Precision, float]:
    usual = data.entry("cifar-100")
    size = usual.num_classes, usual.pixels
    images = int(min(128, max(FEWEST, STEP / networks.multiply_adds(name, *size))))
    with torch.random.fork_rng(devices=[]):
        network = networks.build(name, usual.num_classes).to(memory_format=torch.channels_last)
        x = torch.rand(images, 3, usual.pixels, usual.pixels)
        x = x.to(memory_format=torch.channels_last)
    y = torch.zeros(images, dtype=torch.int64)
    seconds: dict[Precision, list[float]] = {"bf16": [], "float32": []}
    for _ in range(ROUNDS):  # in turns, the first to warm up
        for precision, found in seconds.items():
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                found.append(_timed(lambda: F.cross_entropy(network(x), y).backward()))
    return {precision: images / min(found[1:]) for precision, found in seconds.items()}


def _timed(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def _machine() -> str:
    return f"{provenance.device_name('cpu')}, torch {torch.__version__}"


def _kept() -> dict[str, dict[str, dict[Precision, float]]]:
    try:
        kept: dict[str, dict[str, dict[Precision, float]]] = json.loads(
            (paths.CACHE / KEPT).read_text(encoding="utf-8")
        )
        return kept
    except (OSError, ValueError):
        return {}  # none yet, or damaged: then it is measured again


def _keep(network: str, rates: dict[Precision, float]) -> dict[Precision, float]:
    kept = _kept()
    rates = kept.setdefault(_machine(), {}).setdefault(network, rates)  # another process was first
    file = paths.CACHE / KEPT
    file.parent.mkdir(parents=True, exist_ok=True)
    paths.beside(file).write_text(json.dumps(kept, indent=1), encoding="utf-8")
    paths.beside(file).replace(file)
    return rates
