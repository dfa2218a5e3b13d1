"""The losses that smoothing is compared with: formulas, limits, gradients and refusals."""

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lsce.losses import LabelSmoothingCrossEntropy
from lsce.losses.alternatives import (
    BackwardCorrection,
    Distillation,
    FocalLoss,
    ForwardCorrection,
    GeneralizedCrossEntropy,
    GeneralizedLabelSmoothing,
    MaxSup,
    SampleWeighted,
)

C = 5
IDENTITY = torch.eye(C, dtype=torch.float64)
SYMMETRIC = 0.6 * IDENTITY + 0.1 * (1 - IDENTITY)
PAIRED = 0.7 * IDENTITY + 0.3 * IDENTITY.roll(1, 1)  # with zeros
SKEWED = (SYMMETRIC + PAIRED) / 2
SKEWED[0] = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0])

BOTH = ("include-true", "exclude-true")
CRITERIA = [
    *(FocalLoss(gamma) for gamma in (0, 0.5, 1, 3)),
    *(MaxSup(weight) for weight in (0, 0.1)),
    *(GeneralizedCrossEntropy(q) for q in (0.01, 0.7, 1)),
    *(kind(t) for kind in (ForwardCorrection, BackwardCorrection) for t in (SYMMETRIC, SKEWED)),
    *(GeneralizedLabelSmoothing(eps, c) for eps in (-2, 0, 0.3, 1) for c in BOTH),
]
every = pytest.mark.parametrize("criterion", CRITERIA, ids=lambda c: type(c).__name__)


