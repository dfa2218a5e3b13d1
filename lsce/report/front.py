"""What all pages together say: every claim's verdict, and what follows for a practitioner."""

from collections import Counter
from collections.abc import Mapping
from typing import get_args

import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from lsce.judging import claims, statistics
from lsce.judging.claims import Claim
from lsce.machine import paths
from lsce.report import figures, page, reproduction
from lsce.studies import Shown, evidence
from lsce.studies.evidence import Evidence

#: The set of runs of every page that judges a claim, by its notebook, as the page shows it.
Collected = Mapping[str, Evidence]


def collect(runs: Shown) -> Collected:
    """What every page that judges a claim shows: with "own", its runs as it was last run on this
    machine, or the recorded ones where it was not; with "recorded", the largest recorded set. A
    page without any runs is left out."""
    if runs not in get_args(Shown):
        raise ValueError(f"runs is {runs!r}; it must be one of {', '.join(get_args(Shown))}")
    found = {}
    for notebook in dict.fromkeys(claim.notebook for claim in claims.load().values()):
        shown = evidence.last(notebook) if runs == "own" else None
        shown = shown or next(iter(evidence.recorded(notebook)), None)
        if shown is not None:
            found[notebook] = shown
    return found


def banner(collected: Collected) -> Markdown:
    """Whose runs the pages show, and which pages show which."""
    runs_of: dict[str, dict[str, set[str]]] = {}
    for notebook, shown in collected.items():
        for part in (shown, *shown.others.values()):  # groups may be of another profile
            name = f"{part.name}, {page.DATA_NAMES[part.runs[0].spec.data]}"
            runs = runs_of.setdefault(name, {}).setdefault(notebook, set())
            runs |= {run.spec.id for run in part.runs}
    lines = []
    for name, runs in runs_of.items():
        of_pages = ", ".join(f"{page.partition('_')[0]} ({len(runs[page])})" for page in runs)
        total = len(set().union(*runs.values()))
        lines.append(f"> **{_capital(name)}**: {total:,} runs, on the pages {of_pages}")
    return Markdown("  \n".join(lines))


def _link(claim: Claim, words: str) -> str:
    return f'<a href="{claim.notebook}.ipynb#{claim.figure}">{words}</a>'


def verdicts(collected: Collected) -> Styler:
    """Every claim and its verdict on its page, with a link to its figure, and the number of runs
    that were compared for it and whose they are."""
    rows = []
    for claim in claims.load().values():
        if shown := collected.get(claim.notebook):
            rows.append(
                {
                    "claim": claim.claim,
                    "verdict": f"<b>{page.overall(claim, shown)}</b>",
                    "runs compared": f"{len(_compared(claim, shown))}{_whose(claim, collected)}",
                    "evidence": _link(claim, "figure"),
                }
            )
    return page.table(pd.DataFrame(rows), {}, wrapped=["claim", "runs compared"], width="12em")


def _whose(claim: Claim, collected: Collected) -> str:
    """Whose runs a claim compares, where not all pages show the same."""
    shown = collected[claim.notebook]
    name = _compared_set(claim, shown).name
    return f", {name}" * (len({each.name for each in collected.values()}) > 1)


def _compared_set(claim: Claim, shown: Evidence) -> Evidence:
    """The set of runs that a claim compares: the main one, or a group, which may be of another
    profile."""
    return shown.others.get(claim.group, shown)


def _compared(claim: Claim, shown: Evidence) -> set[str]:
    """The runs whose differences the verdict on a claim rests on."""
    return {run for judged in shown.judgements.get(claim.id, []) for run in judged.runs}


def changes() -> Styler:
    """What was changed after runs had been seen."""
    words = {"date": "date", "change": "what was changed", "seen": "what had been seen"}
    table = claims.changes().rename(columns=words)
    return page.table(table, {}, wrapped=list(words.values())[1:], width="14em")


def effects(collected: Collected) -> Styler:
    """Every claim's effect and verdict in each regime of its page; a claim
    links to its figure, and has the verdict over all regimes."""
    rows = []
    for claim in claims.load().values():
        if not (shown := collected.get(claim.notebook)):
            continue
        judged = shown.judgements.get(claim.id, [])
        for position, found in enumerate(judged):
            words = f"{_link(claim, claim.claim)} <b>{statistics.combine(judged)}</b>"
            row = {
                "claim": "" if position else words,
                "regime": f"{found.regime}: {found.treatment} against {found.control}",
            }
            if found.effect is not None:
                mean, interval = page.mean_and_interval(found.effect)
                row |= {"effect": f"{mean} {claim.unit}", "95% interval": interval}
                row |= {"n": found.effect.n, "p": found.p, "more": found.more_runs}
            rows.append(row | {"verdict": found.verdict})
    formats = {"n": "{:.0f}", "p": "{:.2g}", "more": "{:.0f}"}
    return page.table(pd.DataFrame(rows), formats, wrapped=["claim", "regime"], width="12em")


def publish_effects(name: str, collected: Collected) -> None:
    """Draw and save the effects of every claim."""
    parts = [page.effects(shown, claims.of(page)) for page, shown in collected.items()]
    numbers = pd.concat(parts, ignore_index=True)
    _publish(figures.effects(numbers), name, numbers, collected)


def publish_beside_published(name: str, collected: Collected) -> None:
    """Draw and save `lsce.report.reproduction.with_published` of all pages, each with its own runs."""
    parts = [
        reproduction.with_published(shown, claims.of(page)) for page, shown in collected.items()
    ]
    numbers = pd.concat(parts, ignore_index=True)
    _publish(figures.beside_published(numbers), name, numbers, collected)


def _publish(figure: Figure, name: str, numbers: pd.DataFrame, collected: Collected) -> None:
    own = [shown.profile for shown in collected.values() if not shown.recorded]
    figures.publish(figure, name, numbers, own=own[0] if own else None)


def recipes() -> Styler:
    """How the published networks were trained, and where that differs from ours."""
    return page.table(
        pd.read_csv(paths.RECIPES, dtype=str).fillna("–"),
        {},
        wrapped=["data, network", "optimiser and schedule", "other"],
        width="11em",
    )


def guide(collected: Collected) -> Markdown:
    """For each claim the advice that its verdict asks for (see `claims.yaml`), with the effects
    that the verdict rests on; what is undecided comes last, as it is claimed."""
    advice: dict[str, list[str]] = {}
    left: dict[str, list[str]] = {}
    for claim in claims.load().values():
        if not (shown := collected.get(claim.notebook)):
            continue
        word = page.overall(claim, shown)
        if word == statistics.UNDECIDED:
            named = _link(claim, claim.claim.removesuffix("."))
            left.setdefault(claim.family, []).append(
                f"{named} ({page.span_of_effects(claim, shown)})"
            )
        else:
            own = _compared_set(claim, shown).profile == shown.profile
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


def _basis(claim: Claim, shown: Evidence) -> str:
    """The effects, what matters, and which verdict in how many regimes if they differ."""
    counts = Counter(j.verdict for j in shown.judgements[claim.id])
    least = f"at least {claim.matters:g} matters"
    if claim.not_worse_by is not None:
        least = f"up to {claim.matters:g} worse will do"
    said = ", ".join(f"{word} in {count}" for word, count in counts.items())
    return f"{page.span_of_effects(claim, shown)}, where {least}" + f"; {said}" * (len(counts) > 1)
