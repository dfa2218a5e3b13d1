import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from lsce.measures import calibration
from lsce.measures.temperature import fit_temperature


def draw(true_temperature, n=4000, classes=10, seed=0):
    """Logits whose labels are drawn from softmax(z / true_temperature)."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(n, classes))
    probs = calibration.softmax(logits, true_temperature)
    return logits, (probs.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)


def nll(logits, labels, temperature):
    """Second implementation: PyTorch's."""
    return torch.nn.functional.cross_entropy(
        torch.tensor(logits) / temperature, torch.tensor(labels)
    ).item()


@pytest.mark.parametrize("true", [0.3, 0.7, 1.0, 2.5, 8.0])
def test_recovers_the_temperature_the_labels_were_drawn_with(true):
    fit = fit_temperature(*draw(true, n=20_000))
    assert fit.converged
    assert fit.value == pytest.approx(true, rel=0.05)
    # T < 1 mends under-confidence, T > 1 over-confidence.
    assert true == 1 or (fit.value < 1) == (true < 1)


@pytest.mark.parametrize("true", [0.3, 1.0, 8.0])
def test_equals_scipy_and_reports_the_nll_that_pytorch_computes(true):
    logits, labels = draw(true)
    fit = fit_temperature(logits, labels)
    reference = minimize_scalar(
        lambda t: nll(logits, labels, math.exp(t)), bounds=(-4, 4), method="bounded"
    )
    assert fit.value == pytest.approx(math.exp(reference.x), rel=1e-4)
    assert fit.nll_before == pytest.approx(nll(logits, labels, 1.0), abs=1e-12)
    assert fit.nll_after == pytest.approx(nll(logits, labels, fit.value), abs=1e-12)
    assert fit.nll_after <= reference.fun + 1e-12


@pytest.mark.parametrize("scale", [0.03, 1.0, 30.0])
def test_gradient_vanishes_at_the_optimum(scale):
    logits, labels = draw(1.3)
    logits = logits * scale
    fit = fit_temperature(logits, labels)
    beta = torch.tensor(1 / fit.value, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(torch.tensor(logits) * beta, torch.tensor(labels))
    (gradient,) = torch.autograd.grad(loss, beta)
    assert fit.converged
    assert abs(gradient.item()) < 1e-9 * scale


def test_an_optimum_beyond_the_bounds_is_not_called_converged():
    logits, labels = draw(1.3)
    for scale, bound in [(1e-3, 0.01), (1e3, 100)]:
        fit = fit_temperature(logits * scale, labels)
        assert not fit.converged and fit.value == pytest.approx(bound)


def test_scaling_the_logits_scales_the_temperature():
    logits, labels = draw(2.0)
    value = fit_temperature(logits, labels).value
    assert fit_temperature(3 * logits, labels).value == pytest.approx(3 * value, rel=1e-9)
    # A constant added to an image's logits changes nothing.
    shift = np.random.default_rng(1).normal(size=(len(logits), 1)) * 100
    assert fit_temperature(logits + shift, labels).value == pytest.approx(value, rel=1e-9)


def test_predictions_stay_and_calibration_improves():
    logits, labels = draw(2.5)
    value = fit_temperature(logits, labels).value
    before, after = calibration.softmax(logits), calibration.softmax(logits, value)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    gaps = [calibration.debiased_calibration_error(p, labels) for p in (before, after)]
    assert gaps[0] > 0.1 and gaps[1] < 0.03


@pytest.mark.parametrize("seed", range(20))
def test_never_worse_than_no_scaling(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(12, 3)) * 10.0 ** rng.integers(-3, 4)
    fit = fit_temperature(logits, rng.integers(3, size=12))
    assert fit.nll_after <= fit.nll_before
    assert 0.01 <= fit.value <= 100 * (1 + 1e-12)
    assert math.isfinite(fit.nll_after)


def test_all_right_has_no_best_temperature():
    logits = np.eye(3) * 0.5
    fit = fit_temperature(logits, [0, 1, 2])
    assert not fit.converged
    assert fit.value == pytest.approx(0.01)
    assert fit.nll_after < fit.nll_before


def test_all_wrong_has_no_best_temperature():
    fit = fit_temperature(np.eye(3) * 50, [1, 2, 0])
    assert not fit.converged
    assert fit.value == pytest.approx(100)


@pytest.mark.parametrize("logits", [np.zeros((3, 3)), np.eye(3) * 1e4])
def test_where_nothing_can_be_gained_the_temperature_stays_one(logits):
    fit = fit_temperature(logits, [0, 1, 2])
    assert (fit.value, fit.converged) == (1.0, False)
    assert fit.nll_after == fit.nll_before


def test_tensors_and_arrays_agree():
    logits, labels = draw(2.0)
    fit = fit_temperature(logits, labels)
    tensors = torch.tensor(logits, requires_grad=True), torch.tensor(labels)
    assert fit_temperature(*tensors) == fit
    single = fit_temperature(torch.tensor(logits, dtype=torch.float32), labels)
    assert single.value == pytest.approx(fit.value, rel=1e-6)
    with pytest.raises(dataclasses.FrozenInstanceError):
        fit.value = 1.0


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        ([[0.0, math.inf]], [0], ValueError, "logits must be finite"),
        ([0.0, 1.0], [0], ValueError, r"logits must have shape \(N, C\)"),
        ([[0.0, 2.0]], [2], ValueError, r"labels must lie in \[0, 2\), but one is 2"),
        ([[0.0, 2.0]], [0.0], TypeError, "labels must be integers"),
        ([[0.0, 2.0]], [0, 1], ValueError, r"labels must have shape \(1,\)"),
    ],
)
def test_bad_input_is_named(logits, labels, error, message):
    with pytest.raises(error, match=message):
        fit_temperature(logits, labels)


def test_needs_neither_scipy_nor_sklearn():
    code = (
        "import sys; sys.modules['scipy'] = sys.modules['sklearn'] = None\n"
        "import lsce.measures.calibration as m, lsce.measures.temperature as c\n"
        "p = m.softmax([[0., 1.], [2., 0.], [1., 0.]]); m.summarize(p, [1, 0, 1])\n"
        "m.reliability_table(p, [1, 0, 1]); c.fit_temperature([[0., 1.], [2., 0.]], [1, 1])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
