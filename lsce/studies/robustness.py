"""Does smoothing make networks robust to corrupted and to attacked images?"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import pandas as pd
from pydantic import Field

from lsce.judging.claims import MAIN
from lsce.measures.robustness import SHORT
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import ComparedParameters, Epsilons, Some, parameter
from lsce.studies.study import Labelled, Study
from lsce.training.methods import Smoothing
from lsce.training.spec import Evaluation, Protocol

#: Points by which an error may be above the one that it must not exceed, by chance.
SLACK = 1.0


class RobustnessParameters(ComparedParameters):
    epsilons: Epsilons = parameter((0.0, 0.1), "values in [0, 1]; 0 must be one of them")
    corrupted_images: int = parameter(
        1000, "test images that are corrupted, a multiple of the number of classes"
    )
    attacked_images: int = parameter(
        200, "test images that are attacked, a multiple of the number of classes"
    )
    radii: Some[Annotated[float, Field(gt=0, le=255)]] = parameter(
        (1.0, 4.0, 8.0), "radii of the attacks in the maximum norm, in units of 1/255, ascending"
    )
    judged_radius: float | None = parameter(
        None, "the one of them at which claims are judged; None: the middle one"
    )
    pgd_steps: int = parameter(50, "steps of the long PGD and of AutoAttack's")
    pgd_restarts: int = parameter(1, "random starts of the long PGD")
    square_queries: int = parameter(100, "queries of the Square attack")


class Robustness(Study):
    """Every ε with every seed in the compared regimes, tried as `lsce.training.spec.Protocol` says;
    attacks are transferred from plain cross entropy with the seed after the run's."""

    Parameters = RobustnessParameters
    columns = {
        "top1_error": "error",
        "corrupted_error": "error, corrupted",
        "fgsm_error": "FGSM",
        "pgd_error": "PGD-20",
        "worst_error": "worst",
        "overstated": "overstated",
        "gradient_norm": "gradient norm",
        "zero_gradients": "zero gradients",
    }
    percent = set(columns) - {"gradient_norm"}

    @property
    def protocol(self) -> Protocol:
        """How the networks are tried."""
        p = self.parameters
        judged = p.radii[len(p.radii) // 2] if p.judged_radius is None else p.judged_radius
        fields = {name: getattr(p, name) for name in Protocol.model_fields}
        return Protocol(**fields | {"judged_radius": float(judged)})

    def runs(self) -> Iterator[Labelled]:
        p = self.parameters
        for label in self.smoothed(MAIN, p.compared, p.epsilons):
            run, regime = label.task.run, p.compared[label.regime]
            source = regime.spec(p.data_name, run.seed + 1, Smoothing(epsilon=0.0))
            evaluation = Evaluation(run=run, source=source, protocol=self.protocol)
            yield replace(label, task=evaluation)

    def corruptions(self, main: Evidence) -> pd.DataFrame:
        return tables.panelled(tables.details(main, "corruption", "severity"), "regime", "case")

    def attacks(self, main: Evidence) -> pd.DataFrame:
        numbers = tables.details(main, "attack", "radius")
        return tables.panelled(numbers[numbers["case"] != "clean"], "regime", "case")

    def at_judged_radius(self, main: Evidence) -> pd.DataFrame:
        parts = [tables.details(main, quantity, "x") for quantity in ("attack", "masking")]
        numbers = pd.concat(parts, ignore_index=True)
        numbers = numbers[numbers["x"].isin([0, self.protocol.judged_radius])]
        return numbers.assign(panel=numbers["regime"])

    def masking(self, main: Evidence) -> pd.DataFrame:
        """The checks of Athalye et al. (2018) and Carlini et al. (2019) for each ε and regime: what
        would hold if gradients led attacks as well as they can. Errors in points, means over
        seeds; columns regime, arm, check, error, against and passes."""
        attacks = tables.details(main, "attack", "x")
        attacks = attacks[attacks["x"] == self.protocol.judged_radius]
        numbers = pd.concat([attacks, tables.details(main, "masking", "x")])
        short, rows = f"PGD-{SHORT}", []
        for (regime, arm), part in numbers.groupby(["regime", "arm"], sort=False):
            error = 100 * part.groupby("case")["value"].mean()
            most = error[self.protocol.longest]
            repeated = error[["logits × 10", "logits ÷ 10", "float64"]].max()
            checks = [
                ("many steps find more than one", error["FGSM"], error[short]),
                ("more steps find no less", error[short], most),
                ("a black box finds no more than gradients", error["Square"], most),
                ("transferred attacks find no more than direct ones", error["transfer"], most),
                ("another loss finds no more than cross entropy", error[f"{short}, margin"], most),
                ("rescaled logits or float64 find no more", repeated, most),
                ("a huge radius leaves nothing", 100.0, error["unbounded"]),
            ]
            rows += [(regime, arm, *check, check[1] <= check[2] + SLACK) for check in checks]
        columns = ["regime", "arm", "check", "error", "against", "passes"]
        return pd.DataFrame(rows, columns=columns)
