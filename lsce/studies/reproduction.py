"""Do the recorded numbers come out again, on this machine and in the literature?"""

from collections.abc import Iterator
from typing import Self

from pydantic import model_validator

from lsce.judging.claims import MAIN
from lsce.studies.parameters import Epsilons, GridParameters, Regime, judged_of, parameter
from lsce.studies.study import Labelled, Study


class ReproductionParameters(GridParameters):
    published_regimes: dict[str, Regime] = parameter(
        {}, "regimes that follow a published recipe, like `regimes`"
    )
    published_epsilons: Epsilons = parameter((0.0, 0.05, 0.1), "the values of ε in these")

    @model_validator(mode="after")
    def _check_published(self) -> Self:
        if self.published_regimes:
            judged_of("published_epsilons", self.published_epsilons, self.judged)
        return self


class Reproduction(Study):
    """Every ε in every regime, and the published regimes with the ε of the paper."""

    Parameters = ReproductionParameters

    def runs(self) -> Iterator[Labelled]:
        p = self.parameters
        yield from super().runs()
        yield from self.smoothed(MAIN, p.published_regimes, p.published_epsilons)
