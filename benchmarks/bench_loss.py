"""Time and peak memory of the loss, forward and backward, against PyTorch's and the textbook's.

    python benchmarks/bench_loss.py [--quick] [--csv FILE]

All methods compute the same loss (exclude-true, ε = 0.1) and are checked to agree. They take turns
(A B C A B C ...), so that a busy machine slows all alike; times are the median and the quartiles of
single calls. Peak memory is what a call allocates at most beyond its inputs, the gradient included.
Ratios are to `torch.nn.functional.cross_entropy`, which computes bfloat16 in bfloat16; for
bfloat16, "cross_entropy, float32" is what autocast makes of it, at the precision of ours.
Set OMP_NUM_THREADS to choose the number of threads.
"""

import argparse
import csv
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # read at import: the profiler is chatty

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lsce.losses import LabelSmoothingCrossEntropy, convert_epsilon

EPSILON = 0.1
SHAPES = [(512, 100), (512, 1000), (256, 50_000)]
CUDA_SHAPES = [(4096, 50_257)]
COLUMNS = [
    "device", "samples", "classes", "dtype", "method", "calls",
    "median_ms", "lower_quartile_ms", "upper_quartile_ms", "time_ratio",
    "peak_mib", "peak_ratio",
]  # fmt: skip
Loss = Callable[[Tensor, Tensor], Tensor]


def textbook(preds: Tensor, targets: Tensor) -> Tensor:
    """Builds the N×C matrix of smoothed labels."""
    log_probs = F.log_softmax(preds, dim=1)
    smoothed = torch.full_like(log_probs, EPSILON / (preds.shape[1] - 1))
    smoothed.scatter_(1, targets.unsqueeze(1), 1 - EPSILON)
    return -(smoothed * log_probs).sum(1).mean()


def methods(num_classes: int, dtype: torch.dtype) -> dict[str, Loss]:
    share = convert_epsilon(EPSILON, num_classes, to="include-true")
    chosen: dict[str, Loss] = {
        "lsce": LabelSmoothingCrossEntropy(EPSILON),
        "cross_entropy": torch.nn.CrossEntropyLoss(label_smoothing=share),
        "textbook": textbook,
    }
    if dtype != torch.float32:
        torchs = chosen["cross_entropy"]
        chosen["cross_entropy, float32"] = lambda preds, targets: torchs(preds.float(), targets)
    return chosen


def step(loss: Loss, preds: Tensor, targets: Tensor) -> Tensor:
    """One forward and backward pass; returns the loss."""
    preds.grad = None
    value = loss(preds, targets)
    value.backward()
    return value.detach()


def check_agreement(losses: dict[str, Loss], preds: Tensor, targets: Tensor) -> None:
    values = {name: step(loss, preds, targets).float() for name, loss in losses.items()}
    tolerance = 1e-4 if preds.dtype == torch.float32 else 3e-2  # some of them stay in bfloat16
    for value in values.values():
        torch.testing.assert_close(value, values["lsce"], rtol=tolerance, atol=tolerance)


def timings(
    losses: dict[str, Loss], preds: Tensor, targets: Tensor, seconds: float
) -> dict[str, list[float]]:
    """Seconds of each call of each method, in turns, for about ``seconds`` (at least 5 turns)."""

    def timed(loss: Loss) -> float:
        start = time.perf_counter()
        step(loss, preds, targets)
        if preds.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for loss in losses.values():
        timed(loss)
    times: dict[str, list[float]] = {name: [] for name in losses}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["lsce"]) < 5:
        for name, loss in losses.items():
            times[name].append(timed(loss))
    return times


def peak_bytes(loss: Loss, preds: Tensor, targets: Tensor) -> int:
    """The most bytes allocated at once during a step, beyond those allocated before it."""
    preds.grad = None
    if preds.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, preds, targets)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(loss, preds, targets)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    allocations = [event for event in events if event["name"] == "[memory]"]
    held = peak = 0
    for event in sorted(allocations, key=lambda event: event["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def compare(
    shape: tuple[int, int], dtype: torch.dtype, device: str, seconds: float
) -> list[dict[str, object]]:
    """One row a method."""
    torch.manual_seed(0)
    preds = torch.randn(shape, dtype=dtype, device=device, requires_grad=True)
    targets = torch.randint(shape[1], shape[:1], device=device)
    losses = methods(shape[1], dtype)
    check_agreement(losses, preds, targets)
    times = timings(losses, preds, targets, seconds)
    peaks = {name: peak_bytes(loss, preds, targets) for name, loss in losses.items()}
    reference = statistics.median(times["cross_entropy"])
    rows = []
    for name in losses:
        lower, median, upper = statistics.quantiles(times[name], n=4)
        values = [
            device, *shape, str(dtype).removeprefix("torch."), name, len(times[name]),
            1e3 * median, 1e3 * lower, 1e3 * upper, median / reference,
            peaks[name] / 2**20, peaks[name] / peaks["cross_entropy"],
        ]  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 s a case instead of 8")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table here too")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shapes = SHAPES + (CUDA_SHAPES if device == "cuda" else [])
    threads = f"{torch.get_num_threads()} threads"
    hardware = torch.cuda.get_device_name() if device == "cuda" else threads
    print(f"torch {torch.__version__}, {device}, {hardware}")
    print(
        f"{'shape':>12}  {'dtype':<9} {'method':<23}{'median ms':>10} {'(quartiles)':>19}"
        f"{'ratio':>7}{'peak MiB':>10}{'ratio':>7}"
    )
    rows = []
    for shape in shapes:
        for dtype in (torch.float32, torch.bfloat16):
            for row in compare(shape, dtype, device, 1 if arguments.quick else 8):
                rows.append(row)
                quartiles = f"({row['lower_quartile_ms']:.3f}-{row['upper_quartile_ms']:.3f})"
                print(
                    f"{'{samples}x{classes}'.format(**row):>12}  {row['dtype']:<9} "
                    f"{row['method']:<23}{row['median_ms']:>10.3f} {quartiles:>19}"
                    f"{row['time_ratio']:>7.2f}{row['peak_mib']:>10.2f}{row['peak_ratio']:>7.2f}",
                    flush=True,
                )
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
