import math

import numpy as np
import pytest
import torch

from lsce.measures.features import (
    STRENGTHS,
    USUAL_STRENGTH,
    linear_probe,
    mutual_information,
    neural_collapse,
    projection,
)


def images(n=120, width=6, classes=4, seed=0):
    """Features around class means, labels and a last layer; classes of unequal size."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes) // 2])
    features = rng.normal(size=(classes, width))[labels] + rng.normal(size=(n, width))
    return features, labels, rng.normal(size=(classes, width)), rng.normal(size=classes)


def rotation(width, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def collapsed(classes):
    """Features at the means of a simplex, away from the origin; the last layer aligned with it."""
    simplex = (np.eye(classes) - 1 / classes) @ rotation(classes + 3)[:classes]
    labels = np.repeat(np.arange(classes), 3)
    return 5 * simplex[labels] + 2, labels, simplex, -2 * simplex.sum(axis=1)


@pytest.mark.parametrize("classes", [(0, 1, 2), (3, 0, 4), (4, 3, 1)])
def test_templates_span_the_plane_in_their_order(classes):
    weight = np.random.default_rng(0).normal(size=(5, 7))
    first, second, third = projection(weight, weight, classes)[list(classes)]
    assert first == pytest.approx([0, 0]) and second[1] == pytest.approx(0)
    assert second[0] > 0 and third[1] > 0
    # In the plane nothing is lost: distances between templates are those in D dimensions.
    edges = np.diff(weight[list(classes)], axis=0)
    assert np.linalg.norm([second - first, third - second], axis=1) == pytest.approx(
        np.linalg.norm(edges, axis=1)
    )


def test_projection_is_gram_and_schmidts_and_drops_what_leaves_the_plane():
    features, _, weight, _ = images()
    along = weight[3] - weight[1]
    along /= np.linalg.norm(along)
    up = weight[0] - weight[1]
    up = up - along * (along @ up)
    up /= np.linalg.norm(up)
    expected = [[along @ (x - weight[1]), up @ (x - weight[1])] for x in features]
    points = projection(features, weight, (1, 3, 0))
    assert points.dtype == np.float64
    np.testing.assert_allclose(points, expected, atol=1e-12)

    outside = np.linalg.svd(np.stack([along, up]))[2][2:]
    shifted = features + np.random.default_rng(1).normal(size=(len(features), 4)) @ outside
    np.testing.assert_allclose(projection(shifted, weight, (1, 3, 0)), points, atol=1e-12)


def test_projection_does_not_depend_on_the_signs_of_the_factorisation(monkeypatch):
    features, _, weight, _ = images()
    points = projection(features, weight, (0, 1, 2))
    turned = weight @ rotation(6)
    again = projection(features @ rotation(6), turned, (0, 1, 2))
    np.testing.assert_allclose(again, points, atol=1e-12)
    qr = np.linalg.qr
    for signs in ([1, -1], [-1, 1], [-1, -1]):
        flip = np.diag(signs)
        monkeypatch.setattr(np.linalg, "qr", lambda a, f=flip: (qr(a)[0] @ f, f @ qr(a)[1]))
        again = projection(features, weight, (0, 1, 2))
        np.testing.assert_allclose(again, points, atol=1e-12)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((0, 1, 1), "classes .* three different ones"),
        ((0, 1), "classes .* three different ones"),
        ((0, 1, 4), "classes .* three different ones"),
        ((-1, 1, 2), "classes .* three different ones"),
        ((0, 1, 2), r"templates .* \[0, 1, 2\] lie on a line"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_classes_that_give_no_plane_are_named(classes, message):
    weight = np.array([[0.0, 0, 1], [1, 1, 1], [3, 3, 1], [0, 0, 1]])
    with pytest.raises(ValueError, match=message):
        projection(np.zeros((2, 3)), weight, classes)


def slow_neural_collapse(features, labels, weight, bias):
    """Second implementation: the definitions, one image and one pair at a time."""
    classes, width = weight.shape
    members = [[x for x, y in zip(features, labels, strict=True) if y == k] for k in range(classes)]
    means = [sum(xs) / len(xs) for xs in members]
    middle = sum(means) / classes
    within, between = np.zeros((width, width)), np.zeros((width, width))
    for mean, xs in zip(means, members, strict=True):
        within += sum(np.outer(x - mean, x - mean) for x in xs) / len(xs) / classes
        between += np.outer(mean - middle, mean - middle) / classes
    simplex = (np.eye(classes) - np.ones((classes, classes)) / classes) / math.sqrt(classes - 1)
    centred = [mean - middle for mean in means]
    norms = [math.sqrt(m @ m) for m in centred]
    off = [
        abs(centred[j] @ centred[k] / norms[j] / norms[k] + 1 / (classes - 1))
        for j in range(classes)
        for k in range(j)
    ]
    differs = [
        np.argmax(weight @ x + bias) != np.argmin([np.linalg.norm(x - m) for m in means])
        for x in features
    ]
    gram, cross = weight @ weight.T, weight @ np.transpose(centred)
    return {
        "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / classes,
        "nc2": np.linalg.norm(gram / np.linalg.norm(gram) - simplex),
        "nc2_equinorm": np.std(norms) / np.mean(norms),
        "nc2_equiangular": np.mean(off),
        "nc3": np.linalg.norm(cross / np.linalg.norm(cross) - simplex),
        "nc4": np.mean(differs),
        "within": np.trace(within),
        "between": np.trace(between),
    }


@pytest.mark.parametrize(("width", "classes"), [(6, 4), (3, 7), (12, 2), (9, 10)])
def test_neural_collapse_equals_the_definitions(width, classes):
    made = images(width=width, classes=classes)
    found = neural_collapse(*made)
    assert found == pytest.approx(slow_neural_collapse(*made), rel=1e-9)
    assert all(type(value) is float for value in found.values())
    tensors = [torch.tensor(part) for part in made]
    assert neural_collapse(*tensors) == found


@pytest.mark.parametrize("classes", range(4, 11))
def test_a_simplex_is_collapsed(classes):
    found = neural_collapse(*collapsed(classes))
    assert found.pop("between") == pytest.approx(25 * (1 - 1 / classes))
    assert found == pytest.approx(dict.fromkeys(found, 0.0), abs=1e-12)


def test_neural_collapse_ignores_where_how_large_and_how_turned_the_features_are():
    features, labels, weight, bias = images()
    found = neural_collapse(features, labels, weight, bias)
    turn, shift = rotation(6), np.arange(6.0)
    moved = neural_collapse(
        3 * features @ turn + shift, labels, weight @ turn, 3 * bias - weight @ turn @ shift
    )
    for name in ("within", "between"):
        assert moved.pop(name) == pytest.approx(9 * found.pop(name))
    assert moved == pytest.approx(found)


def test_nc4_counts_disagreeing_images():
    features, labels, weight, bias = collapsed(5)
    bias = bias + 100 * (np.arange(5) == 2)  # the network says 2, the means four times not
    assert neural_collapse(features, labels, weight, bias)["nc4"] == 0.8


def test_a_class_without_images_is_named():
    features, labels, weight, bias = images()
    with pytest.raises(ValueError, match="labels hold .*3"):
        neural_collapse(features, np.minimum(labels, 2), weight, bias)


def splits(spread=0.3, shuffled=False, scale=1.0):
    """Three splits of three classes, with labels that are no indices and a constant feature."""
    rng = np.random.default_rng(0)
    means, parts = 2 * rng.normal(size=(3, 5)), []
    for n in (150, 300, 600):
        index = rng.integers(3, size=n)
        features = scale * np.c_[means[index] + spread * rng.normal(size=(n, 5)), np.ones(n)]
        parts += [features, np.array([10, -4, 7])[rng.permutation(index) if shuffled else index]]
    return parts


def found_by(parts) -> tuple[float, float]:
    probe = linear_probe(*parts)
    return probe.accuracy, probe.strength


@pytest.mark.filterwarnings("error")
def test_linear_probe_separates_what_can_be_separated():
    # All strengths but the smallest ones do as well: the smallest of them.
    assert found_by(splits()) == (1.0, 0.01)
    assert found_by(splits(shuffled=True))[0] == pytest.approx(1 / 3, abs=0.07)
    assert found_by(map(torch.tensor, splits())) == (1.0, 0.01)
    assert found_by(splits(2, scale=1e-3)) == found_by(splits(2))


def test_the_choice_split_alone_chooses_the_strength():
    *known, features, labels = splits(2)
    accuracy, strength = found_by((*known, features, labels))
    for other in ([10, -4, 7], [-4, 7, 10], [99, 99, 99]):
        changed = np.select([labels == 10, labels == -4, labels == 7], other)
        again, chosen = found_by((*known, features, changed))
        assert chosen == strength and (again == accuracy) == (other == [10, -4, 7])


def test_linear_probe_is_converged():
    """With every strength, image by image, and so its choice."""
    from sklearn.linear_model import LogisticRegression

    train, train_labels, choice, choice_labels, test, test_labels = splits(2)
    mean, scale = train.mean(axis=0), np.append(train[:, :-1].std(axis=0), 1)
    train, choice, test = ((part - mean) / scale for part in (train, choice, test))
    probe, scores = linear_probe(*splits(2)), []
    assert probe.correct.shape == (len(STRENGTHS), 600) and probe.correct.dtype == bool
    assert USUAL_STRENGTH in STRENGTHS
    for strength, correct in zip(STRENGTHS, probe.correct, strict=True):
        exact = LogisticRegression(C=strength, tol=1e-9, max_iter=10_000).fit(train, train_labels)
        assert (correct != (exact.predict(test) == test_labels)).mean() <= 0.004
        assert probe.accuracies[strength] == correct.mean()
        scores.append(exact.score(choice, choice_labels))
    assert probe.strength == STRENGTHS[int(np.argmax(scores))]
    assert probe.accuracy == probe.accuracies[probe.strength]


def slow_information(differences):
    """Second implementation: densities of the normal distribution, one draw at a time."""
    n, size = differences.shape
    means = [sum(row) / size for row in differences]
    variance = sum(
        (y - mean) ** 2 / (size - 1) / n
        for row, mean in zip(differences, means, strict=True)
        for y in row
    )
    total = 0.0
    for i, row in enumerate(differences):
        for y in row:
            given = [math.exp(-((y - mean) ** 2) / 2 / variance) for mean in means]
            total += math.log(given[i]) - math.log(sum(given) / n)
    return total / n / size


def around(means, size=5, width=1.0):
    """Draws whose means are exactly `means`."""
    return np.asarray(means)[:, None] + width * np.linspace(-1, 1, size)


@pytest.mark.parametrize("size", [2, 5])
def test_mutual_information_equals_the_definition(size):
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(30, 1)) + 0.5 * rng.normal(size=(30, size))
    found = mutual_information(draws)
    assert found == pytest.approx(slow_information(draws), rel=1e-10)
    assert 0 < found < math.log(30)
    assert mutual_information(torch.tensor(draws)) == found
    assert mutual_information(100 - 7 * draws) == pytest.approx(found, rel=1e-9)


def test_mutual_information_counts_what_can_be_told_apart():
    clusters = np.repeat([-50.0, 50.0], 20)
    assert mutual_information(around(clusters)) == pytest.approx(math.log(2))
    assert mutual_information(around(1e3 * np.arange(600))) == pytest.approx(math.log(600))
    assert mutual_information(around(np.full(40, 3.0))) == pytest.approx(0)


@pytest.mark.parametrize("size", [2, 5, 50])
def test_mutual_information_is_as_biased_as_documented(size):
    draws = np.random.default_rng(0).normal(size=(600, size))
    bias = (math.log1p(1 / size) + 1 / (size * (size + 1))) / 2
    assert mutual_information(draws) == pytest.approx(bias, rel=0.1)


@pytest.mark.parametrize("differences", [np.ones((3, 1)), np.ones(3), np.zeros((3, 2))])
@pytest.mark.filterwarnings("error")
def test_differences_that_tell_nothing_are_refused(differences):
    with pytest.raises(ValueError, match="differences"):
        mutual_information(differences)
