"""Checks of the loss's options and tensors, each with a sentence for what is wrong."""

import math
import numbers
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Convention = Literal["exclude-true", "include-true"]
Reduction = Literal["none", "mean", "sum"]
Normalization = Literal["samples", "weights"]
ClassWeights = Tensor | np.ndarray | Sequence[float]

CONVENTIONS = ("exclude-true", "include-true")
_REDUCTIONS = ("none", "mean", "sum")
_NORMALIZATIONS = ("samples", "weights")
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_INDICES = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)
_TARGETS = _INDICES + _FLOATS


def check_options(
    label_smoothing: float,
    reduction: str,
    convention: str,
    normalization: str,
    ignore_index: int,
) -> None:
    check_epsilon("label_smoothing", label_smoothing)
    check_choice("reduction", reduction, _REDUCTIONS)
    check_choice("convention", convention, CONVENTIONS)
    check_choice("normalization", normalization, _NORMALIZATIONS)
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, numbers.Integral):
        raise TypeError(f"ignore_index must be an integer, got {ignore_index!r}")


def check_epsilon(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value <= 1:  # nan fails this too
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def as_weights(class_weights: ClassWeights) -> Tensor:
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


def check_weight_values(weights: Tensor) -> None:
    bad = ~((weights >= 0) & (weights < math.inf))
    if bad.any():
        where = int(bad.nonzero()[0])
        raise ValueError(
            f"class_weights must be finite and not negative, got {weights[where].item()} "
            f"for class {where}"
        )


def check_tensors(preds: Tensor, targets: Tensor, weights: Tensor | None) -> None:
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


def values_are_at_hand(tensor: Tensor) -> bool:
    """Whether values can be read at no wait: in CPU memory, and not transformed."""
    return tensor.device.type == "cpu" and not is_transformed(tensor)


def ignored_samples(targets: Tensor, ignore_index: int, num_classes: int) -> Tensor | None:
    """Mask of the samples to ignore, or None where it is known at no cost that there are none.

    Raises ValueError for an index out of range, where values are at hand.
    """
    if not values_are_at_hand(targets):
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


def check_probabilities(targets: Tensor, ignore_index: int) -> None:
    if ignore_index >= 0:
        raise ValueError(
            f"ignore_index must be negative when targets are probabilities, got {ignore_index}"
        )
    if targets.numel() == 0 or not values_are_at_hand(targets):
        return
    low, high = (value.item() for value in targets.detach().aminmax())
    slack = 8 * torch.finfo(targets.dtype).eps  # mixtures of targets round a little past the ends
    if not (-slack <= low and high <= 1 + slack):
        value = low if not low >= -slack else high
        raise ValueError(f"targets must be probabilities in [0, 1], got {value}")


def is_transformed(tensor: Tensor) -> bool:
    """Whether operations on the tensor are compiled, traced, transformed or dispatched elsewhere.

    Its values must not be read then.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
    )