def batch(n=12, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(n, C, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.arange(n) % C


def gradient(criterion, logits, labels):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(criterion(logits, labels), logits)[0]


def smoothed(p, y, epsilon, convention):
    """Cross entropy with the smoothed target written out."""
    share = epsilon / C if convention == "include-true" else epsilon / (C - 1)
    target = np.full_like(p, share)
    target[range(len(y)), y] = 1 - epsilon * (1 if convention == "exclude-true" else 1 - 1 / C)
    return -(target * np.log(p)).sum(1)


@pytest.mark.parametrize(
    ("criterion", "formula"),
    [
        (FocalLoss(0.5), lambda z, p, y, py: -((1 - py) ** 0.5) * np.log(py)),
        (FocalLoss(3), lambda z, p, y, py: -((1 - py) ** 3) * np.log(py)),
        (MaxSup(0.2), lambda z, p, y, py: -np.log(py) + 0.2 * (z.max(1) - z.mean(1))),
        (GeneralizedCrossEntropy(0.7), lambda z, p, y, py: (1 - py**0.7) / 0.7),
        (GeneralizedCrossEntropy(1), lambda z, p, y, py: 1 - py),
        (
            ForwardCorrection(SKEWED),
            lambda z, p, y, py: -np.log((p @ SKEWED.numpy())[range(12), y]),
        ),
        (
            BackwardCorrection(SKEWED),
            lambda z, p, y, py: -(np.linalg.inv(SKEWED.numpy())[y] * np.log(p)).sum(1),
        ),
        *(
            (
                GeneralizedLabelSmoothing(eps, c),
                lambda z, p, y, py, eps=eps, c=c: smoothed(p, y, eps, c),
            )
            for eps in (-1.5, 0.3)
            for c in BOTH
        ),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_formula(criterion, formula, dtype):
    logits, labels = batch(dtype=dtype)
    z, y = logits.double().numpy(), labels.numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    loss = criterion(logits, labels)
    assert loss.dtype == dtype and loss.shape == ()
    assert loss.item() == pytest.approx(formula(z, p, y, p[range(12), y]).mean(), rel=2e-6)


@pytest.mark.parametrize(
    "criterion",
    [
        FocalLoss(0),
        MaxSup(0),
        GeneralizedCrossEntropy(1e-9),
        ForwardCorrection(IDENTITY),
        BackwardCorrection(IDENTITY),
        *(GeneralizedLabelSmoothing(0, c) for c in BOTH),
    ],
)
def test_cross_entropy_is_the_limit(criterion):
    logits, labels = batch()
    torch.testing.assert_close(criterion(logits, labels), F.cross_entropy(logits, labels))
    expected = gradient(F.cross_entropy, logits, labels)
    torch.testing.assert_close(gradient(criterion, logits, labels), expected)


@pytest.mark.parametrize("convention", BOTH)
@pytest.mark.parametrize("epsilon", [0, 0.1, 0.9])
def test_smoothing_is_ours_and_its_epsilon_can_be_changed_in_place(epsilon, convention):
    logits, labels = batch(dtype=torch.float32)
    ours = LabelSmoothingCrossEntropy(epsilon, convention=convention)
    criterion = GeneralizedLabelSmoothing(-3, convention)
    assert criterion.epsilon.dtype == torch.float32 and criterion.epsilon.shape == ()
    criterion.epsilon.fill_(epsilon)
    torch.testing.assert_close(criterion(logits, labels), ours(logits, labels))
    torch.testing.assert_close(*(gradient(c, logits, labels) for c in (criterion, ours)))


def test_max_sup_is_smoothing_where_all_are_classified_rightly():
    logits, _ = batch()
    labels = logits.argmax(1)
    smoothing = GeneralizedLabelSmoothing(0.25, "include-true")
    torch.testing.assert_close(MaxSup(0.25)(logits, labels), smoothing(logits, labels))
    wrong = (labels + 1) % C
    assert MaxSup(0.25)(logits, wrong) > smoothing(logits, wrong)


@pytest.mark.parametrize("transition", [SYMMETRIC, PAIRED, SKEWED])
def test_corrections_recover_the_clean_class(transition):
    logits, _ = batch(1)
    backward, forward = BackwardCorrection(transition), ForwardCorrection(transition)

    def over_noisy_labels(criterion, logits, clean):
        return sum(transition[clean, j] * criterion(logits, torch.tensor([j])) for j in range(C))

    for clean in range(C):
        unbiased = over_noisy_labels(backward, logits, clean)
        expected = F.cross_entropy(logits, torch.tensor([clean]))
        torch.testing.assert_close(unbiased, expected, rtol=1e-6, atol=1e-6)
        sure = (25 * IDENTITY[clean : clean + 1]).requires_grad_()
        at_one_hot = torch.autograd.grad(over_noisy_labels(forward, sure, clean), sure)[0]
        assert at_one_hot.abs().max() < 1e-6


@every
def test_gradients_by_finite_differences(criterion):
    logits, labels = batch(4)
    assert torch.autograd.gradcheck(lambda z: criterion(z, labels), logits.requires_grad_())


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits(criterion, size, dtype):
    logits = size * torch.eye(C, dtype=dtype)
    for shift in range(C):  # every class with every label
        labels = (torch.arange(C) + shift) % C
        assert criterion(logits, labels).isfinite()
        assert gradient(criterion, logits, labels).isfinite().all()


@every
def test_bfloat16_is_computed_in_float32(criterion):
    logits, labels = batch(dtype=torch.bfloat16)
    loss = criterion(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, criterion(logits.float(), labels))
    assert gradient(criterion, logits, labels).dtype == torch.bfloat16


@every
def test_host_never_waits(criterion):
    logits, labels = (tensor.to("meta") for tensor in batch())  # holds no value to be read
    assert copy.deepcopy(criterion).to("meta")(logits, labels).shape == ()


@every
def test_compiles_as_one_graph(criterion):
    torch.compiler.reset()
    compiled = torch.compile(criterion, fullgraph=True, backend="eager")
    for found, expected in zip(
        *((c(*batch()), gradient(c, *batch())) for c in (compiled, criterion)), strict=True
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("kind", "name", "wrong"),
    [
        (FocalLoss, "gamma", -1),
        (MaxSup, "weight", -0.5),
        (GeneralizedCrossEntropy, "q", 0),
        (GeneralizedCrossEntropy, "q", 1.5),
        (lambda epsilon: GeneralizedLabelSmoothing(epsilon, "include-true"), "epsilon", 1.5),
        (lambda convention: GeneralizedLabelSmoothing(0.1, convention), "convention", "both"),
    ],
)
def test_bad_numbers(kind, name, wrong):
    for value in (wrong, True, math.nan, math.inf, -math.inf, "0.5"):
        with pytest.raises(ValueError, match=f"^{name} is {value!r}; it must be "):
            kind(value)


@pytest.mark.parametrize("kind", [ForwardCorrection, BackwardCorrection])
@pytest.mark.parametrize(
    ("transition", "words"),
    [
        ([[1.0]], r"shape of transition is \(\); it must be \(C, C\)"),
        (IDENTITY[:2], r"shape of transition is \(2, 5\)"),
        (2 * IDENTITY, r"transition is tensor\(\[\[2.*rows of probabilities that sum to 1"),
        (2 * IDENTITY - SYMMETRIC, r"transition is tensor\(.*-0.1"),
        (IDENTITY * math.nan, r"transition is tensor\(\[\[nan"),
    ],
)
def test_bad_transitions(kind, transition, words):
    with pytest.raises(ValueError, match=f"(?s){words}"):
        kind(transition)


def test_backward_correction_needs_an_inverse():
    with pytest.raises(ValueError, match=r"condition number of transition is .*below 1e\+08"):
        BackwardCorrection(torch.full((C, C), 1 / C, dtype=torch.float64))


def test_weights_on_samples_are_class_weights_where_nothing_is_smoothed():
    logits, labels = torch.randn(50, 5), torch.arange(50) % 5
    weights = torch.tensor([0.2, 0.5, 1.0, 2.0, 4.0])
    for epsilon, same in ((0.0, True), (0.2, False)):
        alone = LabelSmoothingCrossEntropy(epsilon, reduction="none")
        on_samples = SampleWeighted(alone, weights)(logits, labels)
        on_terms = LabelSmoothingCrossEntropy(epsilon, class_weights=weights)(logits, labels)
        assert torch.allclose(on_samples, on_terms) == same
        plain = LabelSmoothingCrossEntropy(epsilon)(logits, labels)
        assert torch.allclose(SampleWeighted(alone, torch.ones(5))(logits, labels), plain)


def test_distillation_from_one_hot_teachers_is_cross_entropy():
    logits, labels = torch.randn(20, 5), torch.arange(20) % 5
    found = Distillation(1.0)(logits, F.one_hot(labels, 5).float())
    torch.testing.assert_close(found, F.cross_entropy(logits, labels))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_student_that_agrees_with_its_teacher_has_nothing_to_learn(temperature):
    teacher = torch.randn(20, 5, dtype=torch.float64)
    logits = (teacher + 3).requires_grad_()  # a shift is no disagreement
    Distillation(temperature)(logits, (teacher / temperature).softmax(1)).backward()
    assert logits.grad.abs().max() < 1e-12


def test_a_hot_distillation_matches_logits():
    """Hinton et al. 2015, section 2.1: the gradient tends to the difference of the centred logits,
    divided by the number of classes; T² keeps it from vanishing."""
    teacher = torch.randn(20, 5, dtype=torch.float64)
    logits = torch.randn(20, 5, dtype=torch.float64, requires_grad=True)
    temperature = 1e6  # what is left goes with 1 / T
    Distillation(temperature)(logits, (teacher / temperature).softmax(1)).backward()
    difference = (logits - teacher).detach()
    expected = (difference - difference.mean(1, keepdim=True)) / 5 / 20
    torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), "hot"])
def test_a_wrong_temperature_of_distillation_is_named(temperature):
    with pytest.raises(ValueError, match="temperature is"):
        Distillation(temperature)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distillation_of_low_precision_is_computed_in_float32(dtype):
    logits, _ = batch(dtype=dtype)
    probabilities = batch(scale=1.0)[0].softmax(1).to(dtype)
    found = Distillation(3.0)(logits, probabilities)
    assert found.dtype == torch.float32
    assert torch.equal(found, Distillation(3.0)(logits.float(), probabilities.float()))


@pytest.mark.parametrize("kind", [ForwardCorrection, BackwardCorrection])
def test_corrections_of_float64_logits_are_exact(kind):
    logits, labels = batch()
    p = logits.softmax(1)
    expected = {
        ForwardCorrection: -(p @ SKEWED)[range(12), labels].log(),
        BackwardCorrection: -(torch.linalg.inv(SKEWED)[labels] * p.log()).sum(1),
    }[kind].mean()
    torch.testing.assert_close(kind(SKEWED)(logits, labels), expected, rtol=1e-13, atol=0)
    assert kind(SKEWED)(logits.float(), labels).dtype == torch.float32


@pytest.mark.parametrize(
    "criterion",
    [
        Distillation(1),
        BackwardCorrection(IDENTITY),
        ForwardCorrection(IDENTITY),
        MaxSup(0),
        *(GeneralizedLabelSmoothing(0, c) for c in BOTH),
        SampleWeighted(LabelSmoothingCrossEntropy(0, reduction="none"), torch.ones(C)),
    ],
    ids=lambda c: type(c).__name__,
)
def test_impossible_classes_without_mass_cost_nothing(criterion):
    logits, labels = batch()
    logits[range(12), (labels + 1) % C] = -math.inf
    targets = labels
    if isinstance(criterion, Distillation):
        targets = F.one_hot(labels, C).double()
    torch.testing.assert_close(criterion(logits, targets), F.cross_entropy(logits, labels))
    expected = gradient(F.cross_entropy, logits, labels)
    torch.testing.assert_close(gradient(criterion, logits, targets), expected)


def test_an_impossible_true_class_without_mass_costs_nothing():
    logits, labels = batch()
    logits[range(12), labels] = -math.inf
    criterion = GeneralizedLabelSmoothing(1, "exclude-true")
    possible = logits.isfinite()
    log_p = logits.log_softmax(1).masked_fill(~possible, 0)
    torch.testing.assert_close(criterion(logits, labels), -log_p.sum(1).mean() / (C - 1))
    expected = (logits.softmax(1) - possible / (C - 1)) / 12
    torch.testing.assert_close(gradient(criterion, logits, labels), expected)


@pytest.mark.parametrize("epsilon", [-0.5, 0.3])
def test_an_impossible_true_class_costs_infinitely_much(epsilon):
    logits, labels = batch()
    logits[range(12), labels] = -math.inf
    for convention in BOTH:
        criterion = GeneralizedLabelSmoothing(epsilon, convention)
        assert criterion(logits, labels) == math.inf
        assert gradient(criterion, logits, labels).isfinite().all()


def test_samples_without_weight_cost_nothing():
    logits, labels = batch()
    logits[labels == 2, 2] = -math.inf
    weights = torch.tensor([1.0, 2.0, 0.0, 1.0, 0.5])
    criterion = SampleWeighted(LabelSmoothingCrossEntropy(0.1, reduction="none"), weights)
    keep = labels != 2
    expected = criterion(logits[keep], labels[keep]) * keep.sum() / len(labels)
    torch.testing.assert_close(criterion(logits, labels), expected)
    found = gradient(criterion, logits, labels)
    assert found[~keep].eq(0).all() and found.isfinite().all()


def test_sample_weights_take_the_dtype_of_the_loss():
    logits, labels = batch(dtype=torch.bfloat16)
    alone = LabelSmoothingCrossEntropy(reduction="none")
    for dtype in (torch.float32, torch.float64):
        assert SampleWeighted(alone, torch.ones(C, dtype=dtype))(logits, labels).dtype == (
            torch.float32
        )


@pytest.mark.parametrize("kind", [FocalLoss, MaxSup, GeneralizedCrossEntropy, Distillation])
@pytest.mark.parametrize("number", [Fraction(1, 2), np.float16(0.5), np.float32(0.5), np.int64(1)])
def test_every_way_of_holding_a_number(kind, number):
    logits, labels = batch()
    targets = logits.softmax(1) if kind is Distillation else labels
    assert kind(number)(logits, targets) == kind(float(number))(logits, targets)
