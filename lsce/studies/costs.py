"""What does smoothing cost where a network may abstain, or sees classes that it never learned?"""

from collections.abc import Iterator

import pandas as pd

from lsce.judging.claims import MAIN
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.penultimate import SeenParameters, unseen_runs
from lsce.studies.study import Labelled, Study

#: Suffix of a measure → the score that it is of.
SCORES = {"": "as trained", "_scaled": "temperature scaled", "_normalised": "logits normalised"}


class Costs(Study):
    """Every ε in every regime, with what selective classification asks for; and the group "unseen",
    asked about images of the classes that it never saw."""

    Parameters = SeenParameters
    columns = {
        "top1_error": "error",
        "debiased_ce": "debiased CE",
        "debiased_ce_scaled": "debiased CE, scaled",
        "excess_aurc": "E-AURC",
        "excess_aurc_scaled": "E-AURC, scaled",
        "excess_aurc_normalised": "E-AURC, normalised",
        "aps_size": "classes in a set, APS",
        "temperature": "T",
    }
    percent = {"top1_error"}

    def runs(self) -> Iterator[Labelled]:
        p = self.parameters
        yield from self.smoothed(MAIN, p.regimes, p.epsilons, keep=("selective",))
        yield from unseen_runs(self, "unseen")

    def risks(self, main: Evidence) -> pd.DataFrame:
        """Risk by coverage, without smoothing, at the judged ε and at the largest."""
        numbers = tables.details(main, "risk", "coverage")
        shown = numbers["epsilon"].isin([0.0, self.judged, main.table["epsilon"].max()])
        numbers = tables.panelled(numbers[shown], "regime", "case")
        means = numbers.groupby(["panel", "arm", "coverage"], sort=False)["value"].mean()
        return means.reset_index()

    def selective(self, main: Evidence) -> pd.DataFrame:
        measures = {
            "excess_aurc": "E-AURC × 1000",
            "coverage_at_5": "coverage at 5% risk",
            "risk_at_80": "risk at 80% coverage",
            "failure_auroc": "AUROC, right against wrong",
        }
        numbers = tables.by_score(main.table, measures, SCORES)
        numbers.loc[numbers["panel"].str.contains("× 1000"), "value"] *= 1000
        return numbers

    def sets(self, main: Evidence) -> pd.DataFrame:
        """Sizes of conformal prediction sets, and the coverage of the first kind."""
        measures = {
            "aps_size": "classes in a set, APS",
            "raps_size": "classes in a set, RAPS",
            "aps_coverage": "coverage, APS",
        }
        return tables.by_score(main.table, measures)

    def unseen(self, main: Evidence) -> pd.DataFrame:
        """How well scores tell images of classes never seen."""
        return _detected(main.others["unseen"].table, "unseen")

    def far(self, main: Evidence) -> pd.DataFrame:
        """How well scores tell images of another data set, without smoothing, at the judged ε and
        at the largest."""
        table = main.table
        shown = table["epsilon"].isin([0.0, self.judged, table["epsilon"].max()])
        return _detected(table[shown], "far")


def _detected(table: pd.DataFrame, name: str) -> pd.DataFrame:
    scores = SCORES | {"": "confidence", "_logit": "largest logit", "_energy": "energy"}
    parts = []
    for column, words in {"auroc": "AUROC", "fpr95": "unseen accepted"}.items():
        measures = {f"{name}_{column}{suffix}": score for suffix, score in scores.items()}
        parts.append(tables.stacked(table, measures).assign(measure=words))
    numbers = pd.concat(parts, ignore_index=True).rename(columns={"words": "case"})
    return tables.panelled(numbers, "regime", "measure")
