"""What a page of the report says of itself: what it rests on, its tables, its verdict."""

import ast
import json
import math
import traceback as tb
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib_inline.backend_inline
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown
from pandas.io.formats.style import Styler

from lsce import studies
from lsce.judging import claims, statistics
from lsce.machine import paths, provenance
from lsce.measures import temperature
from lsce.report import figures, tables
from lsce.studies import profiles
from lsce.studies.evidence import Evidence
from lsce.training import networks
from lsce.training.spec import RunSpec

DATA_NAMES = {"cifar-100": "CIFAR-100", "built-in": "the built-in synthetic data"}


def start(notebook: str | None = None, names: Sequence[str] = ()) -> dict[str, Any]:
    """Prepare a notebook: the report's style, figures as SVG, errors as a sentence. Returns the
    values of its parameters, which the cells above have set.

    Its parameters are those of its study and of `lsce.studies.evidence.gather`, or `names` where it has no
    study. Raises ValueError for one that has no value, and for a name in a cell of parameters that
    is none of them: a misspelt parameter would leave the default in force.
    """
    shell = get_ipython()
    matplotlib_inline.backend_inline.set_matplotlib_formats("svg")
    figures.use_style()
    shell.set_custom_exc((Exception,), _show_error)
    required = [*names]
    if notebook is not None:
        required += ["profile", "data_name", "runs", "train_missing"]
    known = [*required, *(["bins", *studies.parameters(notebook)] if notebook else [])]
    for name in misspelt(shell.user_ns["In"], known):
        studies.require_known(name, known, "this page")
    required += studies.parameters(notebook, required=True) if notebook else []
    for name in required:
        if name not in shell.user_ns:
            raise ValueError(f"{name} has no value; the cell of parameters at the top must set it")
    return {name: shell.user_ns[name] for name in dict.fromkeys(known) if name in shell.user_ns}


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
            ast.literal_eval(line.value)
            names += [node.id for node in getattr(line, "targets", None) or [line.target]]
    except (SyntaxError, ValueError, AttributeError):
        return []
    return names


def _show_error(shell, kind, error, traceback, tb_offset=None) -> None:
    """In a notebook an error that `lsce` raised on purpose is its sentence, without a traceback.

    That is one raised by a `raise` of this package; all others keep their traceback.
    """
    frames = tb.extract_tb(traceback)
    ours = Path(frames[-1].filename).is_relative_to(Path(__file__).parents[1])
    if ours and frames[-1].line.startswith("raise "):
        lines = [f"{kind.__name__}: {error}"]
    else:
        lines = shell.InteractiveTB.structured_traceback(kind, error, traceback, tb_offset)
    shell._showtraceback(kind, error, lines)


def _listed(values: Sequence[str]) -> str:
    """Distinct values with their counts where there is more than one, the commonest first."""
    counts = Counter(values).most_common()
    return ", ".join(v if len(counts) == 1 else f"{v} ({n})" for v, n in counts)


def banner(shown: Evidence | None = None) -> Markdown:
    """What the page rests on: whose runs they are, data, hardware, commit; none for a page that is
    computed on the spot."""
    if shown is None:
        return Markdown(
            "> **No runs**: everything here is computed on the spot · "
            f"**commit** {provenance.commit() or 'unknown'}"
        )
    whose = (
        "**These are the recorded runs** that come with the project. `make reproduce`, or this "
        "notebook in Jupyter, shows your own instead."
        if shown.recorded
        else "**These are the runs of this machine**: every figure, table and verdict is theirs."
    )
    if shown.beside and claims.of(shown.notebook):
        whose += (
            " Below each verdict, one line says what the recorded runs "
            f"(profile {shown.beside.profile}) say."
        )
    if shown.lacking:
        whose += (
            f" The profile {shown.profile} is still being recorded: {shown.lacking} of this page's "
            "runs are not there yet, and its verdicts are those of an interim look, whose p is not "
            "corrected for looking again."
        )
    note = profiles.load(shown.profile).note if shown.profile in profiles.names() else ""
    return Markdown(f"> {whose} {note}\n>\n> {_rests_on(shown)}")


