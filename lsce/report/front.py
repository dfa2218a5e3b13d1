"""What all pages together say: every claim's verdict, and what follows for a practitioner."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from lsce import studies
from lsce.judging import claims, rule
from lsce.judging.claims import Claim
from lsce.judging.judgements import Judgement
from lsce.machine import paths
from lsce.machine.values import Value
from lsce.report import figures, findings
from lsce.report.findings import Finding
from lsce.report.tables import table
from lsce.studies.parameters import Shown, Shows

#: What every page that judges claims found, by its notebook.
Collected = Mapping[str, Finding]


#: Numbers of an effect's figure.
EFFECT = ("effect", "low", "high")


class SummaryParameters(Value):
    """The parameters of the summary."""

    runs: Shown = Shows.model_fields["runs"].default


def collect(runs: Shown) -> Collected:
    """What every page that judges a claim found, see `lsce.report.findings.read`. A page that
    has not been run is left out."""
    pages = [notebook for notebook in studies.with_runs() if studies.claims_of(notebook)]
    return {page: finding for page in pages if (finding := findings.read(page, runs))}


def banner(collected: Collected) -> Markdown:
    """Where the runs come from, and how many of them each page shows."""
    rows = [
        (f"{finding.source(group.profile)}, {group.data}", notebook.partition("_")[0], run)
        for notebook, finding in collected.items()
        for group in finding.groups  # which may be of another profile
        for run in group.runs
    ]
    shown = pd.DataFrame(rows, columns=["source", "page", "run"])
    lines = []
    for source, part in shown.groupby("source", sort=False):
        counts = part.groupby("page", sort=False)["run"].nunique()
        pages = ", ".join(f"{page} ({count})" for page, count in counts.items())
        total = part["run"].nunique()
        lines.append(f"> **{_capital(str(source))}**: {total:,} runs, on the pages {pages}")
    return Markdown("  \n".join(lines))


def _claims(collected: Collected) -> list[tuple[Claim, Finding, list[Judgement]]]:
    """Every claim with what its page found, and the claim's judgements there."""
    return [
        (claim, finding, finding.judgements.get(claim.id, []))
        for claim in studies.all_claims().values()
        if (finding := collected.get(claim.notebook))
    ]


def verdicts(collected: Collected) -> Styler:
    """Every claim and its verdict on its page, with a link to its figure and how many runs were
    compared for it; where pages differ in it, also where these come from."""
    sources = {finding.source(finding.profile) for finding in collected.values()}
    mixed = len({finding.recorded for finding in collected.values()}) > 1
    rows = []
    for claim, finding, judgements in _claims(collected):
        compared = str(len({run for judgement in judgements for run in judgement.runs}))
        if len(sources) > 1:
            profile = finding.profile_of(claim)
            compared += f", {finding.source(profile) if mixed else profile}"
        row = {"claim": claim.claim}
        for at in findings.AT:
            known = findings.judgements(claim, finding, at)
            word = f"<b>{findings.overall(claim, finding, at)}</b>" if known else "–"
            row[f"at the {at} ε"] = word
        rows.append(row | {"runs compared": compared, "evidence": _link(claim, "figure")})
    return table(pd.DataFrame(rows), wrapped=["claim", "runs compared"], width="12em")


def changes() -> HTML:
    """What was changed after runs had been seen, folded away."""
    rows, words = claims.changes(), {"change": "what was changed", "seen": "what had been seen"}
    shown = table(rows.rename(columns=words), wrapped=[*words.values(), "claims"], width="14em")
    summary = f"{len(rows)} changes after runs had been seen"
    return HTML(f"<details><summary>{summary}</summary>{shown.to_html()}</details>")


def effects(collected: Collected) -> Styler:
    """Every claim's effect and verdict in each regime of its page, or why it is not testable there;
    a claim links to its figure, and has the verdict over all regimes."""
    rows = []
    for claim, finding, judgements in _claims(collected):
        words = f"{_link(claim, claim.claim)} <b>{findings.words(claim, finding)}</b>"
        for judged in judgements:
            if judged.verdict == rule.UNTESTABLE:
                continue
            compared = f"{judged.regime}: {judged.treatment} against {judged.control}"
            compared += {"chosen": " (chosen)", "both": " (also chosen)"}.get(judged.at, "")
            row: dict[str, Any] = {"claim": words, "regime": compared}
            if judged.effect is not None:
                mean, interval = findings.mean_and_interval(judged.effect)
                row |= {"effect": f"{mean} {claim.unit}", "interval": interval}
                row |= {"n": judged.effect.n}
            rows.append(row | {"verdict": judged.verdict})
            words = ""
        untestable = [judged for judged in judgements if judged.verdict == rule.UNTESTABLE]
        for reason in dict.fromkeys(judged.reason for judged in untestable):
            regimes = {judged.regime for judged in untestable if judged.reason == reason}
            where = regimes.pop() if len(regimes) == 1 else f"{len(regimes)} regimes"
            verdict = f"{rule.UNTESTABLE}: {reason}"
            rows.append({"claim": words, "regime": where, "verdict": verdict})
            words = ""
    wrapped = ["claim", "regime", "verdict"]
    numbers = pd.DataFrame(rows, columns=["claim", "regime", "effect", "interval", "n", "verdict"])
    return table(numbers, {"n": "{:.0f}"}, wrapped=wrapped, width="12em")


