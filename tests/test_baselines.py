"""The losses that smoothing is compared with: formulas, limits, gradients and refusals."""

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from local_logits import WithLocalLogits
from scipy.stats import rankdata
from torch.nn import functional as F

from lsce.losses import LabelSmoothingCrossEntropy
from lsce.losses.alternatives import (
    BackwardCorrection,
    Distillation,
    FocalLoss,
    ForwardCorrection,
    GeneralizedCrossEntropy,
    GeneralizedLabelSmoothing,
    LogitPenalty,
    MaxSup,
    MbLS,
    OnlineLabelSmoothing,
    SampleWeighted,
    ZipfLabelSmoothing,
)

C = 5
IDENTITY = torch.eye(C, dtype=torch.float64)
SYMMETRIC = 0.6 * IDENTITY + 0.1 * (1 - IDENTITY)
PAIRED = 0.7 * IDENTITY + 0.3 * IDENTITY.roll(1, 1)  # with zeros
SKEWED = (SYMMETRIC + PAIRED) / 2
SKEWED[0] = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0])

BOTH = ("include-true", "exclude-true")


def online(alpha, training=False):
    """Online label smoothing with soft labels."""
    criterion = OnlineLabelSmoothing(alpha, C)
    criterion.soft_labels.copy_(SKEWED)
    return criterion.train(training)


def zipf(weight):
    """Zipf's label smoothing on local logits that are made of the logits."""
    return WithLocalLogits(ZipfLabelSmoothing(weight), C)


CRITERIA = [
    *(FocalLoss(gamma) for gamma in (0, 0.5, 1, 3)),
    *(MaxSup(weight) for weight in (0, 0.1)),
    *(GeneralizedCrossEntropy(q) for q in (0.01, 0.7, 1)),
    *(kind(t) for kind in (ForwardCorrection, BackwardCorrection) for t in (SYMMETRIC, SKEWED)),
    *(GeneralizedLabelSmoothing(eps, c) for eps in (-2, 0, 0.3, 1) for c in BOTH),
    *(LogitPenalty(beta) for beta in (0, 0.1)),
    *(MbLS(margin, weight) for margin, weight in ((0, 0.1), (1, 0.5), (10, 0))),
    *(online(alpha) for alpha in (0.1, 1)),
    *(zipf(weight) for weight in (0, 0.3)),
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


def doubled(values):
    """Twice as many values along the last axis, interpolated linearly and constant at the ends."""
    before = np.concatenate([values[..., :1], values[..., :-1]], -1)
    after = np.concatenate([values[..., 1:], values[..., -1:]], -1)
    return np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], -1).reshape(
        *values.shape[:-1], -1
    )


def zipf_divergence(z, y):
    """Σ q log(q / p) over the classes other than the true one, sample by sample."""
    found = []
    for row, everywhere, label in zip(z, zipf(1).local(torch.tensor(z)).numpy(), y, strict=True):
        finer = doubled(doubled(everywhere).swapaxes(1, 2))
        votes = np.bincount(finer.reshape(C, -1).argmax(0), minlength=C)
        others = [k for k in range(C) if k != label]
        q = 1 / rankdata(-votes, method="min")[others]
        q, p = q / q.sum(), np.exp(row[others]) / np.exp(row[others]).sum()
        found.append((q * np.log(q / p)).sum())
    return np.array(found)


