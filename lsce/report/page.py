"""A page as it is run: its parameters, the runs that it shows, its figures, tables and verdicts."""

import ast
import traceback as tb
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib_inline.backend_inline
import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from lsce import data, studies
from lsce.judging import arms
from lsce.judging.claims import MAIN, Claim, changes_of
from lsce.judging.judgements import Judgement
from lsce.machine import provenance
from lsce.machine.values import Value, unknown
from lsce.report import figures, findings
from lsce.report.findings import Finding
from lsce.report.tables import table
from lsce.studies import evidence, profiles
from lsce.studies.evidence import Evidence, gather
from lsce.studies.parameters import Shows
from lsce.studies.profiles import Profile
from lsce.studies.robustness import Robustness
from lsce.training import networks
from lsce.training.spec import LongTail, RunSpec


def start(notebook: str) -> Evidence:
    """`prepare` a page with runs and gather these, training what is missing; save what they say."""
    study = studies.of(notebook)
    assert study is not None
    parameters, shows = prepare(study.Parameters, Shows)
    shown = gather(study(parameters), **dict(shows))
    findings.write(findings.of(shown))
    return shown


def prepare(*models: type[Value]) -> list[Any]:
    """The parameters that the cells above have set, by their models. From here on the page has the
    report's style, figures as SVG, and errors as a sentence.

    Raises ValueError, naming it, for a parameter that is out of range, and for a name in a cell of
    parameters that is none of them: a misspelt parameter would leave the default in force.
    """
    shell = get_ipython()
    names = shell.user_ns
    matplotlib_inline.backend_inline.set_matplotlib_formats("svg")
    figures.use_style()
    shell.set_custom_exc((Exception,), _show_error)
    known = [name for model in models for name in model.model_fields]
    for name in misspelt(names["In"], known):
        raise ValueError(unknown(name, known, "this page"))
    return [
        model(**{name: names[name] for name in model.model_fields if name in names})
        for model in models
    ]


def misspelt(cells: Sequence[str], known: Sequence[str]) -> list[str]:
    """Names that cells of parameters assign and that are not `known`.

    Such a cell assigns literals to names and does nothing else, and a known name is among them or
    papermill wrote it. Of those that assign the same name only the last counts: the others were
    mended.
    """
    assigned: list[list[str]] = []
    for cell in cells:
        names = _assigned(cell)
        if set(names) & set(known) or (names and cell.startswith("# Parameters")):
            assigned = [earlier for earlier in assigned if set(earlier).isdisjoint(names)] + [names]
    return [name for names in assigned for name in names if name not in known]


def _assigned(cell: str) -> list[str]:
    """The names that a cell of assignments of literals assigns; none of any other cell."""
    names = []
    try:
        for line in ast.parse(cell).body:
            ast.literal_eval(line.value)  # type: ignore[attr-defined]
            targets = getattr(line, "targets", None) or [line.target]  # type: ignore[attr-defined]
            names += [node.id for node in targets]
    except (SyntaxError, ValueError, AttributeError):
        return []
    return names


def _show_error(shell: Any, kind: type, error: Exception, traceback: Any, tb_offset: Any) -> None:
    """Show an error that a `raise` of this package raised as its sentence, without a traceback."""
    last = tb.extract_tb(traceback)[-1]
    ours = Path(last.filename).is_relative_to(Path(__file__).parents[1])
    if ours and (last.line or "").startswith("raise "):
        lines = [f"{kind.__name__}: {error}"]
    else:
        lines = shell.InteractiveTB.structured_traceback(kind, error, traceback, tb_offset)
    shell._showtraceback(kind, error, lines)


def banner(shown: Evidence | None = None) -> Markdown:
    """What the page rests on: whose runs they are, data, hardware, commit; none for a page that is
    computed on the spot."""
    if shown is None:
        return Markdown(
            "> **No runs**: everything here is computed on the spot · "
            f"**commit** {provenance.commit() or 'unknown'}"
        )
    words = (
        "**These are the recorded runs** that come with the project. `make reproduce`, or this "
        "notebook in Jupyter, shows your own instead."
        if shown.recorded
        else "**These are the runs of this machine**: every figure, table and verdict is theirs."
    )
    if (recorded := _recorded(shown)) and studies.claims_of(shown.study.notebook):
        words += (
            " Below each verdict, one line says what the recorded runs "
            f"(profile {recorded.profile}) say."
        )
    if shown.lacking:
        words += (
            f" The profile {shown.profile} is still being recorded: {shown.lacking} of this page's "
            "runs are not there yet, and its verdicts are those of an interim look, which their "
            "intervals do not allow for."
        )
    for larger in _larger(shown):
        words += (
            f" The profile {larger.profile}, which is to take their place, is recorded with n = "
            f"{len(larger.seeds)} so far; below each verdict, one line says what it says."
        )
    known = shown.profile in profiles.names()
    note = Profile(shown.profile).content.note if known else ""
    return Markdown(f"> {words} {note}\n>\n> {_basis(shown)}")


