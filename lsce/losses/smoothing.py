"""Label smoothing cross entropy, in closed form.

Both conventions are one formula. The smoothed target has a mass t on the true class and a mass u on
each of the other K − 1: t = 1 − ε and u = ε/(K−1) for ``"exclude-true"``, t = 1 − ε + ε/K and
u = ε/K for ``"include-true"``. For a true class y,

    −Σ_k w_k q_k log π_k  =  −t w_y log π_y  −  u Σ_{k≠y} w_k log π_k

needs one gathered value and one sum per sample, and never the N×K matrix q. For a given target
distribution p, q = u + (t − u)·p.

A class with q_k = 0 or w_k = 0 adds 0 to the loss, even if its log π_k is −∞.
"""

import math
import numbers
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

Convention = Literal["exclude-true", "include-true"]
Masses = tuple[float, float]  # of a smoothed target: on the true class, on each other class
Reduction = Literal["none", "mean", "sum"]
Normalization = Literal["samples", "weights"]
ClassWeights = Tensor | np.ndarray | Sequence[float]

_CONVENTIONS = ("exclude-true", "include-true")
_REDUCTIONS = ("none", "mean", "sum")
_NORMALIZATIONS = ("samples", "weights")
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_INDICES = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)
_TARGETS = _INDICES + _FLOATS


