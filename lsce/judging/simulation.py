"""How often the rule of `lsce.judging.rule` errs, and what it finds, by simulating pages.

A simulated page has several claims in several regimes; each is judged at a fixed ε and at the one
of the best validation value among several ε. Effects are in margins (the smallest effect that
matters is 1). In every regime the values of a seed share a part, because a seed's runs are compared
with the same plain run; and the test images' part is the same for every seed.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lsce.judging import rule
from lsce.measures.jackknife import GROUPS


class Design(NamedTuple):
    """A simulated page.

    Standard deviations are in margins: `sd_seeds` of a seed's effect, `sd_images` of what the test
    images add to the effects of all seeds alike, `sd_both` of what they add to each seed's by
    itself. `shared` is the correlation of a seed's effects, and of its test effects with the
    validation values by which ε is chosen among `epsilons` values.
    """

    n: int = 5
    claims: int = 5
    regimes: int = 2
    epsilons: int = 4
    sd_seeds: float = 0.5
    sd_images: float = 0.2
    sd_both: float = 0.3
    shared: float = 0.5


class Judged(NamedTuple):
    """A verdict and the true effect, in margins."""

    truth: float
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


def families(design: Design, truth: np.ndarray, seed: int) -> Iterator[list[Judged]]:
    """One page after another, as many as `truth` has rows; truth (pages, claims) holds each claim's
    true effect, in margins, the same in every regime and at every ε."""
    random = np.random.default_rng(seed)
    for effects in truth:
        judged = [(effect, runs) for effect in effects for runs in _regimes(design, effect, random)]
        intervals = rule.intervals([rule.estimate(*runs) for _, runs in judged])
        yield [
            Judged(effect, rule.verdict(interval, 1.0))
            for (effect, _), interval in zip(judged, intervals, strict=True)
        ]


def _regimes(
    design: Design, effect: float, random: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For every regime the effects (n,) at the first ε, and (n, G) by group of test images; then
    those at the chosen ε, if it is another."""
    for _ in range(design.regimes):
        shape = design.epsilons, design.n
        common = random.normal(size=(1, design.n))
        own = _correlated(common, random.normal(size=shape), design.shared)
        validation = _correlated(own, random.normal(size=shape), design.shared).mean(1)
        images = np.sqrt(GROUPS) * random.normal(size=(design.epsilons, 1, GROUPS))
        both = np.sqrt(GROUPS) * random.normal(size=(*shape, GROUPS))
        groups = design.sd_images * images + design.sd_both * both
        for chosen in sorted({0, int(validation.argmax())}):
            by_group = groups[chosen]
            yield effect + design.sd_seeds * own[chosen] + by_group.mean(1), by_group


def _correlated(with_: np.ndarray, noise: np.ndarray, correlation: float) -> np.ndarray:
    return np.asarray(np.sqrt(correlation) * with_ + np.sqrt(1 - correlation) * noise)
