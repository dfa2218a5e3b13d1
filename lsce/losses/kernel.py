"""The loss of every sample, block by block: the gradient is the only N×C tensor.

A smoothed target has a mass t on the true class y and a mass u on each other class: t = 1 − ε and
u = ε/(C−1) for ``"exclude-true"``, t = 1 − ε + ε/C and u = ε/C for ``"include-true"``. Then

    −Σ_k w_k q_k log π_k  =  −t w_y log π_y  −  u Σ_{k≠y} w_k log π_k

needs one gathered value and one sum a sample, and never the N×C matrix q. For a target distribution
p, q = u + (t − u)·p. A class with q_k = 0 or w_k = 0 adds 0, even if its log π_k is −∞.

Logits are (N, C, …) here; class indices, losses and all else that belongs to a sample (N, 1, …).
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lsce.losses.checks import is_transformed, values_are_at_hand


class Smoothing(NamedTuple):
    """The masses t and u; w as (1, C, 1, …) and w_y as (N, 1, …) in the dtype to compute in."""

    on_true: float
    on_other: float
    weights: Tensor | None
    true_weights: Any = None


def masses(epsilon: Any, num_classes: Any, convention: str) -> tuple[Any, Any]:
    """t and u: numbers, or scalar tensors if ε or C is one."""
    if convention == "exclude-true":
        return 1 - epsilon, epsilon / (num_classes - 1)
    return 1 - epsilon + epsilon / num_classes, epsilon / num_classes


def compute_dtype(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, 1, dtype=compute_dtype(logits))


def product(mass: Tensor, log_probs: Tensor) -> Tensor:
    """mass · log π, 0 where the mass is 0 and log π is −∞."""
    # Where log π is finite, the gradient of the mass needs it.
    return mass * log_probs.masked_fill((mass == 0) & (log_probs == -math.inf), 0)


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """The product, 0 where the weight is 0 even if the value is infinite."""
    return values.masked_fill(weights == 0, 0) * weights


def from_probabilities(logits: Tensor, targets: Tensor, smoothing: Smoothing) -> Tensor:
    """The loss of target distributions (N, C, …)."""
    on_true, on_other, weights, _ = smoothing
    log_probs = log_softmax(logits)
    mass = (on_true - on_other) * targets.to(log_probs.dtype) + on_other
    mass = mass if weights is None else mass * weights
    finite = values_are_at_hand(log_probs) and log_probs.detach().amin(1).isfinite().all()
    terms = mass * log_probs if finite else product(mass, log_probs)
    return -terms.sum(1, keepdim=True)


def from_indices(
    logits: Tensor, index: Tensor, smoothing: Smoothing, reduction: str
) -> tuple[Tensor, Tensor | None]:
    """The loss of class indices in [0, C), reduced where that comes free, and their weights."""
    true_weights = None if smoothing.weights is None else smoothing.weights.view(-1)[index]
    if _is_composed(logits):
        return _composed(logits, index, smoothing), true_weights
    divisor = {"none": None, "sum": 1, "mean": index.numel() or None}[reduction]  # none: nan
    needs_gradient = torch.is_grad_enabled() and logits.requires_grad
    is_small = logits.device.type == "cpu" and logits.numel() <= 2**20
    keep = divisor is not None and needs_gradient and is_small
    if true_weights is not None:
        smoothing = smoothing._replace(true_weights=true_weights)
    return _Blockwise.apply(logits, index, smoothing, divisor, keep), true_weights


def _is_composed(logits: Tensor) -> bool:
    """Whether to use ordinary differentiable operations, which compose with everything."""
    return is_transformed(logits) or forward_ad.unpack_dual(logits).tangent is not None


def _composed(logits: Tensor, index: Tensor, smoothing: Smoothing) -> Tensor:
    on_true, on_other, weights, _ = smoothing
    log_probs = log_softmax(logits)
    if weights is not None:
        log_probs = weighted(log_probs, weights)
    factor, apart = _true_class(on_true, on_other)
    true = log_probs.gather(1, index)
    loss = -factor * true if factor else torch.zeros_like(true)
    if on_other:
        terms = log_probs.scatter(1, index, 0) if apart else log_probs
        loss = loss - on_other * terms.sum(1, keepdim=True)
    return loss


def _true_class(on_true: float, on_other: float) -> tuple[float, bool]:
    """The factor of the true class's log π, and whether the sum over classes leaves it out."""
    # A sum over all is faster, but where t < u the signs are opposite and ∞ − ∞ could result.
    return (on_true, True) if on_true < on_other else (on_true - on_other, False)


