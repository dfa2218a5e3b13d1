import copy
import doctest
import io
import itertools
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from lsce.losses import (
    LabelSmoothingCrossEntropy,
    convert_epsilon,
    kernel,
    label_smoothing_cross_entropy,
    smoothing,
)

CONVENTIONS = ("exclude-true", "include-true")
REDUCTIONS = ("none", "mean", "sum")
NORMALIZATIONS = ("samples", "weights")
C = 5
SHAPES = {
    "single": (),
    "batch": (7,),
    "sequence": (4, 3),
    "image": (3, 2, 4),
    "video": (2, 3, 2, 2),
}


@pytest.fixture(autouse=True)
def seed_and_one_thread():
    """One thread: on tensors this small, more only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def make(shape, num_classes=C, dtype=torch.float64):
    """Logits and class indices, for a targets' shape."""
    preds_shape = (*shape[:1], num_classes, *shape[1:])
    preds = 3 * torch.randn(preds_shape, dtype=dtype)
    return preds.requires_grad_(), torch.randint(num_classes, shape)


def class_dim(preds):
    return 0 if preds.dim() == 1 else 1


def dense_reference(
    preds, targets, epsilon, weights, reduction, convention, normalization, ignore_index=-100
):
    """The definition written out, with the smoothed label matrix, classes last, in float64."""
    logits = preds.movedim(class_dim(preds), -1).double()
    num_classes = logits.shape[-1]
    weights = torch.ones(num_classes).double() if weights is None else weights.double()
    if targets.is_floating_point():
        one_hot = targets.movedim(class_dim(preds), -1).double()
        keep = torch.ones(one_hot.shape[:-1]).double()
        divisor_weights = keep
    else:
        keep = (targets != ignore_index).double()
        safe = torch.where(targets == ignore_index, 0, targets)
        one_hot = F.one_hot(safe, num_classes).double()
        divisor_weights = weights[safe] * keep
    if convention == "exclude-true":
        smoothed = (1 - epsilon) * one_hot + epsilon * (1 - one_hot) / (num_classes - 1)
    else:
        smoothed = (1 - epsilon) * one_hot + epsilon / num_classes
    log_probs = logits - logits.exp().sum(-1, keepdim=True).log()
    loss = -(weights * smoothed * log_probs).sum(-1) * keep
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / (keep if normalization == "samples" else divisor_weights).sum()


def gradient(loss, inputs):
    return torch.autograd.grad(loss.sum(), inputs)[0]


def assert_same(ours, reference, inputs, tolerance=1e-12):
    torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        gradient(ours, inputs), gradient(reference, inputs), rtol=tolerance, atol=tolerance
    )


@pytest.fixture
def small_blocks(monkeypatch):
    """Sends even small batches down the block-by-block path, two or so rows at a time."""
    calls = []
    apply = kernel._Blockwise.apply
    monkeypatch.setattr(kernel, "_block_size", lambda preds: 2 * C)
    monkeypatch.setattr(kernel._Blockwise, "apply", lambda *args: calls.append(1) or apply(*args))
    return calls


# --- values ---------------------------------------------------------------------------------


def test_docstring_examples():
    assert doctest.testmod(smoothing, extraglobs={"torch": torch}).attempted >= 6
    assert doctest.testmod(smoothing, extraglobs={"torch": torch}).failed == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("weights", "expected"), [(None, 0.5565908), ([1, 2, 1], 0.7680347)])
def test_the_issues_numbers(weights, expected, dtype):
    preds = torch.tensor([[2.0, 1.0, 0.1], [1.5, 2.5, 0.3]], dtype=dtype)
    targets = torch.tensor([0, 1])
    criterion = LabelSmoothingCrossEntropy(label_smoothing=0.1, class_weights=weights)
    assert criterion(preds, targets).item() == pytest.approx(expected, abs=2e-7)
    twin = label_smoothing_cross_entropy(preds, targets, 0.1, weights)
    assert twin.item() == criterion(preds, targets).item()


def test_two_classes_by_hand():
    # ε = 0.25 on equal logits: every log-probability is -ln 2, so any target gives ln 2.
    equal = label_smoothing_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), 0.25)
    assert equal.item() == pytest.approx(math.log(2))
    # π = (3/4, 1/4): -(3/4 ln 3/4 + 1/4 ln 1/4).
    preds = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)
    loss = label_smoothing_cross_entropy(preds, torch.tensor([0]), 0.25)
    assert loss.item() == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("blockwise", [False, True])
