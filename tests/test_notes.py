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


COLUMNS = ["setting", "seed", "train_nll", "test_nll", "nll_scaled", "validation_nll"]
COLUMNS += ["validation_accuracy"]
RUNS = [
    (0.0, 0, 0.1, 2.0, 1.5, 2.0, 0.50),
    (0.0, 1, 0.3, 2.2, 1.5, 2.2, 0.50),
    (0.1, 0, 0.5, 1.9, 1.5, 1.9, 0.48),
    (0.1, 1, 0.7, 2.1, 1.5, 2.1, 0.48),
    (0.3, 0, 0.9, 1.4, 1.7, 1.4, 0.49),
    (0.3, 1, 1.1, 1.6, 1.7, 1.6, 0.49),
]


def smoothed(runs: list[tuple]) -> SimpleNamespace:
    table = pd.DataFrame(runs, columns=COLUMNS).assign(regime="few", method="smoothing")
    table = table.assign(nll_gap=table["test_nll"] - table["train_nll"], status="completed")
    table["arm"] = table["setting"].map("ε = {:g}".format)
    return SimpleNamespace(table=table, study=SimpleNamespace(judged=0.1))


def test_which_side_of_the_gap_moved():
    lines = notes.over_fitting(smoothed(RUNS)).data.splitlines()
    assert lines == [
        "- *few*, ε = 0.1: the gap narrows by 0.500; training NLL rises by 0.400, and test NLL "
        "falls by 0.100. After temperature scaling test NLL stays the same.",
        "- *few*, ε = 0.3, which validation NLL chooses: the gap narrows by 1.400; training NLL "
        "rises by 0.800, and test NLL falls by 0.600. After temperature scaling test NLL rises by "
        "0.200.",
    ]
    # Pairs alone count: without the second run of ε = 0 the first seed is left.
    (line, _) = notes.over_fitting(smoothed([RUNS[0], *RUNS[2:]])).data.splitlines()
    assert "narrows by 0.500" in line
    (line,) = notes.over_fitting(smoothed(RUNS[:4])).data.splitlines()
    assert line.startswith("- *few*, ε = 0.1: ")
    assert notes.over_fitting(smoothed(RUNS[2:])).data == "No pair of runs was completed."


def test_measures_choose_an_epsilon_each():
    def row(runs: list[tuple], **changes) -> list[str]:
        found = smoothed(runs)
        found.table = found.table.assign(**changes)
        return notes.chosen(found).data.iloc[0].tolist()

    assert row(RUNS) == ["few", "0.3 (0 is better)", "0.3", "–", "–"]
    errors = [0.3, 0.3, 0.1, 0.1, 0.2, 0.2]
    assert row(RUNS, validation_debiased_ce=errors)[4] == "0.1"
    assert row(RUNS, validation_debiased_ce=[*errors[:5], None])[4] == "–"
    assert row(RUNS[:4]) == ["few", "–", "–", "–", "–"]  # a single ε


def test_estimators_are_compared_with_the_truth():
    rows = [("ε = 0", "ECE", 100, 0.3, 0.1), ("ε = 0", "ECE", 2000, 0.05, 0.1)]
    numbers = pd.DataFrame(rows, columns=["panel", "estimator", "images", "mean", "truth"])
    line = notes.estimators(numbers).data.splitlines()[-1]
    assert line == "- ε = 0: ECE +0.2 at 100 images, −0.05 at 2,000"
