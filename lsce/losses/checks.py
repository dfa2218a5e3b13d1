"""Checks of the loss's options and tensors, each with a sentence for what is wrong."""

import math
import numbers
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Convention = Literal["exclude-true", "include-true"]
Reduction = Literal["none", "mean", "sum"]
Normalization = Literal["samples", "weights"]
ClassWeights = Tensor | np.ndarray | Sequence[float]

CONVENTIONS: tuple[str, ...] = get_args(Convention)
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_SIGNED = (torch.int64, torch.int32, torch.int16, torch.int8)
_UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
_TARGETS = _SIGNED + _UNSIGNED + _FLOATS


def is_transformed(tensor: Tensor) -> bool:
    """Whether operations on the tensor are compiled, traced, transformed or dispatched elsewhere,
    so that its values must not be read."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
    )


def values_are_at_hand(tensor: Tensor) -> bool:
    """Whether values can be read without waiting: in CPU memory, and not transformed."""
    return tensor.device.type == "cpu" and not is_transformed(tensor)


def check_options(
    label_smoothing: float, reduction: str, convention: str, normalization: str, ignore_index: int
) -> None:
    check_epsilon("label_smoothing", label_smoothing)
    check_choice("reduction", reduction, get_args(Reduction))
    check_choice("convention", convention, CONVENTIONS)
    check_choice("normalization", normalization, get_args(Normalization))
    check_integer("ignore_index", ignore_index)


def check_epsilon(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 <= value <= 1:  # nan fails this too
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_integer(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")


def as_weights(
    class_weights: ClassWeights | None, device: torch.device | None, *, may_wait: bool
) -> Tensor | None:
    """Floating-point weights (C,), moved to ``device`` unless they are a tensor; on a GPU, their
    values are checked only if the host ``may_wait`` for it."""
    if class_weights is None:
        return None
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
    if not weights.is_floating_point():
        weights = weights.to(torch.get_default_dtype())
    has_values = not weights.is_meta and not is_transformed(weights)
    if has_values and (may_wait or weights.device.type == "cpu"):
        bad = ~((weights >= 0) & (weights < math.inf))
        if bad.any():
            where = int(bad.nonzero()[0])
            raise ValueError(
                f"class_weights must be finite and not negative, got {weights[where].item()} "
                f"for class {where}"
            )
    return weights if isinstance(class_weights, Tensor) else weights.to(device)


def check_tensors(preds: Tensor, targets: Tensor, weights: Tensor | None) -> None:
    """Dtypes, shapes and devices: all that is known without reading a value."""
    if not isinstance(preds, Tensor) or preds.dtype not in _FLOATS:
        raise TypeError(
            f"preds must be a tensor of float16, bfloat16, float32 or float64, got {_kind(preds)}"
        )
    shape = tuple(preds.shape)
    if not shape:
        raise ValueError("preds must have shape (C,), (N, C) or (N, C, d1, ...), got ()")
    classes = shape[0] if len(shape) == 1 else shape[1]
    if classes < 2:
        raise ValueError(f"preds must have at least 2 classes, got {classes} in shape {shape}")
    _check_targets(targets, shape)
    if targets.device != preds.device:
        raise ValueError(f"targets must be on {preds.device} as preds are, got {targets.device}")
    if weights is None:
        return
    if len(weights) != classes:
        raise ValueError(
            f"class_weights must have one weight for each of {classes} classes, got {len(weights)}"
        )
    if weights.device != preds.device:
        raise ValueError(
            f"class_weights must be on {preds.device} as preds are, got {weights.device}; "
            "move the criterion with .to()"
        )


def _check_targets(targets: Tensor, preds_shape: tuple[int, ...]) -> None:
    if not isinstance(targets, Tensor) or targets.dtype not in _TARGETS:
        raise TypeError(
            "targets must be a tensor of an integer dtype (class indices) or of a float dtype "
            f"(probabilities), got {_kind(targets)}"
        )
    shape = tuple(targets.shape)
    index_shape = () if len(preds_shape) == 1 else preds_shape[:1] + preds_shape[2:]
    if targets.is_floating_point():
        if shape == index_shape:
            raise TypeError(f"targets must be integers to be class indices, got {targets.dtype}")
        if shape != preds_shape:
            raise ValueError(
                f"targets must have the shape of preds {preds_shape} to be probabilities, "
                f"got {shape}"
            )
    elif shape != index_shape:
        hint = "; one-hot targets must be floats" if shape == preds_shape else ""
        raise ValueError(
            f"targets must have shape {index_shape} to be class indices for preds of shape "
            f"{preds_shape}, got {shape}{hint}"
        )


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def ignored_samples(index: Tensor, ignore_index: int, num_classes: int) -> Tensor | None:
    """Mask of the samples to ignore, or None if there are none; both, and indices out of range,
    are looked for only where values are at hand."""
    ignored = index == ignore_index
    if not values_are_at_hand(index):
        return ignored
    outside = index[((index < 0) | (index >= num_classes)) & ~ignored]
    if len(outside):
        raise ValueError(
            f"targets must be class indices from 0 to {num_classes - 1} or ignore_index "
            f"({ignore_index}), got {outside[0].item()}"
        )
    may_occur = index.numel() > 0 and bool(index.min() <= ignore_index <= index.max())
    return ignored if may_occur else None


def check_probabilities(targets: Tensor, ignore_index: int) -> None:
    if ignore_index >= 0:
        raise ValueError(
            f"ignore_index must be negative when targets are probabilities, got {ignore_index}"
        )
    if not targets.numel() or not values_are_at_hand(targets):
        return
    low, high = (value.item() for value in targets.detach().aminmax())
    slack = 8 * torch.finfo(targets.dtype).eps  # mixtures of targets round a little past the ends
    if not (low >= -slack and high <= 1 + slack):
        value = high if low >= -slack else low
        raise ValueError(f"targets must be probabilities in [0, 1], got {value}")