def test_equals_the_definition(shape, convention, weighted, blockwise, request):
    if blockwise:
        calls = request.getfixturevalue("small_blocks")
    preds, targets = make(shape)
    weights = torch.rand(C, dtype=torch.float64) if weighted else None
    if shape:
        targets.view(-1)[1] = -100
    probabilities = preds.detach().mul(0.3).softmax(class_dim(preds))
    for reduction, normalization, epsilon in itertools.product(
        REDUCTIONS, NORMALIZATIONS, (0, 0.1, 0.97, 1)
    ):
        for target in (targets, probabilities):
            ours = label_smoothing_cross_entropy(
                preds,
                target,
                epsilon,
                weights,
                reduction,
                convention=convention,
                normalization=normalization,
            )
            reference = dense_reference(
                preds, target, epsilon, weights, reduction, convention, normalization
            )
            assert_same(ours, reference, preds)
    assert not blockwise or not shape or calls  # () is a single block


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("blockwise", [False, True])
def test_equals_torch_cross_entropy(shape, weighted, blockwise, request):
    if blockwise:
        request.getfixturevalue("small_blocks")
    preds, targets = make(shape)
    weights = torch.rand(C, dtype=torch.float64) if weighted else None
    probabilities = torch.rand_like(preds).softmax(class_dim(preds))
    for reduction, epsilon, ignore_index in itertools.product(REDUCTIONS, (0, 0.1, 1), (-100, 2)):
        torchs = torch.nn.CrossEntropyLoss(
            weights, label_smoothing=epsilon, reduction=reduction, ignore_index=ignore_index
        )
        ours = LabelSmoothingCrossEntropy(
            epsilon,
            weights,
            reduction,
            convention="include-true",
            normalization="weights",
            ignore_index=ignore_index,
        )
        ignoring = targets.clone()
        if shape:
            ignoring.view(-1)[0] = ignore_index
            ignoring.view(-1)[1] = 1
        elif ignore_index == 2:
            ignoring.fill_(1)  # an ignored single sample has a mean of nan
        assert_same(ours(preds, ignoring), torchs(preds, ignoring), preds)
        if ignore_index < 0:
            assert_same(ours(preds, probabilities), torchs(preds, probabilities), preds)


def test_probability_targets_generalise_class_indices():
    preds, targets = make((6, 2))
    one_hot = F.one_hot(targets, C).movedim(-1, 1).double()
    weights = torch.rand(C, dtype=torch.float64)
    for convention in CONVENTIONS:
        criterion = LabelSmoothingCrossEntropy(0.3, weights, convention=convention)
        assert_same(criterion(preds, one_hot), criterion(preds, targets), preds)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_block_holds_many_rows_and_the_last_is_shorter(weighted, monkeypatch):
    monkeypatch.setattr(kernel, "_block_size", lambda preds: 1000)
    preds, targets = make((33,), num_classes=100)
    assert [len(b) for b, *_ in kernel._blocks(preds, None, targets)] == [10, 10, 10, 3]
    weights = torch.rand(100, dtype=torch.float64) if weighted else None
    ours = label_smoothing_cross_entropy(preds, targets, 0.2, weights)
    reference = dense_reference(preds, targets, 0.2, weights, "mean", "exclude-true", "samples")
    assert_same(ours, reference, preds)


@pytest.mark.parametrize("blockwise", [False, True])
def test_impossible_classes_cost_nothing_at_epsilon_0(blockwise, request):
    if blockwise:
        request.getfixturevalue("small_blocks")
    preds = torch.tensor([[1.0, -math.inf, 0.0, 2.0, 1.0]] * 3, requires_grad=True)
    targets = torch.tensor([0, 2, 3])
    assert_same(
        label_smoothing_cross_entropy(preds, targets, 0),
        F.cross_entropy(preds, targets),
        preds,
        tolerance=1e-6,
    )
    assert label_smoothing_cross_entropy(preds, targets, 0.1).item() == math.inf


def test_impossible_classes_with_probabilities_or_without_weight():
    preds = torch.tensor([[0.0, 1.0, -math.inf]])
    targets = torch.tensor([[0.0, 1.0, 0.0]])
    loss = label_smoothing_cross_entropy
    assert loss(preds, targets, 0).item() == pytest.approx(0.3133, abs=5e-5)
    assert loss(preds, targets, 0.1).item() == math.inf
    assert loss(preds, torch.tensor([1]), 0.1, [1, 1, 0]).item() == pytest.approx(0.3476, abs=5e-5)


