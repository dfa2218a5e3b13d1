"""Time and peak memory of the loss, forward and backward, against those that people use.

All of them compute the same loss (exclude-true, ε = 0.1) and are checked to agree. For bfloat16
logits ours computes in float32, the rivals in bfloat16. Peak memory is the most that a call
allocates at once beyond its inputs, the gradient included.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from pairing import Row, compare, take_turns
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lsce.losses import LabelSmoothingCrossEntropy, convert_epsilon

EPSILON = 0.1
SHAPES = ((512, 100), (512, 1000), (4096, 50_257))
DTYPES = (torch.float32, torch.bfloat16)
Loss = Callable[[Tensor, Tensor], Tensor]


def rows(*, quick: bool) -> Iterable[Row]:
    """Ours beside each rival at each shape and dtype; a 64th of the samples when ``quick``."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for samples, classes in SHAPES:
        for dtype in DTYPES:
            yield from _case(samples // 64 if quick else samples, classes, dtype, device, quick)


def _case(
    samples: int, classes: int, dtype: torch.dtype, device: str, quick: bool
) -> Iterable[Row]:
    torch.manual_seed(0)
    preds = torch.randn(samples, classes, dtype=dtype, device=device, requires_grad=True)
    targets = torch.randint(classes, (samples,), device=device)
    losses = _losses(classes)
    _check_agreement(losses, preds, targets)
    large = preds.numel() > 2**24
    calls = 1 if quick or (large and device == "cpu") else 50
    turns = 2 if quick else 3 if large else 15
    case = f"{samples}×{classes} {str(dtype).removeprefix('torch.')}"
    times = {name: _timer(loss, preds, targets, calls) for name, loss in losses.items()}
    peaks = {name: _peak_meter(loss, preds, targets) for name, loss in losses.items()}
    yield from compare(
        take_turns(times, turns=turns),
        benchmark="loss", case=case, quantity="time (s)", better="lower",
    )  # fmt: skip
    yield from compare(
        take_turns(peaks, turns=1, warmups=0),  # a count, the same at every turn
        benchmark="loss", case=case, quantity="peak memory (MiB)", better="lower",
    )  # fmt: skip


def _losses(classes: int) -> dict[str, Loss]:
    share = convert_epsilon(EPSILON, classes, to="include-true")
    losses = {
        "lsce": LabelSmoothingCrossEntropy(EPSILON),
        "cross_entropy": torch.nn.CrossEntropyLoss(label_smoothing=share),
        "textbook": _textbook,
    }
    with contextlib.suppress(ImportError):
        from timm.loss import LabelSmoothingCrossEntropy as Timms

        losses["timm"] = Timms(share)
    return losses


def _textbook(preds: Tensor, targets: Tensor) -> Tensor:
    """Builds the N×C matrix of smoothed labels."""
    log_probs = F.log_softmax(preds, dim=1)
    smoothed = torch.full_like(log_probs, EPSILON / (preds.shape[1] - 1))
    smoothed.scatter_(1, targets.unsqueeze(1), 1 - EPSILON)
    return -(smoothed * log_probs).sum(1).mean()


def _step(loss: Loss, preds: Tensor, targets: Tensor) -> Tensor:
    """One forward and backward pass; returns the loss."""
    preds.grad = None
    value = loss(preds, targets)
    value.backward()
    return value.detach()


def _check_agreement(losses: dict[str, Loss], preds: Tensor, targets: Tensor) -> None:
    """Loss and gradient of each are ours, within what the rivals' precision allows."""
    exact = preds.dtype == torch.float32
    value, gradient = _step(losses["lsce"], preds, targets), preds.grad
    for name, loss in losses.items():
        theirs = _step(loss, preds, targets).float()
        tolerance = 1e-4 if exact else 3e-2
        torch.testing.assert_close(
            theirs, value, rtol=tolerance, atol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
        error = (preds.grad - gradient).norm() / gradient.norm()
        assert error < tolerance, f"{name}: the gradient differs by {error:.1e} of its norm"


def _timer(loss: Loss, preds: Tensor, targets: Tensor, calls: int) -> Callable[[], float]:
    """A function that returns the seconds a call takes, the mean over ``calls`` of them."""

    def timed() -> float:
        _wait(preds)
        start = time.perf_counter()
        for _ in range(calls):
            _step(loss, preds, targets)
        _wait(preds)
        return (time.perf_counter() - start) / calls

    return timed


def _wait(preds: Tensor) -> None:
    if preds.is_cuda:
        torch.cuda.synchronize()


def _peak_meter(loss: Loss, preds: Tensor, targets: Tensor) -> Callable[[], float]:
    """A function that returns the MiB a call allocates at most beyond what was there before."""

    def on_gpu() -> float:
        preds.grad = None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _step(loss, preds, targets)
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def on_cpu() -> float:
        preds.grad = None
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            _step(loss, preds, targets)
        held = peak = 0
        for event in sorted(_allocations(profiler), key=lambda event: event["ts"]):
            held += event["args"]["Bytes"]
            peak = max(peak, held)
        return peak / 2**20

    return on_gpu if preds.is_cuda else on_cpu


def _allocations(profiler: profile) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return [event for event in events if event["name"] == "[memory]"]
