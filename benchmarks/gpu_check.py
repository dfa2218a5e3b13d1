"""`make gpu-check`: is training on this GPU right, and how fast? Within three minutes.

    python benchmarks/gpu_check.py [--device cpu] [--networks NAME ...] [--seconds 60] [--out FILE]

Compares the losses and every network, forward and backward, with the CPU in float64; eager,
compiled and captured steps with one another, step by step, and captured ones of methods whose
losses change between epochs or need more than logits; times training and says which share of the
device's matrix rate it reaches and how much memory it takes; then records for a minute, reads what
it recorded and trains a run of it again. Each check goes on when one before it fails. The JSON file
has all numbers; the exit status is 1 if a check failed. `--device cpu` rehearses it.
"""

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_training import flops_per_image, matrix_rate, synchronize
from run import slug
from torch import Tensor

from lsce import data
from lsce.commands import record
from lsce.losses import LabelSmoothingCrossEntropy, alternatives
from lsce.machine import paths, provenance
from lsce.results import recorded
from lsce.results.measure import measure
from lsce.studies.profiles import Profile
from lsce.sweeps import sweep
from lsce.training import networks, precision
from lsce.training.methods import (
    MaxSup,
    Method,
    OnlineSmoothing,
    Smoothing,
    TrainingLabels,
    ZipfLS,
)
from lsce.training.spec import Recipe
from lsce.training.step import Trainer
from lsce.training.train import train

#: What may differ, relative to the largest value: results in float64, and a step's float32 loss.
EXACT, STEPWISE = 1e-9, 2e-3
STEPS, BATCH = 12, 128
#: What a captured step has to read anew in each epoch, and what takes more than the logits.
METHODS = (MaxSup(weight=0.1, final_weight=0.9), OnlineSmoothing(alpha=0.5), ZipfLS(weight=0.1))
#: Seconds that the throughput of a network is measured for, and images a batch.
TIMED, LARGE = 2.0, 512

Found = dict[str, Any]


def difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest value of its tensor."""
    pairs = zip(ours, theirs, strict=True)
    return max(
        ((a.cpu() - b.cpu()).abs().max() / b.abs().max().clamp_min(1e-12).cpu()).item()
        for a, b in pairs
    )


def loss(device: torch.device) -> Found:
    """Losses and their gradients in float64, beside the CPU's."""
    torch.manual_seed(0)
    logits, labels = 3 * torch.randn(64, 100, dtype=torch.float64), torch.randint(0, 100, (64,))
    shares, weights = torch.rand(64, 100, dtype=torch.float64).softmax(1), torch.rand(100) + 0.5
    criteria = {
        f"ε = {epsilon}, {convention}": (
            LabelSmoothingCrossEntropy(epsilon, convention=convention),
            labels,
        )
        for epsilon in (0.0, 0.1, 1.0)
        for convention in ("exclude-true", "include-true")
    }
    criteria["class weights"] = LabelSmoothingCrossEntropy(0.1, class_weights=weights), labels
    criteria["probabilities"] = LabelSmoothingCrossEntropy(0.1), shares
    others = {
        "ε = −0.4": alternatives.GeneralizedLabelSmoothing(-0.4, "exclude-true"),
        "MaxSup": alternatives.MaxSup(0.2),
        "logit penalty": alternatives.LogitPenalty(0.01),
        "MbLS": alternatives.MbLS(3.0),
    }
    criteria |= {name: (criterion, labels) for name, criterion in others.items()}

    def results(criterion: torch.nn.Module, targets: Tensor, where: torch.device) -> list[Tensor]:
        x = logits.to(where).detach().requires_grad_()
        value = copy.deepcopy(criterion).to(where)(x, targets.to(where))
        return [value.detach(), *torch.autograd.grad(value, x)]

    return {
        name: difference(results(*case, device), results(*case, torch.device("cpu")))
        for name, case in criteria.items()
    }