def extreme_cases(kind):
    """Every set of impossible classes but all of them, with every true class or zero target."""
    patterns = torch.tensor(list(itertools.product((False, True), repeat=C))[:-1])
    preds = torch.randn(len(patterns), C).double().masked_fill(patterns, -math.inf)
    preds, targets = preds.repeat_interleave(C, 0), torch.arange(C).repeat(len(patterns))
    if kind == "indices":
        return preds, targets, F.one_hot(targets, C).double()
    p = F.one_hot(targets, C).double()
    if kind == "soft":  # two classes without mass
        p = (0.5 * p + 0.3 * p.roll(1, 1) + 0.2 * p.roll(2, 1)).double()
    return preds, p, p


@pytest.mark.parametrize("path", ["composed", "blockwise", "blockwise, gradient kept"])
@pytest.mark.parametrize("kind", ["indices", "one-hot", "soft"])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("weights", [None, (1, 2, 0, 3, 0.5)])
def test_every_impossible_class_with_every_target(
    path, kind, convention, weights, monkeypatch, small_blocks
):
    if path == "composed":
        monkeypatch.setattr(kernel, "_is_composed", lambda preds: True)
    preds, targets, p = extreme_cases(kind)
    preds.requires_grad_()
    w = torch.ones(C).double() if weights is None else torch.tensor(weights).double()
    log_probs, pi = preds.detach().log_softmax(1), preds.detach().softmax(1)
    for epsilon in (0, 0.1, 0.8, 0.97, 1):
        spread = epsilon / C if convention == "include-true" else epsilon * (1 - p) / (C - 1)
        mass = w * ((1 - epsilon) * p + spread)
        expected = -torch.where(mass == 0, 0, mass * log_probs).sum(1)
        reduction = "sum" if "kept" in path else "none"
        loss = label_smoothing_cross_entropy(
            preds, targets, epsilon, weights, reduction, convention=convention
        )
        torch.testing.assert_close(loss, expected.sum() if reduction == "sum" else expected)
        expected = pi * mass.sum(1, keepdim=True) - mass
        torch.testing.assert_close(gradient(loss, preds), expected)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("impossible", [False, True])
def test_gradient_of_probabilities_that_are_0(impossible, convention):
    preds = torch.tensor([[0.0, 1.0, -math.inf if impossible else 2.0]], dtype=torch.float64)
    targets = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([2.0, 1.0, 1.0])
    loss = label_smoothing_cross_entropy(preds, targets, 0, weights, convention=convention)
    expected = -weights * preds.log_softmax(1)
    torch.testing.assert_close(gradient(loss, targets), expected.masked_fill(expected.isinf(), 0))


def test_large_logits_do_not_cancel():
    preds = torch.tensor([[1e4, 1e4 + 1, 1e4 + 2]])
    near = torch.tensor([[0.0, 1.0, 2.0]])
    targets = torch.tensor([1])
    assert label_smoothing_cross_entropy(preds, targets).item() == pytest.approx(
        label_smoothing_cross_entropy(near, targets).item(), rel=1e-6
    )


def test_the_optimal_gap_minimises_the_loss():
    # METHODS: with q_y = 1-ε and ε/(K-1) elsewhere the best logit gap is log((K-1)(1-ε)/ε).
    epsilon, num_classes = 0.1, 100
    gap = math.log((num_classes - 1) * (1 - epsilon) / epsilon)
    preds = torch.zeros(1, num_classes, dtype=torch.float64)
    preds[0, 3] = gap
    preds.requires_grad_()
    loss = label_smoothing_cross_entropy(preds, torch.tensor([3]), epsilon)
    assert gradient(loss, preds).abs().max() < 1e-15
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1 / 99)
    assert loss.item() == pytest.approx(entropy)


# --- reduction and ignored samples ----------------------------------------------------------


@pytest.mark.parametrize("blockwise", [False, True])
def test_ignored_samples_do_not_matter(blockwise, request):
    if blockwise:
        request.getfixturevalue("small_blocks")
    preds, targets = make((8,))
    targets[[2, 5]] = -1
    keep = targets != -1
    weights = torch.rand(C, dtype=torch.float64)
    for normalization, reduction in itertools.product(NORMALIZATIONS, ("mean", "sum")):
        criterion = LabelSmoothingCrossEntropy(
            0.2, weights, reduction, normalization=normalization, ignore_index=-1
        )
        assert_same(criterion(preds, targets), criterion(preds[keep], targets[keep]), preds)
        assert gradient(criterion(preds, targets), preds)[~keep].eq(0).all()
    loss = LabelSmoothingCrossEntropy(reduction="none", ignore_index=-1)(preds, targets)
    assert loss.shape == (8,) and loss[~keep].eq(0).all() and loss[keep].gt(0).all()


