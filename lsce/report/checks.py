"""Statements that were checked numerically, for a page whose claim is mathematics."""

import numpy as np
import pandas as pd
from IPython.display import Markdown
from numpy.typing import ArrayLike
from pandas.io.formats.style import Styler
from pydantic import Field

from lsce.machine.values import Value
from lsce.report.tables import table


class LossParameters(Value):
    """The parameters of the page on the loss."""

    epsilon: float = Field(gt=0, lt=1)
    num_classes: int = Field(ge=3)


class Checks:
    """What was checked, in order."""

    #: Largest difference, relative to the larger side or 1, that float64 rounding explains.
    TOLERANCE = 1e-12

    def __init__(self) -> None:
        self._rows: list[dict[str, object]] = []

    def close(self, statement: str, left: ArrayLike, right: ArrayLike) -> None:
        """Check that two numbers or tensors of the same shape agree."""
        left, right = (np.asarray(side, dtype=np.float64) for side in (left, right))
        scale = max(1.0, float(np.abs(left).max()), float(np.abs(right).max()))
        difference = float(np.abs(left - right).max()) / scale
        self.true(statement, difference <= self.TOLERANCE, difference)

    def true(self, statement: str, holds: bool, difference: float = np.nan) -> None:
        """Check a statement that holds or does not."""
        self._rows.append({"statement": statement, "difference": difference, "holds": holds})

    def verdict(self, claim: str) -> Markdown:
        held = sum(bool(row["holds"]) for row in self._rows)
        word = "supported" if held == len(self._rows) else "refuted"
        return Markdown(f"**“{claim}” — {word}.** {held} of {len(self._rows)} statements hold.")

    def table(self) -> Styler:
        rows = pd.DataFrame(self._rows)
        rows["holds"] = rows["holds"].map({True: "yes", False: "no"})
        return table(rows, {"difference": "{:.1e}"}, wrapped=["statement"])