def _rests_on(evidence: Evidence) -> str:
    runs = evidence.all_runs
    diverged = sum(run.diverged for run in runs)
    latest = max(run.origin["finished"] for run in runs)[:16]
    parts = [
        f"**profile** {evidence.profile}{_of_others(evidence)}",
        f"**data** {_listed([DATA_NAMES[run.spec.data] for run in runs])}",
        f"**runs** {len(runs)}" + (f", of which {diverged} diverged" if diverged else ""),
        f"**seeds** {len(evidence.seeds)}",
        f"**device** {_listed([r.origin['device'] + ', ' + r.origin['precision'] for r in runs])}",
        f"**trained at commit** {_listed([run.origin['commit'] or 'unknown' for run in runs])}",
        f"**last run finished** {latest.replace('T', ' ')} UTC",
    ]
    return " · ".join(parts)


def _of_others(evidence: Evidence) -> str:
    """Which groups of runs come from another profile."""
    others = [(name, part.profile) for name, part in evidence.others.items()]
    words = [f"{name}: {profile}" for name, profile in others if profile != evidence.profile]
    if not words:
        return ""
    return f" ({', '.join(words)}, with that profile's parameters instead of those above)"


def table(
    frame: pd.DataFrame,
    formats: Mapping[str, str],
    wrapped: Sequence[str] = (),
    width: str = "7em",
    numeric: Sequence[str] = (),
) -> Styler:
    """A frame as a table without its index, each column of `formats` in its format.

    Columns of words, but for those in `numeric`, are to the left, and those in `wrapped` may break
    into lines of that width.
    """
    styler = frame.style.hide(axis="index").format(formats, na_rep="–")
    numeric = {*numeric, *frame.select_dtypes("number")}
    words = [name for name in frame if name not in numeric]
    breaks = f"; white-space: normal; min-width: {width}"
    return styler.set_table_styles(
        {
            name: [{"selector": "", "props": "text-align: left" + breaks * (name in wrapped)}]
            for name in words
        }
    )


def regimes(evidence: Evidence) -> Styler:
    """The regimes of a set of runs: the network and its size, how it was trained, how long a run
    took, and how far plain cross entropy fitted."""
    study, frame = evidence.study, evidence.table
    specs = {label["regime"]: spec for label, spec in zip(study.labels, study.specs, strict=True)}
    splits = ["train_accuracy", "test_accuracy"]
    fitted = frame[studies.plain(frame)].groupby("regime")[splits].mean()
    seconds: dict[str, list[float]] = {}
    for label, run in zip(study.labels, evidence.runs, strict=True):
        seconds.setdefault(label["regime"], []).append(run.seconds)
    rows = [
        {
            "regime": regime,
            "network": _network(spec.model),
            "training": _training(spec),
            "seconds a run": f"{np.mean(seconds[regime]):,.0f}",
            "train, test accuracy at ε = 0": "{:.1%}, {:.1%}".format(*fitted.loc[regime]),
        }
        for regime, spec in specs.items()
    ]
    return table(pd.DataFrame(rows), {}, wrapped=["regime", "network", "training"], width="9em")


def _network(model: str) -> str:
    size, cost = networks.parameters(model) / 1e6, networks.multiply_adds(model) / 1e6
    return f"{model}: {size:.2g} M parameters, {cost:,.3g} M multiply-adds"


def _training(spec: RunSpec) -> str:
    recipe = spec.recipe
    tail = ", of which the long tail keeps a part," * (spec.imbalance is not None)
    words = (
        f"{spec.train_size:,} images{tail} × {spec.epochs} epochs, peak learning rate "
        f"{recipe.peak_learning_rate:g}, weight decay {recipe.weight_decay:g}"
    )
    if recipe.early_resolution:
        share, pixels = recipe.early_resolution
        words += f", the first {share:.0%} of the steps at {pixels} pixels"
    return words


