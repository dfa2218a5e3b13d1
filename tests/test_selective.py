import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lsce.measures import calibration, selective
from lsce.measures.temperature import fit_temperature


def outcomes(n=400, error=0.3, seed=0):
    """A score that says something, and which predictions are right."""
    rng = np.random.default_rng(seed)
    correct = rng.random(n) > error
    return rng.normal(size=n) + correct, correct


def draw(n=600, classes=6, seed=0):
    """Logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, classes))
    cumulative = calibration.softmax(logits).cumsum(axis=1)
    return logits, (cumulative > rng.random((n, 1))).argmax(axis=1)


SCORES = {
    "log_odds": selective.log_odds,
    "scaled": lambda z: selective.log_odds(z, 2.5),
    "maximum_logit": selective.maximum_logit,
    "normalised": lambda z: selective.normalised(z, 3),
    "energy": selective.energy,
}


@pytest.mark.parametrize("errors", [0, 1, 30, 99, 100])
def test_the_best_order_has_the_risks_and_the_area_of_its_closed_form(errors):
    n = 100
    correct = np.arange(n) < n - errors
    risks = selective.risk_coverage(-np.arange(n), correct)
    expected = [max(0, i - (n - errors)) / i for i in range(1, n + 1)]
    assert risks.tolist() == expected
    assert selective.aurc(risks) == pytest.approx(sum(expected) / n, abs=1e-15)
    # The mean is an upper sum of the increasing function whose integral is subtracted.
    assert -1e-15 <= selective.excess_aurc(risks) <= errors / n / n


def test_the_best_order_nears_no_excess_as_images_grow():
    for n in (1_000, 10_000, 100_000):
        excess = selective.excess_aurc(
            selective.risk_coverage(-np.arange(n), np.arange(n) < 0.7 * n)
        )
        assert excess == pytest.approx(0.3 / (2 * n), rel=0.01)


def test_the_worst_order_has_its_closed_form():
    n, errors = 50, 20
    risks = selective.risk_coverage(np.arange(n), np.arange(n) < n - errors)
    assert risks.tolist() == [min(i, errors) / i for i in range(1, n + 1)]


def test_a_constant_score_has_the_error_rate_at_every_coverage():
    _, correct = outcomes(n=997)
    risks = selective.risk_coverage(np.full(997, 0.1), correct)
    assert (risks == (~correct).mean()).all()
    r = (~correct).mean()
    assert selective.excess_aurc(risks) == pytest.approx((1 - r) * np.log(1 / (1 - r)))


def test_a_random_score_has_the_area_of_a_constant_one():
    rng = np.random.default_rng(0)
    correct = np.arange(200) < 140
    areas = [selective.aurc(selective.risk_coverage(rng.random(200), correct)) for _ in range(500)]
    assert np.mean(areas) == pytest.approx(0.3, abs=4 * np.std(areas) / np.sqrt(500))


@pytest.mark.parametrize("seed", range(8))
def test_ties_count_as_the_average_over_every_order_of_the_images(seed):
    rng = np.random.default_rng(seed)
    score, correct = rng.integers(3, size=7), rng.random(7) < 0.5
    risks = []
    for order in map(list, itertools.permutations(range(7))):
        # A stable sort: in the order of the file, where scores tie.
        ranked = correct[order][np.argsort(-score[order], kind="stable")]
        risks.append(np.cumsum(~ranked) / np.arange(1, 8))
    expected = np.mean(risks, axis=0)
    assert selective.risk_coverage(score, correct) == pytest.approx(expected, abs=1e-12)


def test_the_order_of_the_file_does_not_matter():
    score, correct = outcomes()
    score = score.round(1)
    risks = selective.risk_coverage(score, correct)
    order = np.random.default_rng(1).permutation(len(score))
    assert (selective.risk_coverage(score[order], correct[order]) == risks).all()


def test_only_the_order_of_the_scores_matters():
    score, correct = outcomes()
    score = score.round(1)
    risks = selective.risk_coverage(score, correct)
    for same in (np.exp(score), 3 * score - 7, score**3):
        assert (selective.risk_coverage(same, correct) == risks).all()
    assert selective.aurc(selective.risk_coverage(-score, correct)) > selective.aurc(risks) + 0.1
    area = selective.auroc(score[correct], score[~correct])
    assert selective.auroc(np.exp(score[correct]), np.exp(score[~correct])) == area
    assert selective.auroc(-score[correct], -score[~correct]) == pytest.approx(1 - area)


def test_risk_and_coverage_are_inverse():
    risks = selective.risk_coverage(*outcomes())
    for most in [0.05, 0.1, *risks[::7], 1.0]:
        coverage = selective.coverage_at_risk(risks, most)
        share = np.arange(1, len(risks) + 1) / len(risks)
        assert (risks[share > coverage] > most).all()
        assert coverage == 0 or selective.risk_at_coverage(risks, coverage) <= most
    for i, risk in enumerate(risks, start=1):
        assert selective.risk_at_coverage(risks, i / len(risks)) == risk
        assert selective.coverage_at_risk(risks, risk) >= i / len(risks)


def test_coverage_and_risk_by_hand():
    risks = [0.0, 0.5, 1 / 3, 0.25, 0.4]
    found = [selective.coverage_at_risk(risks, most) for most in (0, 0.25, 0.3, 0.45, 1)]
    assert found == [0.2, 0.8, 0.8, 1.0, 1.0]
    found = [selective.risk_at_coverage(risks, c) for c in (0, 0.2, 0.21, 0.4, 0.6, 0.61, 0.8, 1)]
    assert found == [0.0, 0.0, 0.5, 0.5, 1 / 3, 0.25, 0.25, 0.4]
    assert selective.coverage_at_risk([1.0, 0.5], 0.4) == 0


@pytest.mark.parametrize("n", [20, 100, 300, 2000])
def test_coverages_and_risks_that_are_reached_exactly_count(n):
    rising = np.arange(1, n + 1) / n
    for percent in range(5, 101, 5):  # 0.55 * 100 is above 55
        assert selective.risk_at_coverage(rising, percent / 100) == percent / 100
    errors = np.arange(n) < n / 20  # all scores tie: 5% at every coverage
    risks = selective.risk_coverage(np.zeros(n), ~errors)
    assert selective.coverage_at_risk(risks, 0.05) == 1


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_log_odds_are_those_of_the_maximum_softmax_probability(classes, temperature):
    logits, _ = draw(classes=classes)
    odds = np.exp(selective.log_odds(logits, temperature))
    top = calibration.softmax(logits, temperature).max(axis=1)
    assert odds / (1 + odds) == pytest.approx(top, rel=1e-12)


def test_log_odds_tell_probabilities_apart_that_round_to_one():
    logits = np.array([[0.0, 40.0], [0.0, 50.0], [0.0, 2000.0]])
    assert (calibration.softmax(logits).max(axis=1) == 1).all()
    assert selective.log_odds(logits) == pytest.approx([40, 50, 2000])


def test_of_two_classes_temperature_keeps_the_ranking():
    logits, labels = draw(classes=2)
    correct = logits.argmax(axis=1) == labels
    risks = selective.risk_coverage(selective.log_odds(logits), correct)
    for temperature in (0.01, 0.3, 7.0, 100.0):
        scaled = selective.log_odds(logits, temperature)
        assert (selective.risk_coverage(scaled, correct) == risks).all()
    logits, _ = draw(classes=3)  # of more it does not
    orders = [np.argsort(selective.log_odds(logits, t)) for t in (1, 7)]
    assert (orders[0] != orders[1]).any()


@pytest.mark.parametrize("name", SCORES)
def test_a_shift_of_the_logits_changes_no_ranking(name):
    logits, _ = draw()
    score, shifted = SCORES[name](logits), SCORES[name](logits + 64)
    assert shifted - score == pytest.approx(shifted[0] - score[0], abs=1e-12)
    # One for each image changes the two scores that are not functions of the softmax alone.
    rows = np.random.default_rng(1).normal(size=(len(logits), 1))
    same = np.allclose(SCORES[name](logits + rows), score, rtol=0, atol=1e-12)
    assert same == (name not in ("maximum_logit", "energy"))


@pytest.mark.parametrize("p", selective.NORMS)
def test_normalised_equals_its_formula_and_ignores_the_scale(p):
    logits, _ = draw()
    centred = logits - logits.mean(axis=1, keepdims=True)
    score = selective.normalised(logits, p)
    expected = centred.max(axis=1) / np.linalg.norm(centred, ord=p, axis=1)
    assert score == pytest.approx(expected, rel=1e-12)
    scales = 10.0 ** np.random.default_rng(1).integers(-120, 120, size=(len(logits), 1))
    assert selective.normalised(scales * logits, p) == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 7, 100])
def test_equal_logits_have_the_lowest_normalised_score(classes):
    logits = np.stack([np.full(classes, 0.1), np.arange(classes)])
    score = selective.normalised(logits, 2)
    assert score[0] == 0 < score[1]


def test_the_other_scores_by_hand():
    logits = np.log([[1.0, 2.0, 5.0], [4.0, 1.0, 1.0]])
    assert np.exp(selective.maximum_logit(logits)) == pytest.approx([5, 4])
    assert np.exp(selective.energy(logits)) == pytest.approx([8, 6])
    assert np.exp(selective.log_odds(logits)) == pytest.approx([5 / 3, 2])
    assert selective.energy([[1000.0, 1000.0]]) == pytest.approx(1000 + np.log(2))


STEEP, FLAT = [3, -3, 0, 0, 0, 0], [3, 2, 1, -2, -2, -2]


@pytest.mark.parametrize(("right", "norm"), [("steep", 1.0), ("flat", 4.0)])
def test_choose_norm_finds_the_norms_that_tell_right_from_wrong(right, norm):
    """Norms up to 3 rank the steep rows first, those from 4 on the flat ones."""
    logits = np.array([STEEP] * 5 + [FLAT] * 5, dtype=float)
    labels = np.where(np.repeat(["steep", "flat"], 5) == right, 0, 1)
    assert selective.choose_norm(logits, labels) == norm
    risks = selective.risk_coverage(selective.normalised(logits, norm), labels == 0)
    assert selective.coverage_at_risk(risks, 0) == 0.5


def test_choose_norm_has_the_least_area_of_all():
    logits, labels = draw(classes=20, seed=3)
    correct = logits.argmax(axis=1) == labels
    areas = {
        p: selective.aurc(selective.risk_coverage(selective.normalised(logits, p), correct))
        for p in selective.NORMS
    }
    assert len(set(areas.values())) == len(areas)
    assert areas[selective.choose_norm(logits, labels)] == min(areas.values())


def double_loop(positive, negative):
    wins = [(a > b) + (a == b) / 2 for a in positive for b in negative]
    return sum(wins) / len(wins)


@pytest.mark.parametrize("digits", [0, 1, 15])
def test_auroc_equals_a_double_loop(digits):
    rng = np.random.default_rng(digits)
    positive, negative = rng.normal(0.5, size=60).round(digits), rng.normal(size=85).round(digits)
    expected = double_loop(positive, negative)
    assert selective.auroc(positive, negative) == pytest.approx(expected, abs=1e-12)
    assert selective.auroc(negative, positive) == pytest.approx(1 - expected, abs=1e-12)


def test_auroc_at_its_bounds_and_of_scores_a_rounding_apart():
    assert selective.auroc([1, 2], [0, -1, 0.5]) == 1
    assert selective.auroc([0], [1]) == 0
    assert selective.auroc([1, 1], [1]) == 0.5
    assert selective.auroc([np.nextafter(1, 2)], [1]) == 1


def test_false_positives_by_hand():
    positive, negative = np.arange(100), np.array([4.0, 5.0, 5.5, 98.0, 200.0])
    # 95 of 100 positives score at least 5.
    assert selective.fpr_at_tpr(positive, negative) == 4 / 5
    assert selective.fpr_at_tpr(positive, negative, tpr=0.01) == 1 / 5
    assert selective.fpr_at_tpr(positive, negative, tpr=1.0) == 1
    assert selective.fpr_at_tpr(positive, negative - 300) == 0
    assert selective.fpr_at_tpr([1, 1, 1], [1, 0]) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_false_positives_equal_a_search_of_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(1, size=57).round(1), rng.normal(size=40).round(1)
    found = [(negative >= t).mean() for t in positive if (positive >= t).mean() >= 0.95]
    assert selective.fpr_at_tpr(positive, negative) == min(found)


def suppressed(seed, n=1500, classes=8):
    """Logits whose scale is drawn for each image and says nothing, and labels that ignore it."""
    logits, labels = draw(n, classes, seed)
    return logits * 10 ** np.random.default_rng(seed + 50).uniform(-2, 1, size=(n, 1)), labels


def test_selective_reports_each_score():
    validation, test = suppressed(0), suppressed(1)
    temperature = fit_temperature(*validation).value
    found, rows = selective.selective(*validation, *test, temperature)
    logits, labels = test
    correct = logits.argmax(axis=1) == labels
    norm = selective.choose_norm(*validation)
    assert found.pop("norm") == norm
    scores = {
        "": calibration.softmax(logits).max(axis=1),
        "_scaled": calibration.softmax(logits, temperature).max(axis=1),
        "_normalised": selective.normalised(logits, norm),
    }
    names = ("aurc", "excess_aurc", "coverage_at_5", "risk_at_80", "failure_auroc")
    assert list(found) == [name + suffix for suffix in scores for name in names]
    for suffix, score in scores.items():
        risks = np.cumsum(~correct[np.argsort(-score)]) / np.arange(1, len(score) + 1)
        assert found[f"aurc{suffix}"] == pytest.approx(risks.mean())
        assert found[f"risk_at_80{suffix}"] == risks[int(0.8 * len(risks)) - 1]
        assert found[f"failure_auroc{suffix}"] == pytest.approx(roc_auc_score(correct, score))
        case = [row for row in rows if row["case"] == selective.CASES[suffix]]
        assert [row["x"] for row in case] == [i / 20 for i in range(1, 21)]
        assert case[15]["value"] == found[f"risk_at_80{suffix}"]
        assert case[-1]["value"] == (~correct).mean()
    assert {row["quantity"] for row in rows} == {"risk"} and len(rows) == 60
    # Normalising undoes what the scale of each image did to the ranking.
    assert found["aurc_normalised"] < found["aurc"] - 0.02


def test_selective_by_hand():
    """The 600 surest of 1000 images are right, the others wrong."""
    logits = np.stack([np.zeros(1000), np.arange(1000, 0, -1)], axis=1)
    labels = (np.arange(1000) < 600).astype(int)
    found, _ = selective.selective(logits, labels, logits, labels, 20.0)
    for suffix in ("", "_scaled"):
        assert found[f"coverage_at_5{suffix}"] == 0.631  # 31/631 is below 5%, 32/632 above
        assert found[f"risk_at_80{suffix}"] == 200 / 800
        assert found[f"failure_auroc{suffix}"] == 1
        assert found[f"excess_aurc{suffix}"] == pytest.approx(0.4 / 2000, rel=0.02)


def test_the_test_labels_do_not_choose_the_norm():
    validation, (logits, labels) = suppressed(0), suppressed(1)
    wrong = (labels + 1) % 8
    chosen = [selective.selective(*validation, logits, y, 1.0)[0]["norm"] for y in (labels, wrong)]
    assert chosen[0] == chosen[1] == selective.choose_norm(*validation)


@pytest.mark.parametrize("error", [0, 1])
def test_where_all_are_right_or_wrong_there_is_no_failure_to_detect(error):
    logits = np.random.default_rng(0).normal(size=(30, 4))
    labels = (logits.argmax(axis=1) + error) % 4
    found, _ = selective.selective(logits, labels, logits, labels, 2.0)
    assert not [name for name in found if name.startswith("failure_auroc")]
    assert found["aurc"] == found["risk_at_80"] == error
    assert found["excess_aurc"] == 0
    assert found["coverage_at_5"] == 1 - error
    assert np.isfinite(list(found.values())).all()


def test_unseen_reports_each_score():
    rng = np.random.default_rng(0)
    seen, unseen = rng.normal(size=(90, 5)) * 3, rng.normal(size=(70, 5))
    found = selective.unseen(seen, unseen, 0.7, 3.0)
    assert len(found) == 10
    for suffix, score in {
        "": lambda z: calibration.softmax(z).max(axis=1),
        "_scaled": lambda z: calibration.softmax(z, 0.7).max(axis=1),
        "_normalised": lambda z: selective.normalised(z, 3.0),
        "_logit": lambda z: z.max(axis=1),
        "_energy": lambda z: np.log(np.exp(z).sum(axis=1)),
    }.items():
        positive, negative = score(seen), score(unseen)
        area = double_loop(positive, negative)
        assert found[f"unseen_auroc{suffix}"] == pytest.approx(area, abs=1e-12)
        threshold = np.sort(positive)[4]  # 86 of 90, the fewest that are 95%
        assert found[f"unseen_fpr95{suffix}"] == (negative >= threshold).mean()
    assert found["unseen_auroc"] > 0.7
    swapped = selective.unseen(unseen, seen, 0.7, 3.0, "far")
    assert swapped["far_auroc_energy"] == pytest.approx(1 - found["unseen_auroc_energy"])


def test_tensors_and_arrays_agree():
    validation, test = suppressed(0, n=80), suppressed(1, n=80)
    tensors = [torch.tensor(part) for part in (*validation, *test)]
    assert selective.selective(*tensors, 1.5) == selective.selective(*validation, *test, 1.5)
    assert selective.unseen(tensors[0].requires_grad_(), tensors[2], 1.5, 2.0) == selective.unseen(
        validation[0], test[0], 1.5, 2.0
    )
    score, correct = outcomes()
    same = selective.risk_coverage(torch.tensor(score), torch.tensor(correct))
    assert (same == selective.risk_coverage(score, correct)).all()


LOGITS = [[0.0, 1.0], [2.0, 0.0]]


@pytest.mark.parametrize(
    ("function", "arguments", "error", "message"),
    [
        ("risk_coverage", ([], []), ValueError, r"score must have shape \(N,\)"),
        ("risk_coverage", ([[1.0]], [True]), ValueError, r"score must have shape \(N,\)"),
        ("risk_coverage", ([np.nan], [True]), ValueError, "score must be finite"),
        ("risk_coverage", ([1.0], [1]), TypeError, "correct must be boolean"),
        ("risk_coverage", ([1.0], [True, True]), ValueError, r"correct must have shape \(1,\)"),
        ("aurc", ([0.5, 1.5],), ValueError, r"risks must lie in \[0, 1\]"),
        ("excess_aurc", ([-0.1],), ValueError, r"risks must lie in \[0, 1\]"),
        ("coverage_at_risk", ([0.1], 5), ValueError, r"most must lie in \[0, 1\], but it is 5"),
        ("risk_at_coverage", ([0.1], np.nan), ValueError, r"coverage must lie in \[0, 1\]"),
        ("auroc", ([], [1.0]), ValueError, "positive must have shape"),
        ("auroc", ([1.0], [np.inf]), ValueError, "negative must be finite"),
        ("fpr_at_tpr", ([1.0], [1.0], 95), ValueError, r"tpr must lie in \[0, 1\]"),
        ("log_odds", (LOGITS, 0.0), ValueError, "temperature must be positive"),
        ("log_odds", ([[0.0, np.inf]],), ValueError, "logits must be finite"),
        ("normalised", (LOGITS, np.inf), ValueError, "p must be positive and finite"),
        ("choose_norm", (LOGITS, [0, 2]), ValueError, r"labels must lie in \[0, 2\)"),
        ("selective", (LOGITS, [0, 1], LOGITS, [0], 1.0), ValueError, "labels must have shape"),
        ("unseen", (LOGITS, [[0.0] * 3], 1.0, 2.0), ValueError, "must be of the same classes"),
    ],
)
def test_bad_input_is_named(function, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(selective, function)(*arguments)


def test_imports_without_scipy_and_sklearn():
    without = "import sys; sys.modules['scipy'] = sys.modules['sklearn'] = None; "
    code = without + "import lsce.measures.selective"
    subprocess.run([sys.executable, "-c", code], check=True)