@pytest.mark.parametrize("targets", [torch.full((3,), -100), torch.empty(0, dtype=torch.long)])
@pytest.mark.parametrize("weights", [None, [1, 2, 3, 4, 5]])
def test_nothing_to_average(targets, weights):
    preds = torch.randn(len(targets), C)
    for normalization in NORMALIZATIONS:
        results = {
            reduction: label_smoothing_cross_entropy(
                preds, targets, 0.1, weights, reduction, normalization=normalization
            )
            for reduction in REDUCTIONS
        }
        assert results["mean"].isnan()
        assert results["sum"] == 0
        assert torch.equal(results["none"], torch.zeros(len(targets)))
    assert F.cross_entropy(preds, targets, label_smoothing=0.1).isnan()


def test_normalisations_differ_by_the_weights():
    preds, targets = make((6,))
    weights = torch.tensor([1, 2, 3, 4, 5])
    by_sample = LabelSmoothingCrossEntropy(class_weights=weights)(preds, targets)
    by_weight = LabelSmoothingCrossEntropy(class_weights=weights, normalization="weights")
    ratio = weights[targets].sum() / 6
    torch.testing.assert_close(by_sample, by_weight(preds, targets) * ratio)


# --- conventions ----------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 3, 100, 50_000])
@pytest.mark.parametrize("epsilon", [0, 0.05, 0.1, 0.5])
def test_convert_epsilon_gives_the_same_loss(num_classes, epsilon):
    preds, targets = make((3,), num_classes)
    converted = convert_epsilon(epsilon, num_classes, to="include-true")
    torch.testing.assert_close(
        label_smoothing_cross_entropy(preds, targets, epsilon),
        label_smoothing_cross_entropy(preds, targets, converted, convention="include-true"),
        rtol=1e-13,
        atol=1e-13,
    )
    assert convert_epsilon(converted, num_classes, to="exclude-true") == pytest.approx(epsilon)


def test_convert_epsilon_values_and_limits():
    assert convert_epsilon(0.1, 100, to="include-true") == pytest.approx(0.101010101)
    assert convert_epsilon(1, 4, to="exclude-true") == 0.75
    for num_classes in range(2, 300):  # rounding must not push the largest legal ε past 1
        limit = (num_classes - 1) / num_classes
        assert convert_epsilon(limit, num_classes, to="include-true") == pytest.approx(1)
    with pytest.raises(ValueError, match=r"epsilon must be at most \(K-1\)/K = 0.75 .* got 0.8"):
        convert_epsilon(0.8, 4, to="include-true")
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        convert_epsilon(0.1, 1, to="include-true")
    with pytest.raises(TypeError, match="num_classes must be an integer, got 2.5"):
        convert_epsilon(0.1, 2.5, to="include-true")
    with pytest.raises(ValueError, match="to must be one of .* got 'torch'"):
        convert_epsilon(0.1, 10, to="torch")
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\], got -0.1"):
        convert_epsilon(-0.1, 10, to="exclude-true")


# --- dtypes, weights, module ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("blockwise", [False, True])
def test_half_precision_is_computed_in_float32(dtype, blockwise, request):
    if blockwise:
        request.getfixturevalue("small_blocks")
    preds, targets = make((9,), dtype=dtype)
    exact = preds.detach().double().requires_grad_()
    weights = torch.tensor([1, 2, 1, 3, 1])
    reference = dense_reference(exact, targets, 0.1, weights, "mean", "exclude-true", "samples")
    loss = label_smoothing_cross_entropy(preds, targets, 0.1, weights)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
    grad = gradient(loss, preds)
    assert grad.dtype == dtype  # rounded once, from float32
    torch.testing.assert_close(grad, gradient(reference, exact).to(dtype), rtol=1e-2, atol=1e-6)
    as_probabilities = F.one_hot(targets, C).to(dtype)
    assert label_smoothing_cross_entropy(preds, as_probabilities).dtype == torch.float32


