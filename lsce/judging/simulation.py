"""How often the rule of `lsce.judging.rule` errs, and what it finds, by simulating pages.

A simulated page has several claims in several regimes; each is judged at a fixed ε and at the one
of the best validation value among several ε. Effects are in margins (the smallest effect that
matters is 1). In every regime the effects of a seed share a part, because a seed's runs are
compared with the same plain run; and the test images' part is the same for every seed. Claims are
independent of each other, which is the worst case for intervals that are to hold together.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lsce.judging import rule
from lsce.judging.rule import Effect, Estimate
from lsce.measures.jackknife import GROUPS


class Design(NamedTuple):
    """A simulated page.

    Standard deviations are in margins: `sd_seeds` of a seed's effect, `sd_images` of what the test
    images add to the effects of all seeds alike, `sd_both` of what they add to each seed's by
    itself. `shared` is the correlation of a seed's effects at several ε, and `validation` that of
    its effect with its validation value, by which ε is chosen among `epsilons` values.
    """

    n: int = 5
    claims: int = 5
    regimes: int = 2
    epsilons: int = 5
    sd_seeds: float = 0.5
    sd_images: float = 0.2
    sd_both: float = 0.3
    shared: float = 0.5
    validation: float = 0.5


#: Pages on which the rule is tried, by their words: the design, and the true effects that claims
#: are drawn from. In the first four, what is drawn varies so much that no margin prevents errors.
DESIGNS: dict[str, tuple[Design, tuple[float, ...]]] = {
    "no effects, seeds differ most": (Design(sd_seeds=5, sd_images=0.1, sd_both=0.1), (0,)),
    "no effects, test images matter most": (Design(sd_seeds=0.2, sd_images=4, sd_both=1), (0,)),
    "no effects, n = 3": (Design(3, sd_seeds=2, sd_images=1, sd_both=4), (0,)),
    "no effects, n = 10, ε chosen by what the test sees": (
        Design(10, sd_seeds=5, sd_images=0.1, sd_both=0.1, shared=0.1, validation=0.9),
        (0,),
    ),
    "effects of just the margin, for or against": (
        Design(sd_seeds=0.1, sd_images=0.1, sd_both=0.1),
        (-1, 1),
    ),
    "none, small and large effects": (
        Design(sd_seeds=0.3, sd_images=0.1, sd_both=0.2),
        (-2, -1, 0, 0, 0.5, 1, 2),
    ),
}


class Judged(NamedTuple):
    """A verdict, the effect that it is of, and the true effect, in margins."""

    truth: float
    effect: Effect
    verdict: str

    @property
    def wrong(self) -> bool:
        """Whether the verdict is false: supported without an effect for the claim, opposite without
        one against it, negligible with one that matters."""
        return {
            rule.SUPPORTED: self.truth <= 0,
            rule.OPPOSITE: self.truth >= 0,
            rule.NEGLIGIBLE: abs(self.truth) >= 1,
        }.get(self.verdict, False)

    @property
    def missed(self) -> bool:
        """Whether the interval does not hold the true effect."""
        return not self.effect.low <= self.truth <= self.effect.high


def families(design: Design, truth: np.ndarray, seed: int) -> Iterator[list[Judged]]:
    """One page after another, as many as `truth` has rows; truth (pages, claims) holds each claim's
    true effect, in margins, the same in every regime and at every ε."""
    random, cells = np.random.default_rng(seed), design.claims * design.regimes
    size = rule.family_size(cells, [design.epsilons - 1] * cells if design.epsilons > 1 else [])
    for of_claims in truth:
        effects, by_group, judged = _page(design, of_claims, random)
        errors = rule.standard_errors(effects, by_group)
        numbers = (part[judged].tolist() for part in (effects.mean(-1), *errors))
        estimates = [Estimate(mean, design.n, *of) for mean, *of in zip(*numbers, strict=True)]
        truths = np.broadcast_to(of_claims[:, None, None], judged.shape)[judged].tolist()
        yield [
            Judged(true, effect, rule.verdict(effect, 1.0))
            for true, effect in zip(truths, rule.intervals(estimates, size), strict=True)
        ]


def _page(
    design: Design, truth: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effects (claims, regimes, 2, n) at the first and at the chosen ε, the same by group of test
    images (..., n, G), and which of them are judged, bool (claims, regimes, 2): all but those of a
    chosen ε that is the first."""
    n, cells = design.n, (design.claims, design.regimes)
    common = random.normal(size=(*cells, 1, n))
    noise = random.normal(size=(2, *cells, design.epsilons, n))
    own = _correlated(common, noise[0], design.shared)
    chosen = _correlated(own, noise[1], design.validation).mean(-1).argmax(-1)
    at = np.stack([np.zeros_like(chosen), chosen], axis=-1)
    own = np.take_along_axis(own, at[..., None], axis=2)
    images = random.standard_normal((*cells, 2, 1, GROUPS), np.float32)
    both = random.standard_normal((*cells, 2, n, GROUPS), np.float32)
    by_group = GROUPS**0.5 * (design.sd_images * images + design.sd_both * both)
    effects = truth[:, None, None, None] + design.sd_seeds * own + by_group.mean(-1)
    return effects, by_group, np.stack([np.ones_like(chosen), chosen], axis=-1) > 0


def _correlated(with_: np.ndarray, noise: np.ndarray, correlation: float) -> np.ndarray:
    return np.asarray(np.sqrt(correlation) * with_ + np.sqrt(1 - correlation) * noise)


class Power(NamedTuple):
    """Shares of verdicts: "negligible" where the true effect is 0, "supported" where it is the
    margin and twice the margin. (Of effects that are just the margin half are estimated below it
    and never supported.)"""

    negligible: float
    at_margin: float
    at_twice: float


def power(n: int, ratio: float, images: float = 0.0, pages: int = 100, seed: int = 0) -> Power:
    """What the rule finds with n seeds on a page of five claims in two regimes, from `pages`
    simulated ones for each true effect.

    ratio: the standard deviation of a seed's effect, and images: the standard error that the test
    images add, both in margins. Validation chooses any ε, so that the choice raises no effect.
    """
    design = Design(n, sd_seeds=ratio, sd_images=images, sd_both=0.0, validation=0.0)

    def share(verdict: str, truth: float) -> float:
        effects = np.full((pages, design.claims), truth)
        drawn = [each.verdict for page in families(design, effects, seed) for each in page]
        return drawn.count(verdict) / len(drawn)

    return Power(
        share(rule.NEGLIGIBLE, 0.0), share(rule.SUPPORTED, 1.0), share(rule.SUPPORTED, 2.0)
    )