def few(epsilons: Sequence[float], judged: float, most: int = 5) -> list[float]:
    """At most `most` of the values of ε, with 0, the judged one and the largest among them."""
    rest = sorted(set(epsilons) - {0.0, judged, max(epsilons)})
    room = max(0, most - len({0.0, judged, max(epsilons)}))
    picked = [rest[round(i)] for i in np.linspace(0, len(rest) - 1, min(room, len(rest)))]
    return sorted({0.0, judged, max(epsilons), *picked} & set(epsilons))


def means(evidence: Evidence, columns: Mapping[str, str], percent: Iterable[str] = ()) -> Styler:
    """The means over seeds by regime and arm, with the number of runs behind each. Where a value is
    known of some of the runs alone, it says of how many."""
    frame = evidence.table
    groups = frame.groupby(["regime", "arm"], sort=False)
    runs = groups[next(iter(columns))].count()
    found = pd.DataFrame({"runs": runs})
    for name, words in columns.items():
        form = "{:.1%}" if name in percent else "{:.3f}"
        found[words] = [
            _mean_of(form, value, known, of)
            for value, known, of in zip(
                groups[name].mean(), groups[name].count(), runs, strict=True
            )
        ]
    found = found.reset_index()
    found.loc[found["regime"].duplicated(), "regime"] = ""
    return table(found, {}, wrapped=["regime"], numeric=list(columns.values()))


def _mean_of(form: str, value: float, known: int, runs: int) -> str:
    if not known:
        return "–"
    return form.format(value) + f" ({known}/{runs})" * (known < runs)


def effects(evidence: Evidence, declared: Iterable[claims.Claim]) -> pd.DataFrame:
    """`lsce.judging.claims.effects` of a set of runs, with its profile and whether it is recorded."""
    found = evidence.judgements
    numbers = claims.effects({claim: found.get(claim.id, []) for claim in declared})
    return numbers.assign(profile=evidence.profile, recorded=evidence.recorded)


def signed(value: float) -> str:
    """A signed number with two significant digits and a real minus sign."""
    return f"{value:+.2g}".replace("-", "−")


def mean_and_interval(effect: statistics.Interval) -> tuple[str, str]:
    """Both with as many decimals as the interval's half width has until its second digit (its
    first, if that is 3 or more); the interval is empty for a single seed."""
    if effect.n < 2:
        return signed(effect.mean), ""
    half = (effect.high - effect.low) / 2
    exponent = math.floor(math.log10(half)) if half > 0 else -2
    decimals = max(0, -exponent + (half < 3 * 10**exponent))
    mean, low, high = (
        f"{round(value, decimals) + 0.0:+.{decimals}f}".replace("-", "−")  # no negative zero
        for value in (effect.mean, effect.low, effect.high)
    )
    return mean, f"{low} to {high}"


def _effect(claim: claims.Claim, judged: claims.Judgement) -> str:
    if judged.effect is None:
        return "no complete pair of runs"
    e = judged.effect
    unit = f" {claim.unit}" if claim.unit else ""
    mean, interval = mean_and_interval(e)
    text = mean + unit + (f", 95% interval {interval}" if interval else "")
    p = f", p = {judged.p:.2g} corrected" if interval else ""
    return text + f", n = {e.n} paired seed" + ("s" if e.n > 1 else "") + p


def _in_unit(value: float, unit: str) -> str:
    return f"{value:g} {unit.removesuffix('s') if value == 1 else unit}".rstrip()


