"""A page as it is run: its parameters, the runs that it shows, its figures, tables and verdicts."""

import ast
import traceback as tb
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib_inline.backend_inline
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from lsce import data, studies
from lsce.judging import arms
from lsce.judging.claims import Claim, Judgement
from lsce.machine import provenance
from lsce.machine.values import Value, unknown
from lsce.report import figures, findings
from lsce.report.findings import Finding
from lsce.report.tables import table
from lsce.studies import evidence, profiles
from lsce.studies.evidence import Evidence
from lsce.studies.parameters import Shows
from lsce.studies.profiles import Profile
from lsce.studies.robustness import Robustness
from lsce.training import networks
from lsce.training.spec import LongTail, RunSpec


def start(notebook: str) -> Evidence:
    """Prepare a page with runs and gather these, training what is missing; save what they say.

    Its parameters are those that the cells above have set. Raises ValueError, naming it, for one
    that is out of range, and for a name in a cell of parameters that is none of them: a misspelt
    parameter would leave the default in force.
    """
    study = studies.of(notebook)
    assert study is not None
    models = (study.Parameters, Shows)
    given = _given([name for model in models for name in model.model_fields])
    parameters, shows = (
        model(**{name: given[name] for name in model.model_fields if name in given})
        for model in models
    )
    shown = evidence.gather(study(parameters), **dict(shows))
    findings.write(findings.of(shown))
    return shown


def prepare(model: type[Value]) -> None:
    """Prepare a page without runs of its own, and check its parameters by their model."""
    model(**_given(list(model.model_fields)))


def _given(known: Sequence[str]) -> dict[str, Any]:
    """The values of the parameters that have these names. From here on the page has the report's
    style, figures as SVG, and errors as a sentence."""
    shell = get_ipython()
    matplotlib_inline.backend_inline.set_matplotlib_formats("svg")
    figures.use_style()
    shell.set_custom_exc((Exception,), _show_error)
    for name in misspelt(shell.user_ns["In"], known):
        raise ValueError(unknown(name, list(known), "this page"))
    return {name: shell.user_ns[name] for name in known if name in shell.user_ns}


def misspelt(cells: Sequence[str], known: Sequence[str]) -> list[str]:
    """Names that cells of parameters assign and that are not `known`.

    Such a cell assigns literals to names and does nothing else, and a known name is among them or
    papermill wrote it. Of those that assign the same name only the last counts: the others were
    mended.
    """
    found: dict[str, list[str]] = {}
    for cell in cells:
        names = _assigned(cell)
        if set(names) & set(known) or (names and cell.startswith("# Parameters")):
            found = {key: old for key, old in found.items() if not set(old) & set(names)}
            found[cell] = names
    return [name for names in found.values() for name in names if name not in known]


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
    """In a notebook an error that `lsce` raised on purpose is its sentence, without a traceback.

    That is one raised by a `raise` of this package; all others keep their traceback.
    """
    last = tb.extract_tb(traceback)[-1]
    ours = Path(last.filename).is_relative_to(Path(__file__).parents[1])
    if ours and (last.line or "").startswith("raise "):
        lines = [f"{kind.__name__}: {error}"]
    else:
        lines = shell.InteractiveTB.structured_traceback(kind, error, traceback, tb_offset)
    shell._showtraceback(kind, error, lines)


# ---- what a page rests on ----


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
    if (beside := _beside(shown)) and studies.claims_of(shown.study.notebook):
        words += (
            " Below each verdict, one line says what the recorded runs "
            f"(profile {beside.profile}) say."
        )
    if shown.lacking:
        words += (
            f" The profile {shown.profile} is still being recorded: {shown.lacking} of this page's "
            "runs are not there yet, and its verdicts are those of an interim look, whose p is not "
            "corrected for looking again."
        )
    known = shown.profile in profiles.names()
    note = Profile(shown.profile).content.note if known else ""
    return Markdown(f"> {words} {note}\n>\n> {_rests_on(shown)}")


