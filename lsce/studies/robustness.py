"""Does smoothing make networks robust to corrupted and to attacked images?"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Annotated, NamedTuple, Self

import pandas as pd
from pydantic import Field, model_validator

from lsce.judging import arms
from lsce.judging.arms import Arm
from lsce.judging.claims import MAIN, Claim
from lsce.measures import masking
from lsce.measures.robustness import errors_at
from lsce.results.by_groups import AT_RADIUS, at_radius
from lsce.results.run import Run
from lsce.studies import tables
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import ComparedParameters, Epsilons, Some, parameter
from lsce.studies.study import Labelled, Study, about
from lsce.training.methods import Smoothing
from lsce.training.spec import Evaluation, Protocol

#: Of its accuracy without attacks, what a plain network has to keep where claims are judged, at
#: least and at most: with less no arm can be worse, with more none can be better.
KEPT = 0.2, 0.8

#: The details that the checks for masked gradients need.
QUANTITIES = ("attack", "masking", "discordant")


class Judged(NamedTuple):
    """The radius (in 1/255) at which a regime is judged, and the share of their accuracy without
    attacks that plain networks keep there under the worst of all attacks."""

    radius: float
    kept: float

    @property
    def testable(self) -> bool:
        """Whether there is room in both directions."""
        least, most = KEPT
        return least <= self.kept <= most


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
        None, "where claims are judged; None: where plain networks keep half their accuracy"
    )
    pgd_steps: int = parameter(50, "steps of the long PGD and of AutoAttack's")
    pgd_restarts: int = parameter(1, "random starts of the long PGD")
    square_queries: int = parameter(100, "queries of the Square attack")

    @model_validator(mode="after")
    def _check_radius(self) -> Self:
        if self.judged_radius is not None and self.judged_radius not in self.radii:
            raise ValueError(
                f"judged_radius is {self.judged_radius:g}; it must be one of radii "
                f"{list(self.radii)}"
            )
        return self


class Robustness(Study):
    """Every ε with every seed in the compared regimes, tried as `lsce.training.spec.Protocol` says;
    attacks are transferred from plain cross entropy with the seed after the run's."""

    Parameters = RobustnessParameters
    columns = {
        "top1_error": "error",
        "corrupted_error": "error, corrupted",
        "judged_radius": "radius, 1/255",
        "fgsm_error": "FGSM",
        "pgd_error": "PGD-20",
        "worst_error": "worst",
        "overstated": "overstated",
        "gradient_norm": "gradient norm",
        "zero_gradients": "zero gradients",
    }
    percent = set(columns) - {"gradient_norm", "judged_radius"}

    @property
    def protocol(self) -> Protocol:
        """How the networks are tried. Evaluations do not depend on the radius at which they are
        judged: their own scalars are of the middle one."""
        p = self.parameters
        fields = {name: getattr(p, name) for name in Protocol.model_fields}
        return Protocol(**fields | {"judged_radius": p.radii[len(p.radii) // 2]})

    def runs(self) -> Iterator[Labelled]:
        p = self.parameters
        for label in self.smoothed(MAIN, p.compared, p.epsilons):
            run, regime = label.task.run, p.compared[label.regime]
            source = regime.spec(p.data_name, run.seed + 1, Smoothing(epsilon=0.0))
            evaluation = Evaluation(run=run, source=source, protocol=self.protocol)
            yield replace(label, task=evaluation)

    def errors(self, pairs: Iterable[tuple[Labelled, Run]]) -> pd.DataFrame:
        """`lsce.measures.robustness.errors_at` every radius, in [0, 1]: a row a run that did not
        diverge and radius, with its label, `radius` (in 1/255) and `clean_error`, without an
        attack."""
        rows = []
        for label, run in pairs:
            clean = run.details.loc[run.details["case"] == "clean", "value"]
            for radius in self.protocol.radii if len(clean) else ():
                row = about(label) | {"radius": radius, "clean_error": clean.item()}
                rows.append(row | errors_at(run.details, radius))
        return pd.DataFrame(rows)

    def judged_radii(self, pairs: Iterable[tuple[Labelled, Run]]) -> dict[str, Judged]:
        """Where each regime is judged, by its name: at the parameters' radius, else at that where
        plain cross entropy, mean over its runs, keeps nearest to half of its accuracy without
        attacks. Smoothed networks have no say. A regime without a plain run has none."""
        errors = self.errors(pairs)
        if errors.empty:
            return {}
        judged = {}
        for regime, rows in arms.by_regime(errors[arms.plain(errors)]):
            right = 1 - rows.groupby("radius")[["worst_error", "clean_error"]].mean()
            kept = (right["worst_error"] / right["clean_error"]).fillna(0.0)
            nearest = kept.index[int((kept - 0.5).abs().argmin())]
            radius = self.parameters.judged_radius or float(nearest)
            judged[regime] = Judged(radius, float(kept[radius]))
        return judged

    def table(self, pairs: Iterable[tuple[Labelled, Run]]) -> pd.DataFrame:
        """`lsce.studies.study.table_of` the runs, whose errors under attacks are those at the
        radius where their regime is judged, `judged_radius`; NaN where it is not."""
        pairs = list(pairs)
        table, judged = super().table(pairs), self.judged_radii(pairs)
        rows = [
            {}
            if run.diverged or label.regime not in judged
            else {"judged_radius": (radius := judged[label.regime].radius)}
            | errors_at(run.details, radius)
            for label, run in pairs
        ]
        columns = ["judged_radius", "fgsm_error", "pgd_error", "worst_error", "overstated"]
        table[columns] = pd.DataFrame(rows, index=table.index, columns=columns)
        for name in AT_RADIUS:  # which evaluations of before 28 November 2026 have not
            for each in judged.values():
                at = table["judged_radius"] == each.radius
                table.loc[at, at_radius(name, each.radius)] = table.loc[at, name]
        return table

    def measured_as(self, shown: Evidence, regime: str, measure: str) -> str:
        table = shown.table
        radius = table.loc[table["regime"] == regime, "judged_radius"].max()  # NaN without one
        known = measure in AT_RADIUS and radius > 0
        return at_radius(measure, float(radius)) if known else measure

    def objection(
        self, shown: Evidence, claim: Claim, regime: str, arms: tuple[Arm, Arm]
    ) -> str | None:
        if claim.measure == "corrupted_error":
            return None
        judged = self.judged_radii(shown.pairs).get(regime)
        if judged is None:
            return "every plain network diverged"
        if not judged.testable:
            kept = f"plain networks keep {judged.kept:.0%} of their accuracy"
            return f"at {judged.radius:g}/255 {kept}, where less or more cannot show"
        if claim.id != "robust-to-attacks":  # a single step is what masking deceives
            return None
        words = {(label.method, label.setting): label.arm for label, _ in shown.pairs}
        failed = {check for arm in arms for check in self.masked(shown)[regime, words[arm]]}
        return f"gradients mislead attacks: not so that {'; '.join(failed)}" if failed else None

    def corruptions(self, main: Evidence) -> pd.DataFrame:
        return tables.panelled(tables.details(main, "corruption", "severity"), "regime", "case")

    def attacks(self, main: Evidence) -> pd.DataFrame:
        numbers = tables.details(main, "attack", "radius")
        return tables.panelled(numbers[numbers["case"] != "clean"], "regime", "case")

    def at_judged_radius(self, main: Evidence) -> pd.DataFrame:
        parts = [tables.details(main, quantity, "x") for quantity in ("attack", "masking")]
        numbers, judged = pd.concat(parts, ignore_index=True), self.judged_radii(main.pairs)
        radius = numbers["regime"].map({name: each.radius for name, each in judged.items()})
        numbers = numbers[(numbers["x"] == 0) | (numbers["x"] == radius)]
        return numbers.assign(panel=numbers["regime"])

    def masking(self, main: Evidence) -> pd.DataFrame:
        """`lsce.measures.masking.checks` of each ε in each regime, at the radius where it is
        judged. Errors in points, means over seeds; columns regime, arm, check, error, against and
        passes."""
        details = pd.concat(
            [tables.details(main, name, "x").assign(quantity=name) for name in QUANTITIES]
        )
        judged, protocol = self.judged_radii(main.pairs), self.protocol
        columns = ["regime", "arm", "check", "error", "against", "passes"]
        parts = [pd.DataFrame(columns=columns)] * (not judged)
        for (regime, arm), rows in details.groupby(["regime", "arm"], sort=False):
            if regime in judged:
                at, images = judged[regime].radius, protocol.attacked_images
                table = masking.checks(rows, protocol.longest, at, images)
                parts.append(table.assign(regime=str(regime), arm=str(arm)))
        checks = pd.concat(parts, ignore_index=True)
        checks[["error", "against"]] *= 100
        return checks[columns]

    def masked(self, main: Evidence) -> dict[tuple[str, str], list[str]]:
        """The checks for masked gradients that fail, in words, by regime and arm; none where an
        arm passes them all, and its errors under attacks can be judged."""
        checks = self.masking(main)
        return {
            (str(regime), str(arm)): list(rows.loc[~rows["passes"], "check"])
            for (regime, arm), rows in checks.groupby(["regime", "arm"], sort=False)
        }