@pytest.mark.parametrize("blockwise", [False, True])
def test_autocast(blockwise, request):
    if blockwise:
        request.getfixturevalue("small_blocks")
    preds, targets = make((9,))
    weights = torch.rand(C)
    with torch.autocast("cpu", torch.bfloat16):
        for dtype, expected in (
            (torch.bfloat16, torch.float32),
            (torch.float32, torch.float32),
            (torch.float64, torch.float64),
        ):
            cast = preds.to(dtype)
            loss = label_smoothing_cross_entropy(cast, targets, 0.1, weights)
            reference = dense_reference(
                cast, targets, 0.1, weights, "mean", "exclude-true", "samples"
            )
            assert loss.dtype == expected
            assert loss.item() == pytest.approx(reference.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_targets(dtype):
    preds, targets = make((4,))
    loss = label_smoothing_cross_entropy(preds, targets.to(dtype))
    assert loss == label_smoothing_cross_entropy(preds, targets)


@pytest.mark.parametrize(
    "weights",
    [
        [1, 2, 0, 4, 5],
        (1.0, 2.0, 0.0, 4.0, 5.0),
        np.array([1, 2, 0, 4, 5]),
        np.array([1.0, 2, 0, 4, 5]),
        torch.tensor([1, 2, 0, 4, 5]),
        torch.tensor([1, 2, 0, 4, 5], dtype=torch.float16),
    ],
    ids=lambda weights: type(weights).__name__,
)
def test_weights_of_any_kind(weights):
    preds, targets = make((9,))
    expected = dense_reference(
        preds, targets, 0.1, torch.tensor([1, 2, 0, 4, 5]), "mean", "exclude-true", "samples"
    )
    criterion = LabelSmoothingCrossEntropy(class_weights=weights)
    torch.testing.assert_close(criterion(preds, targets), expected)
    twin = label_smoothing_cross_entropy(preds, targets, 0.1, weights)
    torch.testing.assert_close(twin, expected)


def test_weights_are_a_buffer():
    criterion = LabelSmoothingCrossEntropy(class_weights=[1, 2, 3])
    assert [name for name, _ in criterion.named_buffers()] == ["class_weights"]
    assert not list(criterion.parameters())
    assert criterion.to(torch.float64).class_weights.dtype == torch.float64
    assert criterion.to("meta").class_weights.device.type == "meta"
    assert LabelSmoothingCrossEntropy().class_weights is None


@pytest.mark.parametrize("blockwise", [False, True])
def test_weights_are_constants(blockwise, request):
    if blockwise:
        request.getfixturevalue("small_blocks")
    preds, targets = make((9,))
    weights = torch.rand(C, dtype=torch.float64, requires_grad=True)
    label_smoothing_cross_entropy(preds, targets, 0.1, weights).backward()
    assert weights.grad is None and preds.grad is not None


def test_module_copies_saves_and_prints():
    preds, targets = make((4,))
    criterion = LabelSmoothingCrossEntropy(0.2, [1, 2, 3, 4, 5], convention="include-true")
    buffer = io.BytesIO()
    torch.save(criterion.state_dict(), buffer)
    buffer.seek(0)
    loaded = LabelSmoothingCrossEntropy(0.2, [1] * 5, convention="include-true")
    loaded.load_state_dict(torch.load(buffer))
    for other in (copy.deepcopy(criterion), loaded):
        assert other(preds, targets) == criterion(preds, targets)
    assert "label_smoothing=0.2, class_weights=(5 values)" in repr(criterion)
    assert "convention='include-true'" in repr(criterion)


# --- derivatives and transforms -------------------------------------------------------------


@pytest.mark.parametrize("blockwise", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_gradcheck(shape, weighted, blockwise, request):
    if blockwise:
        calls = request.getfixturevalue("small_blocks")
    preds, targets = make(shape)
    targets.view(-1)[1] = -100
    criterion = LabelSmoothingCrossEntropy(
        0.1, torch.rand(C, dtype=torch.float64) if weighted else None
    )
    assert torch.autograd.gradcheck(lambda p: criterion(p, targets), preds)
    assert torch.autograd.gradgradcheck(lambda p: criterion(p, targets), preds)
    assert not blockwise or calls


def test_gradcheck_of_probability_targets():
    preds, _ = make((3,))
    targets = torch.rand(3, C, dtype=torch.float64).softmax(1).requires_grad_()
    criterion = LabelSmoothingCrossEntropy(0.1, torch.rand(C, dtype=torch.float64))
    assert torch.autograd.gradcheck(criterion, (preds, targets))
    assert torch.autograd.gradgradcheck(criterion, (preds, targets))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weights", [None, [1, 2, 1, 3, 1]])
def test_gradient_kept_by_the_forward_pass(weights, reduction, dtype):
    preds, targets = make((9,), dtype=dtype)
    exact = preds.detach().double().requires_grad_()
    loss = label_smoothing_cross_entropy(preds, targets, 0.1, weights, reduction)
    reference = label_smoothing_cross_entropy(exact, targets, 0.1, weights, reduction)
    for factor in (1, 1, 3, -2):  # kept; used up; scaled anew
        grads = torch.autograd.grad(loss, preds, torch.tensor(float(factor)), retain_graph=True)
        expected = (factor * gradient(label_smoothing_cross_entropy(
            exact, targets, 0.1, weights, reduction), exact)).to(dtype)  # fmt: skip
        torch.testing.assert_close(grads[0], expected, rtol=1e-2, atol=1e-6)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)


def test_the_scale_of_the_loss_does_not_round_float16_away():
    """Loss scaling is there to keep small gradients: a float16 gradient, scaled later, is 0."""
    preds = torch.tensor([[20.0, 0.0, 0.0]] * 4, dtype=torch.float16, requires_grad=True)
    targets = torch.zeros(4, dtype=torch.long)
    (scaled,) = torch.autograd.grad(label_smoothing_cross_entropy(preds, targets, 0) * 2**16, preds)
    expected = 2**16 / 4 * math.exp(-20)
    assert scaled[0, 1].item() == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("factor", [1, 1024])
def test_logits_must_not_change_before_the_backward_pass(factor):
    preds = torch.randn(2, 3, requires_grad=True) * 1
    loss = factor * label_smoothing_cross_entropy(preds, torch.tensor([0, 1]))
    with torch.no_grad():
        preds.sub_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_batched_upstream_gradients():
    preds, targets = make((6,))
    factors = torch.tensor([1.0, -2.0], dtype=torch.float64)
    loss = label_smoothing_cross_entropy(preds, targets)
    (one,) = torch.autograd.grad(loss, preds, retain_graph=True)
    (batch,) = torch.autograd.grad(loss, preds, factors, is_grads_batched=True)
    torch.testing.assert_close(batch, factors.view(2, 1, 1) * one)


def test_forward_mode(small_blocks):
    preds, targets = make((6,))
    tangent = torch.randn_like(preds)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(preds, tangent)
        result = forward_ad.unpack_dual(label_smoothing_cross_entropy(dual, targets)).tangent
    expected = (gradient(label_smoothing_cross_entropy(preds, targets), preds) * tangent).sum()
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("weights", [None, [1, 2, 1, 3, 1]])
def test_vmap(weights, small_blocks):
    preds, targets = make((6, 4))
    preds = preds.detach().movedim(1, -1).requires_grad_()  # (6, 4, C): six batches of four
    targets[2, 1] = -100
    loss = LabelSmoothingCrossEntropy(0.1, weights)
    expected = torch.stack([loss(p, t) for p, t in zip(preds, targets)])
    assert_same(torch.vmap(loss)(preds, targets), expected, preds)
    one_for_all = torch.stack([loss(preds[0], t) for t in targets])
    assert_same(torch.vmap(loss, (None, 0))(preds[0], targets), one_for_all, preds)
    per_sample = torch.func.vmap(torch.func.grad(loss))(preds[0], targets[0])
    separate = torch.stack(
        [gradient(loss(p, t), preds)[0, i] for i, (p, t) in enumerate(zip(preds[0], targets[0]))]
    )
    torch.testing.assert_close(per_sample, separate)


def test_hessian():
    # The Hessian of cross entropy in the logits is diag(π) - ππᵀ, whatever ε.
    preds, targets = make(())
    pi = preds.detach().softmax(0)
    hessian = torch.func.hessian(lambda p: label_smoothing_cross_entropy(p, targets, 0.3))
    torch.testing.assert_close(hessian(preds.detach()), pi.diag() - pi.outer(pi))


def test_compile_without_graph_breaks():
    criterion = LabelSmoothingCrossEntropy(0.1, torch.rand(C), normalization="weights")
    compiled = torch.compile(criterion, fullgraph=True)
    preds, targets = make((6,), dtype=torch.float32)
    targets[1] = -100
    assert_same(compiled(preds, targets), criterion(preds, targets), preds, tolerance=1e-5)


def test_function_traces_as_one_graph():
    function = torch.compile(label_smoothing_cross_entropy, fullgraph=True, backend="eager")
    preds, targets = make((6, 2))
    for epsilon, weights in ((0.1, None), (0, None), (0.3, torch.rand(C))):
        torch.testing.assert_close(
            function(preds, targets, epsilon, weights),
            label_smoothing_cross_entropy(preds, targets, epsilon, weights),
        )


# --- numbers --------------------------------------------------------------------------------

NUMBERS = [
    *(0, 1, 0.1, np.int64(1), Fraction(1, 10)),
    *(kind(0.1) for kind in (np.float16, np.float32, np.float64)),
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: type(number).__name__)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_way_of_holding_a_number(number, convention):
    preds, targets = make((4,))
    assigned = LabelSmoothingCrossEntropy(0.7, convention=convention)
    assigned.label_smoothing = number
    assert type(assigned.label_smoothing) is float
    constructed = LabelSmoothingCrossEntropy(number, convention=convention)
    for target in (targets, F.one_hot(targets, C).double()):
        expected = label_smoothing_cross_entropy(
            preds, target, float(number), convention=convention
        )
        twin = label_smoothing_cross_entropy(preds, target, number, convention=convention)
        assert assigned(preds, target) == constructed(preds, target) == twin == expected


@pytest.mark.parametrize(
    "wrong",
    [True, np.True_, "0.1", None, Decimal("0.1"), torch.tensor(0.1), np.array(0.1), 0.1j],
    ids=lambda wrong: type(wrong).__name__,
)
def test_what_is_no_number(wrong):
    criterion = LabelSmoothingCrossEntropy()
    for use in (
        LabelSmoothingCrossEntropy,
        lambda value: label_smoothing_cross_entropy(LOGITS, torch.tensor([0, 1]), value),
        lambda value: setattr(criterion, "label_smoothing", value),
    ):
        with pytest.raises(TypeError, match="label_smoothing must be a number, got "):
            use(wrong)
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\], got 1.5"):
        criterion.label_smoothing = 1.5
    assert criterion.label_smoothing == 0.1


