"""The smoothed loss of every sample, block by block: the gradient is the only N×C tensor.

Under every transformation (compilation, tracing, ``torch.func``, …) the loss is composed of
ordinary differentiable operations instead.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lsce.losses.checks import ignored_samples, is_transformed, values_are_at_hand

Masses = tuple[float, float]  # of a smoothed target: on the true class, on each other class


def masses_of(epsilon: float, num_classes: int, convention: str) -> Masses:
    """The smoothed target on the true class and on each other class."""
    if isinstance(num_classes, Tensor):  # under torch.jit.trace
        num_classes = num_classes.double()
    if convention == "exclude-true":
        return 1 - epsilon, epsilon / (num_classes - 1)
    return 1 - epsilon + epsilon / num_classes, epsilon / num_classes


def hard_loss(
    preds: Tensor,
    index: Tensor,
    weights: Tensor | None,
    masses: Masses,
    ignore_index: int,
    reduction: str,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, the weight of the true class, and the mask of ignored samples, each (N, 1, …).

    The loss may come reduced already, as a scalar, where none is ignored.

    On a CPU the kernel itself refuses an index out of range, so the usual batch, without one to
    ignore, is not looked at beforehand.
    """
    num_classes = preds.shape[1]
    if values_are_at_hand(index) and not 0 <= ignore_index < num_classes:
        try:
            return *_from_indices(preds, index, weights, masses, reduction), None
        except (IndexError, RuntimeError):
            ignored = ignored_samples(index, ignore_index, num_classes)
            if ignored is None:
                raise
    else:
        ignored = ignored_samples(index, ignore_index, num_classes)
    if ignored is None:
        return *_from_indices(preds, index, weights, masses, reduction), None
    index = index.masked_fill(ignored, 0)
    loss, true_weights = _from_indices(preds, index, weights, masses, "none")
    return loss.masked_fill(ignored, 0), true_weights, ignored


def compute_dtype(preds: Tensor) -> torch.dtype:
    return torch.promote_types(preds.dtype, torch.float32)


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, 1, dtype=compute_dtype(logits))


def _over_classes(weights: Tensor, like: Tensor) -> Tensor:
    """Weights (C,) as (1, C, 1, …), to broadcast against ``like``."""
    return weights.view(1, -1, *[1] * (like.dim() - 2))


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """The product, 0 where the weight is 0 even if the value is infinite."""
    return values.masked_fill(weights == 0, 0) * weights


def from_probabilities(
    preds: Tensor, targets: Tensor, weights: Tensor | None, masses: Masses
) -> Tensor:
    on_true, on_other = masses
    log_probs = _log_softmax(preds)
    mass = (on_true - on_other) * targets.to(log_probs.dtype) + on_other
    if weights is not None:
        mass = mass * _over_classes(weights, mass)
    if not values_are_at_hand(log_probs) or not log_probs.detach().amin(1).isfinite().all():
        # 0·(−∞) is 0 here; where log π is finite, the gradient of the targets needs it.
        log_probs = log_probs.masked_fill((mass == 0) & (log_probs == -math.inf), 0)
    return -(mass * log_probs).sum(1, keepdim=True)


def _from_indices(
    preds: Tensor, index: Tensor, weights: Tensor | None, masses: Masses, reduction: str
) -> tuple[Tensor, Tensor | None]:
    """Loss and weight of the true class (N, 1, …); every ``index`` (N, 1, …) is in [0, C).

    The loss is reduced to a scalar instead where that comes free.
    """
    true_weights = None if weights is None else weights[index]
    if _is_composed(preds):
        return _smoothed_nll(_log_softmax(preds), index, weights, masses), true_weights
    # The mean of nothing is left to torch.
    divisor = {"none": None, "sum": 1, "mean": index.numel() or None}[reduction]
    keep_gradient = (
        divisor is not None
        and preds.device.type == "cpu"
        and preds.numel() <= _KEPT
        and torch.is_grad_enabled()
        and preds.requires_grad
    )
    arguments = (preds, index, weights, true_weights, masses, divisor, keep_gradient)
    return _Blockwise.apply(*arguments), true_weights


