"""How a measure of test images varies between groups of them, by the jackknife."""

from collections.abc import Callable, Mapping

import numpy as np

from lsce.measures.arrays import Values, as_array

#: Groups of test images: enough for a variance, and few enough to be kept.
GROUPS = 50


def groups_of(labels: Values) -> np.ndarray:
    """The group, 0 to `GROUPS` − 1, of every test image, int64 (N,), by its class and its place in
    it: images of a class go to the groups in turn, for test sets are drawn class by class, and what
    other classes there are does not matter. labels: integers (N,) >= 0."""
    labels = as_array(labels)
    place = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = labels == label
        place[of_class] = np.arange(of_class.sum())
    return (place + 7 * labels) % GROUPS  # 7: else small classes would all be in the first groups


def by_group(
    measures: Callable[[np.ndarray], Mapping[str, float]], groups: np.ndarray
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Measures of all images; and the jackknife's pseudo-value of each group less the measure, by
    the measure's name, floats (`GROUPS`,): `GROUPS` − 1 times what the measure loses without the
    group. Of a mean it is how far the group's own mean is above that of all images.

    measures: of the images that a bool mask (N,) selects. groups, integers (N,): see `groups_of`.
    """
    everything = dict(measures(np.ones(len(groups), dtype=bool)))
    without = [measures(groups != group) for group in range(GROUPS)]
    return everything, {
        name: (GROUPS - 1) * (value - np.array([part[name] for part in without]))
        for name, value in everything.items()
    }