def verdict(claim: claims.Claim, shown: Evidence) -> Markdown:
    """The claim's verdict in words, with the effect and its interval in every regime; and in a line
    what the recorded runs say, where those shown are this machine's."""
    lines = [f"**“{claim.claim}” — {overall(claim, shown)}.**", ""]
    wanted = (
        f"an effect of at least {_in_unit(claim.smallest, claim.unit)}"
        if claim.not_worse_by is None
        else f"at most {_in_unit(claim.not_worse_by, claim.unit)} worse"
    )
    lines += [
        f"Measure: {claim.words}; what matters: {wanted}. Positive values favour the claim, which "
        f"was declared on {claim.declared}; the [summary](11_summary.ipynb) lists what has been "
        "changed since.",
        "",
    ]
    lines += _judged(claim, shown)
    if shown.beside:
        word, effects = overall(claim, shown.beside), span_of_effects(claim, shown.beside)
        lines += ["", f"Recorded runs (profile {shown.beside.profile}): *{word}*, {effects}."]
    return Markdown("\n".join(lines))


def overall(claim: claims.Claim, evidence: Evidence) -> str:
    """The verdict over all regimes of a set of runs."""
    judged = evidence.judgements.get(claim.id)
    return statistics.combine(judged) if judged else statistics.UNDECIDED


def span_of_effects(claim: claims.Claim, evidence: Evidence) -> str:
    """Least and greatest effect of the regimes, how many there are, and the pairs in each."""
    judged = [j.effect for j in evidence.judgements.get(claim.id, []) if j.effect is not None]
    if not judged:
        return "no complete pair of runs"
    means = [signed(mean) for mean in sorted(effect.mean for effect in judged)]
    span = f"{means[0]} to {means[-1]}" if len(means) > 1 else means[0]
    regimes = f" in {len(means)} regimes" if len(means) > 1 else ""
    return f"{span} {claim.unit}".rstrip() + f"{regimes}, n = {judged[0].n}"


def _listed_networks(evidence: Evidence) -> str:
    return ", ".join(sorted({spec.model for spec in evidence.study.specs}))


def _judged(claim: claims.Claim, evidence: Evidence) -> list[str]:
    """A line of a list for every regime."""
    lines, part = [], evidence.others.get(claim.group)
    whose = "" if part is None else f" ({_listed_networks(part)}, profile {part.profile})"
    for judged in evidence.judgements.get(claim.id, []):
        more = ""
        if judged.more_runs is not None:
            pairs = "pair" if judged.more_runs == 1 else "pairs"
            more = (
                f"; about {judged.more_runs} more {pairs} would decide it if the mean and the "
                "spread stayed as they are"
            )
        lines.append(
            f"- *{judged.regime}*{whose}, {judged.treatment} against {judged.control}: "
            f"{_effect(claim, judged)} → **{judged.verdict}**{more}"
        )
    return lines or ["- no complete pair of runs"]


def selected(evidence: Evidence) -> Markdown:
    """Which epochs validation chose."""
    frame = evidence.table.dropna(subset="selected_epoch").drop_duplicates("run")
    epochs = {spec.id: spec.epochs for spec in evidence.study.specs}
    share = frame["selected_epoch"] / frame["run"].map(epochs)
    return Markdown(
        f"Of {len(frame)} runs, validation chose the last epoch in {(share == 1).sum()}; on "
        f"average it chose the epoch at {share.mean():.0%} of the run."
    )


def edges(table: pd.DataFrame, chosen_by: str) -> Markdown:
    """Which methods were best by `chosen_by` at the least or greatest setting tried."""
    found: dict[str, list[str]] = {}
    for regime, _, runs, best in studies.tuned(table, chosen_by):
        tried = runs["setting"].dropna().unique()
        if len(tried) > 1 and best and best[1] in (min(tried), max(tried)):
            found.setdefault(studies.arm(*best), []).append(f"*{regime}*")
    if not found:
        return Markdown("No method's chosen setting is the least or the greatest of those tried.")
    lines = [f"- {arm}: {', '.join(regimes)}" for arm, regimes in found.items()]
    words = (
        "Chosen was the least or the greatest setting tried, so that a better one may lie beyond:"
    )
    return Markdown("\n".join([words, "", *lines]))


