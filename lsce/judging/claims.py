"""The claims that the report judges.

The claims of a page are declared in a YAML file beside its study; `changes.csv` says what was
changed after runs had been seen. `lsce.judging.judgements` judges them.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from lsce.machine.values import Value

#: The group of a study's runs that its main figures show.
MAIN = "main"

#: Endings of a control's measure that differs from the treatment's, and their words.
CONTROLS = {"_selected": "stopped early", "_scaled": "temperature scaled"}

#: What a claim's treatment or control is. "smoothing": at the judged ε and at that of the best
#: validation value; "judged" and "plain": ε = the judged one and 0; "tuned" and "another ε": the
#: best smoothing but for ε = 0 and for the judged one; a list of methods: the best of these; a
#: method with "smoothing", "same" (the treatment's ε) or "plain": that with this ε; `ANY` with
#: "smoothing" or "plain": of all arms with this ε the best.
ANY = "any"
Methods = Annotated[list[str], Field(min_length=1)]
Treatment = Literal["smoothing", "judged"] | Methods | dict[str, Literal["smoothing"]]
Control = Literal["plain", "tuned", "another ε"] | Methods | dict[str, Literal["plain", "same"]]
Rule = Treatment | Control


class Published(Value):
    """What the literature measured: pairs of `data/published.csv`, without and with smoothing."""

    measure: str
    pairs: list[list[str]]


class Claim(Value):
    """A sentence about label smoothing that paired runs can judge."""

    id: str
    claim: str
    #: The page that judges it, and its figure there.
    notebook: str
    figure: str
    family: str
    #: The date.
    declared: str
    measure: str
    words: str
    unit: str
    scale: float = Field(1.0, gt=0)
    better: Literal["lower", "higher"]
    #: The margin: the smallest effect that matters, or the loss that a claim of "not worse" allows;
    #: and why it is that.
    smallest: float | None = Field(None, gt=0)
    not_worse_by: float | None = Field(None, gt=0)
    reason: str
    #: What was sampled, beside the seeds, to measure it.
    sampled: Literal["test images", "training images"] = "test images"
    #: The least and greatest value that the measure can have, None where it has none; "guessing" is
    #: what guessing gives (see `lsce.judging.preconditions`).
    bounds: list[float | Literal["guessing"] | None] = Field(
        [None, None], min_length=2, max_length=2
    )
    #: The measure in which there must be damage, for the claim says that it is repaired.
    repairs: str | None = None
    #: The group of runs that it is judged in, see `lsce.studies.study.Labelled`; or several, with
    #: the words for each.
    group: str | dict[str, str] = MAIN
    treatment: Treatment = "smoothing"
    control: Control = "plain"
    #: The control's measure, if it is another one.
    control_measure: str | None = None
    #: What settings are chosen by, on the validation split: of these columns the first that all
    #: runs have. Those of an accuracy are better when higher, others when lower.
    chosen_by: Methods = ["validation_accuracy"]
    #: ["more" or "fewer", a column]: the effect is how much larger it is where there is most of
    #: that than where there is least, or the other way round.
    contrast: list[str] | None = None
    #: What a practitioner should make of each verdict but undecided.
    advice: dict[str, str]
    published: Published | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.smallest is None) == (self.not_worse_by is None):
            raise ValueError("one of smallest and not_worse_by must be given, and not both")
        least, most = (bound if isinstance(bound, float) else None for bound in self.bounds)
        if least is not None and most is not None and least >= most:
            raise ValueError(f"bounds is {self.bounds}; the second must be above the first")
        contrast = ["more", ""] if self.contrast is None else self.contrast
        if len(contrast) != 2 or contrast[0] not in ("more", "fewer"):
            raise ValueError(f"contrast is {self.contrast}; it must be [more or fewer, a column]")
        for name in ("treatment", "control"):
            if isinstance(value := getattr(self, name), dict) and len(value) != 1:
                raise ValueError(f"{name} is {value}; it must be one method with its ε")
        return self

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def sign(self) -> float:
        """Turns a difference in the measure into an effect in the unit, positive for the claim."""
        return self.scale * (1 if self.better == "higher" else -1)

    @property
    def matters(self) -> float:
        """The margin, in the unit."""
        margin = self.not_worse_by or self.smallest
        assert margin is not None
        return margin

    @property
    def margin_in_words(self) -> str:
        """The margin with its unit."""
        unit = self.unit.removesuffix("s") if self.matters == 1 else self.unit
        return f"{self.matters:g} {unit}".rstrip()

    @property
    def groups(self) -> dict[str, str]:
        """The groups of runs that it is judged in, with their words; these are empty for one."""
        return self.group if isinstance(self.group, dict) else {self.group: ""}

    @property
    def is_plain(self) -> bool:
        """Whether it compares smoothing with ε = 0 and nothing else."""
        simple = (self.treatment, self.control, self.control_measure) == (
            "smoothing",
            "plain",
            None,
        )
        return simple and self.group == MAIN and self.contrast is None


def declared(file: Path, notebook: str) -> list[Claim]:
    """The claims of a page, none if there is no such file. Raises ValueError, naming file and
    claim, for a field that is not what it must be."""
    if not file.is_file():
        return []
    import yaml  # part of what the report is made with, which recording does without

    entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    common, claims = {"notebook": notebook, "family": entries.pop("family")}, []
    for name, fields in entries.items():
        try:
            claims.append(Claim(id=name, **common, **fields))
        except ValueError as error:
            raise ValueError(f"{file.name}, {name}: {error}") from error
    return claims


def changes() -> pd.DataFrame:
    """What was changed after runs had been seen: columns date, change, seen (what had been), and
    claims: the ids or families that it touched, separated by "; ", or "all"."""
    return pd.read_csv(Path(__file__).with_name("changes.csv"), dtype=str)


def changes_of(claim: Claim) -> pd.DataFrame:
    """The rows of `changes` that touched a claim, from the day on which it was declared."""
    rows = changes()
    rows = rows[rows["date"] >= claim.declared]
    touched = [{claim.id, claim.family, "all"} & set(each.split("; ")) for each in rows["claims"]]
    return rows[list(map(bool, touched))]
