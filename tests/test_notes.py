"""Sentences that pages compute: what was checked, and notes on runs."""

from types import SimpleNamespace

import pandas as pd
import pytest

from lsce.report import notes
from lsce.report.checks import Checks, LossParameters


def test_a_statement_that_does_not_hold_refutes_the_claim():
    checks = Checks()
    checks.close("one is one", 1.0, 1.0 + 1e-13)
    checks.close("of large numbers the last digits do not matter", [1e9, 0.0], [1e9, 1e-4])
    checks.true("true is true", True)
    assert checks.verdict("All hold").data == "**“All hold” — supported.** 3 of 3 statements hold."
    checks.close("a small difference is one", 0.0, 1e-11)
    checks.true("false is true", False)
    assert "— refuted.** 3 of 5 statements" in checks.verdict("All hold").data
    table = checks.table().data
    assert list(table["holds"]) == ["yes", "yes", "yes", "no", "no"]
    assert table["difference"][3] == pytest.approx(1e-11) and pd.isna(table["difference"][4])


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"epsilon": 1.0}, "epsilon is 1.0; it must be"), ({"num_classes": 2}, "num_classes is 2")],
)
def test_the_loss_is_shown_between_its_limits(changed, words):
    with pytest.raises(ValueError, match=words):
        LossParameters(**{"epsilon": 0.1, "num_classes": 100} | changed)


def shown(rows: list[tuple], columns: list[str]) -> SimpleNamespace:
    runs = [
        SimpleNamespace(task=SimpleNamespace(id=row[0]), spec=SimpleNamespace(epochs=10))
        for row in rows
    ]
    return SimpleNamespace(table=pd.DataFrame(rows, columns=columns), own_runs=runs)


def test_which_epochs_were_chosen():
    rows = [("a", 10.0), ("b", 5.0), ("b", 5.0), ("c", None)]  # a run may be in two arms
    assert notes.selected(shown(rows, ["run", "selected_epoch"])).data == (
        "Of 2 runs, validation chose the last epoch in 1; on average it chose the epoch at 75% of "
        "the run."
    )


def test_what_diverged_is_named():
    rows = [("few", "GCE", "diverged"), ("few", "GCE", "completed"), ("few", "ε = 0", "completed")]
    columns = ["regime", "arm", "status"]
    assert notes.divergence(shown(rows, columns)).data == "- *few*, GCE: 1 of 2 runs diverged"
    assert notes.divergence(shown(rows[1:], columns)).data == "No run diverged."


def test_estimators_are_compared_with_the_truth():
    rows = [("ε = 0", "ECE", 100, 0.3, 0.1), ("ε = 0", "ECE", 2000, 0.05, 0.1)]
    numbers = pd.DataFrame(rows, columns=["panel", "estimator", "images", "mean", "truth"])
    line = notes.estimators(numbers).data.splitlines()[-1]
    assert line == "- ε = 0: ECE +0.2 at 100 images, −0.05 at 2,000"