def publish_effects(name: str, collected: Collected) -> None:
    """Draw and save the effects of every claim, in smallest effects that matter."""
    numbers = pd.DataFrame(
        {
            "claim": claim.claim,
            "regime": judged.regime,
            "at": judged.at,
            "treatment": judged.treatment,
            "n": judged.effect.n,
            "effect": judged.effect.mean / claim.matters,
            "low": judged.effect.low / claim.matters,
            "high": judged.effect.high / claim.matters,
            "verdict": judged.verdict,
            "profile": finding.profile,
            "recorded": finding.recorded,
        }
        for claim, finding, judgements in _claims(collected)
        for judged in judgements
        if judged.effect is not None and judged.verdict != rule.UNTESTABLE
    )
    if numbers.empty:  # where nothing can be tested
        numbers = pd.DataFrame(columns=["claim", "regime", "treatment", "verdict", *EFFECT])
    _publish(figures.effects(numbers), name, numbers, collected)


def publish_beside_published(name: str, collected: Collected) -> None:
    """Draw and save `lsce.report.reproduction.with_published` of all pages."""
    numbers = pd.DataFrame(row for finding in collected.values() for row in finding.published)
    _publish(figures.beside_published(numbers), name, numbers, collected)


def _publish(figure: Figure, name: str, numbers: pd.DataFrame, collected: Collected) -> None:
    own = (finding.profile for finding in collected.values() if not finding.recorded)
    figures.publish(figure, name, numbers, own=next(own, None))


def recipes() -> Styler:
    """How the published networks were trained, and where that differs from ours."""
    rows = pd.read_csv(paths.RECIPES, dtype=str).fillna("–")
    return table(rows, wrapped=["data, network", "optimiser and schedule", "other"], width="11em")


def guide(collected: Collected) -> Markdown:
    """For each claim the advice that its verdict asks for, with the effects that the verdict rests
    on; what is undecided or cannot be tested comes last, as it is claimed."""
    advice: dict[str, list[str]] = {}
    open_: dict[str, dict[str, list[str]]] = {rule.UNDECIDED: {}, rule.UNTESTABLE: {}}
    for claim, finding, _ in _claims(collected):
        first, second = (findings.overall(claim, finding, at) for at in findings.AT)
        verdict, at = first, findings.AT[0]
        if first in open_ and second not in open_:
            verdict, at = second, findings.AT[1]
        span = findings.span_of_effects(claim, finding, at)
        if verdict in open_:
            link = _link(claim, claim.claim.removesuffix("."))
            open_[verdict].setdefault(claim.family, []).append(f"{link} ({span})")
        else:
            sentence = f"- {claim.advice[verdict]} ({_basis(claim, finding, at)}, {span}; "
            advice.setdefault(claim.family, []).append(sentence + f"{_link(claim, 'figure')})")
    lines = []
    for family, items in advice.items():
        lines += ["", f"**{_capital(family)}**", "", *items]
    for verdict, families in open_.items():
        if families:
            lines += ["", f"**{_capital(verdict)}**", ""]
        for family, items in families.items():
            lines.append(f"- *{_capital(family)}*: {'; '.join(items)}")
    return Markdown("\n".join(lines))


def _basis(claim: Claim, finding: Finding, at: findings.At) -> str:
    """The verdict that advice rests on, at which ε, and what of an effect matters."""
    first, second = (findings.overall(claim, finding, each) for each in findings.AT)
    words = f"*{findings.overall(claim, finding, at)}*"
    if first != second and findings.judgements(claim, finding, "chosen"):
        words += f" at the {at} ε, *{second if at == 'judged' else first}* at the other"
    if finding.profile_of(claim) == finding.profile and finding.lacking > 0:
        words += ", an interim look"
    counts = Counter(judged.verdict for judged in findings.judgements(claim, finding, at))
    if len(counts) > 1:
        words += "; " + ", ".join(f"{word} in {count}" for word, count in counts.items())
    if claim.not_worse_by is not None:
        return f"{words}; up to {claim.matters:g} worse will do"
    return f"{words}; at least {claim.matters:g} matters"


def _link(claim: Claim, words: str) -> str:
    return f'<a href="{claim.notebook}.ipynb#{claim.figure}">{words}</a>'


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
