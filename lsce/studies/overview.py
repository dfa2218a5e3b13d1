"""The overview's own runs: every ε in the regimes that most pages share."""

from lsce.studies.parameters import GridParameters
from lsce.studies.study import Study


class Overview(Study):
    """Every ε with every seed in every regime."""

    Parameters = GridParameters
