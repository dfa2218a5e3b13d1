"""The overview's own runs: every ε in the regimes that most pages share."""

from collections.abc import Iterable

from lsce.judging.claims import MAIN
from lsce.studies.parameters import GridParameters
from lsce.studies.study import Labelled, Study, smoothed


class Overview(Study):
    """Every ε with every seed in every regime."""

    Parameters = GridParameters

    def runs(self) -> Iterable[Labelled]:
        p = self.parameters
        return smoothed(MAIN, p.data_name, p.regimes, p.epsilons, p.seeds)