def test_ignore_index_of_numpy():
    preds, targets = make((4,))
    targets[1] = -1
    expected = label_smoothing_cross_entropy(preds, targets, ignore_index=-1)
    assigned = LabelSmoothingCrossEntropy()
    assigned.ignore_index = np.int64(-1)
    for ours in (
        assigned,
        LabelSmoothingCrossEntropy(ignore_index=np.int64(-1)),
        lambda *batch: label_smoothing_cross_entropy(*batch, ignore_index=np.int64(-1)),
    ):
        assert ours(preds, targets) == expected


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be in \[0, 1\], got 1.5"),
        ({"label_smoothing": -0.1}, ValueError, r"label_smoothing .* got -0.1"),
        ({"label_smoothing": math.nan}, ValueError, r"label_smoothing .* got nan"),
        ({"label_smoothing": math.inf}, ValueError, r"label_smoothing .* got inf"),
        ({"label_smoothing": "0.1"}, TypeError, r"label_smoothing must be a number, got '0.1'"),
        ({"label_smoothing": True}, TypeError, r"label_smoothing must be a number, got True"),
        ({"label_smoothing": None}, TypeError, r"label_smoothing must be a number, got None"),
        ({"reduction": "avg"}, ValueError, r"reduction must be one of 'none', .* got 'avg'"),
        ({"convention": "torch"}, ValueError, r"convention must be one of .* got 'torch'"),
        ({"normalization": None}, ValueError, r"normalization must be one of .* got None"),
        ({"ignore_index": 1.0}, TypeError, r"ignore_index must be an integer, got 1.0"),
        ({"class_weights": [1, -2, 1]}, ValueError, r"class_weights .* got -2.0 for class 1"),
        ({"class_weights": [1, 1, math.nan]}, ValueError, r"class_weights .* got nan for class 2"),
        ({"class_weights": [math.inf, 1, 1]}, ValueError, r"class_weights .* got inf for class 0"),
        ({"class_weights": [[1, 2, 3]]}, ValueError, r"class_weights .* got shape \(1, 3\)"),
        ({"class_weights": [1]}, ValueError, r"class_weights .* got shape \(1,\)"),
        ({"class_weights": "equal"}, TypeError, r"class_weights must be numbers, got 'equal'"),
        ({"class_weights": [True, False]}, TypeError, r"class_weights must be .* got torch.bool"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        LabelSmoothingCrossEntropy(**options)
    with pytest.raises(error, match=message):
        label_smoothing_cross_entropy(torch.randn(2, 3), torch.tensor([0, 1]), **options)


LOGITS = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("preds", "targets", "error", "message"),
    [
        (LOGITS, torch.tensor([0, 3]), ValueError, r"targets .* from 0 to 2 .*, got 3"),
        (LOGITS, torch.tensor([-1, 0]), ValueError, r"targets .* \(-100\), got -1"),
        (LOGITS, torch.tensor([-100, 7]), ValueError, r"targets .* got 7"),
        (LOGITS, torch.tensor([0.0, 1.0]), TypeError, r"targets must be integers .* torch.float32"),
        (LOGITS, torch.tensor([True, False]), TypeError, r"targets must be .* got torch.bool"),
        (LOGITS, torch.tensor([0, 1, 2]), ValueError, r"targets must have shape \(2,\) .* \(3,\)"),
        (LOGITS, torch.tensor(1), ValueError, r"targets must have shape \(2,\) .*, got \(\)"),
        (LOGITS, torch.eye(3)[:2].long(), ValueError, r"targets .* one-hot targets must be floats"),
        (LOGITS, torch.zeros(2, 4), ValueError, r"targets must have the shape of preds \(2, 3\)"),
        (LOGITS, LOGITS - 0.5, ValueError, r"targets must be probabilities in \[0, 1\], got -0.5"),
        (LOGITS, LOGITS + 1.5, ValueError, r"targets must be probabilities in \[0, 1\], got 1.5"),
        (LOGITS, LOGITS * math.nan, ValueError, r"targets must be probabilities .* got nan"),
        (LOGITS, [0, 1], TypeError, r"targets must be a tensor .* got list"),
        (LOGITS.tolist(), torch.tensor([0, 1]), TypeError, r"preds must be a tensor .* got list"),
        (LOGITS.long(), torch.tensor([0, 1]), TypeError, r"preds must be a .* got torch.int64"),
        (torch.tensor(1.0), torch.tensor(0), ValueError, r"preds must have shape .* got \(\)"),
        (LOGITS[:, :1], torch.tensor([0, 0]), ValueError, r"preds must have at least 2 classes"),
        (LOGITS.to("meta"), torch.tensor([0, 1]), ValueError, r"targets must be on meta .* cpu"),
    ],
)
def test_bad_tensors(preds, targets, error, message):
    with pytest.raises(error, match=message):
        LabelSmoothingCrossEntropy()(preds, targets)