def divergence(evidence: Evidence) -> Markdown:
    """Which arms did not finish training."""
    arms = evidence.table.groupby(["regime", "arm"], sort=False)["status"]
    lines = [
        f"- *{regime}*, {arm}: {(part == 'diverged').sum()} of {len(part)} runs diverged"
        for (regime, arm), part in arms
        if (part == "diverged").any()
    ]
    return Markdown("\n".join(lines) or "No run diverged.")


def temperatures(evidence: Evidence) -> Markdown:
    """How many of the temperature fits converged, and of which arms the others are."""
    frame = evidence.table.dropna(subset="temperature_converged")
    failed = frame[frame["temperature_converged"] == 0]
    text = f"Of {len(frame)} temperature fits of these runs, {len(frame) - len(failed)} converged."
    if failed.empty:
        return Markdown(text)
    counts = failed.groupby("arm", sort=False).size()
    arms = ", ".join(f"{arm} ({count})" for arm, count in counts.items())
    return Markdown(
        f"{text} The other {len(failed)} found no best T within the bounds of the search, "
        f"{temperature.LOWEST:g} to {temperature.HIGHEST:g}; their T and what is scaled with it "
        f"are left out of every mean, where (3/5) says that it is of 3 of 5 runs and – of none, "
        f"and such a setting cannot be chosen by what is scaled: {arms}."
    )


#: Points by which an error may be above the one that it must not exceed, by chance.
SLACK = 1.0


def masking(evidence: Evidence) -> Styler:
    """The checks of Athalye et al. (2018) and Carlini et al. (2019) for each ε and regime: what
    would hold if gradients led attacks as well as they can. Errors in points, means over seeds."""
    numbers = tables.details(evidence.study, evidence.runs, "attack")
    more = tables.details(evidence.study, evidence.runs, "masking")
    protocol = evidence.study.specs[0].examination
    radius = protocol.judged_radius
    rows = []
    for (regime, arm), part in numbers.groupby(["regime", "arm"], sort=False):
        extra = more[(more["regime"] == regime) & (more["arm"] == arm)]
        error = 100 * part[part["x"] == radius].groupby("case")["value"].mean()
        other = 100 * extra.groupby("case")["value"].mean()
        long = protocol.longest
        repeated = other[["logits × 10", "logits ÷ 10", "float64"]].max()
        checks = [
            ("many steps find more than one", error["FGSM"], error["PGD-20"]),
            ("more steps find no less", error["PGD-20"], error[long]),
            ("a black box finds no more than gradients", error["Square"], error[long]),
            ("transferred attacks find no more than direct ones", error["transfer"], error[long]),
            ("another loss finds no more than cross entropy", error["PGD-20, margin"], error[long]),
            ("rescaled logits or float64 find no more", repeated, error[long]),
            ("a huge radius leaves nothing", 100.0, other["unbounded"]),
        ]
        for words, least, found in checks:
            row = {"regime": regime, "arm": arm, "check": words, "error": least, "against": found}
            rows.append(row | {"passes": "yes" if least <= found + SLACK else "<b>no</b>"})
    frame = pd.DataFrame(rows)
    again = frame.duplicated(["regime", "arm"])
    frame.loc[again, ["regime", "arm"]] = ""
    return table(frame, {"error": "{:.1f}", "against": "{:.1f}"}, wrapped=["regime", "check"])


