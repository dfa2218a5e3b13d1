"""Conformal prediction sets: how many classes to name so that the right one is among them.

A set holds the classes whose *score* is at most a threshold, chosen on held-out images so that the
set of a new image of the same kind holds its label with a given probability, the *coverage*. The
scores are those of adaptive prediction sets, APS (Romano et al. 2020, arXiv:2006.02544), and with a
penalty of large sets RAPS (Angelopoulos et al. 2021, arXiv:2009.14193). At equal coverage smaller
sets are better.

Arrays are as in `lsce.measures.arrays`, and what does not fit raises ValueError or TypeError:
`probs` (N, C), each row a distribution; labels, integers (N,) in [0, C); scores (N, C). All is
computed in float64.
"""

import numpy as np

from lsce.measures.arrays import (
    Values,
    as_array,
    as_distributions,
    as_labels,
    as_matrix,
    as_risks,
)

#: The coverage that sets are made for.
COVERAGE = 0.9

#: The weight of the penalty of RAPS and the classes that are free of it: those that the authors'
#: code is shown with.
PENALTY, FREE = 0.01, 5

#: The names of kinds of sets and the weights of their penalties.
KINDS = {"aps": 0.0, "raps": PENALTY}


def adaptive_scores(probs: Values, u: Values, penalty: float = 0.0, free: int = FREE) -> np.ndarray:
    """The score of every class less 1, float64 (N, C), at least −1.

    The score is the probability of all classes that are likelier, plus `u` times its own, plus
    `penalty` · max(0, rank − `free`), rank 1 being the likeliest class (of equals the one of lower
    index). Less 1 it is minus the probability of what is left, in which the unlikely classes of a
    sure network differ, while their scores would all be rounded to 1.

    `u` (N,), in [0, 1], one number an image. With uniform random numbers the coverage comes out
    exact; with 1 for every image it is not random, but a set then always ends with a class that
    reaches up to the threshold or beyond, and covers more than was asked for by an amount that
    depends on the network. `penalty` is at least 0: 0 is APS, more is RAPS, as its paper has it (in
    the authors' code `u` multiplies the last step of the penalty, too).
    """
    probs = as_distributions("probs", probs).astype(np.float64)
    u = as_risks("u", u)
    if len(u) != len(probs):
        raise ValueError(f"u must have shape ({len(probs)},), one an image, but has {u.shape}")
    if not (penalty >= 0 and free >= 0):
        raise ValueError(f"penalty and free must be at least 0, but are {penalty!r} and {free!r}")
    order = np.argsort(-probs, axis=1, kind="stable")
    own = np.take_along_axis(probs, order, axis=1)
    steps = penalty * np.maximum(0, np.arange(1, probs.shape[1] + 1) - free)
    left = np.zeros_like(own)  # by adding up from below, and not by subtraction, which rounds
    left[:, :-1] = own[:, :0:-1].cumsum(axis=1)[:, ::-1]
    ranked = steps - left - (1 - u[:, None]) * own
    scores = np.empty_like(ranked)
    np.put_along_axis(scores, order, ranked, axis=1)
    return scores


def threshold(scores: Values, labels: Values, coverage: float = COVERAGE) -> float:
    """The ⌈(N + 1) · coverage⌉-th smallest of the labels' scores, with which the sets of new images
    hold their labels with a probability of at least `coverage`, in (0, 1); inf, which takes all
    classes, where there are too few images (Romano et al. 2020)."""
    scores = as_matrix("scores", scores)
    labels = as_labels(labels, *scores.shape)
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie between 0 and 1, but it is {coverage!r}")
    own = np.sort(scores[np.arange(len(labels)), labels])
    # A share like 0.9 times N + 1 may come out a rounding above the integer that it is.
    needed = int(np.ceil((len(own) + 1) * coverage - 1e-9))
    return float(own[needed - 1]) if needed <= len(own) else np.inf


def prediction_sets(scores: Values, labels: Values, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Of every image how many classes have a score of at most `most`, int64 (N,) in [0, C], and
    whether the label is one of them, bool (N,). Their means are set size and coverage.

    A set may be empty, where the network is so sure that one class would cover too much.
    """
    scores = as_matrix("scores", scores)
    labels = as_labels(labels, *scores.shape)
    inside = scores <= most
    return inside.sum(axis=1), inside[np.arange(len(labels)), labels]


def adaptive_sets(
    validation_probs: Values,
    validation_labels: Values,
    test_probs: Values,
    test_labels: Values,
    penalty: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """`prediction_sets` of the test images for a coverage of `COVERAGE`, with randomised scores and
    the threshold of the validation images. With noisy validation labels it is these that the sets
    would cover.

    Randomised, since networks are to be compared at equal coverage. The random numbers are the same
    for every network, so that two are compared without the chance of the draw.
    """
    held_out, images = len(as_array(validation_labels)), len(as_array(test_labels))
    u = np.random.Generator(np.random.PCG64(0)).random(held_out + images)
    most = threshold(
        adaptive_scores(validation_probs, u[:held_out], penalty), validation_labels, COVERAGE
    )
    return prediction_sets(adaptive_scores(test_probs, u[held_out:], penalty), test_labels, most)