def _beside(shown: Evidence) -> Finding | None:
    """What the recorded runs say, beside runs of this machine."""
    return None if shown.recorded else findings.read(shown.study.notebook, "recorded")


def _rests_on(shown: Evidence) -> str:
    runs = shown.all_runs
    diverged = sum(run.diverged for run in runs)
    latest = max(run.origin["finished"] for run in runs)[:16]
    others = [
        f"{name}: {part.profile}"
        for name, part in shown.others.items()
        if part.profile != shown.profile
    ]
    whose = ", with that profile's parameters instead of those above"
    parts = {
        "profile": shown.profile + f" ({', '.join(others)}{whose})" * bool(others),
        "data": _counted([data.entry(run.spec.data).words for run in runs]),
        "runs": f"{len(runs)}" + (f", of which {diverged} diverged" if diverged else ""),
        "seeds": str(len(shown.seeds)),
        "device": _counted([f"{r.origin['device']}, {r.origin['precision']}" for r in runs]),
        "trained at commit": _counted([run.origin["commit"] or "unknown" for run in runs]),
        "last run finished": f"{latest.replace('T', ' ')} UTC",
    }
    return " · ".join(f"**{name}** {words}" for name, words in parts.items())


def _counted(values: Sequence[str]) -> str:
    """Distinct values with their counts where there is more than one, the commonest first."""
    counts = Counter(values).most_common()
    return ", ".join(v if len(counts) == 1 else f"{v} ({n})" for v, n in counts)


# ---- figures and tables ----


def publish(
    shown: Evidence,
    name: str,
    numbers: pd.DataFrame,
    draw: Callable[..., Figure],
    **options: Any,
) -> None:
    """Draw, show and save a figure, see `lsce.report.figures.publish`."""
    own = None if shown.recorded else shown.profile
    figures.publish(draw(numbers, **options), name, numbers, own=own)


