"""The precision that a network trains in on a device.

On a CPU bfloat16 pays only with instructions for it and in networks so wide that multiplications
take most of the time. So both are timed, once.
"""

import json
import time
from typing import Literal

import torch
from torch.nn import functional as F

from lsce import data
from lsce.machine import paths, provenance
from lsce.training import networks

Precision = Literal["bf16", "float32"]

#: How many times as fast bfloat16 has to be on a CPU: enough for a second timing to choose alike.
PAYS = 1.2

#: Below `paths.CACHE`: device and version of torch → network → images a second in each precision.
KEPT = "precision.json"

#: Multiplications of a timed forward pass, and the fewest images that it has.
STEP, FEWEST = 4e9, 16
ROUNDS = 4


def of(network: str, device: torch.device) -> Precision:
    """The precision of a network, one of `lsce.training.networks.NETWORKS`, on a device.

    On CUDA "bf16" where the device has it. On a CPU that has it the first call times the network,
    for a few seconds, and keeps the timing below `lsce.machine.paths.CACHE`.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if provenance.fast_bfloat16() is None:
        return "float32"
    machine = f"{provenance.device_name('cpu')}, torch {torch.__version__}"
    kept = _kept()
    if network not in kept.get(machine, {}):
        rates = measure(network)
        kept = _kept()  # to which another process may have added
        kept.setdefault(machine, {}).setdefault(network, rates)
        file = paths.CACHE / KEPT
        file.parent.mkdir(parents=True, exist_ok=True)
        paths.beside(file).write_text(json.dumps(kept, indent=1), encoding="utf-8")
        paths.beside(file).replace(file)
    rates = kept[machine][network]
    return "bf16" if rates["bf16"] >= PAYS * rates["float32"] else "float32"


def _kept() -> dict[str, dict[str, dict[Precision, float]]]:
    try:
        return dict(json.loads((paths.CACHE / KEPT).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}  # none yet, or damaged: then it is measured again


def autocast(network: networks.ImageClassifier, device: torch.device) -> torch.autocast:
    """bfloat16 autocast if that is the network's precision, else nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=network.precision == "bf16")


def measure(name: str) -> dict[Precision, float]:
    """Images that one thread of this CPU trains on in a second of its own time."""
    usual = data.entry("cifar-100")
    cost = networks.multiply_adds(name, usual.num_classes, usual.pixels)
    images = int(min(128, max(FEWEST, STEP / cost)))
    with torch.random.fork_rng(devices=[]):
        network = networks.build(name, usual.num_classes).to(memory_format=torch.channels_last)
        x = torch.rand(images, 3, usual.pixels, usual.pixels)
    x, y = x.to(memory_format=torch.channels_last), torch.zeros(images, dtype=torch.int64)
    seconds: dict[Precision, list[float]] = {"bf16": [], "float32": []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(ROUNDS):  # in turns, the first to warm up
            for precision, timings in seconds.items():
                with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                    start = time.thread_time()
                    F.cross_entropy(network(x), y).backward()
                    timings.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return {precision: images / min(timings[1:]) for precision, timings in seconds.items()}