def _smoothed_nll(
    log_probs: Tensor, index: Tensor, weights: Tensor | None, masses: Masses
) -> Tensor:
    """The closed form (n, 1, …), of ``log_probs`` (n, C, …) and ``index`` (n, 1, …)."""
    if weights is not None:
        log_probs = _weighted(log_probs, _over_classes(weights, log_probs))
    factor, apart = _of_true(*masses)
    true = log_probs.gather(1, index)
    loss = -factor * true if factor else torch.zeros_like(true)
    if masses[1]:
        terms = log_probs.scatter(1, index, 0) if apart else log_probs
        loss = loss - masses[1] * terms.sum(1, keepdim=True)
    return loss


def _of_true(on_true: float, on_other: float) -> tuple[float, bool]:
    """The factor of the true class's log π, and whether the sum over classes leaves it out.

    A sum over all classes is faster. With ``on_true < on_other``, though, it and the true class
    have opposite signs, and ∞ − ∞ could result.
    """
    return (on_true, True) if on_true < on_other else (on_true - on_other, False)


_KEPT = 2**20  # logits; of batches up to this size the gradient may wait for the backward pass


def _is_composed(preds: Tensor) -> bool:
    """Whether to use plain operations, which compose with everything, and not the blocks.

    That is so under every transformation, and in forward-mode differentiation.
    """
    return is_transformed(preds) or forward_ad.unpack_dual(preds).tangent is not None


def _block_size(preds: Tensor) -> int:
    """Logits worked on at a time: what a core's cache holds, or enough to fill a GPU."""
    return 2**17 * torch.get_num_threads() if preds.device.type == "cpu" else 2**24