def regimes(shown: Evidence) -> Styler:
    """The regimes of a set of runs: the network and its size, how it was trained, how long a run
    took, and how far plain cross entropy fitted."""
    frame = shown.table
    plain = frame[arms.plain(frame)].groupby("regime")
    fitted = plain[["train_accuracy", "test_accuracy"]].mean()
    specs = {label.regime: run.spec for label, run in shown.pairs}
    seconds: dict[str, list[float]] = {}
    for label, run in shown.pairs:
        seconds.setdefault(label.regime, []).append(run.seconds)
    rows = [
        {
            "regime": regime,
            "network": _network(spec),
            "training": _training(spec),
            "seconds a run": f"{np.mean(seconds[regime]):,.0f}",
            "train, test accuracy at ε = 0": "{:.1%}, {:.1%}".format(*fitted.loc[regime]),
        }
        for regime, spec in specs.items()
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
    frame = shown.study.masking(shown)
    frame["passes"] = frame["passes"].map({True: "yes", False: "<b>no</b>"})
    frame.loc[frame.duplicated(["regime", "arm"]), ["regime", "arm"]] = ""
    return table(frame, {"error": "{:.1f}", "against": "{:.1f}"}, wrapped=["regime", "check"])


def numbers(shown: Evidence) -> Styler:
    """The measures of the study: means over seeds by regime and arm, with the number of runs behind
    each. Where a value is known of some of the runs alone, it says of how many."""
    columns, percent = shown.study.columns, shown.study.percent
    groups = shown.table.groupby(["regime", "arm"], sort=False)
    runs = groups[next(iter(columns))].count()
    found = pd.DataFrame({"runs": runs})
    for name, words in columns.items():
        form = "{:.1%}" if name in percent else "{:.3f}"
        each = zip(groups[name].mean(), groups[name].count(), runs, strict=True)
        found[words] = [_mean_of(form, *values) for values in each]
    found = found.reset_index()
    found.loc[found["regime"].duplicated(), "regime"] = ""
    return table(found, wrapped=["regime"], numeric=list(columns.values()))


def _mean_of(form: str, value: float, known: int, runs: int) -> str:
    if not known:
        return "–"
    return form.format(value) + f" ({known}/{runs})" * (known < runs)


# ---- verdicts ----

#: How claims are judged, as every page with claims says it.
RULE = (
    "Each claim is judged by the paired difference between runs that share a seed, with its 95% t "
    "interval. It is *supported* if the effect is above 0 and reaches the smallest one that "
    "matters, *refuted* if it is below that, and otherwise *undecided*; over several regimes it is "
    "*depends* if some support and some refute the claim, and *undecided* with any other mixture. "
    "A claim of *as well as* asks only that the loss stay below the one that matters. What decides "
    'is the t test with Holm\'s correction ([Holm 1979](../report/bibliography.md "holm1979")) '
    "over all claims of this page in all their regimes (p), so an interval alone may look clearer "
    "than the verdict."
)


def verdicts(shown: Evidence) -> None:
    """Display how claims are judged, and the verdict on every claim of the page."""
    display(Markdown(RULE))
    beside = _beside(shown)
    for claim in studies.claims_of(shown.study.notebook):
        display(verdict(claim, shown, beside))


def verdict(claim: Claim, shown: Evidence, beside: Finding | None = None) -> Markdown:
    """The claim's verdict in words, with the effect and its interval in every regime; and in a line
    what the recorded runs say, where those shown are this machine's."""
    wanted = (
        f"an effect of at least {_in_unit(claim.matters, claim.unit)}"
        if claim.not_worse_by is None
        else f"at most {_in_unit(claim.not_worse_by, claim.unit)} worse"
    )
    lines = [
        f"**“{claim.claim}” — {findings.overall(claim, shown)}.**",
        "",
        f"Measure: {claim.words}; what matters: {wanted}. Positive values favour the claim, which "
        f"was declared on {claim.declared}; the [summary](11_summary.ipynb) lists what has been "
        "changed since.",
        "",
    ]
    part = shown.others.get(claim.group)
    whose = ""
    if part is not None:
        used = sorted({label.task.run.network for label in part.study.labelled})
        whose = f" ({', '.join(used)}, profile {part.profile})"
    judged = [_line(claim, each, whose) for each in shown.judgements.get(claim.id, [])]
    lines += judged or ["- no complete pair of runs"]
    if beside:
        word, span = findings.overall(claim, beside), findings.span_of_effects(claim, beside)
        lines += ["", f"Recorded runs (profile {beside.profile}): *{word}*, {span}."]
    return Markdown("\n".join(lines))


def _line(claim: Claim, judged: Judgement, whose: str) -> str:
    """A line of a list for a regime."""
    more = ""
    if judged.more_runs is not None:
        pairs = "pair" if judged.more_runs == 1 else "pairs"
        more = (
            f"; about {judged.more_runs} more {pairs} would decide it if the mean and the "
            "spread stayed as they are"
        )
    return (
        f"- *{judged.regime}*{whose}, {judged.treatment} against {judged.control}: "
        f"{_effect(claim, judged)} → **{judged.verdict}**{more}"
    )


def _effect(claim: Claim, judged: Judgement) -> str:
    if (effect := judged.effect) is None:
        return "no complete pair of runs"
    mean, interval = findings.mean_and_interval(effect)
    text = mean + (f" {claim.unit}" if claim.unit else "")
    text += f", 95% interval {interval}" * bool(interval)
    text += f", n = {effect.n} paired seed" + "s" * (effect.n > 1)
    return text + f", p = {judged.p:.2g} corrected" * bool(interval)


def _in_unit(value: float, unit: str) -> str:
    return f"{value:g} {unit.removesuffix('s') if value == 1 else unit}".rstrip()