class Checks:
    """Statements that were checked numerically, for a page whose claim is mathematics."""

    #: Largest difference, relative to the larger side or 1, that float64 rounding explains.
    TOLERANCE = 1e-12

    def __init__(self) -> None:
        self._rows: list[dict[str, object]] = []

    def close(self, statement: str, left, right) -> None:
        """Check that two numbers or tensors of the same shape agree."""
        left, right = (np.asarray(side, dtype=np.float64) for side in (left, right))
        scale = max(1.0, float(np.abs(left).max()), float(np.abs(right).max()))
        difference = float(np.abs(left - right).max()) / scale
        self._rows.append(
            {
                "statement": statement,
                "difference": difference,
                "holds": difference <= self.TOLERANCE,
            }
        )

    def true(self, statement: str, holds: bool) -> None:
        """Check a statement that holds or does not."""
        self._rows.append({"statement": statement, "difference": np.nan, "holds": holds})

    def verdict(self, claim: str) -> Markdown:
        held = sum(bool(row["holds"]) for row in self._rows)
        word = "supported" if held == len(self._rows) else "refuted"
        return Markdown(f"**“{claim}” — {word}.** {held} of {len(self._rows)} statements hold.")

    def table(self) -> Styler:
        frame = pd.DataFrame(self._rows)
        frame["holds"] = frame["holds"].map({True: "yes", False: "no"})
        return table(frame, {"difference": "{:.1e}"}, wrapped=["statement"])


def estimators(numbers: pd.DataFrame) -> Markdown:
    """How far each estimator is from the truth at the fewest and at the most images."""
    fewest, most = numbers["images"].min(), numbers["images"].max()
    lines = []
    for panel, part in numbers.groupby("panel", sort=False):
        errors = []
        for name, curve in part.groupby("estimator", sort=False):
            at = curve.set_index("images")["mean"] - curve["truth"].iloc[0]
            errors.append(
                f"{name} {signed(at[fewest])} at {fewest:,} images, {signed(at[most])} at {most:,}"
            )
        lines.append(f"- {panel}: " + "; ".join(errors))
    return Markdown("Estimate less true value, on average over the subsets:\n\n" + "\n".join(lines))


def reproduced(numbers: pd.DataFrame) -> Styler:
    """Headline numbers of a regime, see `lsce.report.reproduction.with_recorded`."""
    unit = numbers["unit"].map(lambda unit: f", {unit}" * bool(unit))
    shown = pd.DataFrame({"number": numbers["number"] + unit})
    for name, words in (
        ("recorded", "recorded"),
        ("here", "this machine"),
        ("difference", "difference"),
    ):
        columns = [numbers[name], numbers[f"{name}_low"], numbers[f"{name}_high"]]
        shown[words] = [_with_interval(*row) for row in zip(*columns, strict=True)]
    shown["n"] = numbers["n"]
    shown["outcome"] = numbers["outcome"]
    return table(shown, {}, wrapped=["number"], width="15em")


def _with_interval(mean: float, low: float, high: float) -> str:
    text = f"{mean:.3g}" if np.isnan(low) else f"{mean:.3g} ({low:.3g} to {high:.3g})"
    return text.replace("-", "−")


def published(directions: pd.DataFrame) -> Styler:
    """Published effects on a claim with the direction of ours, see `lsce.report.reproduction`."""
    effect = directions["effect"].map("{:+.3g}".format).str.replace("-", "−")
    shown = directions.drop(columns=["claim", "setting"]).assign(effect=effect)
    return table(shown, {"ε": "{:g}"}, wrapped=["published"], width="13em")


def budgets(numbers: pd.DataFrame) -> Styler:
    """`lsce.report.tables.budgets` as a table, both values of ε in a row."""
    rows = []
    keys = ["network", "epochs", "device", "precision"]
    for (network, epochs, device, precision), part in numbers.groupby(keys, sort=False):
        row = {"network": network, "epochs": epochs}
        row["core-minutes"] = f"{part['core_minutes'].mean():.2g}"
        for epsilon in (0.0, 0.1):
            found = part[part["epsilon"] == epsilon]
            accuracies = [
                f"{mean:.1%}" + f" ± {100 * sd:.1f}" * (n > 1)
                for mean, sd, n in zip(found["accuracy"], found["sd"], found["n"], strict=True)
            ]
            row[f"test accuracy, ε = {epsilon:g}"] = ", ".join(accuracies) or "–"
        rows.append(row | {"n": part["n"].max(), "processor": f"{device}, {precision}"})
    return table(pd.DataFrame(rows), {}, wrapped=["processor"], width="9em")


