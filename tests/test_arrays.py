"""Every measure takes every kind of array, and refuses in a sentence what it cannot do right."""

import inspect

import numpy as np
import pytest
import torch

from lsce.measures import arrays, calibration, conformal, features, selective, temperature
from lsce.training import batches, networks

N, C, D = 40, 5, 6
RNG = np.random.default_rng(0)
#: Numbers that every float dtype holds exactly.
LOGITS = RNG.integers(-24, 25, (N, C)) / 8
FEATURES = RNG.integers(-16, 17, (N, D)) / 8
WEIGHT, BIAS = RNG.integers(-16, 17, (C, D)) / 8, RNG.integers(-8, 9, C) / 8
PROBS = RNG.multinomial(64, np.full(C, 1 / C), N) / 64
SCORES = RNG.integers(0, 17, (N, C)) / 8
SCORE, RISKS = RNG.integers(-9, 10, N) / 8, RNG.integers(0, 9, N) / 8
LABELS, CORRECT = np.arange(N) % C, np.arange(N) % 3 == 0
SUPERCLASS = [0, 0, 1, 1, 1]
SPLIT = {"validation_labels": LABELS[::-1], "test_labels": LABELS}

SPLITS = ("train", "choice", "test")
#: The arguments of each function: floats that come in any dtype, and the others.
CALLS = {
    calibration.true_calibration_error: ({"probs": PROBS, "posterior": PROBS[::-1]}, {"n_bins": 4}),
    calibration.top_k_error: ({"probs": PROBS}, {"labels": LABELS, "k": 2}),
    calibration.softmax: ({"logits": LOGITS}, {}),
    temperature.fit_temperature: ({"logits": LOGITS}, {"labels": LABELS}),
    selective.log_odds: ({"logits": LOGITS}, {}),
    selective.maximum_logit: ({"logits": LOGITS}, {}),
    selective.normalised: ({"logits": LOGITS}, {"p": 2.0}),
    selective.energy: ({"logits": LOGITS}, {}),
    selective.choose_norm: ({"logits": LOGITS}, {"labels": LABELS}),
    selective.risk_coverage: ({"score": SCORE}, {"correct": CORRECT}),
    selective.aurc: ({"risks": RISKS}, {}),
    selective.excess_aurc: ({"risks": RISKS}, {}),
    selective.coverage_at_risk: ({"risks": RISKS}, {"most": 0.5}),
    selective.risk_at_coverage: ({"risks": RISKS}, {"coverage": 0.5}),
    selective.auroc: ({"positive": SCORE, "negative": SCORE[:9]}, {}),
    selective.fpr_at_tpr: ({"positive": SCORE, "negative": SCORE[:9]}, {}),
    selective.selective: (
        {"validation_logits": LOGITS[::-1], "test_logits": LOGITS},
        SPLIT | {"temperature": 1.5},
    ),
    selective.unseen: (
        {"seen_logits": LOGITS, "unseen_logits": LOGITS[:9] / 2},
        {"temperature": 1.5, "norm": 2.0},
    ),
    conformal.adaptive_scores: ({"probs": PROBS, "u": RISKS}, {"penalty": 0.25, "free": 1}),
    conformal.threshold: ({"scores": SCORES}, {"labels": LABELS}),
    conformal.prediction_sets: ({"scores": SCORES}, {"labels": LABELS, "most": 1.5}),
    conformal.adaptive_sets: ({"validation_probs": PROBS[::-1], "test_probs": PROBS}, SPLIT),
    selective.scores: ({"logits": LOGITS}, {"temperature": 1.5, "norm": 2.0}),
    features.projection: ({"features": FEATURES, "weight": WEIGHT}, {"classes": [0, 2, 3]}),
    features.neural_collapse: (
        {"features": FEATURES, "weight": WEIGHT, "bias": BIAS},
        {"labels": LABELS},
    ),
    features.linear_probe: (
        {f"{split}_features": FEATURES for split in SPLITS},
        {f"{split}_labels": LABELS for split in SPLITS},
    ),
    features.relatedness: (
        {"logits": LOGITS},
        {"labels": LABELS, "superclass": SUPERCLASS},
    ),
    features.mutual_information: ({"differences": FEATURES}, {}),
}
MODULES = (calibration, temperature, selective, conformal, features)
PUBLIC = [
    function
    for module in MODULES
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
]
for each in PUBLIC:  # the other metrics need probabilities and labels alone
    if each.__module__ == calibration.__name__:
        CALLS.setdefault(each, ({"probs": PROBS}, {"labels": LABELS}))

HOLDERS = {
    "float16": lambda x: x.astype(np.float16),
    "float32": lambda x: x.astype(np.float32),
    "list": lambda x: x.tolist(),
    "list of tensors": lambda x: list(torch.tensor(x, requires_grad=True)),
    "Fortran order": np.asfortranarray,
    "not contiguous": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "read only": lambda x: np.frombuffer(x.tobytes()).reshape(x.shape),
    "torch.float16": lambda x: torch.tensor(x, dtype=torch.float16),
    "torch.bfloat16": lambda x: torch.tensor(x, dtype=torch.bfloat16),
    "torch.float32": lambda x: torch.tensor(x, dtype=torch.float32),
    "torch.float64": lambda x: torch.tensor(x[..., None])[..., 0],
    "with gradient": lambda x: torch.tensor(x, dtype=torch.bfloat16, requires_grad=True) * 1,
    "parameter": lambda x: torch.nn.Parameter(torch.tensor(x)),
    "cuda": lambda x: torch.tensor(x, device="cuda"),
}