def _recorded(shown: Evidence) -> Finding | None:
    """What the recorded runs say, where those shown are this machine's."""
    return None if shown.recorded else findings.read(shown.study.notebook, "recorded")


def _basis(shown: Evidence) -> str:
    runs, profile = shown.all_runs, shown.profile
    others = {name: part.profile for name, part in shown.others.items() if part.profile != profile}
    if others:
        groups = ", ".join(f"{name}: {other}" for name, other in others.items())
        profile += f" ({groups}, with that profile's parameters instead of those above)"
    diverged = sum(run.diverged for run in runs)
    latest = max(run.origin["finished"] for run in runs)[:16]
    facts = {
        "profile": profile,
        "data": _counted(data.entry(run.spec.data).words for run in runs),
        "runs": f"{len(runs)}" + f", of which {diverged} diverged" * (diverged > 0),
        "seeds": str(len(shown.seeds)),
        "device": _counted(f"{run.origin['device']}, {run.origin['precision']}" for run in runs),
        "trained at commit": _counted(run.origin["commit"] or "unknown" for run in runs),
        "last run finished": f"{latest.replace('T', ' ')} UTC",
    }
    return " · ".join(f"**{name}** {words}" for name, words in facts.items())


def _counted(values: Iterable[str]) -> str:
    """Distinct values with their counts where there is more than one, the commonest first."""
    counts = Counter(values).most_common()
    return ", ".join(f"{value} ({n})" if len(counts) > 1 else value for value, n in counts)


def publish(
    shown: Evidence, name: str, numbers: pd.DataFrame, draw: Callable[..., Figure], **options: Any
) -> None:
    """Draw, show and save a figure, see `lsce.report.figures.publish`."""
    own = None if shown.recorded else shown.profile
    figures.publish(draw(numbers, **options), name, numbers, own=own)


def regimes(shown: Evidence) -> Styler:
    """The regimes of a set of runs: the network and its size, how it was trained, how long a run
    took, and how far plain cross entropy fitted."""
    plain = shown.table[arms.plain(shown.table)]
    fitted = plain.groupby("regime")[["train_accuracy", "test_accuracy"]].mean()
    names, runs = [label.regime for label, _ in shown.pairs], [run for _, run in shown.pairs]
    seconds = pd.Series([run.seconds for run in runs], names).groupby(level=0).mean()
    rows = [
        {
            "regime": regime,
            "network": _network(run.spec),
            "training": _training(run.spec),
            "seconds a run": f"{seconds[regime]:,.0f}",
            "train, test accuracy at ε = 0": "{:.1%}, {:.1%}".format(*fitted.loc[regime]),
        }
        for regime, run in dict(zip(names, runs, strict=True)).items()
    ]
    return table(pd.DataFrame(rows), wrapped=["regime", "network", "training"], width="9em")


def _network(spec: RunSpec) -> str:
    """Its size where it tells all classes of the data set apart."""
    name, classes = spec.network, spec.entry.num_classes
    size = networks.parameters(name, classes) / 1e6
    cost = networks.multiply_adds(name, classes, spec.entry.pixels) / 1e6
    return f"{name}: {size:.2g} M parameters, {cost:,.3g} M multiply-adds"


def _training(spec: RunSpec) -> str:
    recipe = spec.recipe
    tail = ", of which the long tail keeps a part," * isinstance(spec.sample, LongTail)
    words = (
        f"{spec.sample.train_size:,} images{tail} × {spec.epochs} epochs, peak learning rate "
        f"{recipe.peak_learning_rate:g}, weight decay {recipe.weight_decay:g}"
    )
    if recipe.early_resolution:
        share, pixels = recipe.early_resolution
        words += f", the first {share:.0%} of the steps at {pixels} pixels"
    return words


def masking(shown: Evidence) -> Styler:
    """The checks for masked gradients, see `lsce.studies.robustness`."""
    assert isinstance(shown.study, Robustness)
    checks = shown.study.masking(shown)
    checks["passes"] = checks["passes"].map({True: "yes", False: "<b>no</b>"})
    checks.loc[checks.duplicated(["regime", "arm"]), ["regime", "arm"]] = ""
    return table(checks, {"error": "{:.1f}", "against": "{:.1f}"}, wrapped=["regime", "check"])


def numbers(shown: Evidence) -> Styler:
    """The measures of the study: means over seeds by regime and arm, with the number of runs behind
    each. Where a value is known of some of the runs alone, it says of how many."""
    columns = shown.study.columns
    groups = shown.table.groupby(["regime", "arm"], sort=False)
    runs = groups[next(iter(columns))].count()
    means = pd.DataFrame({"runs": runs})
    for name, words in columns.items():
        form = "{:.1%}" if name in shown.study.percent else "{:.3f}"
        known = groups[name].count()
        counts = " (" + known.astype(str) + "/" + runs.astype(str) + ")"
        values = groups[name].mean().map(form.format) + counts.where(known < runs, "")
        means[words] = values.where(known > 0, "–")
    means = means.reset_index()
    means.loc[means["regime"].duplicated(), "regime"] = ""
    return table(means, wrapped=["regime"], numeric=list(columns.values()))


