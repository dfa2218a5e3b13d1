"""What the pages on classes, distillation and class weights say first, computed from their runs."""

import pandas as pd
from IPython.display import Markdown
from pandas.io.formats.style import Styler

from lsce import studies
from lsce.judging import rule, statistics
from lsce.judging.rule import Effect
from lsce.report import findings
from lsce.report.findings import signed
from lsce.report.tables import table
from lsce.studies.distillation import DIFFERENCE, TEACHER, DistillationStudy
from lsce.studies.evidence import Evidence


def verdicts(shown: Evidence) -> Markdown:
    """The verdict on every claim of a page, with its effects, a line a claim."""
    lines = []
    for claim in studies.claims_of(shown.study.notebook):
        span = findings.span_of_effects(claim, shown, "judged")
        lines.append(f"- {claim.claim} *{findings.words(claim, shown)}* ({span})")
    return Markdown("\n".join(lines))


def designs(contrasts: pd.DataFrame) -> Markdown:
    """In which designs smoothing gains more with the most classes than with the fewest, a line a
    measure; contrasts: `lsce.studies.number_of_classes.NumberOfClasses.contrasts`."""
    lines = []
    for measure, rows in contrasts.groupby("measure", sort=False):
        found: dict[str, list[str]] = {}
        for row in rows.itertuples():
            found.setdefault(str(row.verdict), []).append(f"*{row.design}*")
        parts = [
            f"{_WAYS[verdict]} in {_joined(found[verdict])}"
            for verdict in _WAYS
            if verdict in found
        ]
        overall = rows["overall"].iloc[0]
        lines.append(f"- {measure}: the gain {'; '.join(parts)}. Over the designs: **{overall}**.")
    return Markdown("\n".join(lines))


#: What each verdict of a contrast says of the gain.
_WAYS = {
    rule.SUPPORTED: "is larger with the most classes",
    rule.OPPOSITE: "is smaller with the most classes",
    rule.NEGLIGIBLE: "is about the same with the most classes as with the fewest",
    rule.UNDECIDED: "is not decided",
    rule.UNTESTABLE: "cannot be tested",
}


def contrasts(frame: pd.DataFrame) -> Styler:
    """The table of `lsce.studies.number_of_classes.NumberOfClasses.contrasts` to show."""
    rows = []
    for row in frame.to_dict("records"):
        fewest, most = (signed(row[name]) for name in ("gain_fewest", "gain_most"))
        effect: Effect | None = row["effect"]
        difference, interval = findings.mean_and_interval(effect) if effect else ("–", "")
        rows.append(
            {
                "gain": f"{row['measure']}, {row['unit']}",
                "design": row["design"],
                "classes": f"{row['fewest']} → {row['most']}",
                "÷ width": f"{row['per_fewest']:.2g} → {row['per_most']:.2g}",
                "gain with these": f"{fewest} → {most}",
                "difference": difference + f" ({interval})" * bool(interval),
                "verdict": row["verdict"],
            }
        )
    shown = pd.DataFrame(rows)
    shown.loc[shown["gain"].duplicated(), "gain"] = ""
    numeric = ["classes", "÷ width", "gain with these", "difference"]
    return table(shown, wrapped=["gain", "verdict"], numeric=numeric)


def teachers(shown: Evidence) -> Markdown:
    """Whether the teachers of the page on distillation are worth having."""
    assert isinstance(shown.study, DistillationStudy)
    teacher, student = shown.study.plain_accuracies(shown)
    text = (
        f"Plain teachers get {teacher:.1%} of the test images right, and plain students "
        f"{student:.1%}."
    )
    classes = shown.own_runs[0].spec.num_classes
    enough = teacher > student and (classes != 100 or teacher >= TEACHER)
    bound = f" A teacher of 100 classes is worth having from {TEACHER:.0%} on" * (classes == 100)
    if enough:
        return Markdown(text + f"{bound}: these are." * bool(bound))
    return Markdown(
        text + f"{bound}." * bool(bound) + " Nothing is judged here, neither of these teachers nor "
        "of their students; the figures show what there is."
    )


def temperatures(numbers: pd.DataFrame) -> Markdown:
    """At which temperatures students of smoothed teachers err more or less than those of plain
    ones; numbers: `lsce.studies.distillation.DistillationStudy.by_temperature`."""
    lines = []
    differences = numbers[numbers["panel"] == DIFFERENCE].dropna(subset="value")
    for arm, rows in differences.groupby("arm", sort=False):
        found: dict[str, list[str]] = {"more": [], "less": [], "": []}
        for temperature, values in rows.groupby("temperature")["value"]:
            interval = statistics.mean_interval(100 * values)
            clear = interval.low > 0 or interval.high < 0
            way = ("more" if interval.mean > 0 else "less") if clear else ""
            found[way].append(f"T = {temperature:g} ({signed(interval.mean)})")
        parts = [f"err {way} at {_joined(found[way])}" for way in ("more", "less") if found[way]]
        if found[""]:
            parts.append(f"do not clearly differ at {_joined(found[''])}")
        lines.append(f"- {arm}: its students {'; '.join(parts)}")
    words = (
        "Points of top-1 error against students of a plain teacher with the same T and seed; "
        "“clearly” means that the 95% t interval over seeds lies on one side of 0:\n\n"
    )
    return Markdown(words + "\n".join(lines) if lines else "There is no smoothed teacher.")


def _joined(words: list[str]) -> str:
    """Words with commas and "and"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
