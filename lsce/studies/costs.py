"""What does smoothing cost where a network may abstain, or sees classes that it never learned?"""

from collections.abc import Iterator

import pandas as pd

from lsce.judging.claims import MAIN
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.penultimate import SeenParameters, of_seen
from lsce.studies.study import Labelled, Study, smoothed

#: Suffix of a measure → the score that it is of.
SCORES = {
    "": "as trained",
    "_scaled": "temperature scaled",
    "_normalised": "logits normalised",
}


class Costs(Study):
    """Every ε in every regime, with what selective classification asks for; and the group "unseen":
    the compared regimes with some of the classes, at ε = 0 and at the judged ε, asked about images
    of the others."""

    Parameters = SeenParameters
    columns = {
        "top1_error": "error",
        "debiased_ce": "debiased CE",
        "debiased_ce_scaled": "debiased CE, scaled",
        "excess_aurc": "E-AURC",
        "excess_aurc_scaled": "E-AURC, scaled",
        "excess_aurc_normalised": "E-AURC, normalised",
        "temperature": "T",
    }
    percent = {"top1_error"}

    def runs(self) -> Iterator[Labelled]:
        p = self.parameters
        keep = ("selective",)
        yield from smoothed(MAIN, p.data_name, p.regimes, p.epsilons, p.seeds, keep=keep)
        yield from of_seen(p, "unseen")

    def risks(self, main: Evidence) -> pd.DataFrame:
        """Risk by coverage, without smoothing, at the judged ε and at the largest."""
        numbers = tables.details(main, "risk", "coverage")
        shown = [0.0, self.judged, main.table["epsilon"].max()]
        numbers = tables.panelled(numbers[numbers["epsilon"].isin(shown)], "regime", "case")
        means = numbers.groupby(["panel", "arm", "coverage"], sort=False)["value"].mean()
        return means.reset_index()

    def selective(self, main: Evidence) -> pd.DataFrame:
        """Four measures of selective classification by ε."""
        measures = {
            "excess_aurc": "E-AURC × 1000",
            "coverage_at_5": "coverage at 5% risk",
            "risk_at_80": "risk at 80% coverage",
            "failure_auroc": "AUROC, right against wrong",
        }
        columns = [
            (column + suffix, f"{{regime}}: {words}", score)
            for column, words in measures.items()
            for suffix, score in SCORES.items()
        ]
        numbers = tables.tidy(main.table, columns)
        thousand = numbers["panel"].str.contains("× 1000").map({True: 1000, False: 1})
        return numbers.assign(value=numbers["value"] * thousand)

    def unseen(self, main: Evidence) -> pd.DataFrame:
        """How well scores tell images of classes never seen."""
        names = SCORES | {"": "confidence", "_logit": "largest logit", "_energy": "energy"}
        measures = {"unseen_auroc": "AUROC", "unseen_fpr95": "unseen accepted"}
        parts = [
            tables.stacked(
                main.others["unseen"].table,
                {f"{column}{suffix}": name for suffix, name in names.items()},
            ).assign(measure=words)
            for column, words in measures.items()
        ]
        numbers = pd.concat(parts).rename(columns={"words": "case"})
        return tables.panelled(numbers, "regime", "measure")
