"""How fast it is: tables of `make bench`, accuracy by core-minute, and what others report."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from IPython.display import Markdown
from pandas.io.formats.style import Styler

from lsce import data
from lsce.machine import paths
from lsce.machine.values import Value
from lsce.report import literature
from lsce.report.tables import table
from lsce.results.run import Run
from lsce.training import networks
from lsce.training.methods import Smoothing
from lsce.training.spec import Balanced, Recipe, RunSpec, TrueLabels


def budgets(runs: Iterable[Run]) -> pd.DataFrame:
    """Test accuracy against the processor time of training, of recorded runs on CPUs with all
    training images, augmented, without smoothing and with ε = 0.1: a row a network, recipe, ε and
    kind of processor.

    Columns: network, parameters and multiply_adds (millions), epochs, epsilon, device, precision,
    core_minutes (mean), accuracy (mean) and its standard deviation sd (NaN for one run), n. Runs
    recorded before 27 November 2026 have the time on the clock instead, which other work may have
    lengthened.
    """
    rows = [
        {
            "network": run.spec.network,
            "epochs": run.spec.epochs,
            "recipe": repr(run.spec.recipe),
            "epsilon": run.spec.method.setting,
            "device": run.origin["device"],
            "precision": run.origin["precision"],
            "core_minutes": run.seconds / 60,
            "accuracy": run.scalars["test_accuracy"],
        }
        for run in runs
        if isinstance(run.task, RunSpec) and _usual(run)
    ]
    columns = ["network", "parameters", "multiply_adds", "epochs", "epsilon", "device"]
    columns += ["precision", "core_minutes", "accuracy", "sd", "n"]
    if not rows:
        return pd.DataFrame(columns=columns)
    groups = pd.DataFrame(rows).groupby(list(rows[0])[:-2])
    numbers = groups[["core_minutes", "accuracy"]].agg(pd.Series.mean)
    spread = groups["accuracy"].agg(pd.Series.std)
    numbers = numbers.assign(sd=spread, n=groups.size()).reset_index()
    entry, names = data.entry("cifar-100"), numbers["network"]
    size, cost = networks.parameters, networks.multiply_adds
    numbers["parameters"] = [size(name, entry.num_classes) / 1e6 for name in names]
    numbers["multiply_adds"] = [cost(name, entry.num_classes, entry.pixels) / 1e6 for name in names]
    return numbers[columns].sort_values("core_minutes", ignore_index=True)


def _usual(run: Run) -> bool:
    """Whether a run is of smoothing alone, on all images of CIFAR-100 and augmented, on a CPU."""
    spec = run.spec
    return (
        not run.diverged
        and ("core" in run.origin["seconds"] or "step" not in run.origin)  # on a CPU
        and spec.data == "cifar-100"
        and spec.sample == Balanced(train_size=spec.entry.sizes["train"])
        and isinstance(spec.labels, TrueLabels)
        and spec.method in (Smoothing(epsilon=0.0), Smoothing(epsilon=0.1))
        and spec.recipe.weight_decay == Recipe().weight_decay
        and spec.recipe.augment
    )


def budget_table(numbers: pd.DataFrame) -> Styler:
    """`budgets` as a table, both values of ε in a row."""
    spread = (100 * numbers["sd"]).map(" ± {:.1f}".format).where(numbers["n"] > 1, "")
    numbers = numbers.assign(text=numbers["accuracy"].map("{:.1%}".format) + spread)
    rows = []
    keys = ["network", "epochs", "device", "precision"]
    for (network, epochs, device, precision), part in numbers.groupby(keys, sort=False):
        row = {"network": network, "epochs": epochs}
        row["core-minutes"] = f"{part['core_minutes'].mean():.2g}"
        for epsilon in (0.0, 0.1):
            accuracies = part.loc[part["epsilon"] == epsilon, "text"]
            row[f"test accuracy, ε = {epsilon:g}"] = ", ".join(accuracies) or "–"
        rows.append(row | {"n": part["n"].max(), "processor": f"{device}, {precision}"})
    return table(pd.DataFrame(rows), wrapped=["processor"], width="9em")


def speedruns() -> Styler:
    """What others report of the time to an accuracy on CIFAR-100, with what hardware and ε; runs
    without both numbers are left out."""
    published = literature.published()
    runs = published[(published["method"] == "speedrun") & (published["dataset"] == "CIFAR-100")]
    index = ["architecture", "setting", "epsilon"]
    numbers = runs.pivot_table("value", index, "metric", dropna=False, sort=False)
    names = ["mean preparation + training time", "mean test accuracy"]
    rows = numbers[names].dropna().set_axis(["seconds", "test accuracy"], axis=1).reset_index()
    rows = rows.rename(columns={"architecture": "network", "setting": "measured", "epsilon": "ε"})
    formats = {"ε": "{:g}", "seconds": "{:.3g}", "test accuracy": "{:.2f}%"}
    return table(rows, formats, wrapped=["network", "measured"], width="12em")


class SpeedParameters(Value):
    """The parameters of the appendix on speed: parts of `make bench` to show, none for all."""

    parts: list[str] = []


def benchmarks(
    parts: Sequence[str] = (),
) -> dict[str, tuple[dict[str, dict[str, Any]], pd.DataFrame]]:
    """For each machine that `make bench` ran on: what each of its parts rests on, and the rows.

    With `parts` only the rows of these. Raises ValueError if no machine has measured one of them.
    """
    machines = {}
    for file in sorted(paths.BENCHMARKS.glob("*.csv")):
        about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        machine = "{device}, {cores} cores".format(**about["machine"])
        rows = pd.read_csv(file)
        machines[machine] = about["modules"], rows[rows["module"].isin(parts or rows["module"])]
    known = sorted({name for modules, _ in machines.values() for name in modules})
    if machines and (unknown := sorted(set(parts) - set(known))):
        raise ValueError(f"parts names {unknown[0]!r}; it must name some of {', '.join(known)}")
    return machines


def measured(name: str, about: Mapping[str, Any]) -> Markdown:
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
    of_module = rows["benchmark"] == rows["module"]
    case = rows["case"].where(of_module, rows["benchmark"] + ": " + rows["case"])
    quantity = rows["quantity"].str.replace(r" \(.*\)", "", regex=True)
    again = case == case.shift()
    bounds = zip(rows["ratio"], rows["ratio_low"], rows["ratio_high"], strict=True)
    columns = {
        "case": case.mask(again, ""),
        "quantity": quantity.mask(again & (quantity == quantity.shift()), ""),
        "against": rows["rival"],
        "ours": list(map(_amount, rows["ours"], rows["quantity"])),
        "theirs": list(map(_amount, rows["theirs"], rows["quantity"])),
        "ratio (quartiles)": [f"{at:.3g} ({low:.3g}–{high:.3g})" for at, low, high in bounds],
        "n": rows["n"],
    }
    return table(pd.DataFrame(columns), wrapped=["case", "against"])