def test_bad_combinations():
    targets = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="class_weights must have one weight .* 3 classes, got 2"):
        LabelSmoothingCrossEntropy(class_weights=[1, 2])(LOGITS, targets)
    with pytest.raises(ValueError, match="class_weights must be on meta .* got cpu; move"):
        LabelSmoothingCrossEntropy(class_weights=[1, 2, 1])(LOGITS.to("meta"), targets.to("meta"))
    with pytest.raises(ValueError, match="ignore_index must be negative .* got 1"):
        LabelSmoothingCrossEntropy(ignore_index=1)(LOGITS, LOGITS)


def test_rounding_of_mixed_targets_is_forgiven():
    mixed = torch.tensor([[1.0000001, 0, 0], [0, 1, -0.0000001]])
    assert label_smoothing_cross_entropy(LOGITS, mixed).isfinite()


@pytest.mark.parametrize("weights", [None, [1, 2, 1]])
def test_no_value_is_read_off_the_cpu(weights):
    """A meta tensor has no values: reading one, which would make a GPU wait, raises."""
    criterion = LabelSmoothingCrossEntropy(class_weights=weights).to("meta")
    preds = LOGITS.to("meta")
    for reduction, normalization in itertools.product(REDUCTIONS, NORMALIZATIONS):
        criterion.reduction, criterion.normalization = reduction, normalization
        for targets in (torch.tensor([0, 1]).to("meta"), preds):
            assert criterion(preds, targets).device.type == "meta"


# --- memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_matrix_is_kept_between_forward_and_backward(dtype):
    preds = torch.randn(64, 20_000, dtype=dtype, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        label_smoothing_cross_entropy(preds, torch.randint(20_000, (64,)))
    matrices = [t for t in saved if t.numel() == preds.numel()]
    assert all(t.data_ptr() == preds.data_ptr() for t in matrices)
