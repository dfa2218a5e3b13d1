"""What all pages together say: every claim's verdict, and what follows for a practitioner."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from lsce import claims, evidence, pages, paths, plots, profiles, reproduction, stats
from lsce.claims import Claim
from lsce.evidence import Evidence
from lsce.runs import Store
from lsce.studies import MAIN, Shown

#: The sets of runs of every page that judges a claim, by its notebook, as the page shows them.
Collected = Mapping[str, Sequence[Evidence]]


def collect(profile: str, *, data_name: str, runs: Shown) -> Collected:
    """The evidence of every page that judges a claim; this machine's with a profile's parameters
    and those seeds whose runs are all there. A page without any runs is left out.

    Raises ProfileError if there is no such profile.
    """
    whole, store, found = profiles.load(profile), Store(), {}
    for notebook in dict.fromkeys(claim.notebook for claim in claims.load().values()):
        wanted, parameters = runs, whole.notebooks[notebook]
        study, seeds = None, []
        if runs != "recorded":
            study, seeds = evidence.complete(whole, notebook, data_name, store)
        if study is None:
            if runs == "own":
                continue
            wanted = "recorded"
        try:
            found[notebook] = evidence.gather(
                notebook,
                profile=profile,
                data_name=data_name,
                runs=wanted,
                train_missing=False,
                **parameters | {"seeds": seeds},
            )
        except evidence.NothingToShow:
            continue
    return found


def banner(collected: Collected) -> Markdown:
    """Whose runs the main set of each page is."""
    lines = [
        f"> **{notebook}**: {shown[0].name} · {len(shown[0].all_runs)} runs · "
        f"{len(shown[0].seeds)} seeds"
        for notebook, shown in collected.items()
    ]
    return Markdown("  \n".join(lines))


def _link(claim: Claim, words: str) -> str:
    return f'<a href="{claim.notebook}.html#{claim.figure}">{words}</a>'


def _runs(claim: Claim, shown: Evidence) -> int:
    """Runs of the group that a claim is judged in."""
    group = shown if claim.group == MAIN else shown.others[claim.group]
    return len({run.spec.id for run in group.runs})


def verdicts(collected: Collected) -> Styler:
    """Every claim and its verdict in the main set of runs of its page, with a link to its figure
    and whose runs they are."""
    rows = []
    for claim in claims.load().values():
        if shown := collected.get(claim.notebook):
            rows.append(
                {
                    "claim": claim.claim,
                    "verdict": f"<b>{pages.overall(claim, shown[0])}</b>",
                    "runs": f"{_runs(claim, shown[0])}, {shown[0].name}",
                    "evidence": _link(claim, "figure"),
                }
            )
    return pages.table(pd.DataFrame(rows), {}, wrapped=["claim", "runs"], width="12em")


def effects(collected: Collected) -> Styler:
    """Every claim's effect and verdict in each regime of the main set of runs of its page; a claim
    links to its figure, and has the verdict over all regimes."""
    rows = []
    for claim in claims.load().values():
        if not (shown := collected.get(claim.notebook)):
            continue
        judged = shown[0].judgements.get(claim.id, [])
        for position, found in enumerate(judged):
            words = f"{_link(claim, claim.claim)} <b>{stats.combine(judged)}</b>"
            row = {
                "claim": "" if position else words,
                "regime": f"{found.regime}: {found.treatment} against {found.control}",
            }
            if found.effect is not None:
                mean, interval = pages.mean_and_interval(found.effect)
                row |= {"effect": f"{mean} {claim.unit}", "95% interval": interval}
                row |= {"n": found.effect.n, "p": found.p, "more": found.more_runs}
            rows.append(row | {"verdict": found.verdict})
    formats = {"n": "{:.0f}", "p": "{:.2g}", "more": "{:.0f}"}
    return pages.table(pd.DataFrame(rows), formats, wrapped=["claim", "regime"], width="12em")


def publish_effects(name: str, collected: Collected) -> Figure:
    """Draw and save the effects of every claim in the main set of runs of its page."""
    parts = [pages.effects(shown[:1], claims.of(page)) for page, shown in collected.items()]
    numbers = pd.concat(parts, ignore_index=True)
    return _publish(plots.effects(numbers), name, numbers, collected)


def publish_beside_published(name: str, collected: Collected) -> Figure:
    """Draw and save `lsce.reproduction.with_published` of all pages, each with its own runs."""
    parts = [
        reproduction.with_published(shown[0], claims.of(page)) for page, shown in collected.items()
    ]
    numbers = pd.concat(parts, ignore_index=True)
    return _publish(plots.beside_published(numbers), name, numbers, collected)


def _publish(figure: Figure, name: str, numbers: pd.DataFrame, collected: Collected) -> Figure:
    own = [shown[0].profile for shown in collected.values() if not shown[0].recorded]
    return plots.publish(figure, name, numbers, own=own[0] if own else None)


def recipes() -> Styler:
    """How the published networks were trained, and where that differs from ours."""
    return pages.table(
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
        word = pages.overall(claim, shown[0])
        if word == stats.UNDECIDED:
            named = _link(claim, claim.claim.removesuffix("."))
            left.setdefault(claim.family, []).append(f"{named} ({_effects(claim, shown[0])})")
        else:
            basis = f"(*{word}*: {_basis(claim, shown[0])}; {_link(claim, 'figure')})"
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
    return f"{_effects(claim, shown)}, where {least}" + f"; {said}" * (len(counts) > 1)


def _effects(claim: Claim, shown: Evidence) -> str:
    """Least and greatest effect of the regimes, how many there are, and the pairs in each."""
    judged = [j.effect for j in shown.judgements.get(claim.id, []) if j.effect is not None]
    if not judged:
        return "no complete pair of runs"
    means = [pages.signed(mean) for mean in sorted(effect.mean for effect in judged)]
    span = f"{means[0]} to {means[-1]}" if len(means) > 1 else means[0]
    regimes = f" in {len(means)} regimes" if len(means) > 1 else ""
    return f"{span} {claim.unit}".rstrip() + f"{regimes}, n = {judged[0].n}"