def named(functions):
    return pytest.mark.parametrize("function", functions, ids=lambda f: f.__name__)


def flat(found) -> list[float]:
    if isinstance(found, dict):
        return [number for value in found.values() for number in flat(value)]
    if isinstance(found, list | tuple):
        return [number for value in found for number in flat(value)]
    if isinstance(found, temperature.Temperature):
        return [found.value, found.nll_before, found.nll_after]
    if isinstance(found, features.Probe):
        return [found.strength, *found.correct.ravel()]
    if hasattr(found, "select_dtypes"):
        found = found.select_dtypes("number").to_numpy()
    return [] if isinstance(found, str) else np.ravel(found).tolist()


def test_every_public_function_is_walked():
    assert set(PUBLIC) == set(CALLS)


@named(CALLS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_any_kind_of_array(function, holder):
    if holder == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    floats, others = CALLS[function]
    expected = flat(function(**floats, **others))
    held = {name: HOLDERS[holder](np.array(values)) for name, values in floats.items()}
    if "labels" in others and holder.startswith("torch"):
        others = others | {"labels": torch.tensor(others["labels"])}
    np.testing.assert_array_equal(flat(function(**held, **others)), expected)


SCORED = (selective.log_odds, selective.maximum_logit, selective.energy, calibration.softmax)
REFUSED = [
    *(
        (function, {"logits": values}, words)
        for function in (temperature.fit_temperature, selective.choose_norm, *SCORED)
        for values, words in (
            (PROBS, "logits must be logits, but each row lies in .* as probabilities do"),
            (torch.tensor(PROBS, dtype=torch.bfloat16), "as probabilities do"),
            (LOGITS[:, :1], r"logits must have shape \(N, C\) with N >= 1 and C >= 2.*\(40, 1\)"),
            (LOGITS[:0], r"logits must have shape .*\(0, 5\)"),
            (LOGITS[0], r"logits must have shape .*\(5,\)"),
            (LOGITS * np.nan, "logits must be finite"),
            (LOGITS.astype(str), "logits must be real numbers"),
        )
    ),
    *(
        (function, {"probs": values}, words)
        for function in PUBLIC
        if "probs" in inspect.signature(function).parameters
        for values, words in (
            (LOGITS, r"probs must lie in \[0, 1\], .*are they logits"),
            (0.9 * PROBS, "each row of probs must sum to 1, but one sums to 0.9"),
            (torch.tensor(0.9 * PROBS, dtype=torch.bfloat16), "each row of probs must sum to 1"),
            (PROBS[:0], r"probs must have shape .*\(0, 5\)"),
            (PROBS[:, :1] * 0 + 1, r"probs must have shape .*\(40, 1\)"),
            (PROBS * np.inf, "probs must be finite"),
        )
    ),
    *(
        (function, {"labels": labels}, words)
        for function in PUBLIC
        if "labels" in inspect.signature(function).parameters
        for labels, words in (
            (LABELS[:-1], r"labels must have shape \(40,\), one an image, but have \(39,\)"),
            (LABELS + 1, r"labels must lie in \[0, 5\), but one is 5"),
            (LABELS - 1, r"labels must lie in \[0, 5\), but one is -1"),
            (LABELS.astype(float), "labels must be integers, but they are float64"),
        )
    ),
    (calibration.true_calibration_error, {"norm": 3}, "norm must be 1 or 2, but it is 3"),
    (calibration.true_calibration_error, {"posterior": PROBS[1:]}, "posterior must have the shape"),
    (
        calibration.debiased_calibration_error,
        {"probs": [[0.5, 0.2, 0.1, 0.1, 0.1]], "labels": [0]},
        "more images than the 15 bins, but there are 1",
    ),
    (
        calibration.expected_calibration_error,
        {"n_bins": 0},
        "n_bins must be at least 1, but it is 0",
    ),
    (calibration.reliability_table, {"level": 1}, "level must lie between 0 and 1, but it is 1"),
    (
        calibration.softmax,
        {"temperature": 0},
        "temperature must be positive and finite, but it is 0",
    ),
    (selective.normalised, {"p": -1}, "p must be positive and finite, but it is -1"),
    (selective.risk_coverage, {"correct": LABELS}, "correct must be boolean, but it is int64"),
    (selective.risk_coverage, {"correct": CORRECT[1:]}, r"correct must have shape \(40,\)"),
    (selective.risk_coverage, {"score": []}, r"score must have shape \(N,\) with N >= 1"),
    (selective.aurc, {"risks": 2 * RISKS}, r"risks must lie in \[0, 1\]"),
    (selective.coverage_at_risk, {"most": 2}, r"most must lie in \[0, 1\], but it is 2"),
    (selective.auroc, {"negative": []}, "negative must have shape"),
    (selective.fpr_at_tpr, {"positive": SCORE * np.nan}, "positive must be finite"),
    (selective.unseen, {"unseen_logits": LOGITS[:, 1:]}, "must be of the same classes"),
    (selective.unseen, {"unseen_logits": PROBS}, "unseen_logits must be logits"),
    (conformal.adaptive_scores, {"u": RISKS[1:]}, r"u must have shape \(40,\), one an image"),
    (conformal.adaptive_scores, {"u": 2 * RISKS}, r"u must lie in \[0, 1\]"),
    (conformal.adaptive_scores, {"penalty": -1.0}, "penalty and free must be at least 0, .* -1.0"),
    (conformal.threshold, {"coverage": 1.0}, "coverage must lie between 0 and 1, but it is 1.0"),
    (conformal.threshold, {"scores": SCORES * np.nan}, "scores must be finite"),
    (conformal.adaptive_sets, {"test_probs": LOGITS}, "probs must lie in .*are they logits"),
    (features.projection, {"weight": WEIGHT[:, 1:]}, "features must have 5 columns, .* 6"),
    (features.projection, {"classes": [0, 0, 1]}, "must be three different ones"),
    (features.projection, {"features": FEATURES + np.inf}, "features must be finite"),
    (features.neural_collapse, {"labels": 0 * LABELS}, "no image of class 1"),
    (features.neural_collapse, {"features": 0 * FEATURES}, "no direction to compare"),
    (features.neural_collapse, {"weight": 0 * WEIGHT}, "weight is 0 everywhere"),
    (features.neural_collapse, {"weight": WEIGHT[:1], "bias": BIAS[:1]}, "K >= 2"),
    (features.neural_collapse, {"bias": BIAS[1:]}, r"bias shape \(K,\), .*\(4,\)"),
    (features.linear_probe, {"train_labels": 0 * LABELS}, "train_labels must hold two"),
    (features.linear_probe, {"test_features": FEATURES[:, 1:]}, "test_features must have 6"),
    (features.linear_probe, {"choice_labels": LABELS[1:]}, "choice_labels must have shape"),
    (features.relatedness, {"superclass": [0, 0, 1]}, r"superclass must have shape \(5,\)"),
    (features.relatedness, {"superclass": [0, 1, 2, 3, 4]}, "with class 0 and some elsewh"),
    (features.relatedness, {"superclass": [0] * 5}, "with class 0 and some elsewhere"),
    (features.mutual_information, {"differences": FEATURES[:, :1]}, "S >= 2"),
    (features.mutual_information, {"differences": 0 * FEATURES}, "the same in every draw"),
]


@pytest.mark.parametrize(
    ("function", "wrong", "words"),
    [pytest.param(*case, id=f"{case[0].__name__}-{next(iter(case[1]))}") for case in REFUSED],
)
def test_what_cannot_be_done_right_is_refused(function, wrong, words):
    floats, others = CALLS[function]
    with pytest.raises((ValueError, TypeError), match=words) as refused:
        function(**floats | others | wrong)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
def test_a_softmax_in_any_precision_is_a_distribution(dtype, classes):
    labels = torch.arange(200) % classes
    for scale in (0.1, 1, 10):
        probs = (scale * torch.randn(200, classes)).to(dtype).softmax(1)
        exact = calibration.brier_score(
            probs.double() / probs.double().sum(1, keepdim=True), labels
        )
        assert calibration.brier_score(probs, labels) == pytest.approx(exact, abs=0.02)
        with pytest.raises(ValueError, match="as probabilities do"):
            temperature.fit_temperature(probs, labels)
        # Their logarithms are logits.
        temperature.fit_temperature(probs.double().clamp(min=1e-9).log(), labels)


def test_bins_have_their_edges_in_the_precision_of_what_they_sort():
    """A bfloat16 0.2 meets the edge at 0.2, though both are 0.2002 in float32."""
    confidence = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.bfloat16)
    table = calibration.reliability_table(confidence, np.array([True] * 4), n_bins=5)
    assert list(table["count"]) == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("training", [True, False])
def test_a_network_leaves_evaluation_in_the_mode_it_came_in(training, monkeypatch):
    network = networks.build("resnet6", 10).train(training)
    network.classifier.train(not training)
    before = [module.training for module in network.modules()]
    images = torch.zeros(3, 32, 32, 3, dtype=torch.uint8)
    logits, _ = batches.evaluate(network, images)
    assert [module.training for module in network.modules()] == before
    assert torch.equal(logits[0], logits[1])  # it was evaluated in evaluation mode

    monkeypatch.setattr(network, "features", lambda batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        batches.evaluate(network, images)
    assert [module.training for module in network.modules()] == before


def test_arrays_know_how_far_a_sum_may_be_off():
    assert arrays.sum_tolerance([0.5, 0.5]) == 1e-3
    assert arrays.sum_tolerance(torch.ones(2, dtype=torch.bfloat16)) == 2 * 2**-7
