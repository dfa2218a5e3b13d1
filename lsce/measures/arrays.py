"""The checks of every measure's arrays.

NumPy arrays, sequences and tensors of any float dtype, on any device, with or without gradient, are
taken alike. What does not fit raises TypeError or ValueError in a sentence that names the argument.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike

Values = ArrayLike | torch.Tensor


def as_array(values: Values) -> np.ndarray:
    """The same numbers in NumPy: bfloat16, which it lacks, as float32."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, list | tuple) and any(isinstance(v, torch.Tensor) for v in values):
        return np.stack([as_array(value) for value in values])
    return np.asarray(values)


def rounded(values: np.ndarray, like: Values) -> np.ndarray:
    """float64 values rounded to the precision that `like` came in, as `as_array` returns it."""
    if isinstance(like, torch.Tensor) and like.dtype == torch.bfloat16:
        return as_array(torch.from_numpy(values).to(like.dtype))
    dtype = as_array(like).dtype
    return values.astype(dtype) if dtype.kind == "f" else values


def sum_tolerance(like: Values) -> float:
    """How far from 1 the sum of a row of probabilities may be: 2ε of the precision of `like`, half
    of it for rounding the probabilities and half for a softmax computed in that precision; at least
    0.001."""
    if isinstance(like, torch.Tensor) and like.is_floating_point():
        return max(1e-3, 2 * torch.finfo(like.dtype).eps)
    dtype = as_array(like).dtype
    return max(1e-3, 2 * float(np.finfo(dtype).eps)) if dtype.kind == "f" else 1e-3


def _numbers(name: str, values: Values) -> np.ndarray:
    values = as_array(values)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers, but they are {values.dtype}")
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, but some are NaN or infinite")
    return values


def _outside(name: str, values: np.ndarray) -> str:
    return f"{name} must lie in [0, 1], but range from {values.min():.6g} to {values.max():.6g}"


def _matrix(name: str, values: Values, shape: str = "(N, C)", columns: int = 2) -> np.ndarray:
    values = _numbers(name, values)
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < columns:
        n, c = shape.strip("()").split(", ")
        raise ValueError(
            f"{name} must have shape {shape} with {n} >= 1 and {c} >= {columns}, "
            f"but has {values.shape}"
        )
    return values


def as_matrix(name: str, values: Values, shape: str = "(N, C)", columns: int = 2) -> np.ndarray:
    """Finite numbers of a shape, N >= 1 and C >= `columns`, in float64."""
    return _finite(name, _matrix(name, values, shape, columns).astype(np.float64))


def as_vector(name: str, values: Values) -> np.ndarray:
    """Finite numbers (N,), N >= 1, in float64."""
    values = _numbers(name, values)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name} must have shape (N,) with N >= 1, but has {values.shape}")
    return _finite(name, values.astype(np.float64))


def as_risks(name: str, values: Values) -> np.ndarray:
    """Numbers (N,) in [0, 1], N >= 1, in float64."""
    values = as_vector(name, values)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(_outside(name, values))
    return values


def as_shares(name: str, values: Values) -> np.ndarray:
    """Floats (N,) in [0, 1], N >= 1, in the precision they came in."""
    values = as_array(values)
    if values.dtype.kind != "f" or values.ndim != 1 or not values.size:
        raise TypeError(
            f"{name} must be floating-point numbers (N,) with N >= 1, "
            f"not {values.dtype} of shape {values.shape}"
        )
    if not ((values >= 0) & (values <= 1)).all():  # NaN is in no interval
        raise ValueError(_outside(name, values))
    return values


def as_distributions(name: str, values: Values) -> np.ndarray:
    """Distributions (N, C) in the precision they came in, N >= 1 and C >= 2."""
    tolerance, values = sum_tolerance(values), _matrix(name, values)
    # A NaN or an infinity anywhere in a row shows in its sum.
    sums = _finite(name, values.sum(axis=1, dtype=np.float64))
    worst = sums[np.abs(sums - 1).argmax()]
    off = abs(worst - 1) > tolerance
    # Without a negative value and with the right sums, none can be too large.
    if values.min() < 0 or (off and values.max() > 1 + tolerance):
        raise ValueError(_outside(name, values) + " (are they logits?)")
    if off:
        raise ValueError(f"each row of {name} must sum to 1, but one sums to {worst:.6g}")
    return values


def as_logits(values: Values, name: str = "logits") -> np.ndarray:
    """Finite logits (N, C), N >= 1 and C >= 2, in float64. Probabilities are refused, as every
    measure of logits would be wrong for them."""
    tolerance, values = sum_tolerance(values), as_matrix(name, values)
    inside = values.min() >= 0 and values.max() <= 1
    if inside and (np.abs(values.sum(axis=1) - 1) <= tolerance).all():
        raise ValueError(
            f"{name} must be logits, but each row lies in [0, 1] and sums to 1, as probabilities "
            "do: pass the logits, or the logarithms of the probabilities"
        )
    return values


def as_labels(
    values: Values, n: int, classes: int | None = None, name: str = "labels"
) -> np.ndarray:
    """Integer labels (n,), in [0, classes) where that is given."""
    values = as_array(values)
    if values.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one an image, but have {values.shape}")
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, but they are {values.dtype}")
    wrong = values[(values < 0) | (values >= classes)] if classes is not None else values[:0]
    if wrong.size:
        raise ValueError(f"{name} must lie in [0, {classes}), but one is {wrong[0]}")
    return values.astype(np.intp)