def network(name: str, device: torch.device) -> Found:
    """A network's loss and gradients in float64 beside the CPU's, and how far its own precision is
    from them."""
    torch.manual_seed(0)
    reference = networks.build(name, 100).double()
    images, labels = torch.rand(4, 3, 32, 32, dtype=torch.float64), torch.randint(0, 100, (4,))

    def results(where: torch.device, dtype: torch.dtype, low: bool = False) -> list[Tensor]:
        here = copy.deepcopy(reference).to(where, dtype, memory_format=torch.channels_last)
        with torch.autocast(where.type, torch.bfloat16, enabled=low):
            logits = here(images.to(where, dtype))
        value = torch.nn.functional.cross_entropy(logits, labels.to(where))
        grads = torch.autograd.grad(value, list(here.parameters()))
        return [value.detach().double(), *(grad.double() for grad in grads)]

    exact = results(torch.device("cpu"), torch.float64)
    used = precision.of(name, device)
    low = results(device, torch.float32, used == "bf16")[0]
    return {
        "float64": difference(results(device, torch.float64), exact),
        f"loss in {used}": difference([low], exact[:1]),
    }


def batches(count: int, size: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    images = torch.rand(count, size, 3, 32, 32).to(device)
    labels = torch.randint(0, 100, (count, size), device=device)
    return [
        (x.contiguous(memory_format=torch.channels_last), y)
        for x, y in zip(images, labels, strict=True)
    ]


def steps(
    name: str,
    device: torch.device,
    method: Method = Smoothing(epsilon=0.1),
    ways: Sequence[str] = ("eager", "compiled", "captured"),
) -> Found:
    """The losses of captured and of compiled steps in float32, in two epochs, beside those of eager
    ones."""
    given = batches(STEPS, BATCH, device)
    losses: dict[str, list[float]] = {}
    found: Found = {}
    for way in ways:
        captured = way == "captured"
        trainer = Trainer(name, 100, device, compiled=way != "eager", captured=captured)
        trainer.network.precision = "float32"  # and not TF32, which cuDNN would take
        torch.backends.cudnn.allow_tf32 = False
        criterion = begin(trainer, len(given), BATCH, method)
        losses[way] = []
        with trainer.stream():
            for step, (images, labels) in enumerate(given):
                if step in (0, STEPS // 2):
                    method.begin_epoch(criterion, int(step > 0), 2)
                before = trainer.totals[0].item()
                trainer.step(images, labels)
                losses[way].append(trainer.totals[0].item() - before)
        found[way] = {"losses": losses[way], "mode": trainer.mode, "fallbacks": trainer.fallbacks}
        pairs = zip(losses[way], losses["eager"], strict=True)
        found[way]["difference"] = max(abs(a - b) / b for a, b in pairs)
    return found


def begin(
    trainer: Trainer, count: int, size: int, method: Method = Smoothing(epsilon=0.1)
) -> torch.nn.Module:
    """The loss that a trainer got ready for."""
    recipe = Recipe(peak_learning_rate=0.05, batch_size=size)
    criterion = method.criterion(TrainingLabels(torch.arange(100), 100, None)).to(trainer.device)
    given: Found = dict(steps=count, batch_size=size, pixels=32, seed=0, local=method.local)
    with trainer.stream():
        trainer.begin(recipe, criterion, **given)
    return criterion


def throughput(name: str, device: torch.device, size: int, seconds: float) -> Found:
    """Images a second of training as runs do it, memory, and the share of the matrix rate."""
    started = time.perf_counter()
    trainer = Trainer(name, 100, device)
    begin(trainer, 1_000_000, size)
    ((images, labels),) = batches(1, size, device)
    with trainer.stream():
        trainer.step(images, labels)
        synchronize(device)
        ready, count = time.perf_counter(), 0
        while time.perf_counter() < ready + seconds:
            for _ in range(5):
                trainer.step(images, labels)
            synchronize(device)
            count += 5 * size
        rate = count / (time.perf_counter() - ready)
    used = trainer.network.precision
    found = {"images a second": rate, "mode": trainer.mode, "precision": used}
    found |= {"fallbacks": trainer.fallbacks, "seconds to be ready": ready - started}
    found["share of the matrix rate"] = rate * flops_per_image(name) / matrix_rate(device, used)
    if device.type == "cuda":
        found["memory, GiB"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found


def recording(seconds: float, source: Path | None) -> Found:
    """Records runs of the smallest profile, reads them back, and trains one of them again."""
    data.load("built-in")
    with tempfile.TemporaryDirectory(prefix="lsce-gpu-check-") as folder:
        out, runs = Path(folder) / "out", Path(folder) / "runs"
        usual, paths.RUNS = paths.RUNS, runs
        try:
            record.record("smoke", seconds, out, source)
            found = list(recorded.Recorded(out))
            for run in found:
                recorded.check(run)
        finally:
            paths.RUNS = usual
    once = next((run for run in found if run.task is run.spec and not run.spec.needs), None)
    if once is None:
        return {"runs": 0, "difference": float("inf")}
    with train(once.spec, data.decoded(once.spec.data)) as trained:
        again, _ = measure(trained, {})
    before, after = once.scalars["test_nll"], again.scalars["test_nll"]
    return {"runs": len(found), "difference": float(abs(after - before) / before)}


def passed(found: Found) -> dict[str, bool]:
    """Which checks say that all is right."""
    right = {"loss": max(found["loss"].values()) < EXACT} if "loss" in found else {}
    for name, numbers in found.get("networks", {}).items():
        right[f"network {name}"] = numbers["float64"] < EXACT
    compared = {"": found.get("steps", {})}
    compared |= {f", {words}": numbers for words, numbers in found.get("methods", {}).items()}
    for words, ways in compared.items():
        for way, numbers in ways.items():
            as_wanted = numbers["mode"] == way and numbers["difference"] < STEPWISE
            right[f"{way} steps{words}"] = as_wanted
    if "recording" in found:
        right["recording"] = found["recording"]["difference"] < 0.1
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--networks", nargs="+", choices=networks.NETWORKS)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the recording")
    parser.add_argument("--data", type=Path, help="folder that holds CIFAR-100")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no GPU here that PyTorch can use; --device cpu rehearses the check.")
    device = torch.device(given.device)
    names = given.networks or sorted(
        {each.task.run.network for each in record.wanted(Profile("gpu")).values()}
    )
    small = device.type == "cpu"
    found: Found = {
        "device": provenance.device_name(device.type),
        "versions": provenance.versions(),
    }
    found["commit"] = provenance.commit()
    out = given.out or paths.BENCHMARKS / f"gpu-check-{slug(found['device'], sweep.cores())}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.is_dir():  # now, and not after three minutes
        sys.exit(f"lsce: --out is {out}, a folder; it must be a file for the JSON")
    checks: dict[tuple[str, ...], Callable[[], Any]] = {("loss",): lambda: loss(device)}
    checks |= {("networks", name): lambda name=name: network(name, device) for name in names}
    checks[("steps",)] = lambda: steps(names[0], device)
    smallest = min(names, key=lambda name: networks.parameters(name, 100))
    checks |= {
        ("methods", method.words): lambda method=method: steps(
            smallest, device, method, ("eager", "captured")
        )
        for method in METHODS
    }
    size, seconds = (32, 0.2) if small else (LARGE, TIMED)
    checks |= {
        ("throughput", name): lambda name=name: throughput(name, device, size, seconds)
        for name in names
    }
    checks[("recording",)] = lambda: recording(given.seconds, given.data)
    failed: dict[str, str] = {}
    for place, check in checks.items():
        start = time.perf_counter()
        try:
            value = check()
        except Exception as error:  # the others still say something
            failed[" ".join(place)] = f"{type(error).__name__}: {error}"
            print(f"{' '.join(place)}: {failed[' '.join(place)]}", flush=True)
            continue
        into = found
        for part in place[:-1]:
            into = into.setdefault(part, {})
        into[place[-1]] = value
        print(f"{' '.join(place)} ({time.perf_counter() - start:.1f} s): {value}", flush=True)
    found |= {"failed": failed, "passed": passed(found)}
    out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    wrong = [*failed, *(name for name, right in found["passed"].items() if not right)]
    print(f"{out}: {'wrong: ' + ', '.join(wrong) if wrong else 'all is right'}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