@pytest.mark.parametrize(
    ("criterion", "formula"),
    [
        (FocalLoss(0.5), lambda z, p, y, py: -((1 - py) ** 0.5) * np.log(py)),
        (FocalLoss(3), lambda z, p, y, py: -((1 - py) ** 3) * np.log(py)),
        (MaxSup(0.2), lambda z, p, y, py: -np.log(py) + 0.2 * (z.max(1) - z.mean(1))),
        (LogitPenalty(0.02), lambda z, p, y, py: -np.log(py) + 0.01 * (z**2).sum(1)),
        (
            MbLS(2, 0.3),
            lambda z, p, y, py: (
                -np.log(py) + 0.3 * np.maximum(0, z.max(1, keepdims=True) - z - 2).mean(1)
            ),
        ),
        (
            online(0.25),
            lambda z, p, y, py: -0.25 * np.log(py) - 0.75 * (SKEWED.numpy()[y] * np.log(p)).sum(1),
        ),
        (zipf(0.4), lambda z, p, y, py: -np.log(py) + 0.4 * zipf_divergence(z, y)),
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
    tolerance = {torch.float32: 2e-6, torch.float64: 1e-12}[dtype]
    if isinstance(criterion, GeneralizedLabelSmoothing):
        tolerance = 2e-6  # its ε is float32
    assert loss.item() == pytest.approx(formula(z, p, y, p[range(12), y]).mean(), rel=tolerance)


@pytest.mark.parametrize(
    "criterion",
    [
        FocalLoss(0),
        MaxSup(0),
        GeneralizedCrossEntropy(1e-9),
        ForwardCorrection(IDENTITY),
        BackwardCorrection(IDENTITY),
        LogitPenalty(0),
        MbLS(1e9),
        online(1),
        zipf(0),
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


def test_the_weight_of_max_sup_can_be_changed_in_place():
    logits, labels = batch()
    criterion = MaxSup(0.1)
    criterion.weight.fill_(0.3)
    assert criterion(logits, labels) == MaxSup(0.3)(logits, labels)


def test_logits_within_the_margin_are_free_and_each_of_the_others_costs_its_excess():
    """By hand: gaps 0, 2, 5 and margin 3 leave an excess of 2 in one class of three."""
    logits, labels = torch.tensor([[5.0, 3.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    plain = F.cross_entropy(logits, labels)
    assert (MbLS(3, 0.6)(logits, labels) - plain).item() == pytest.approx(0.6 * 2 / 3, rel=1e-12)
    assert MbLS(5, 0.6)(logits, labels) == pytest.approx(plain.item(), abs=1e-15)


def test_online_labels_are_the_means_of_what_was_classified_rightly_in_the_last_epoch():
    """By hand, in eighths: the only sample of class 2 is classified wrongly."""
    p = torch.tensor([[5, 2, 1], [7, 0.5, 0.5], [1, 6, 1], [4, 1, 3]]).double() / 8
    logits, labels = p.log() + 3, torch.tensor([0, 0, 1, 2])
    criterion = OnlineLabelSmoothing(0.4, 3)
    plain = F.cross_entropy(logits, labels)
    # Before there are soft labels, the plain part alone.
    first = F.cross_entropy(logits[:2], labels[:2])
    torch.testing.assert_close(criterion(logits[:2], labels[:2]), 0.4 * first)
    criterion(logits[2:], labels[2:])
    assert criterion.soft_labels.eq(0).all()
    criterion.next_epoch()
    means = torch.tensor([[12, 2.5, 1.5], [2, 12, 2], [16 / 3] * 3], dtype=torch.float64) / 16
    torch.testing.assert_close(criterion.soft_labels, means, rtol=1e-12, atol=0)
    soft = -(means[labels] * p.log()).sum(1).mean()
    expected = 0.4 * plain + 0.6 * soft
    torch.testing.assert_close(criterion(logits, labels), expected, rtol=1e-12, atol=0)
    # The next epoch starts anew: all that it saw is one sample.
    criterion.next_epoch()
    criterion(logits[2:3], labels[2:3])
    criterion.next_epoch()
    anew = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    anew[1] = p[2]
    torch.testing.assert_close(criterion.soft_labels, anew, rtol=1e-12, atol=0)


def test_online_labels_are_learned_in_training_alone_and_by_a_compiled_step():
    logits, labels = batch(dtype=torch.float32)
    ours, evaluated, compiled = (OnlineLabelSmoothing(0.5, C) for _ in range(3))
    evaluated.eval()(logits, labels)
    assert evaluated.counts.sum() == 0
    torch.compiler.reset()
    run = torch.compile(compiled, fullgraph=True, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(ours(logits, labels), run(logits, labels))
        for criterion in (ours, compiled):
            criterion.next_epoch()
        assert torch.equal(ours.soft_labels, compiled.soft_labels)
        assert ours.soft_labels.sum(1).sub(1).abs().max() < 1e-6
    in_training = online(0.5, training=True).to("meta")
    assert in_training(logits.to("meta"), labels.to("meta")).is_meta


def test_zipf_ranks_by_votes_and_leaves_the_true_class_out():
    """By hand, on a map of one position, which votes as one: q is (2, 1, 1, 1)/5 over the other
    classes, or even where the true class has the votes."""
    logits = torch.tensor([[0.3, -1.0, 0.0, 2.0, 0.5]], dtype=torch.float64)
    labels, criterion = torch.tensor([0]), ZipfLabelSmoothing(0.7)
    log_p = logits[:, 1:].log_softmax(1)
    for winner, q in ((2, [0.2, 0.4, 0.2, 0.2]), (0, [0.25] * 4)):
        local = torch.zeros(1, 5, 1, 1, dtype=torch.float64)
        local[0, winner] = 1
        q = torch.tensor([q], dtype=torch.float64)
        expected = F.cross_entropy(logits, labels) + 0.7 * (q * (q.log() - log_p)).sum()
        found = criterion(logits, labels, local)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_zipf_teaches_nothing_through_the_votes():
    logits, labels = batch()
    local = torch.randn(12, C, 2, 2, dtype=torch.float64, requires_grad=True)
    loss = ZipfLabelSmoothing(1)(logits.requires_grad_(), labels, local)
    assert torch.autograd.grad(loss, [logits, local], allow_unused=True)[1] is None


@pytest.mark.parametrize("classes", [0, 1])
def test_online_labels_need_two_classes(classes):
    with pytest.raises(ValueError, match=f"num_classes is {classes}; it must be at least 2"):
        OnlineLabelSmoothing(0.5, classes)


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
        (LogitPenalty, "beta", -1),
        (MbLS, "margin", -1),
        (lambda weight: MbLS(1, weight), "weight", -1),
        (lambda alpha: OnlineLabelSmoothing(alpha, C), "alpha", 0),
        (lambda alpha: OnlineLabelSmoothing(alpha, C), "alpha", 1.5),
        (ZipfLabelSmoothing, "weight", -1),
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
        LogitPenalty(0),
        MbLS(1, 0),
        online(1),
        OnlineLabelSmoothing(1, C),
        zipf(0),
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


@pytest.mark.parametrize(
    "kind",
    [FocalLoss, MaxSup, GeneralizedCrossEntropy, Distillation, LogitPenalty, MbLS, zipf, online],
)
@pytest.mark.parametrize("number", [Fraction(1, 2), np.float16(0.5), np.float32(0.5), np.int64(1)])
def test_every_way_of_holding_a_number(kind, number):
    logits, labels = batch()
    targets = logits.softmax(1) if kind is Distillation else labels
    assert kind(number)(logits, targets) == kind(float(number))(logits, targets)
