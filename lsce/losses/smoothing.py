"""Label smoothing cross entropy, in closed form.

Both conventions are one formula. The smoothed target has a mass t on the true class and a mass u on
each of the other K − 1: t = 1 − ε and u = ε/(K−1) for ``"exclude-true"``, t = 1 − ε + ε/K and
u = ε/K for ``"include-true"``. For a true class y,

    −Σ_k w_k q_k log π_k  =  −t w_y log π_y  −  u Σ_{k≠y} w_k log π_k

needs one gathered value and one sum per sample, and never the N×K matrix q. For a given target
distribution p, q = u + (t − u)·p.

A class with q_k = 0 or w_k = 0 adds 0 to the loss, even if its log π_k is −∞.
"""

import numbers

import torch
from torch import Tensor

from lsce.losses.checks import (
    CONVENTIONS,
    ClassWeights,
    Convention,
    Normalization,
    Reduction,
    as_weights,
    check_choice,
    check_epsilon,
    check_options,
    check_probabilities,
    check_tensors,
    check_weight_values,
    is_transformed,
    values_are_at_hand,
)
from lsce.losses.kernel import compute_dtype, from_probabilities, hard_loss, masses_of


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
        check_options(label_smoothing, reduction, convention, normalization, ignore_index)
        weights = None if class_weights is None else as_weights(class_weights)
        if weights is not None:
            if weights.device.type != "meta" and not is_transformed(weights):
                check_weight_values(weights)
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
        check_epsilon("label_smoothing", value)
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
    check_options(label_smoothing, reduction, convention, normalization, ignore_index)
    weights = None if class_weights is None else as_weights(class_weights)
    if weights is not None:
        if values_are_at_hand(weights):
            check_weight_values(weights)
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
    check_epsilon("epsilon", epsilon)
    check_choice("to", to, CONVENTIONS)
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
    check_tensors(preds, targets, weights)
    as_indices = not targets.is_floating_point()
    single = preds.dim() == 1
    if single:
        preds, targets = preds.unsqueeze(0), targets.unsqueeze(0)
    masses = masses_of(epsilon, preds.shape[1], convention)
    if weights is not None:
        weights = weights.detach().to(compute_dtype(preds))

    # From here on targets and losses keep a class dimension of size 1.
    true_weights = ignored = None
    if as_indices:
        index = targets.long().unsqueeze(1)
        by_weight = reduction == "mean" and weights is not None and normalization == "weights"
        loss, true_weights, ignored = hard_loss(
            preds, index, weights, masses, ignore_index, "none" if by_weight else reduction
        )
        if loss.dim() == 0:
            return loss
    else:
        check_probabilities(targets, ignore_index)
        loss = from_probabilities(preds, targets, weights, masses)

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
