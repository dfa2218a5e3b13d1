"""Tables of the page on how verdicts are drawn: the rule tried on simulated pages, what it finds,
how much seeds and test images add to the recorded effects, and the margins of all claims."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from IPython.display import Markdown
from pandas.io.formats.style import Styler
from pydantic import Field
from scipy import stats

from lsce.judging import preconditions, rule, simulation
from lsce.judging.claims import Claim
from lsce.report.findings import Finding
from lsce.report.front import SummaryParameters
from lsce.report.tables import table


class VerdictParameters(SummaryParameters):
    """The parameters of the page on verdicts."""

    pages: int = Field(ge=10)
    """simulated pages for every row of the first table, a tenth of them for the second"""


#: Seeds, standard deviations of a seed's effect and standard errors of the test images, the last
#: two in margins, for which the power is shown.
SEEDS, RATIOS, IMAGES = (5, 10), (0.1, 0.25, 0.5, 1.0, 2.0), (0.0, 0.25)


def errors(pages: int, seed: int = 0) -> pd.DataFrame:
    """How often the rule errs on simulated pages, a row a design of `lsce.judging.simulation`.

    Columns: what is simulated, n, judged (judgements a page, the mean), pages, wrong (how many hold
    a false verdict), missed (how many hold an interval without the true effect), and the share of
    judgements with each verdict.
    """
    rows = []
    for words, (design, effects) in simulation.DESIGNS.items():
        truth = np.random.default_rng(seed).choice(effects, (pages, design.claims))
        simulated = list(simulation.families(design, truth, seed))
        counts = Counter(each.verdict for page in simulated for each in page)
        row = {
            "simulated": words,
            "n": design.n,
            "judged": counts.total() / pages,
            "pages": pages,
            "wrong": sum(any(each.wrong for each in page) for page in simulated),
            "missed": sum(any(each.missed for each in page) for page in simulated),
        }
        shown = (rule.SUPPORTED, rule.OPPOSITE, rule.NEGLIGIBLE, rule.UNDECIDED)
        rows.append(row | {word: counts[word] / counts.total() for word in shown})
    return pd.DataFrame(rows)


def errors_table(numbers: pd.DataFrame) -> Styler:
    """`errors` as a table, with the exact 95% interval of the share of pages that err (Clopper and
    Pearson)."""
    shares = []
    for wrong, pages in zip(numbers["wrong"], numbers["pages"], strict=True):
        ends = stats.binomtest(int(wrong), int(pages)).proportion_ci()
        shares.append(f"{wrong / pages:.1%} ({ends.low:.1%} to {ends.high:.1%})")
    shown = pd.DataFrame(
        {
            "simulated": numbers["simulated"],
            "n": numbers["n"],
            "judgements a page": numbers["judged"],
            "pages with a false verdict": shares,
            "undecided judgements": numbers[rule.UNDECIDED],
        }
    )
    formats = {"judgements a page": "{:.0f}", "undecided judgements": "{:.0%}"}
    wrapped = ["simulated", "pages with a false verdict"]
    return table(shown, formats, wrapped=wrapped, width="11em")


def power(pages: int, seed: int = 0) -> pd.DataFrame:
    """What the rule finds: columns images, ratio and n (see `simulation.power`), negligible,
    at_margin and at_twice."""
    rows = [
        {"images": images, "ratio": ratio, "n": n}
        | simulation.power(n, ratio, images, pages, seed)._asdict()
        for images in IMAGES
        for ratio in RATIOS
        for n in SEEDS
    ]
    return pd.DataFrame(rows)


def power_table(numbers: pd.DataFrame) -> Styler:
    """`power` as a table, n beside n."""
    words = {
        "negligible": "no effect: negligible",
        "at_margin": "the margin: supported",
        "at_twice": "twice: supported",
    }
    rows: list[dict[str, str]] = []
    for (images, ratio), part in numbers.groupby(["images", "ratio"], sort=False):
        row = {"images": format(images, "g"), "a seed's effect": format(ratio, "g")}
        for values in part.to_dict("records"):
            for name, text in words.items():
                row[f"{text}, n\u00a0=\u00a0{values['n']}"] = f"{values[name]:.0%}"
        rows.append(row)
    shown = pd.DataFrame(rows)
    shown.loc[shown["images"].duplicated(), "images"] = ""
    names = list(rows[0])
    return table(shown, wrapped=names, width="4.5em", numeric=names)


def summary(of_errors: pd.DataFrame, of_power: pd.DataFrame) -> Markdown:
    """In words what both simulations found."""
    worst = (of_errors["wrong"] / of_errors["pages"]).max()
    alone = of_power[(of_power["images"] == 0) & (of_power["at_twice"] >= 0.8)]
    reached = " and ".join(
        f"up to {ratio:g} of the margin with {n} seeds"
        for n, ratio in alone.groupby("n")["ratio"].max().items()
    )
    images = of_power["images"].max()
    shown = of_power.loc[of_power["images"] == images, "negligible"].max()
    return Markdown(
        f"> **Of {of_errors['pages'].iloc[0]} simulated pages of each of {len(of_errors)} kinds, "
        f"at most {worst:.1%} hold a false verdict**; {1 - rule.LEVEL:.0%} may. The price is "
        "power. If test images add nothing, effects of twice the margin are found at least four "
        "times in five where the standard deviation of a seed's effect is "
        f"{reached or 'less than any that was tried'}. If test images add a standard error of "
        f"{images:g} of the margin, at most {shown:.0%} of what has no effect is found negligible, "
        f"with up to {of_power['n'].max()} seeds."
    )


def untestable() -> Markdown:
    """The preconditions in words, with their limits."""
    far = f"{preconditions.ERRORS} standard errors over seeds"
    return Markdown(
        "- plain networks get more of their training images right than guessing does, by "
        f"{preconditions.LEARNED:.0%} and {far};\n"
        "- the control's measure is so far from the ends of its scale, and from what guessing "
        f"gives, that an effect of the margin has room: by the margin and {far};\n"
        "- where a claim says that something is repaired, smoothing damages it by the margin at "
        "least;\n"
        "- every temperature that a measure was scaled with was fitted within its bounds;\n"
        "- of measures of test images it is recorded how every run did on each group of images;\n"
        "- the page has no objection of its own, which it then states."
    )


def parts(collected: Mapping[str, Finding]) -> pd.DataFrame:
    """How much seeds and test images add to the judged effects of every page that measures both.

    Columns: page; effects, how many; n, the most seeds; and medians: ratio, the standard deviation
    of a seed's effect, and seeds and images, the two parts of the standard error, all in margins;
    share, the images' part of the variance, with its least and greatest value, low and high.
    """
    rows = []
    for page, finding in collected.items():
        effects = [
            (judged.effect, finding.margins[claim])
            for claim, judgements in finding.judgements.items()
            for judged in judgements
            if judged.effect is not None and judged.effect.se_images >= 0
        ]
        if not effects:
            continue
        margins = np.array([margin for _, margin in effects])
        n = np.array([effect.n for effect, _ in effects])
        seeds = np.array([effect.se_seeds for effect, _ in effects])
        images = np.array([effect.se_images for effect, _ in effects])
        total = seeds**2 + images**2
        share = np.divide(images**2, total, out=np.full(len(total), np.nan), where=total > 0)
        rows.append(
            {
                "page": page,
                "effects": len(effects),
                "n": int(n.max()),
                "ratio": np.median(seeds * np.sqrt(n) / margins),
                "seeds": np.median(seeds / margins),
                "images": np.median(images / margins),
                "share": np.nanmedian(share),
                "low": np.nanmin(share),
                "high": np.nanmax(share),
            }
        )
    columns = ["page", "effects", "n", "ratio", "seeds", "images", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def parts_table(numbers: pd.DataFrame) -> Styler | Markdown:
    """`parts` as a table; in its place a sentence where no page has both parts."""
    if numbers.empty:
        return Markdown("No page has been run yet whose effects have both parts.")
    spans = zip(numbers["share"], numbers["low"], numbers["high"], strict=True)
    shown = pd.DataFrame(
        {
            "page": [f'<a href="{page}.ipynb">{page}</a>' for page in numbers["page"]],
            "effects": numbers["effects"],
            "n": numbers["n"],
            "SD of a seed's effect": numbers["ratio"],
            "SE, seeds": numbers["seeds"],
            "SE, images": numbers["images"],
            "images' share of the variance": [f"{m:.0%} ({a:.0%} to {b:.0%})" for m, a, b in spans],
        }
    )
    formats = dict.fromkeys(("SD of a seed's effect", "SE, seeds", "SE, images"), "{:.2g}")
    wrapped = ["SD of a seed's effect", "images' share of the variance"]
    return table(shown, formats, wrapped=wrapped, width="6em")


def margins(claims: Iterable[Claim]) -> Styler:
    """The margin of every claim, with its reason; claims that share both stand in a row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for claim in claims:
        size = claim.margin_in_words
        margin = size if claim.not_worse_by is None else f"at most {size} worse"
        link = f'<a href="{claim.notebook}.ipynb#{claim.figure}">{claim.claim}</a>'
        rows.setdefault((margin, claim.reason), []).append(link)
    shown = pd.DataFrame(
        {"claims": "<br>".join(links), "margin": margin, "reason": reason}
        for (margin, reason), links in rows.items()
    )
    return table(shown, wrapped=list(shown.columns), width="9em")
