"""Whether a network is robust or its gradients are masked: there are adversarial images near, and
gradients do not lead to them.

The checks are what holds if gradients lead attacks as well as they can: many steps find more than
one, black boxes no more than gradients, a huge radius everything (Athalye et al. 2018,
arXiv:1802.00420, on identifying obfuscated gradients); nor does another loss or a rescaled one find
more (Carlini et al. 2019, arXiv:1902.06705; Mosbach et al. 2018, arXiv:1810.12042).
"""

import copy
import math
from statistics import NormalDist
from typing import NamedTuple

import pandas as pd
from torch import Tensor, nn

from lsce.training.networks import ImageClassifier

#: Steps of the short PGD, and the radius (in 1/255) at which no image should be classified rightly.
SHORT, UNBOUNDED = 20, 64.0

#: Chance that any of the checks fails by the draw of the images where gradients are not masked.
LEVEL = 0.05


class Comparison(NamedTuple):
    """An attack that must not find more than another one, and the check in words."""

    words: str
    attack: str
    against: str


def comparisons(longest: str) -> list[Comparison]:
    """The checks of one radius; `longest` names the PGD with the most steps."""
    short = f"PGD-{SHORT}"
    return [
        Comparison("many steps find more than one", "FGSM", short),
        Comparison("more steps find no less", short, longest),
        Comparison("a black box finds no more than gradients", "Square", longest),
        Comparison("transferred attacks find no more than direct ones", "transfer", longest),
        Comparison("another loss finds no more than cross entropy", f"{short}, margin", longest),
        Comparison("larger logits find no more", "logits × 10", longest),
        Comparison("smaller logits find no more", "logits ÷ 10", longest),
        Comparison("float64 finds no more", "float64", longest),
    ]


def networks(network: ImageClassifier) -> dict[str, nn.Module]:
    """Networks whose gradients PGD takes in place of the network's own, which may be masked: with
    rescaled logits, and in float64."""
    return {
        "logits × 10": _Scaled(network, 10.0),
        "logits ÷ 10": _Scaled(network, 0.1),
        "float64": _Double(network),
    }


class _Scaled(nn.Module):
    """A network whose logits are multiplied by a number."""

    def __init__(self, network: nn.Module, factor: float):
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * self.network(images)


class _Double(nn.Module):
    """A copy of a network that computes in float64 (the library hands it float32 images)."""

    def __init__(self, network: ImageClassifier):
        super().__init__()
        self.network = copy.deepcopy(network).double()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.network.body((images.double() - 0.5) * 4)
        return self.network.classifier(maps.mean(dim=(2, 3)))


def checks(details: pd.DataFrame, longest: str, radius: float, images: int) -> pd.DataFrame:
    """What the attacks on an arm's networks say of their gradients.

    details: rows of `lsce.results.run.DETAILS` of its runs, as `lsce.measures.robustness.examine`
    makes them. radius: in 1/255, one of those attacked; what was not tried there (runs recorded
    before 28 November 2026 have rescaled logits and float64 at one radius alone) is compared where
    it was. images: attacked ones, N.

    Returns a row a check: check, the words; error, of the attack that must not be the stronger one,
    and against, of the other, means over the runs in [0, 1]; slack, by how much the one may be
    above the other, see `_slack`; passes, bool.
    """
    discordant = details["quantity"] == "discordant"
    errors, known = _means(details[~discordant]), _means(details[discordant])
    clean, rows = errors["clean", 0.0], []
    for words, attack, against in comparisons(longest):
        at = (
            radius if (attack, radius) in errors else max(x for case, x in errors if case == attack)
        )
        error, other = errors[attack, at], errors[against, at]
        differ = known.get((attack, at), _independent(error, other, clean))
        rows.append((words, error, other, _slack(differ, images)))
    left = errors["unbounded", UNBOUNDED]
    rows.append(("a huge radius leaves nothing", 1.0, left, _slack(1 - left, images)))
    table = pd.DataFrame(rows, columns=["check", "error", "against", "slack"])
    # To the rounding of recorded values, which are float32.
    return table.assign(passes=table["error"] <= table["against"] + table["slack"] + 1e-6)


def _means(details: pd.DataFrame) -> dict[tuple[str, float], float]:
    """The mean value of each case at each x."""
    groups = details.groupby(["case", "x"], observed=True)["value"].mean().reset_index()
    return {(str(case), float(x)): float(value) for case, x, value in groups.to_numpy()}


def _slack(differ: float, images: int) -> float:
    """By how much the error under one attack may be above that under another by the draw of the
    images, if both are as likely to find what only one of them finds.

    McNemar's test (1947), one-sided: the difference's standard error is √(d/N), d being the share
    of the images that one finds and the other does not. Runs see the same images, so their number
    does not make it smaller. The level is divided by the number of checks (Bonferroni).
    """
    z = NormalDist().inv_cdf(1 - LEVEL / (len(comparisons("")) + 1))
    return z * math.sqrt(max(differ, 0.0) / images)  # a mean can be below 0 by a rounding


def _independent(error: float, other: float, clean: float) -> float:
    """The share of images that one of two attacks finds and the other does not, if they were not
    more likely to find the same ones, as they are: an upper bound for runs that did not count them.
    """
    if clean == 1:
        return 0.0
    found, others = (error - clean) / (1 - clean), (other - clean) / (1 - clean)
    return (1 - clean) * (found * (1 - others) + others * (1 - found))