class LabelSmoothingCrossEntropy(torch.nn.Module):
    r"""Cross entropy between smoothed targets and the softmax of ``preds``.

    With C classes, logits :math:`z`, :math:`\pi = \mathrm{softmax}(z)`, class weights :math:`w`
    (1 where none are given) and target class :math:`y`, the loss of one sample is

    .. math:: \ell = -\sum_{k=1}^{C} w_k\, q_k \log \pi_k .

    The smoothed target :math:`q` depends on :math:`\varepsilon` = ``label_smoothing`` and on
    ``convention``:

    - ``"exclude-true"`` (default; released code of Yuan et al., 2020, CVPR):
      :math:`q_y = 1 - \varepsilon` and :math:`q_k = \varepsilon / (C-1)` for :math:`k \ne y`;
      :math:`q = (1-\varepsilon)\,p + \varepsilon\,(1-p)/(C-1)` for a target distribution
      :math:`p`.
    - ``"include-true"`` (Szegedy et al., 2016, CVPR, arXiv:1512.00567;
      :class:`torch.nn.CrossEntropyLoss`): :math:`q = (1-\varepsilon)\,p + \varepsilon/C`.

    :func:`convert_epsilon` turns the :math:`\varepsilon` of one into that of the other.

    A class with :math:`q_k = 0` or :math:`w_k = 0` adds 0, even if its logit is :math:`-\infty`.

    **Reduction.** ``"none"`` keeps the loss of every sample (0 where ignored) and ``"sum"`` adds
    them. ``"mean"`` divides that sum by

    - the number of samples that are not ignored, with ``normalization="samples"`` (default);
    - the sum of :math:`w_y` over them, with ``normalization="weights"``, as
      :class:`torch.nn.CrossEntropyLoss` does. Like torch, targets that are probabilities are
      divided by the number of samples in either case.

    A *sample* is one target: a position, for inputs with spatial dimensions. The mean of an empty
    batch, or of one whose samples are all ignored, is ``nan``, as in torch; the sum is 0.
    ``convention="include-true", normalization="weights"`` equals
    ``torch.nn.CrossEntropyLoss(class_weights, label_smoothing=label_smoothing)``.

    Args:
        label_smoothing: :math:`\varepsilon` in [0, 1]; 0 is plain cross entropy. An integer, a
            float, a fraction or a NumPy scalar; kept as a float. It may be changed between calls.
        class_weights: C finite weights :math:`\ge 0`: a tensor, an array or a sequence, of
            integers or floats. Kept as the buffer ``class_weights``, so ``.to()`` moves them and
            the state dict holds them; integers and sequences take torch's default dtype. They are
            constants: no gradient flows to them.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        convention: ``"exclude-true"`` or ``"include-true"``.
        normalization: ``"samples"`` or ``"weights"``; matters for ``"mean"`` with weights only.
        ignore_index: class index whose samples add nothing to the loss, to the gradient or to the
            mean's divisor. With probabilities as targets it must be negative and has no effect.

    Shape:
        - ``preds``: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, \dots)` with
          :math:`C \ge 2`: unnormalised logits.
        - ``targets``: class indices in [0, C) (or ``ignore_index``) of shape :math:`()`,
          :math:`(N)` or :math:`(N, d_1, \dots)`; or probabilities in [0, 1] over the class
          dimension, of the shape of ``preds``. That they sum to 1 is not checked.
        - output: the shape of the class indices with ``"none"``, else a scalar.

    Dtypes:
        ``preds`` float16, bfloat16, float32 or float64; ``targets`` any integer dtype, or any of
        those floats for probabilities. float16 and bfloat16 are computed in float32 (under
        autocast too) and the output is then float32; the gradient has the dtype of ``preds``.
        float64 stays float64.

    Gradients: first and second derivatives. Probabilities as targets receive a gradient too. The
    logits must not be changed in place between the forward and the backward pass; autograd raises
    its usual error if they were.

    Memory: no N×C matrix of labels is built. With class indices the logits are worked on block by
    block (2¹⁷ a thread on a CPU, 2²⁴ on a GPU), and the gradient is the only N×C tensor. On a CPU,
    the forward pass of up to 2²⁰ logits computes it already; else the backward pass does.

    Checks: the arguments are checked once, here, and ``label_smoothing`` whenever it is assigned.
    ``forward`` checks dtypes, shapes and devices, which the host knows. The *values* of the targets
    are checked where reading them is cheap, on the CPU. On a GPU, reading them would make the host
    wait for the device at every step; there an index out of range trips the device-side assertion
    of the gather kernel instead, and probabilities are taken as given.

    Transformations: the value and the gradient are those of the plain call. *Composed* means that
    ordinary differentiable operations compute the loss: the values of targets are not checked, and
    the log-probabilities are kept for the backward pass, as cross entropy does.

    .. list-table::
       :header-rows: 1

       * - Transformation
         - Supported
         - What is different
       * - ``torch.compile``
         - yes, as one graph; any shape, and ``label_smoothing`` may change
         - composed
       * - ``torch.export``
         - yes, with static or dynamic shapes
         - composed; all options are fixed
       * - ``torch.jit.trace``
         - yes, for inputs of any size
         - composed; all options are fixed, and shapes and dtypes are checked at tracing only
       * - ``torch.jit.script``
         - no, it raises
         -
       * - ``make_fx``, ``FakeTensorMode`` and other dispatch modes and subclasses
         - yes
         - composed; the values of weights are not checked either
       * - meta tensors
         - yes
         - no values are checked, of targets or of weights
       * - :mod:`torch.func`: ``vmap``, ``grad``, ``jacrev``, ``jacfwd``, ``hessian``, …
         - yes
         - composed
       * - forward-mode differentiation
         - yes
         - the log-probabilities are kept
       * - second derivatives, ``is_grads_batched``
         - yes
         - the backward pass computes the log-probabilities
       * - ``torch.utils.checkpoint``, saved-tensor hooks such as ``save_on_cpu``
         - yes
         - nothing; a gradient kept by the forward pass does not go through the hooks
       * - ``functional_call``, ``copy.deepcopy``, ``pickle``
         - yes
         - nothing
       * - ``torch.autocast``, ``torch.inference_mode``
         - yes
         - nothing
       * - ``torch.set_default_device``
         - yes
         - weights that are not a tensor go to that device, after the check of their values

    Raises:
        ValueError: an argument outside its range or choices; weights that are negative, not
            finite, or not C in number; C < 2; targets of the wrong shape or out of range;
            ``preds``, ``targets`` and weights on different devices.
        TypeError: an argument of the wrong type; ``preds`` or ``targets`` of the wrong dtype.

    Example:
        >>> preds = torch.tensor([[2.0, 1.0, 0.1], [1.5, 2.5, 0.3]], dtype=torch.float64)
        >>> targets = torch.tensor([0, 1])
        >>> criterion = LabelSmoothingCrossEntropy(label_smoothing=0.1)
        >>> print(f"{criterion(preds, targets):.7f}")
        0.5565908
        >>> criterion = LabelSmoothingCrossEntropy(label_smoothing=0.1, class_weights=[1, 2, 1])
        >>> print(f"{criterion(preds, targets):.7f}")
        0.7680347
    """

    class_weights: Tensor | None

    def __init__(
        self,
        label_smoothing: float = 0.1,
        class_weights: ClassWeights | None = None,
        reduction: Reduction = "mean",
        *,
        convention: Convention = "exclude-true",
        normalization: Normalization = "samples",
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        _check_options(label_smoothing, reduction, convention, normalization, ignore_index)
        weights = None if class_weights is None else _as_weights(class_weights)
        if weights is not None:
            if weights.device.type != "meta" and not _is_transformed(weights):
                _check_weight_values(weights)
            if not isinstance(class_weights, Tensor):
                weights = weights.to(torch.get_default_device())
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.convention = convention
        self.normalization = normalization
        self.ignore_index = int(ignore_index)
        self.register_buffer("class_weights", weights)

    @property
    def label_smoothing(self) -> float:
        """ε; it may be changed between calls."""
        return self._label_smoothing

    @label_smoothing.setter
    def label_smoothing(self, value: float) -> None:
        _check_epsilon("label_smoothing", value)
        self._label_smoothing = float(value)

    def forward(self, preds: Tensor, targets: Tensor) -> Tensor:
        """Loss of ``preds`` against ``targets``; shapes and dtypes as the class says."""
        return _loss(
            preds,
            targets,
            self.label_smoothing,
            self.class_weights,
            self.reduction,
            self.convention,
            self.normalization,
            self.ignore_index,
        )

    def extra_repr(self) -> str:
        weights = None if self.class_weights is None else f"({len(self.class_weights)} values)"
        return (
            f"label_smoothing={self.label_smoothing}, class_weights={weights}, "
            f"reduction={self.reduction!r}, convention={self.convention!r}, "
            f"normalization={self.normalization!r}, ignore_index={self.ignore_index}"
        )


def label_smoothing_cross_entropy(
    preds: Tensor,
    targets: Tensor,
    label_smoothing: float = 0.1,
    class_weights: ClassWeights | None = None,
    reduction: Reduction = "mean",
    *,
    convention: Convention = "exclude-true",
    normalization: Normalization = "samples",
    ignore_index: int = -100,
) -> Tensor:
    """Functional twin of :class:`LabelSmoothingCrossEntropy`, which says what it computes.

    The options are checked at each call; the values of the weights only where that makes no GPU
    wait (weights that are not a tensor, or a tensor on the CPU). Weights that are not a tensor are
    moved to the device of ``preds``.

    Raises:
        ValueError, TypeError: as :class:`LabelSmoothingCrossEntropy`.
    """
    _check_options(label_smoothing, reduction, convention, normalization, ignore_index)
    weights = None if class_weights is None else _as_weights(class_weights)
    if weights is not None:
        if _values_are_at_hand(weights):
            _check_weight_values(weights)
        if not isinstance(class_weights, Tensor) and isinstance(preds, Tensor):
            weights = weights.to(preds.device)
    return _loss(
        preds,
        targets,
        float(label_smoothing),
        weights,
        reduction,
        convention,
        normalization,
        int(ignore_index),
    )


def convert_epsilon(epsilon: float, num_classes: int, *, to: Convention) -> float:
    """The smoothing parameter that gives the same targets in the other convention.

    ε_include = ε_exclude · K/(K−1). An ``"exclude-true"`` ε above (K−1)/K gives the true class
    less than the others, which no ``"include-true"`` ε in [0, 1] does.

    Args:
        epsilon: smoothing parameter in [0, 1], in the convention that is not ``to``.
        num_classes: K ≥ 2.
        to: ``"include-true"`` or ``"exclude-true"``, the convention of the result.

    Raises:
        ValueError: ``epsilon``, ``num_classes`` or ``to`` out of range, or a result above 1.
        TypeError: ``epsilon`` is not a number or ``num_classes`` not an integer.
    """
    _check_epsilon("epsilon", epsilon)
    _check_choice("to", to, _CONVENTIONS)
    if isinstance(num_classes, bool) or not isinstance(num_classes, numbers.Integral):
        raise TypeError(f"num_classes must be an integer, got {num_classes!r}")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    if to == "exclude-true":
        return float(epsilon) * (num_classes - 1) / num_classes
    result = float(epsilon) * num_classes / (num_classes - 1)
    if result > 1:
        limit = (num_classes - 1) / num_classes
        raise ValueError(
            f"epsilon must be at most (K-1)/K = {limit:.6g} to have an include-true equivalent "
            f"for {num_classes} classes, got {epsilon}"
        )
    return result


# --- the loss -------------------------------------------------------------------------------


def _loss(
    preds: Tensor,
    targets: Tensor,
    epsilon: float,
    weights: Tensor | None,
    reduction: str,
    convention: str,
    normalization: str,
    ignore_index: int,
) -> Tensor:
    """The reduced loss; the options are checked already, the tensors are checked here."""
    _check_tensors(preds, targets, weights)
    as_indices = not targets.is_floating_point()
    single = preds.dim() == 1
    if single:
        preds, targets = preds.unsqueeze(0), targets.unsqueeze(0)
    masses = _masses(epsilon, preds.shape[1], convention)
    if weights is not None:
        weights = weights.detach().to(_compute_dtype(preds))

    # From here on targets and losses keep a class dimension of size 1.
    true_weights = ignored = None
    if as_indices:
        index = targets.long().unsqueeze(1)
        by_weight = reduction == "mean" and weights is not None and normalization == "weights"
        loss, true_weights, ignored = _hard_loss(
            preds, index, weights, masses, ignore_index, "none" if by_weight else reduction
        )
        if loss.dim() == 0:
            return loss
    else:
        _check_probabilities(targets, ignore_index)
        loss = _from_probabilities(preds, targets, weights, masses)

    if reduction == "none":
        loss = loss.squeeze(1)
        return loss.squeeze(0) if single else loss
    if reduction == "sum":
        return loss.sum()
    if normalization == "weights" and true_weights is not None:
        if ignored is not None:
            true_weights = true_weights.masked_fill(ignored, 0)
        return loss.sum() / true_weights.sum()
    return loss.mean() if ignored is None else loss.sum() / ignored.logical_not().sum()


def _masses(epsilon: float, num_classes: int, convention: str) -> Masses:
    """The smoothed target on the true class and on each other class."""
    if isinstance(num_classes, Tensor):  # under torch.jit.trace
        num_classes = num_classes.double()
    if convention == "exclude-true":
        return 1 - epsilon, epsilon / (num_classes - 1)
    return 1 - epsilon + epsilon / num_classes, epsilon / num_classes


def _hard_loss(
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
    if _values_are_at_hand(index) and not 0 <= ignore_index < num_classes:
        try:
            return *_from_indices(preds, index, weights, masses, reduction), None
        except (IndexError, RuntimeError):
            ignored = _ignored(index, ignore_index, num_classes)
            if ignored is None:
                raise
    else:
        ignored = _ignored(index, ignore_index, num_classes)
    if ignored is None:
        return *_from_indices(preds, index, weights, masses, reduction), None
    index = index.masked_fill(ignored, 0)
    loss, true_weights = _from_indices(preds, index, weights, masses, "none")
    return loss.masked_fill(ignored, 0), true_weights, ignored


def _compute_dtype(preds: Tensor) -> torch.dtype:
    return torch.promote_types(preds.dtype, torch.float32)


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, 1, dtype=_compute_dtype(logits))


def _over_classes(weights: Tensor, like: Tensor) -> Tensor:
    """Weights (C,) as (1, C, 1, …), to broadcast against ``like``."""
    return weights.view(1, -1, *[1] * (like.dim() - 2))


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """The product, 0 where the weight is 0 even if the value is infinite."""
    return values.masked_fill(weights == 0, 0) * weights


def _from_probabilities(
    preds: Tensor, targets: Tensor, weights: Tensor | None, masses: Masses
) -> Tensor:
    on_true, on_other = masses
    log_probs = _log_softmax(preds)
    mass = (on_true - on_other) * targets.to(log_probs.dtype) + on_other
    if weights is not None:
        mass = mass * _over_classes(weights, mass)
    if not _values_are_at_hand(log_probs) or not log_probs.detach().amin(1).isfinite().all():
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


# --- block by block -------------------------------------------------------------------------

_KEPT = 2**20  # logits; of batches up to this size the gradient may wait for the backward pass


def _is_composed(preds: Tensor) -> bool:
    """Whether to use plain operations, which compose with everything, and not the blocks.

    That is so under every transformation, and in forward-mode differentiation.
    """
    return _is_transformed(preds) or forward_ad.unpack_dual(preds).tangent is not None


def _is_transformed(tensor: Tensor) -> bool:
    """Whether operations on the tensor are compiled, traced, transformed or dispatched elsewhere.

    Its values must not be read then.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
    )


def _block_size(preds: Tensor) -> int:
    """Logits worked on at a time: what a core's cache holds, or enough to fill a GPU."""
    return 2**17 * torch.get_num_threads() if preds.device.type == "cpu" else 2**24


def _blocks(logits: Tensor, *others: Tensor | None) -> Iterator[tuple]:
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
    def forward(ctx, logits, index, weights, true_weights, masses, divisor, keep_gradient):
        on_true, on_other = masses
        true = logits.gather(1, index)  # first: it refuses an index out of range
        sums = torch.empty_like(index, dtype=_compute_dtype(logits))
        maximum, exp_sum = torch.empty_like(sums), torch.empty_like(sums)
        factor, apart = _of_true(on_true, on_other)
        lowest = None if weights is None else torch.where(weights > 0, -math.inf, weights)
        gradient, coefficients = None, (None, None, None)
        if keep_gradient:
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
                _to_gradient(shifted, out, i, exps, *coefs, weights, on_other)
        loss = exp_sum.log()
        true = true - maximum
        if weights is not None:
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
    def backward(ctx, grad):
        composed = (
            torch.is_grad_enabled()  # create_graph=True
            or _is_transformed(grad)
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
            _to_gradient(shifted, out, i, exps, *coefs, weights, ctx.masses[1])
        return gradient, *[None] * 6


def _workspace(
    block: Tensor, out: Tensor | None, buffer: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The block in the dtype to compute in, where to compute, and the buffer, made if new.

    The place is ``out`` if its dtype allows that, else the buffer.
    """
    dtype = _compute_dtype(block)
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
    if weights is None:
        return true, grad, grad
    true *= true_weights
    return true, grad, on_other * weights.sum() * grad - true


def _to_gradient(exps, out, index, exp_sum, true, grad, total, weights, on_other):
    """Turns exp(z − m) into the gradient, in place and then in ``out``."""
    exps.mul_(total / exp_sum)
    if weights is None:
        exps.sub_(grad, alpha=on_other)
    else:
        exps.addcmul_(grad, _over_classes(weights, exps), value=-on_other)
    exps.scatter_add_(1, index, true)
    if exps is not out:
        out.copy_(exps)


# --- checks ---------------------------------------------------------------------------------


def _check_options(
    label_smoothing: float,
    reduction: str,
    convention: str,
    normalization: str,
    ignore_index: int,
) -> None:
    _check_epsilon("label_smoothing", label_smoothing)
    _check_choice("reduction", reduction, _REDUCTIONS)
    _check_choice("convention", convention, _CONVENTIONS)
    _check_choice("normalization", normalization, _NORMALIZATIONS)
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, numbers.Integral):
        raise TypeError(f"ignore_index must be an integer, got {ignore_index!r}")


def _check_epsilon(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value <= 1:  # nan fails this too
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _as_weights(class_weights: ClassWeights) -> Tensor:
    """One-dimensional floating-point weights; their values are not looked at."""
    if isinstance(class_weights, Tensor):
        weights = class_weights
    else:
        try:
            weights = torch.tensor(class_weights, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"class_weights must be numbers, got {class_weights!r}") from error
    if weights.dtype == torch.bool or weights.is_complex():
        raise TypeError(f"class_weights must be integers or floats, got {weights.dtype}")
    if weights.dim() != 1 or len(weights) < 2:
        raise ValueError(
            "class_weights must hold one weight for each of at least 2 classes, "
            f"got shape {tuple(weights.shape)}"
        )
    return weights if weights.is_floating_point() else weights.to(torch.get_default_dtype())


def _check_weight_values(weights: Tensor) -> None:
    bad = ~((weights >= 0) & (weights < math.inf))
    if bad.any():
        where = int(bad.nonzero()[0])
        raise ValueError(
            f"class_weights must be finite and not negative, got {weights[where].item()} "
            f"for class {where}"
        )


def _check_tensors(preds: Tensor, targets: Tensor, weights: Tensor | None) -> None:
    """Dtypes, shapes and devices: all that is known without reading a value."""
    if not isinstance(preds, Tensor) or preds.dtype not in _FLOATS:
        raise TypeError(
            f"preds must be a tensor of float16, bfloat16, float32 or float64, got {_kind(preds)}"
        )
    shape = preds.shape
    if not shape:
        raise ValueError("preds must have shape (C,), (N, C) or (N, C, d1, ...), got ()")
    num_classes = shape[0] if len(shape) == 1 else shape[1]
    if num_classes < 2:
        raise ValueError(
            f"preds must have at least 2 classes, got {num_classes} in shape {tuple(shape)}"
        )
    if not isinstance(targets, Tensor) or targets.dtype not in _TARGETS:
        raise TypeError(
            "targets must be a tensor of an integer dtype (class indices) or of a float dtype "
            f"(probabilities), got {_kind(targets)}"
        )
    _check_target_shape(targets, shape)
    if targets.device != preds.device:
        raise ValueError(f"targets must be on {preds.device} as preds are, got {targets.device}")
    if weights is None:
        return
    if len(weights) != num_classes:
        raise ValueError(
            f"class_weights must have one weight for each of {num_classes} classes, "
            f"got {len(weights)}"
        )
    if weights.device != preds.device:
        raise ValueError(
            f"class_weights must be on {preds.device} as preds are, got {weights.device}; "
            "move the criterion with .to()"
        )


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _check_target_shape(targets: Tensor, shape: torch.Size) -> None:
    index_shape = shape[:0] if len(shape) == 1 else shape[:1] + shape[2:]
    if targets.shape == (shape if targets.is_floating_point() else index_shape):
        return
    if not targets.is_floating_point():
        hint = "; one-hot targets must be floats" if targets.shape == shape else ""
        raise ValueError(
            f"targets must have shape {tuple(index_shape)} to be class indices for preds of shape "
            f"{tuple(shape)}, got {tuple(targets.shape)}{hint}"
        )
    if targets.shape == index_shape:
        raise TypeError(f"targets must be integers to be class indices, got {targets.dtype}")
    raise ValueError(
        f"targets must have the shape of preds {tuple(shape)} to be probabilities, "
        f"got {tuple(targets.shape)}"
    )


def _values_are_at_hand(tensor: Tensor) -> bool:
    """Whether values can be read at no wait: in CPU memory, and not transformed."""
    return tensor.device.type == "cpu" and not _is_transformed(tensor)


def _ignored(targets: Tensor, ignore_index: int, num_classes: int) -> Tensor | None:
    """Mask of the samples to ignore, or None where it is known at no cost that there are none.

    Raises ValueError for an index out of range, where values are at hand.
    """
    if not _values_are_at_hand(targets):
        return targets == ignore_index
    if targets.numel() == 0:
        return None
    low, high = (value.item() for value in targets.aminmax())
    ignored = targets == ignore_index if low <= ignore_index <= high else None
    if low < 0 or high >= num_classes:
        outside = (targets < 0) | (targets >= num_classes)
        if ignored is not None:
            outside &= ~ignored
        if outside.any():
            raise ValueError(
                f"targets must be class indices from 0 to {num_classes - 1} or ignore_index "
                f"({ignore_index}), got {targets[outside][0].item()}"
            )
    return ignored


def _check_probabilities(targets: Tensor, ignore_index: int) -> None:
    if ignore_index >= 0:
        raise ValueError(
            f"ignore_index must be negative when targets are probabilities, got {ignore_index}"
        )
    if targets.numel() == 0 or not _values_are_at_hand(targets):
        return
    low, high = (value.item() for value in targets.detach().aminmax())
    slack = 8 * torch.finfo(targets.dtype).eps  # mixtures of targets round a little past the ends
    if not (-slack <= low and high <= 1 + slack):
        value = low if not low >= -slack else high
        raise ValueError(f"targets must be probabilities in [0, 1], got {value}")
