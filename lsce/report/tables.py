"""Tables of a page."""

from collections.abc import Mapping, Sequence

import pandas as pd
from pandas.io.formats.style import Styler


def table(
    frame: pd.DataFrame,
    formats: Mapping[str, str] | None = None,
    wrapped: Sequence[str] = (),
    width: str = "7em",
    numeric: Sequence[str] = (),
) -> Styler:
    """A frame as a table without its index, each column of `formats` in its format.

    Columns of words, but for those in `numeric`, are to the left, and those in `wrapped` may break
    into lines of that width.
    """
    styler = frame.style.hide(axis="index").format(dict(formats or {}), na_rep="–")
    right = {*numeric, *frame.select_dtypes("number")}
    breaks = f"; white-space: normal; min-width: {width}"
    return styler.set_table_styles(
        {
            name: [{"selector": "", "props": "text-align: left" + breaks * (name in wrapped)}]
            for name in frame
            if name not in right
        }
    )
