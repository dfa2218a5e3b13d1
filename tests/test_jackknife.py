"""Groups of test images, and how measures vary between them."""

import numpy as np
import pytest
import torch

from lsce.measures.jackknife import GROUPS, by_group, groups_of

#: A test set's labels: 100 classes of 100 images, in no order.
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 100))


def test_groups_by_hand():
    # The first image of class 0 is in group 0, the next in 1; those of class 8 start at 56 − 50.
    assert groups_of([0, 8, 0, 8, 8, 0]).tolist() == [0, 6, 1, 7, 8, 2]
    assert groups_of(np.zeros(GROUPS + 1, dtype=int))[-1] == 0
    found = groups_of(torch.tensor([0, 8]))
    assert found.dtype == np.int64 and found.tolist() == [0, 6]


def test_every_group_has_as_many_images_of_every_class():
    groups = groups_of(LABELS)
    counts = np.zeros((GROUPS, 100), dtype=int)
    np.add.at(counts, (groups, LABELS), 1)
    assert (counts == 2).all()


@pytest.mark.parametrize("most", [1, 10, 30])
def test_groups_are_of_like_size_where_classes_are_small(most):
    """The first few images of every class, as attacks take them."""
    kept = np.concatenate([np.flatnonzero(LABELS == label)[:most] for label in range(100)])
    sizes = np.bincount(groups_of(LABELS[np.sort(kept)]), minlength=GROUPS)
    assert (sizes == 2 * most).all()


def test_an_image_is_in_the_same_group_whatever_other_classes_there_are():
    groups = groups_of(LABELS)
    for classes in ([3], [3, 50, 97], range(0, 100, 2)):
        kept = np.isin(LABELS, list(classes))
        assert (groups_of(LABELS[kept]) == groups[kept]).all()


def test_of_a_mean_it_is_how_far_the_groups_own_mean_is_above_that_of_all():
    values, groups = np.random.default_rng(1).normal(size=len(LABELS)), groups_of(LABELS)
    whole, parts = by_group(
        lambda kept: {"mean": values[kept].mean(), "twice": 2 * values[kept].mean()}, groups
    )
    own = np.array([values[groups == group].mean() for group in range(GROUPS)])
    assert whole == {"mean": values.mean(), "twice": 2 * values.mean()}
    np.testing.assert_allclose(parts["mean"], own - values.mean())
    np.testing.assert_allclose(parts["twice"], 2 * parts["mean"])


def test_of_a_mean_of_squares_and_a_ratio_it_gives_the_usual_variances():
    """Of a ratio of means that of the delta method (Cochran 1977, section 2.11)."""
    rng, groups = np.random.default_rng(2), groups_of(LABELS)
    x = rng.gamma(4, size=len(LABELS))
    y = 0.5 * x + rng.normal(size=len(LABELS))
    whole, parts = by_group(lambda kept: {"ratio": y[kept].mean() / x[kept].mean()}, groups)
    expected = (y - whole["ratio"] * x).var(ddof=1) / x.mean() ** 2 / len(LABELS)
    assert parts["ratio"].var(ddof=1) / GROUPS == pytest.approx(expected, rel=0.4)


def test_groups_without_images_take_no_part():
    values = np.array([1.0, 3.0])
    _, parts = by_group(lambda kept: {"mean": values[kept].mean()}, groups_of([0, 0]))
    assert np.count_nonzero(parts["mean"]) == 2
    # Without one of two groups the mean is the other's value: 49 · (2 − 3) and 49 · (2 − 1).
    assert parts["mean"][:2].tolist() == [-49, 49]
