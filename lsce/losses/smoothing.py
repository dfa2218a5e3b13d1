"""Label smoothing cross entropy: the module, its functional twin and the conversion of ε."""

import contextlib

import torch
from torch import Tensor

from lsce.losses import checks, kernel
from lsce.losses.checks import ClassWeights, Convention, Normalization, Reduction

_Options = tuple[Reduction, Convention, Normalization, int]  # the last is ignore_index


class LabelSmoothingCrossEntropy(torch.nn.Module):
    r"""Cross entropy between smoothed targets and the softmax of ``preds``.

    With logits :math:`z`, :math:`\pi = \mathrm{softmax}(z)` and class weights :math:`w` (1 where
    none are given), the loss of a sample is :math:`-\sum_{k=1}^{C} w_k\, q_k \log \pi_k`. With
    :math:`\varepsilon` = ``label_smoothing``, the smoothed target :math:`q` of a distribution
    :math:`p` (one-hot for a class index) is

    - ``"exclude-true"`` (default; released code of Yuan et al., 2020, CVPR):
      :math:`q = (1-\varepsilon)\,p + \varepsilon\,(1-p)/(C-1)`;
    - ``"include-true"`` (Szegedy et al., 2016, CVPR, arXiv:1512.00567):
      :math:`q = (1-\varepsilon)\,p + \varepsilon/C`. With ``normalization="weights"`` it equals
      ``torch.nn.CrossEntropyLoss(class_weights, label_smoothing=label_smoothing)``.

    A class with :math:`q_k = 0` or :math:`w_k = 0` adds 0, even if its logit is :math:`-\infty`.

    Args:
        label_smoothing: :math:`\varepsilon` in [0, 1]; it may be changed between calls.
        class_weights: C finite numbers :math:`\ge 0`: a tensor, an array or a sequence. They are a
            buffer without gradient; unless a tensor, on torch's default device.
        reduction: ``"none"`` keeps the loss of every sample (0 where ignored), ``"sum"`` adds them,
            ``"mean"`` divides the sum. A sample is one target: a position, for inputs with spatial
            dimensions. Of no sample, or ignored ones only, the sum is 0 and the mean ``nan``.
        convention: ``"exclude-true"`` or ``"include-true"``.
        normalization: what the mean divides by: the number of ``"samples"`` that are not ignored,
            or the sum of the ``"weights"`` of their classes, but of probabilities the number too.
        ignore_index: class index of samples that do not count. With probabilities as targets it
            must be negative and has no effect.

    Shape:
        - ``preds``: :math:`(C)`, :math:`(N, C)` or :math:`(N, C, d_1, \dots)` with
          :math:`C \ge 2`: unnormalised logits, float16, bfloat16, float32 or float64.
        - ``targets``: class indices in [0, C) (or ``ignore_index``) of any integer dtype and of
          shape :math:`()`, :math:`(N)` or :math:`(N, d_1, \dots)`; or probabilities in [0, 1], any
          of those floats, of the shape of ``preds``. That they sum to 1 is not checked.
        - output: the shape of the class indices with ``"none"``, else a scalar; computed in float64
          for float64 logits, else in float32, under autocast too.

    With class indices, the gradient is the only N×C tensor; on a CPU, the forward pass of up to 2²⁰
    logits computes it already, past saved-tensor hooks. There are second derivatives, and those in
    probabilities as targets. On a GPU, values of targets are not checked, since reading them would
    make the host wait; an index out of range trips the gather kernel's device-side assertion.

    ``torch.compile`` (one graph, any shape and ε), ``torch.export`` and ``torch.jit.trace`` (with
    the options, the latter also the checks, of the traced call), ``make_fx``, dispatch modes,
    subclasses, meta tensors, :mod:`torch.func` and forward-mode differentiation give the same value
    and gradient, but keep the log-probabilities for the backward pass and check no values of
    targets; dispatch modes, subclasses and meta tensors none of weights either.
    ``torch.jit.script`` raises.

    Raises ValueError for values out of range and for shapes, numbers of classes or devices that do
    not fit, TypeError for arguments of a wrong type and tensors of a wrong dtype.

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
        checks.check_options(label_smoothing, reduction, convention, normalization, ignore_index)
        weights = checks.as_weights(class_weights, torch.get_default_device(), may_wait=True)
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.convention = convention
        self.normalization = normalization
        self.ignore_index = int(ignore_index)
        self.register_buffer("class_weights", weights)

    @property
    def label_smoothing(self) -> float:
        return self._label_smoothing

    @label_smoothing.setter
    def label_smoothing(self, value: float) -> None:
        checks.check_epsilon("label_smoothing", value)
        self._label_smoothing = float(value)

    def forward(self, preds: Tensor, targets: Tensor) -> Tensor:
        options = self.reduction, self.convention, self.normalization, self.ignore_index
        return _loss(preds, targets, self.label_smoothing, self.class_weights, options)

    def extra_repr(self) -> str:
        weights = None if self.class_weights is None else f"({len(self.class_weights)} values)"
        names = "reduction", "convention", "normalization", "ignore_index"
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"label_smoothing={self.label_smoothing}, class_weights={weights}, {options}"


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
    """Functional twin of :class:`LabelSmoothingCrossEntropy`: same arguments, results and errors.

    The options are checked at each call, the values of the weights unless they are on a GPU.
    Weights that are not a tensor are moved to the device of ``preds``.
    """
    checks.check_options(label_smoothing, reduction, convention, normalization, ignore_index)
    device = preds.device if isinstance(preds, Tensor) else None  # `_loss` refuses the latter
    weights = checks.as_weights(class_weights, device, may_wait=False)
    options = reduction, convention, normalization, int(ignore_index)
    return _loss(preds, targets, float(label_smoothing), weights, options)


def convert_epsilon(epsilon: float, num_classes: int, *, to: Convention) -> float:
    """The ε that gives the same targets, of K ≥ 2 classes, in the convention ``to``.

    ``epsilon``, in [0, 1], is that of the other: ε_include = ε_exclude · K/(K−1). Raises ValueError
    for an argument out of range or a result above 1, of an ``"exclude-true"`` ε that gives the true
    class less than the others, and TypeError for an argument of the wrong type.
    """
    checks.check_epsilon("epsilon", epsilon)
    checks.check_choice("to", to, checks.CONVENTIONS)
    checks.check_integer("num_classes", num_classes)
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    if to == "exclude-true":
        return float(epsilon) * (num_classes - 1) / num_classes
    result = float(epsilon) * num_classes / (num_classes - 1)
    if result > 1:
        raise ValueError(
            f"epsilon must be at most (K-1)/K = {(num_classes - 1) / num_classes:.6g} to have an "
            f"include-true equivalent for {num_classes} classes, got {epsilon}"
        )
    return result


def _loss(
    preds: Tensor, targets: Tensor, epsilon: float, weights: Tensor | None, options: _Options
) -> Tensor:
    """The reduced loss; the options are checked already, the tensors are checked here."""
    reduction, convention, _, ignore_index = options
    checks.check_tensors(preds, targets, weights)
    single = preds.dim() == 1
    if single:
        preds, targets = preds.unsqueeze(0), targets.unsqueeze(0)
    num_classes = preds.shape[1]
    if isinstance(num_classes, Tensor):  # under torch.jit.trace
        num_classes = num_classes.double()
    if weights is not None:
        weights = weights.detach().to(kernel.compute_dtype(preds))
        weights = weights.view(1, -1, *[1] * (preds.dim() - 2))
    smoothing = kernel.Smoothing(*kernel.masses(epsilon, num_classes, convention), weights)
    if targets.is_floating_point():
        checks.check_probabilities(targets, ignore_index)
        loss, counts = kernel.from_probabilities(preds, targets, smoothing), None
    else:
        loss, counts = _from_indices(preds, targets.long().unsqueeze(1), smoothing, options)
    if loss.dim() == 0:
        return loss
    if reduction == "none":
        loss = loss.squeeze(1)
        return loss.squeeze(0) if single else loss
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if counts is None else loss.sum() / counts.sum()


def _from_indices(
    preds: Tensor, index: Tensor, smoothing: kernel.Smoothing, options: _Options
) -> tuple[Tensor, Tensor | None]:
    """The losses, and what each adds to the mean's divisor, None if 1; or the reduced loss."""
    reduction, _, normalization, ignore_index = options
    num_classes = preds.shape[1]
    by_weight = reduction == "mean" and normalization == "weights"
    if by_weight and smoothing.weights is not None:
        reduction = "none"
    if checks.values_are_at_hand(index) and not 0 <= ignore_index < num_classes:
        # The usual batch ignores none and is not looked at: the kernel refuses a wrong index.
        with contextlib.suppress(IndexError, RuntimeError):
            loss, counts = kernel.from_indices(preds, index, smoothing, reduction)
            return loss, counts if by_weight else None
    ignored = checks.ignored_samples(index, ignore_index, num_classes)
    if ignored is not None:
        index, reduction = index.masked_fill(ignored, 0), "none"
    loss, counts = kernel.from_indices(preds, index, smoothing, reduction)
    counts = counts if by_weight else None
    if ignored is not None:
        loss = loss.masked_fill(ignored, 0)
        counts = ignored.logical_not() if counts is None else counts.masked_fill(ignored, 0)
    return loss, counts