def _blocks(logits: Tensor, *others: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """The tensors cut along the batch into blocks of about ``_block_size`` logits."""
    size = _block_size(logits)
    if logits.numel() <= size:
        yield logits, *others
        return
    rows = max(1, size * len(logits) // logits.numel())
    for start in range(0, len(logits), rows):
        stop = start + rows
        yield logits[start:stop], *(t if t is None else t[start:stop] for t in others)


class _Blockwise(torch.autograd.Function):
    """``_smoothed_nll`` of the log-softmax, summed and divided by ``divisor`` unless that is None.

    Autograd's own path holds three N×C tensors at its peak; here the gradient is the only one. Each
    sample's maximum m and Σ exp(z − m) are kept, and the backward pass rebuilds the softmax from
    them, in the gradient's own memory or, for float16 and bfloat16, in a block of float32.

    With ``keep_gradient`` the forward pass turns its exponentials into the gradient at once. The
    backward pass uses it if the upstream gradient is 1, as of the last node of a graph; scaling it
    by another would round float16 and bfloat16 twice, so that it is then computed anew.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        index: Tensor,
        weights: Tensor | None,
        true_weights: Tensor | None,
        masses: Masses,
        divisor: float | None,
        keep_gradient: bool,
    ) -> Tensor:
        on_true, on_other = masses
        true = logits.gather(1, index)  # first: it refuses an index out of range
        sums = torch.empty_like(index, dtype=compute_dtype(logits))
        maximum, exp_sum = torch.empty_like(sums), torch.empty_like(sums)
        factor, apart = _of_true(on_true, on_other)
        if weights is not None:
            lowest = torch.where(weights > 0, -math.inf, weights)
        gradient: Tensor | None = None
        coefficients: tuple[Tensor | None, ...] = (None, None, None)
        if keep_gradient and divisor is not None:
            gradient = torch.empty_like(logits)
            each = torch.full_like(sums, 1 / divisor)
            coefficients = _coefficients(each, weights, true_weights, masses)
        buffer = None
        for block, out, i, m, exps, total, *coefs in _blocks(
            logits, gradient, index, maximum, exp_sum, sums, *coefficients
        ):
            block, shifted, buffer = _workspace(block, out, buffer)
            torch.amax(block, 1, keepdim=True, out=m)
            torch.sub(block, m, out=shifted)
            if on_other:
                terms = shifted.scatter(1, i, 0) if apart else shifted
                if weights is not None:  # `_weighted` of values ≤ 0, made faster
                    terms = terms.clamp(min=_over_classes(lowest, terms))
                    terms.mul_(_over_classes(weights, terms))
                torch.sum(terms, 1, keepdim=True, out=total)
            torch.sum(shifted.exp_(), 1, keepdim=True, out=exps)
            if keep_gradient:
                _to_gradient(shifted, out, i, exps, coefs, weights, on_other)
        loss = exp_sum.log()
        true = true - maximum
        if weights is not None and true_weights is not None:
            true = _weighted(true, true_weights)
            loss.mul_((on_true - on_other) * true_weights + on_other * weights.sum())
        if factor:
            loss.sub_(true, alpha=factor)
        if on_other:
            loss.sub_(sums, alpha=on_other)
        ctx.save_for_backward(logits, index, weights, true_weights, maximum, exp_sum)
        ctx.masses, ctx.divisor, ctx.gradient = masses, divisor, gradient
        return loss if divisor is None else loss.sum().div_(divisor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        composed = (
            torch.is_grad_enabled()  # create_graph=True
            or is_transformed(grad)
            or torch._C._functorch.is_legacy_batchedtensor(grad)  # is_grads_batched=True
        )
        # First: autograd refuses here if the logits were changed in place.
        logits, index, weights, true_weights, maximum, exp_sum = ctx.saved_tensors
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is not None and not composed and grad.item() == 1:
            return gradient, *[None] * 6
        if ctx.divisor is not None:
            grad = (grad / ctx.divisor).expand(index.shape)
        if composed:
            create_graph = torch.is_grad_enabled()
            with torch.enable_grad():
                loss = _smoothed_nll(_log_softmax(logits), index, weights, ctx.masses)
            (gradient,) = torch.autograd.grad(loss, logits, grad, create_graph=create_graph)
            return gradient, *[None] * 6
        gradient = torch.empty_like(logits)
        coefficients = _coefficients(grad, weights, true_weights, ctx.masses)
        buffer = None
        for block, out, i, m, exps, *coefs in _blocks(
            logits, gradient, index, maximum, exp_sum, *coefficients
        ):
            block, shifted, buffer = _workspace(block, out, buffer)
            torch.sub(block, m, out=shifted).exp_()
            _to_gradient(shifted, out, i, exps, coefs, weights, ctx.masses[1])
        return gradient, *[None] * 6


def _workspace(
    block: Tensor, out: Tensor | None, buffer: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The block in the dtype to compute in, where to compute, and the buffer, made if new.

    The place is ``out`` if its dtype allows that, else the buffer.
    """
    dtype = compute_dtype(block)
    if out is not None and out.dtype == dtype:
        return block, out, buffer
    if buffer is None:
        buffer = torch.empty_like(block, dtype=dtype)
    place = buffer if len(block) == len(buffer) else buffer[: len(block)]
    return (block if block.dtype == dtype else place.copy_(block)), place, buffer


def _coefficients(
    grad: Tensor, weights: Tensor | None, true_weights: Tensor | None, masses: Masses
) -> tuple[Tensor, Tensor, Tensor]:
    """What the gradient has on the true class, on each class, and on the softmax, (N, 1, …).

    ∂ℓ/∂z_j = π_j Σ_k w_k q_k − w_j q_j, times ``grad`` (N, 1, …).
    """
    on_true, on_other = masses
    true = (on_other - on_true) * grad
    if weights is None or true_weights is None:
        return true, grad, grad
    true *= true_weights
    return true, grad, on_other * weights.sum() * grad - true


def _to_gradient(
    exps: Tensor,
    out: Tensor,
    index: Tensor,
    exp_sum: Tensor,
    coefficients: Sequence[Tensor],
    weights: Tensor | None,
    on_other: float,
) -> None:
    """Turns exp(z − m) into the gradient, in place and then in ``out``."""
    true, grad, total = coefficients
    exps.mul_(total / exp_sum)
    if weights is None:
        exps.sub_(grad, alpha=on_other)
    else:
        exps.addcmul_(grad, _over_classes(weights, exps), value=-on_other)
    exps.scatter_add_(1, index, true)
    if exps is not out:
        out.copy_(exps)