class _Blockwise(torch.autograd.Function):
    """The loss of class indices, summed and divided by ``divisor`` unless that is None.

    The backward pass rebuilds the softmax from each sample's maximum m and Σ exp(z − m), in the
    gradient's own memory or, for float16 and bfloat16, in a block of float32. With ``keep`` the
    forward pass computes the gradient too, and the backward pass uses it if the upstream gradient
    is 1: scaling it by another would round float16 and bfloat16 twice.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, index: Tensor, smoothing: Smoothing, divisor: Any, keep: bool
    ) -> Tensor:
        on_true, on_other, weights, true_weights = smoothing
        true = logits.gather(1, index)  # first: it refuses an index out of range
        sums = torch.empty_like(index, dtype=compute_dtype(logits))
        maximum, exp_sum = torch.empty_like(sums), torch.empty_like(sums)
        factor, apart = _true_class(on_true, on_other)
        if weights is not None:
            lowest = torch.where(weights > 0, -math.inf, weights)
        gradient = torch.empty_like(logits) if keep else None
        coefficients = _coefficients(torch.full_like(sums, 1 / divisor), smoothing) if keep else ()
        for block, memory, classes, m, exps, total, *factors in _blocks(
            logits, gradient, index, maximum, exp_sum, sums, *coefficients
        ):
            torch.amax(block, 1, keepdim=True, out=m)
            torch.sub(block, m, out=memory)
            if on_other:
                terms = memory.scatter(1, classes, 0) if apart else memory
                if weights is not None:  # `weighted` of values ≤ 0, made faster
                    terms = terms.clamp(min=lowest).mul_(weights)
                torch.sum(terms, 1, keepdim=True, out=total)
            torch.sum(memory.exp_(), 1, keepdim=True, out=exps)
            if keep:
                _to_gradient(memory, classes, exps, factors, smoothing)
        loss, true = exp_sum.log(), true - maximum
        if weights is not None:
            true = weighted(true, true_weights)
            loss.mul_((on_true - on_other) * true_weights + on_other * weights.sum())
        if factor:
            loss.sub_(true, alpha=factor)
        if on_other:
            loss.sub_(sums, alpha=on_other)
        ctx.save_for_backward(logits, index, weights, true_weights, maximum, exp_sum)
        ctx.smoothing, ctx.divisor, ctx.gradient = smoothing, divisor, gradient
        return loss if divisor is None else loss.sum().div_(divisor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        create_graph = torch.is_grad_enabled()
        is_batched = torch._C._functorch.is_legacy_batchedtensor(grad)  # is_grads_batched=True
        composed = create_graph or is_batched or is_transformed(grad)
        # First: autograd refuses here if the logits were changed in place.
        logits, index, weights, true_weights, maximum, exp_sum = ctx.saved_tensors
        smoothing = ctx.smoothing
        if weights is not None:
            smoothing = smoothing._replace(weights=weights, true_weights=true_weights)
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is not None and not composed and grad.item() == 1:
            return gradient, *[None] * 4
        if ctx.divisor is not None:
            grad = (grad / ctx.divisor).expand(index.shape)
        if composed:
            with torch.enable_grad():
                loss = _composed(logits, index, smoothing)
            (gradient,) = torch.autograd.grad(loss, logits, grad, create_graph=create_graph)
            return gradient, *[None] * 4
        gradient = torch.empty_like(logits)
        for block, memory, classes, m, exps, *factors in _blocks(
            logits, gradient, index, maximum, exp_sum, *_coefficients(grad, smoothing)
        ):
            torch.sub(block, m, out=memory).exp_()
            _to_gradient(memory, classes, exps, factors, smoothing)
        return gradient, *[None] * 4


def _block_size(logits: Tensor) -> int:
    """Logits worked on at a time: what a core's cache holds, or enough to fill a GPU."""
    return 2**17 * torch.get_num_threads() if logits.device.type == "cpu" else 2**24


def _blocks(logits: Tensor, result: Tensor | None, *others: Tensor) -> Iterator[tuple[Any, ...]]:
    """Blocks of about ``_block_size`` logits, memory to compute in, and blocks of the others.

    The first two have the dtype to compute in. What is left in the memory becomes the result.
    """
    dtype, buffer, size = compute_dtype(logits), None, _block_size(logits)
    blocks: Iterable[tuple[Any, ...]] = [(logits, result, *others)]
    if logits.numel() > size:
        rows = max(1, size * len(logits) // logits.numel())
        results = [None] * len(logits) if result is None else result.split(rows)
        blocks = zip(logits.split(rows), results, *(other.split(rows) for other in others))
    for block, out, *rest in blocks:
        if out is not None and out.dtype == dtype:
            yield block, out, *rest
            continue
        # Only the last block is shorter.
        buffer = torch.empty_like(block, dtype=dtype) if buffer is None else buffer[: len(block)]
        yield block if block.dtype == dtype else buffer.copy_(block), buffer, *rest
        if out is not None:
            out.copy_(buffer)


def _coefficients(grad: Tensor, smoothing: Smoothing) -> tuple[Tensor, Tensor, Tensor]:
    """Of ∂ℓ/∂z_j = π_j Σ_k w_k q_k − w_j q_j, times ``grad``: what is on the true class, on each
    class, and on the softmax."""
    on_true, on_other, weights, true_weights = smoothing
    true = (on_other - on_true) * grad
    if weights is None:
        return true, grad, grad
    true *= true_weights
    return true, grad, on_other * weights.sum() * grad - true


def _to_gradient(
    exps: Tensor, index: Tensor, exp_sum: Tensor, coefficients: Any, smoothing: Smoothing
) -> None:
    """Turns exp(z − m) into the gradient, in place."""
    on_true, on_each, on_softmax = coefficients
    exps.mul_(on_softmax / exp_sum)
    if smoothing.weights is None:
        exps.sub_(on_each, alpha=smoothing.on_other)
    else:
        exps.addcmul_(on_each, smoothing.weights, value=-smoothing.on_other)
    exps.scatter_add_(1, index, on_true)