RULE = (
    "Each claim is judged by the paired difference between runs that share a seed. Its interval "
    "counts the seeds and, where test images are measured, which of these were drawn; all that the "
    "page is to have hold together with 95% probability. The claim is *supported* if the interval "
    "lies above 0 and the effect reaches the smallest one that matters, *opposite* if the same "
    "holds below 0, *negligible* if the whole interval is smaller than what matters, and otherwise "
    "*undecided*; where a precondition fails it is *not testable here*. A claim of *as well as* is "
    "supported if "
    "the interval stays above the loss that matters. Over several regimes it is *depends* if "
    "decided verdicts differ. Claims about smoothing are judged twice: at the ε that is usual and "
    'at the one that validation chose. <a href="A2_verdicts.ipynb">How verdicts are drawn</a> has '
    "the details and how often this errs."
)


#: What ε is chosen by, in words.
CHOSEN_BY = {
    "validation_accuracy": "accuracy",
    "validation_nll": "NLL",
    "validation_nll_scaled": "NLL after scaling",
    "validation_debiased_ce": "calibration error",
    "validation_debiased_ce_scaled": "calibration error after scaling",
}


def verdicts(shown: Evidence) -> None:
    """Display how claims are judged, and the verdict on every claim of the page."""
    display(Markdown(RULE))
    recorded = _recorded(shown)
    beside = [recorded] if recorded else _larger(shown)
    for claim in studies.claims_of(shown.study.notebook):
        display(verdict(claim, shown, beside))


def _larger(shown: Evidence) -> list[Evidence]:
    """The recorded runs of profiles that come before the one shown, of which there are too few
    seeds yet."""
    if not shown.recorded or shown.profile not in profiles.names():
        return []
    before = profiles.names()[: profiles.names().index(shown.profile)]
    return [each for each in evidence.recorded(shown.study.notebook) if each.profile in before]


def verdict(claim: Claim, shown: Evidence, beside: Sequence[Finding | Evidence] = ()) -> Markdown:
    """The claim's verdict in words, with the effect and its interval in every regime, what was
    changed after runs had been seen, and in a line what recorded runs `beside` it say."""
    size, equivalence = claim.margin_in_words, claim.not_worse_by is not None
    matters = f"at most {size} worse" if equivalence else f"an effect of at least {size}"
    judgements = shown.judgements.get(claim.id, [])
    lines = [
        f"**“{claim.claim}” — {findings.words(claim, shown)}.**",
        "",
        f"Measure: {claim.words}. What matters: {matters}. {claim.reason} Positive values favour "
        f"the claim, which was declared on {claim.declared}.",
        "",
        *[_line(claim, judgement, _group(claim, shown)) for judgement in judgements],
    ]
    if not judgements:
        lines.append("- no complete pair of runs")
    for other in beside:
        # In their other groups they may have the runs that the page shows.
        if isinstance(other, Finding) or (claim.group == MAIN and claim.id in other.judgements):
            word = findings.words(claim, other)
            span = findings.span_of_effects(claim, other, "judged")
            profile = other.profile_of(claim) if isinstance(other, Finding) else other.profile
            lines += ["", f"Recorded runs (profile {profile}): *{word}*, {span}."]
    return Markdown("\n".join([*lines, *_changed(claim)]))


def _group(claim: Claim, shown: Evidence) -> str:
    """The networks and the profile of a claim's runs, where these are not the main ones."""
    part = next((shown.others[name] for name in claim.groups if name in shown.others), None)
    if part is None:
        return ""
    trained = sorted({label.task.run.network for label in part.study.labelled})
    return f" ({', '.join(trained)}, profile {part.profile})"


def _line(claim: Claim, judgement: Judgement, group: str) -> str:
    """A line of a list for a regime."""
    text = "no complete pair of runs"
    if effect := judgement.effect:
        mean, interval = findings.mean_and_interval(effect)
        text = f"{mean} {claim.unit}".rstrip()
        text += f", interval {interval}" * bool(interval)
        text += f", n = {effect.n} paired seed" + "s" * (effect.n > 1)
    text += f" → **{judgement.verdict}**" + f": {judgement.reason}" * bool(judgement.reason)
    by = f"by validation {CHOSEN_BY.get(judgement.chosen_by, '')}"
    chosen = {"chosen": f" (chosen {by})", "both": f" (also chosen {by})"}
    compared = f"{judgement.treatment}{chosen.get(judgement.at, '')} against {judgement.control}"
    return f"- *{judgement.regime}*{group}, {compared}: {text}"


def _changed(claim: Claim) -> list[str]:
    """What was changed after runs had been seen, folded away."""
    rows = [
        f"<li>{row.date}: {row.change}. <em>Seen by then</em>: {row.seen}.</li>"
        for row in changes_of(claim).itertuples()
    ]
    if not rows:
        return []
    words = f"Changed after runs had been seen ({len(rows)})"
    return ["", f"<details><summary>{words}</summary><ul>{''.join(rows)}</ul></details>"]