def speedruns() -> Styler:
    """What others report of the time to an accuracy on CIFAR-100, with what hardware."""
    rows = pd.read_csv(paths.PUBLISHED)
    rows = rows[(rows["method"] == "speedrun") & (rows["dataset"] == "CIFAR-100")]
    found = []
    for (network, setting), part in rows.groupby(["architecture", "setting"], sort=False):
        value = part.set_index("metric")["value"]
        (seconds,) = (name for name in value.index if name.endswith("training time"))
        found.append(
            {
                "network": network,
                "measured": setting,
                "seconds": f"{float(value[seconds]):.3g}",
                "test accuracy": f"{float(value['mean test accuracy']):.2f}%",
            }
        )
    return table(pd.DataFrame(found), {}, wrapped=["network", "measured"], width="12em")


def benchmarks(parts: Sequence[str] = ()) -> dict[str, tuple[dict[str, dict], pd.DataFrame]]:
    """For each machine that `make bench` ran on: what each of its parts rests on, and the rows.

    With `parts` only the rows of these. Raises ValueError if no machine has measured one of them.
    """
    found = {}
    for file in sorted(paths.BENCHMARKS.glob("*.csv")):
        about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        machine = "{device}, {cores} cores".format(**about["machine"])
        found[machine] = about["modules"], pd.read_csv(file)
    known = sorted({name for modules, _ in found.values() for name in modules})
    if strangers := sorted(set(parts) - set(known)) if found else []:
        raise ValueError(f"parts names {strangers[0]!r}; it must name some of {', '.join(known)}")
    if parts:
        found = {
            machine: (modules, rows[rows["module"].isin(parts)])
            for machine, (modules, rows) in found.items()
        }
    return found


def measured(name: str, about: Mapping[str, object]) -> Markdown:
    """What the rows of a part of `make bench` rest on."""
    versions = ", ".join(f"{package} {version}" for package, version in about["versions"].items())
    return Markdown(
        f"> **{name.capitalize()}** {about['date']} · **commit** {about['commit'] or 'unknown'} · "
        f"**took** {about['seconds']:.0f} s · **load before** {about['load']:.1f} · "
        f"**versions** {versions}"
    )


def _amount(value: float, quantity: str) -> str:
    if quantity == "time (s)":
        return f"{value:.3g} s" if value >= 0.1 else f"{1e3 * value:.3g} ms"
    if quantity == "peak memory (MiB)":
        return f"{value:,.3g} MiB" if value < 1e3 else f"{value:,.0f} MiB"
    if quantity == "test accuracy":
        return f"{value:.1%}"
    return f"{value / 1e9:,.3g} G" if value >= 1e9 else f"{value:,.0f}"


def ratios(rows: pd.DataFrame) -> Styler:
    """Rows of a part of `make bench` as a table; what a row shares with the one above is blank."""
    case = rows["case"].where(
        rows["benchmark"] == rows["module"], rows["benchmark"] + ": " + rows["case"]
    )
    quantity = rows["quantity"].str.replace(r" \(.*\)", "", regex=True)
    again = case == case.shift()
    amounts = {
        arm: [_amount(*pair) for pair in zip(rows[arm], rows["quantity"], strict=True)]
        for arm in ("ours", "theirs")
    }
    bounds = zip(rows["ratio"], rows["ratio_low"], rows["ratio_high"], strict=True)
    shown = pd.DataFrame(
        {
            "case": case.mask(again, ""),
            "quantity": quantity.mask(again & (quantity == quantity.shift()), ""),
            "against": rows["rival"],
            **amounts,
            "ratio (quartiles)": [f"{at:.3g} ({low:.3g}–{high:.3g})" for at, low, high in bounds],
            "n": rows["n"],
        }
    )
    return table(shown, {}, wrapped=["case", "against"])
