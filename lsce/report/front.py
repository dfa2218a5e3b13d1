"""What all pages together say: every claim's verdict, and what follows for a practitioner."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from lsce import studies
from lsce.judging import claims, statistics
from lsce.judging.claims import Claim
from lsce.machine import paths
from lsce.machine.values import Value
from lsce.report import figures, findings
from lsce.report.findings import Finding
from lsce.report.tables import table
from lsce.studies.parameters import Shown, Shows

#: What every page that judges claims found, by its notebook.
Collected = Mapping[str, Finding]


class SummaryParameters(Value):
    """The parameters of the summary."""

    runs: Shown = Shows.model_fields["runs"].default


def collect(runs: Shown) -> Collected:
    """What every page that judges a claim found: with "own", when it was last run on this machine,
    or of the recorded runs where it was not; with "recorded", of these. A page without any is left
    out."""
    pages = (notebook for notebook in studies.with_runs() if studies.claims_of(notebook))
    found = {notebook: findings.read(notebook, runs) for notebook in pages}
    return {notebook: finding for notebook, finding in found.items() if finding is not None}


def banner(collected: Collected) -> Markdown:
    """Whose runs the pages show, and which pages show which."""
    runs_of: dict[str, dict[str, set[str]]] = {}
    for notebook, shown in collected.items():
        for group in shown.groups:  # which may be of another profile
            name = f"{shown.whose(group.profile)}, {group.data}"
            runs_of.setdefault(name, {}).setdefault(notebook, set()).update(group.runs)
    lines = []
    for name, runs in runs_of.items():
        of_pages = ", ".join(f"{each.partition('_')[0]} ({len(runs[each])})" for each in runs)
        total = len(set[str]().union(*runs.values()))
        lines.append(f"> **{_capital(name)}**: {total:,} runs, on the pages {of_pages}")
    return Markdown("  \n".join(lines))


def _claims(collected: Collected) -> list[tuple[Claim, Finding]]:
    """Every claim with what its page found."""
    return [
        (claim, collected[claim.notebook])
        for claim in studies.all_claims().values()
        if claim.notebook in collected
    ]


def _link(claim: Claim, words: str) -> str:
    return f'<a href="{claim.notebook}.ipynb#{claim.figure}">{words}</a>'


def verdicts(collected: Collected) -> Styler:
    """Every claim and its verdict on its page, with a link to its figure, and the number of runs
    that were compared for it and whose they are."""
    whose = {shown.whose(shown.profile) for shown in collected.values()}
    rows = [
        {
            "claim": claim.claim,
            "verdict": f"<b>{findings.overall(claim, shown)}</b>",
            "runs compared": f"{len(shown.compared(claim))}"
            # Where not all pages show the same.
            + f", {shown.whose(shown.group_of(claim).profile)}" * (len(whose) > 1),
            "evidence": _link(claim, "figure"),
        }
        for claim, shown in _claims(collected)
    ]
    return table(pd.DataFrame(rows), wrapped=["claim", "runs compared"], width="12em")


def changes() -> Styler:
    """What was changed after runs had been seen."""
    words = {"date": "date", "change": "what was changed", "seen": "what had been seen"}
    frame = claims.changes().rename(columns=words)
    return table(frame, wrapped=list(words.values())[1:], width="14em")


def effects(collected: Collected) -> Styler:
    """Every claim's effect and verdict in each regime of its page; a claim links to its figure, and
    has the verdict over all regimes."""
    rows = []
    for claim, shown in _claims(collected):
        judged = shown.judgements.get(claim.id, [])
        for position, found in enumerate(judged):
            words = f"{_link(claim, claim.claim)} <b>{findings.overall(claim, shown)}</b>"
            compared = f"{found.regime}: {found.treatment} against {found.control}"
            row: dict[str, Any] = {"claim": "" if position else words, "regime": compared}
            if found.effect is not None:
                mean, interval = findings.mean_and_interval(found.effect)
                row |= {"effect": f"{mean} {claim.unit}", "95% interval": interval}
                row |= {"n": found.effect.n, "p": found.p, "more": found.more_runs}
            rows.append(row | {"verdict": found.verdict})
    formats = {"n": "{:.0f}", "p": "{:.2g}", "more": "{:.0f}"}
    return table(pd.DataFrame(rows), formats, wrapped=["claim", "regime"], width="12em")


def publish_effects(name: str, collected: Collected) -> None:
    """Draw and save the effects of every claim."""
    parts = [
        findings.in_smallest(claim, shown.judgements.get(claim.id, [])).assign(
            profile=shown.profile, recorded=shown.recorded
        )
        for claim, shown in _claims(collected)
    ]
    numbers = pd.concat([part for part in parts if len(part)], ignore_index=True)
    _publish(figures.effects(numbers), name, numbers, collected)


def publish_beside_published(name: str, collected: Collected) -> None:
    """Draw and save `lsce.report.reproduction.with_published` of all pages."""
    numbers = pd.DataFrame([row for shown in collected.values() for row in shown.published])
    _publish(figures.beside_published(numbers), name, numbers, collected)


def _publish(figure: Figure, name: str, numbers: pd.DataFrame, collected: Collected) -> None:
    own = [shown.profile for shown in collected.values() if not shown.recorded]
    figures.publish(figure, name, numbers, own=own[0] if own else None)


def recipes() -> Styler:
    """How the published networks were trained, and where that differs from ours."""
    return table(
        pd.read_csv(paths.RECIPES, dtype=str).fillna("–"),
        wrapped=["data, network", "optimiser and schedule", "other"],
        width="11em",
    )


def guide(collected: Collected) -> Markdown:
    """For each claim the advice that its verdict asks for, with the effects that the verdict rests
    on; what is undecided comes last, as it is claimed."""
    advice: dict[str, list[str]] = {}
    left: dict[str, list[str]] = {}
    for claim, shown in _claims(collected):
        word = findings.overall(claim, shown)
        if word == statistics.UNDECIDED:
            named = _link(claim, claim.claim.removesuffix("."))
            span = findings.span_of_effects(claim, shown)
            left.setdefault(claim.family, []).append(f"{named} ({span})")
        else:
            own = shown.group_of(claim).profile == shown.profile
            interim = ", an interim look" * (own and shown.lacking > 0)
            basis = f"(*{word}*{interim}: {_basis(claim, shown)}; {_link(claim, 'figure')})"
            advice.setdefault(claim.family, []).append(f"- {claim.advice[word]} {basis}")
    lines = []
    for family, sentences in advice.items():
        lines += ["", f"**{_capital(family)}**", "", *sentences]
    if left:
        lines += ["", "**Open at this size**", ""]
        lines += [f"- *{_capital(family)}*: {'; '.join(each)}" for family, each in left.items()]
    return Markdown("\n".join(lines))


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _basis(claim: Claim, shown: Finding) -> str:
    """The effects, what matters, and which verdict in how many regimes if they differ."""
    counts = Counter(j.verdict for j in shown.judgements[claim.id])
    least = f"at least {claim.matters:g} matters"
    if claim.not_worse_by is not None:
        least = f"up to {claim.matters:g} worse will do"
    said = ", ".join(f"{word} in {count}" for word, count in counts.items())
    return f"{findings.span_of_effects(claim, shown)}, where {least}" + f"; {said}" * (
        len(counts) > 1
    )
