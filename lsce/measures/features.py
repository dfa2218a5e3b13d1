"""Numbers from penultimate features: projections, neural collapse, linear transfer, information.

Arrays are as in `lsce.measures.arrays`; all is computed in float64. ValueError or TypeError on what
does not fit or is not finite.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lsce.measures.arrays import Values, as_array, as_labels, as_matrix, as_vector

#: Inverse strengths of the L2 penalty that a linear probe is swept over and chooses from, and the
#: usual one: that of scikit-learn where nobody chooses.
STRENGTHS, USUAL_STRENGTH = (0.0001, 0.001, 0.01, 0.1, 1.0), 1.0


def _features(name: str, values: Values, width: int | None = None) -> np.ndarray:
    """Features (N, D), of a width that other features have already."""
    features = as_matrix(name, values, "(N, D)", columns=1)
    if width is not None and features.shape[1] != width:
        raise ValueError(f"{name} must have {width} columns, but has {features.shape[1]}")
    return features


def projection(features: Values, weight: Values, classes: Sequence[int]) -> np.ndarray:
    """Features on the plane through three classes' templates (Müller et al. 2019).

    features (N, D); weight (K, D), the last layer's, whose rows are the templates; the bias is not
    used. Returns float64 (N, 2): the first class's template is the origin, the second's lies on the
    positive first axis, the third's above it. Raises ValueError unless `classes` are three
    different ones whose templates span a plane.
    """
    weight = as_matrix("weight", weight, "(K, D)")
    distinct = len(set(classes)) == 3 and all(0 <= k < len(weight) for k in classes)
    if len(classes) != 3 or not distinct:
        raise ValueError(
            f"classes is {list(classes)}; it must be three different ones in [0, {len(weight)})"
        )
    origin, second, third = weight[list(classes)]
    across, up = second - origin, third - origin
    along = across / np.linalg.norm(across)
    rest = up - along * (along @ up)
    if not np.linalg.norm(rest) > 1e-9 * np.linalg.norm(up):
        raise ValueError(f"the templates of classes {list(classes)} lie on a line, not on a plane")
    basis = np.stack([along, rest / np.linalg.norm(rest)], axis=1)
    return (_features("features", features, weight.shape[1]) - origin) @ basis


def neural_collapse(
    features: Values, labels: Values, weight: Values, bias: Values
) -> dict[str, float]:
    """How near a network is to neural collapse, where NC1 to NC4 are 0 (Papyan et al. 2020, in the
    form of Zhou et al. 2022).

    features (N, D), of training images; labels, integers (N,), each of the K classes among them;
    weight (K, D) and bias (K,), the last layer's. `nc1` is tr(Σ_W Σ_B⁺)/K; `nc2` the distance of
    the normalised WWᵀ from a simplex, `nc2_equinorm` and `nc2_equiangular` those of the centred
    class means; `nc3` that of W times the centred means; `nc4` the share of images that the
    nearest class mean classifies otherwise. `within` and `between` are the traces of Σ_W and Σ_B.
    Raises ValueError if a class has no image, or if classes or weights are all alike.
    """
    weight, bias = as_matrix("weight", weight, "(K, D)", columns=1), as_vector("bias", bias)
    features, classes = _features("features", features, weight.shape[1]), len(weight)
    if classes < 2 or bias.shape != (classes,):
        raise ValueError(
            "weight must have shape (K, D) with K >= 2 and bias shape (K,), but they have "
            f"{weight.shape} and {bias.shape}"
        )
    labels = as_labels(labels, len(features), classes)
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise ValueError(f"labels hold no image of class {int(counts.argmin())}")
    means = np.zeros_like(weight)
    np.add.at(means, labels, features)
    means /= counts[:, None]
    centred = means - means.mean(axis=0)
    share = np.sqrt(1 / (classes * counts[labels]))  # every class counts alike
    inside = (features - means[labels]) * share[:, None]
    between = centred.T @ centred / classes
    # The class means span K − 1 dimensions at most; beyond them there is rounding alone.
    inverse = np.linalg.pinv(between, rcond=1e-8, hermitian=True)
    simplex = (np.eye(classes) - 1 / classes) / np.sqrt(classes - 1)
    norms = np.linalg.norm(centred, axis=1)
    if not norms.all() or not weight.any():
        what = "weight is 0 everywhere" if norms.all() else "the mean of a class is that of all"
        raise ValueError(f"{what}: there is no direction to compare")
    cosines = (centred @ centred.T) / np.outer(norms, norms)
    apart = ~np.eye(classes, dtype=bool)
    distance = (means**2).sum(axis=1) - 2 * features @ means.T
    predicted = (features @ weight.T + bias).argmax(axis=1)
    measures = {
        "nc1": (inside * (inside @ inverse)).sum() / classes,
        "nc2": np.linalg.norm(_normalised(weight @ weight.T) - simplex),
        "nc2_equinorm": norms.std() / norms.mean(),
        "nc2_equiangular": np.abs(cosines + 1 / (classes - 1))[apart].mean(),
        "nc3": np.linalg.norm(_normalised(weight @ centred.T) - simplex),
        "nc4": (predicted != distance.argmin(axis=1)).mean(),
        "within": (inside**2).sum(),
        "between": np.trace(between),
    }
    return {name: float(value) for name, value in measures.items()}


def _normalised(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix)


@dataclass(frozen=True)
class Probe:
    """What linear classifiers of features achieve, one of each of `STRENGTHS`."""

    #: The chosen one of `STRENGTHS`.
    strength: float
    #: Which test images are classified right: bool (S, N), a row for each of `STRENGTHS`.
    correct: np.ndarray

    @property
    def accuracies(self) -> dict[float, float]:
        """Test accuracy in [0, 1] by strength."""
        return dict(zip(STRENGTHS, self.correct.mean(axis=1).tolist(), strict=True))

    @property
    def accuracy(self) -> float:
        """Test accuracy in [0, 1] with the chosen strength."""
        return self.accuracies[self.strength]


def linear_probe(
    train_features: Values,
    train_labels: Values,
    choice_features: Values,
    choice_labels: Values,
    test_features: Values,
    test_labels: Values,
) -> Probe:
    """How well linear classifiers of features do: by strength, and with the strength chosen.

    features (N, D) and labels, integers (N,), of each split. Multinomial logistic regression on
    features standardised by the training split, with each of `STRENGTHS`; the chosen one has the
    best accuracy on the choice split, the smallest of equals. Whether smoothing costs transfer may
    hang on the strength: MaxSup (Zhou et al. 2025, arXiv:2502.15798) finds a much smaller gap once
    it is swept. Raises ValueError if the training labels are all the same.
    """
    from sklearn.linear_model import LogisticRegression  # a second to import
    from sklearn.preprocessing import StandardScaler

    arrays = {
        "train": (train_features, train_labels),
        "choice": (choice_features, choice_labels),
        "test": (test_features, test_labels),
    }
    width, splits = None, []
    for name, (features, labels) in arrays.items():
        features = _features(f"{name}_features", features, width)
        splits.append((features, as_labels(labels, len(features), name=f"{name}_labels")))
        width = features.shape[1]
    if len(np.unique(splits[0][1])) < 2:
        raise ValueError("train_labels must hold two classes or more, but are all the same")
    scaler = StandardScaler().fit(splits[0][0])
    train, choice, test = ((scaler.transform(x), y) for x, y in splits)
    best, chosen, correct = -1.0, 0.0, []
    probe = LogisticRegression(max_iter=1000, warm_start=True)
    for strength in STRENGTHS:
        score = probe.set_params(C=strength).fit(*train).score(*choice)
        correct.append(probe.predict(test[0]) == test[1])
        if score > best:
            best, chosen = score, strength
    return Probe(chosen, np.stack(correct))


def relatedness(logits: Values, labels: Values, superclass: Sequence[int]) -> np.ndarray:
    """The AUROC of logits for classes of the true one's superclass against those of others, the
    true class left out: (N,), of each image, in [0, 1]; on average 0.5 if logits do not tell.

    logits (N, K); labels, integers (N,); superclass of each of the K classes. Shift, temperature
    and softmax do not change it. Raises ValueError if the superclass of a label holds no other
    class, or all of them.
    """
    from scipy.stats import rankdata

    logits = as_matrix("logits", logits)
    classes, rows = logits.shape[1], np.arange(len(logits))
    labels, above = as_labels(labels, len(logits), classes), as_array(superclass)
    if above.shape != (classes,):
        raise ValueError(f"superclass must have shape ({classes},), but has {above.shape}")
    logits[rows, labels] = -np.inf  # ranks 1, below all others
    ranks = rankdata(logits, axis=1) - 1
    related = above == above[labels][:, None]
    related[rows, labels] = False
    count = related.sum(axis=1)
    others = classes - 1 - count
    if not (count * others).all():
        alone = labels[(count * others).argmin()]
        raise ValueError(
            f"superclass must put some of the other classes with class {alone} and some elsewhere"
        )
    wins = (ranks * related).sum(axis=1) - count * (count + 1) / 2
    return np.asarray(wins / (count * others))


def mutual_information(differences: Values) -> float:
    """Müller et al.'s (2019) estimate, in nats, of the information between an image's index and
    the difference of two logits under random augmentation: at most log N, and log 2 where only the
    class of two is left.

    differences (N, S): S >= 2 draws for each of N images, modelled as normal around the image's
    mean with one variance for all images; the estimate averages log p(y|x) − log p(y). Each draw
    is part of its own mean, which makes the estimate too large, more so with fewer draws. Raises
    ValueError if there are fewer than two draws or no variance.
    """
    y = as_matrix("differences", differences, "(N, S)")
    means, variance = y.mean(axis=1), y.var(axis=1, ddof=1).mean()
    if not variance > 0:
        raise ValueError("differences are the same in every draw; augmentation must change them")
    images = len(y)
    exponents = -((y.reshape(-1, 1) - means) ** 2) / (2 * variance)
    own = exponents[np.arange(y.size), np.repeat(np.arange(images), y.shape[1])]
    top = exponents.max(axis=1)
    marginal = top + np.log(np.exp(exponents - top[:, None]).sum(axis=1)) - np.log(images)
    return float((own - marginal).mean())
