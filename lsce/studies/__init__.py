"""Every study of the report: the runs it asks for, and the tables it makes of their digests."""

import difflib
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from lsce import data
from lsce.measures import calibration as calibration_errors
from lsce.results.measurements import WIDTHS, Digest
from lsce.training.spec import Protocol, Recipe, RunSpec, require

#: Whose runs a page shows: those of the machine that it is run on, or the recorded ones.
Shown = Literal["own", "recorded"]

#: The group of a study's runs that its main figures show.
MAIN = "main"

#: The group of runs on the built-in data beside those on CIFAR-100.
KNOWN_POSTERIOR = "known posterior"

#: What a run is trained by → the words for it with its setting.
METHODS = {
    "smoothing": "ε = {}",
    "negative smoothing": "ε = {}",
    "negative smoothing, warmed up": "ε = {} after a warm-up",
    "weight decay": "weight decay {}",
    "focal loss": "focal loss, γ = {}",
    "mixup": "mixup, α = {}",
    "MaxSup": "MaxSup, weight {}",
    "generalised cross entropy": "generalised CE, q = {}",
    "forward correction": "forward correction",
    "backward correction": "backward correction",
    "distilled, plain teacher": "plain teacher, T = {}",
    "distilled, smoothed teacher": "smoothed teacher, T = {}",
    "class weights": "class weights, ε = {}",
    "class weights, include-true": "class weights, include-true, ε = {}",
    "sample weights": "sample weights, ε = {}",
}


def plain(table: pd.DataFrame) -> pd.Series:
    """Which rows of a study's table are plain cross entropy; ε is 0 in many other arms, too."""
    return (table["method"] == "smoothing") & (table["setting"] == 0)


def decisive(label: Mapping[str, Any], judged: float) -> bool:
    """Whether a run with this label is plain cross entropy or smoothed with the judged ε."""
    return label["method"] == "smoothing" and label["setting"] in (0.0, judged)


def best_arm(runs: pd.DataFrame, chosen_by: str) -> tuple[str, float] | None:
    """Method and setting of the highest mean of `chosen_by`, a column measured on the validation
    split (of the lowest, if it is an NLL); None if each diverged with some seed."""
    arms = runs.groupby(["method", "setting"], dropna=False, sort=False)[chosen_by]
    # A mean over the seeds that did not diverge would favour an arm that does.
    means = arms.agg(lambda values: values.mean(skipna=False)).dropna()
    if means.empty:
        return None
    method, setting = means.idxmin() if "nll" in chosen_by else means.idxmax()
    return method, float(setting)


def tuned(
    table: pd.DataFrame, chosen_by: str
) -> Iterator[tuple[str, str, pd.DataFrame, tuple[str, float] | None]]:
    """Regime, method, runs and `best_arm` of everything tuned; plain cross entropy is a method of
    its own."""
    methods = table["method"].mask(plain(table), "plain cross entropy")
    for (regime, method), runs in table.groupby(["regime", methods], sort=False):
        yield regime, method, runs, best_arm(runs, chosen_by)


def arm(method: str, setting: float) -> str:
    """The words for a method with its setting."""
    words = METHODS.get(method, f"{method}, T = {{}}")  # other teachers have no name
    return words.format(f"{setting:g}".replace("-", "−"))


@dataclass(frozen=True)
class Study:
    """A set of runs that answers one question; `labels[i]` says what part `specs[i]` plays.

    A label has the run's `group` (`MAIN` or what else a page compares), its `regime`, and its arm:
    the `method`, one of `METHODS`, its `setting`, the ε of smoothing, and the words for both. The
    claims are judged at the ε `judged`.
    """

    labels: list[dict[str, Any]]
    specs: list[RunSpec]
    judged: float

    def in_full(self, spec: RunSpec) -> bool:
        """Whether figures of `BY_IMAGE` show the run image by image, and not in sums alone."""
        special = ("noise", "classes", "labels", "imbalance", "loss", "mixup", "teacher")
        plain = all(getattr(spec, name) is None for name in (*special, "examination"))
        return (plain and spec.epsilon in (0.0, self.judged)) or spec.data == "built-in"

    @property
    def epsilons(self) -> list[float]:
        """The values of ε that runs are smoothed with, ascending."""
        smoothed = [label for label in self.labels if label["method"] == "smoothing"]
        return sorted({label["setting"] for label in smoothed})

    def part(self, positions: Sequence[int]) -> "Study":
        """The study of some of its runs alone."""
        labels, specs = ([every[i] for i in positions] for every in (self.labels, self.specs))
        return Study(labels, specs, self.judged)

    def groups(self) -> dict[str, list[int]]:
        """The positions of the runs of every group, in order."""
        found: dict[str, list[int]] = {}
        for position, label in enumerate(self.labels):
            found.setdefault(label["group"], []).append(position)
        return found

    def table(self, runs: Sequence[Digest]) -> pd.DataFrame:
        """One row a run: its labels, ε, training images, classes, kind and rate of label noise,
        seed, id, status and scalars (see `lsce.results.measurements`).

        A temperature whose fit did not converge, and what was measured with it, is NaN."""
        rows = [
            {**label, "epsilon": run.spec.epsilon, "train_size": run.spec.train_size}
            | {"noise": run.spec.noise, "noise_rate": run.spec.noise_rate or 0.0}
            | {"classes": run.spec.num_classes}
            | {"seed": run.spec.seed, "run": run.spec.id, "status": run.status}
            | run.scalars
            for label, run in zip(self.labels, runs, strict=True)
        ]
        table = pd.DataFrame(rows)
        if "temperature_converged" in table:
            fitted = [name for name in table if name == "temperature" or name.endswith("_scaled")]
            table.loc[table["temperature_converged"] == 0, fitted] = np.nan
        return table

    def histories(self, runs: Sequence[Digest]) -> pd.DataFrame:
        """Every run's history (see `lsce.training.train.Outcome`), with its labels, ε and seed."""
        parts = [
            run.history.assign(**label, epsilon=run.spec.epsilon, seed=run.spec.seed)
            for label, run in zip(self.labels, runs, strict=True)
        ]
        return pd.concat(parts, ignore_index=True)

    def _completed(
        self, runs: Sequence[Digest], epsilons: Sequence[float]
    ) -> Iterator[tuple[str, Digest]]:
        """Regime and digest of the runs smoothed with one of `epsilons` that did not diverge."""
        for label, run in zip(self.labels, runs, strict=True):
            smoothed = label["method"] == "smoothing" and label["setting"] in epsilons
            if smoothed and not run.diverged:
                yield label["regime"], run

    def histograms(self, runs: Sequence[Digest], epsilons: Sequence[float]) -> pd.DataFrame:
        """Densities over the test images, pooled over seeds, of smoothing with one of `epsilons`.

        quantity is "confidence" or "gap": the largest logit less the mean of the others. Columns:
        regime, epsilon, quantity, left, right, density.
        """
        counts: dict[tuple[str, float, str], list[np.ndarray]] = {}
        for regime, run in self._completed(runs, epsilons):
            for quantity, found in run.counts.items():
                counts.setdefault((regime, run.spec.epsilon, quantity), []).append(found)
        rows = []
        for (regime, epsilon, quantity), found in counts.items():
            total = np.zeros(max(map(len, found)))
            for part in found:
                total[: len(part)] += part
            edges = WIDTHS[quantity] * np.arange(len(total) + 1)
            part = {"regime": regime, "epsilon": epsilon, "quantity": quantity}
            part |= {"left": edges[:-1], "right": edges[1:]}
            part["density"] = total / (total.sum() * WIDTHS[quantity])
            rows.append(pd.DataFrame(part))
        return pd.concat(rows, ignore_index=True)

    def reliability(
        self, runs: Sequence[Digest], epsilons: Sequence[float], seed: int, bins: int
    ) -> pd.DataFrame:
        """`lsce.measures.calibration.reliability_table` of one seed's runs, as trained and with temperature.

        The columns `regime` and `panel` name each run.
        """
        parts = []
        for regime, run in self._completed(runs, epsilons):
            if run.spec.seed != seed:
                continue
            correct = run.samples["correct"]
            fitted = f"T = {run.scalars['temperature']:.2f}"
            for arm, words in (("confidence", "as trained"), ("scaled", fitted)):
                sure = run.samples[arm]
                ece = calibration_errors.expected_calibration_error(sure, correct, bins)
                panel = f"ε = {run.spec.epsilon:g}, {words}\nECE {ece:.3f}"
                found = calibration_errors.reliability_table(sure, correct, bins)
                parts.append(found.assign(regime=regime, panel=panel))
        return pd.concat(parts, ignore_index=True)


def _named(name: str, value: Any, kind: type, want: str) -> None:
    if not isinstance(value, kind) or not value:
        raise ValueError(f"{name} is {value!r}; it must be {want}")


#: The ε that is recommended most often.
USUAL_EPSILON = 0.1


def _judged(epsilons: Sequence[float], wanted: float | None) -> float:
    """The ε to judge claims at: `wanted`, or the value above 0 that is nearest to the usual one.

    Raises ValueError unless it is one of `epsilons` and can be compared with 0.
    """
    if 0 not in epsilons:
        raise ValueError(f"epsilons is {list(epsilons)}; 0 must be one of them, to compare with")
    above = [epsilon for epsilon in epsilons if epsilon > 0]
    if not above:
        raise ValueError(f"epsilons is {list(epsilons)}; one of them must be above 0")
    if wanted is None:
        return min(above, key=lambda epsilon: abs(epsilon - USUAL_EPSILON))
    if wanted not in above:
        raise ValueError(f"judged_epsilon is {wanted}; it must be one of epsilons {above} above 0")
    return wanted


def _distinct(name: str, values: Any, want: str) -> None:
    """Raise ValueError unless `values` is a list of at least one value, each once."""
    _named(name, values, Sequence, f"a list of {want}")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} is {list(values)}; it must not name a value twice")


#: A run's label and spec.
Run = tuple[dict[str, Any], RunSpec]


def _study(runs: Iterable[Run], judged: float) -> Study:
    labels, specs = zip(*runs, strict=True)
    return Study(list(labels), list(specs), float(judged))


def _run(
    group: str,
    data_name: str,
    regime: str,
    fields: Mapping[str, Any],
    seed: int,
    method: str,
    setting: float = math.nan,
) -> Run:
    spec = _spec(data_name, regime, {"epsilon": 0.0, **fields, "seed": seed})
    label = {"group": group, "regime": regime, "method": method, "setting": float(setting)}
    return label | {"arm": arm(method, setting)}, spec


def _smoothed(
    group: str,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
) -> list[Run]:
    """Every ε with every seed in every regime."""
    return [
        _run(group, data_name, regime, {**fields, "epsilon": e}, seed, "smoothing", e)
        for regime, fields in regimes.items()
        for seed in seeds
        for e in epsilons
    ]


def _keeping(
    regimes: Mapping[str, Mapping[str, Any]], *extras: str
) -> dict[str, Mapping[str, Any]]:
    """The same regimes, whose records hold some of `lsce.training.spec.EXTRAS`."""
    return {name: {**fields, "keep": extras} for name, fields in regimes.items()}


def _of_classes(fields: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """The fields of a run with so many of the classes and as many images of each."""
    shares = {
        name: fields.get(name, default) * classes // 100
        for name, default in (("train_size", 45_000), ("monitor_size", 5_000))
    }
    return {**fields, **shares, "classes": None if classes == 100 else classes}


def _of_seen(
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    seen_classes: int,
    seeds: Sequence[int],
    judged: float,
    keep: str,
) -> list[Run]:
    """The group "unseen": regimes with some of the classes, at ε = 0 and at the judged ε."""
    fewer = {regime: _of_classes(fields, seen_classes) for regime, fields in regimes.items()}
    kept = _keeping(fewer, keep)
    return _smoothed("unseen", data_name, kept, [0.0, judged], seeds)


def _check(
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None,
) -> float:
    """The ε to judge claims at; ValueError, naming the parameter, if one is out of range."""
    if data_name not in data.CHECKSUMS:
        raise ValueError(f"data_name is {data_name!r}; it must be {' or '.join(data.CHECKSUMS)}")
    _named("regimes", regimes, Mapping, "a mapping from a name to the fields of a run")
    _distinct("epsilons", epsilons, "numbers in [0, 1]")
    _distinct("seeds", seeds, "whole numbers")
    for epsilon in epsilons:
        fits = isinstance(epsilon, int | float) and 0 <= epsilon <= 1
        require(fits, "epsilons", list(epsilons), "numbers in [0, 1]")
    return _judged(epsilons, judged_epsilon)


def _compared(names: Sequence[str] | None, regimes: Mapping[str, Any]) -> dict[str, Any]:
    """The regimes of these names (None: the first), in which other methods are trained, too."""
    for name in names if names is not None else (names := list(regimes)[:1]):
        want = f"some of {', '.join(regimes)}"
        require(name in regimes, "compared_regimes", list(names), want)
    return {name: regimes[name] for name in names}


def _equal_effort(
    compared: Sequence[float] | None,
    epsilons: Sequence[float],
    judged: float,
    **rivals: Sequence[float],
) -> tuple[list[float], dict[str, list[float]]]:
    """The values of ε and the settings of each rival: as many of each, so that all are tuned alike.

    Without `compared` as many values of ε are taken as the rivals have settings, from the judged
    one upwards and then below it; where there are fewer, rivals keep as many of their first ones.
    """
    above = [epsilon for epsilon in epsilons if epsilon > 0]
    if compared is None:
        most = max(map(len, rivals.values()))
        compared = sorted(above, key=lambda epsilon: (epsilon < judged, epsilon))[:most]
        rivals = {
            name: settings[: len(compared)] if len(settings) == most else settings
            for name, settings in rivals.items()
        }
    fits = set(compared) <= set(above) and len(compared)
    require(fits, "compared_epsilons", list(compared), f"some of epsilons above 0, {above}")
    for name, settings in rivals.items():
        fits = len(settings) == len(compared)
        want = (
            f"{len(compared)} values, as many as there are of compared_epsilons "
            f"{list(compared)}, for equal tuning"
        )
        require(fits, name, list(settings), want)
    return list(compared), {name: list(settings) for name, settings in rivals.items()}


def smoothing(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
) -> Study:
    """Every ε with every seed in every regime.

    A regime is a name and the fields of `RunSpec` that make it, for example
    ``{"small data": {"model": "resnet6", "train_size": 4500, "epochs": 30}}``.

    Raises ValueError, naming the parameter and its value, if one is out of range.
    """
    judged = _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    return _study(_smoothed(MAIN, data_name, regimes, epsilons, seeds), judged)


def _spec(data_name: str, regime: str, fields: Mapping[str, Any]) -> RunSpec:
    common = {"data": data_name, "data_checksum": data.CHECKSUMS[data_name]}
    try:
        recipe = Recipe(**fields.get("recipe", {}))
        return RunSpec(**common | fields | {"recipe": recipe})
    except TypeError as error:
        raise ValueError(f"regimes[{regime!r}] is {dict(fields)}: {error}") from error


def over_fitting(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    more_regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
    fractions: Sequence[float],
    fraction_run: Mapping[str, Any],
    fraction_epsilons: Sequence[float] | None = None,
    compared_regimes: Sequence[str] | None = None,
    compared_epsilons: Sequence[float] | None = None,
    weight_decays: Sequence[float],
) -> Study:
    """`smoothing` in `regimes` and `more_regimes`; and two groups of runs beside it.

    "fractions": `fraction_run` with these fractions of its training images, for as many more
    epochs, so that all take the same number of steps. "alternatives": the compared regimes with
    plain cross entropy and each of `weight_decays`, and with `compared_epsilons`; these keep the
    epoch that validation chose.
    """
    regimes = {**regimes, **more_regimes}
    judged = _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    runs = _smoothed(MAIN, data_name, regimes, epsilons, seeds)
    _distinct("fractions", fractions, "numbers in (0, 1]")
    if fraction_epsilons is None:
        fraction_epsilons = [0.0, judged]
    _distinct("fraction_epsilons", fraction_epsilons, "numbers in [0, 1]")
    sizes = {}
    for fraction in fractions:
        require(0 < fraction <= 1, "fractions", list(fractions), "numbers in (0, 1]")
        size = 100 * round(fraction * fraction_run.get("train_size", 45_000) / 100)
        epochs = round(fraction_run["epochs"] / fraction)
        sizes[f"{fraction:.0%} of the images"] = {
            **fraction_run,
            "train_size": size,
            "epochs": epochs,
        }
    runs += _smoothed("fractions", data_name, sizes, fraction_epsilons, seeds)
    compared = _keeping(_compared(compared_regimes, regimes), "selected")
    tuned_epsilons, rivals = _equal_effort(
        compared_epsilons, epsilons, judged, weight_decays=weight_decays
    )
    runs += _smoothed("alternatives", data_name, compared, [0.0, *tuned_epsilons], seeds)
    for regime, fields in compared.items():
        for decay in rivals["weight_decays"]:
            recipe = {**fields.get("recipe", {}), "weight_decay": decay}
            changed = {**fields, "recipe": recipe}
            runs += [
                _run("alternatives", data_name, regime, changed, seed, "weight decay", decay)
                for seed in seeds
            ]
    return _study(runs, judged)


def calibration(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
    truth_epsilons: Sequence[float] | None = None,
    compared_regimes: Sequence[str] | None = None,
    compared_epsilons: Sequence[float] | None = None,
    focal_gammas: Sequence[float],
    mixup_alphas: Sequence[float],
    maxsup_weights: Sequence[float],
) -> Study:
    """`smoothing`; and two groups of runs beside it.

    `KNOWN_POSTERIOR`: the first regime and seed on the built-in data, whose true posterior is
    known, for each of `truth_epsilons`. "peers": the compared regimes with focal loss, mixup and
    MaxSup, and with `compared_epsilons`.
    """
    judged = _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    runs = _smoothed(MAIN, data_name, regimes, epsilons, seeds)
    if truth_epsilons is None:
        truth_epsilons = [0.0, judged]
    _distinct("truth_epsilons", truth_epsilons, "numbers in [0, 1]")
    first = dict([next(iter(regimes.items()))])
    runs += _smoothed(KNOWN_POSTERIOR, "built-in", first, truth_epsilons, seeds[:1])
    compared = _compared(compared_regimes, regimes)
    tuned_epsilons, rivals = _equal_effort(
        compared_epsilons,
        epsilons,
        judged,
        focal_gammas=focal_gammas,
        mixup_alphas=mixup_alphas,
        maxsup_weights=maxsup_weights,
    )
    runs += _smoothed("peers", data_name, compared, [0.0, *tuned_epsilons], seeds)
    focal, mixup, maxsup = rivals.values()
    peers = {
        "focal loss": [(g, {"loss": "focal", "loss_parameter": g}) for g in focal],
        "mixup": [(a, {"mixup": a}) for a in mixup],
        "MaxSup": [(w, {"loss": "maxsup", "loss_parameter": w}) for w in maxsup],
    }
    for regime, fields in compared.items():
        for method, settings in peers.items():
            for setting, changes in settings:
                changed = {**fields, **changes}
                runs += [
                    _run("peers", data_name, regime, changed, seed, method, setting)
                    for seed in seeds
                ]
    return _study(runs, judged)


def penultimate(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
    compared_regimes: Sequence[str] | None = None,
    seen_classes: int,
    similar_classes: Sequence[str] | None = None,
    unlike_classes: Sequence[str] | None = None,
) -> Study:
    """`smoothing` with features and information kept; and the group "unseen": the compared regimes
    with `seen_classes` of the 100 classes, at ε = 0 and at the judged ε."""
    judged = _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    for name, three in (("similar_classes", similar_classes), ("unlike_classes", unlike_classes)):
        known = three is None or (len(set(three)) == 3 and {*three} <= {*data.CLASSES[data_name]})
        require(known, name, three, f"three names of classes of {data_name}, or None")
    kept = _keeping(regimes, "features", "information")
    runs = _smoothed(MAIN, data_name, kept, epsilons, seeds)
    compared = _compared(compared_regimes, regimes)
    runs += _of_seen(data_name, compared, seen_classes, seeds, judged, keep="features")
    return _study(runs, judged)


def noisy_labels(
    *,
    data_name: str,
    noise_run: Mapping[str, Any],
    symmetric_rates: Sequence[float],
    asymmetric_rates: Sequence[float],
    epsilons: Sequence[float],
    negative_epsilons: Sequence[float],
    warmup_epochs: int,
    gce_qs: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
) -> Study:
    """`noise_run` with labels flipped at each rate, a regime a kind and rate.

    By smoothing, negative smoothing with and without a warm-up, generalised cross entropy, and
    forward and backward correction with the true noise; and the group "clean" without noise, by
    smoothing. All keep the epoch that (noisy) validation chose."""
    cells: dict[str, dict[str, Any]] = {"no noise": {}}
    for kind, rates in (("symmetric", symmetric_rates), ("asymmetric", asymmetric_rates)):
        for rate in rates:
            cells[f"{kind}, {rate:.0%}"] = {"noise": kind, "noise_rate": rate}
    judged = _check(data_name, cells, epsilons, seeds, judged_epsilon)
    runs: list[Run] = []
    for regime, cell in cells.items():
        group = MAIN if cell else "clean"
        fields = {**noise_run, **cell, "keep": ("selected",)}
        runs += _smoothed(group, data_name, {regime: fields}, epsilons, seeds)
        arms: list[tuple[str, float, dict[str, Any]]] = []
        for epsilon in negative_epsilons:
            require(epsilon < 0, "negative_epsilons", list(negative_epsilons), "numbers below 0")
            warm = {"epsilon": epsilon, "warmup_epochs": warmup_epochs}
            arms.append(("negative smoothing", epsilon, {"epsilon": epsilon}))
            arms.append(("negative smoothing, warmed up", epsilon, warm))
        for q in gce_qs:
            arms.append(("generalised cross entropy", q, {"loss": "gce", "loss_parameter": q}))
        for loss in ("forward", "backward"):
            arms.append((f"{loss} correction", math.nan, {"loss": loss}))
        for method, setting, changes in arms if cell else []:
            changed = {**fields, **changes}
            runs += [
                _run(group, data_name, regime, changed, seed, method, setting) for seed in seeds
            ]
    return _study(runs, judged)


def reproduction(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
    published_regimes: Mapping[str, Mapping[str, Any]],
    published_epsilons: Sequence[float],
) -> Study:
    """`smoothing`, and regimes that follow a published recipe, if any, with the ε of the paper."""
    judged = _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    runs = _smoothed(MAIN, data_name, regimes, epsilons, seeds)
    if published_regimes:
        _judged(published_epsilons, judged)
    runs += _smoothed(MAIN, data_name, published_regimes, published_epsilons, seeds)
    return _study(runs, judged)


def robustness(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    compared_regimes: Sequence[str] | None = None,
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
    corrupted_images: int,
    attacked_images: int,
    radii: Sequence[float],
    judged_radius: float | None = None,
    pgd_steps: int,
    pgd_restarts: int,
    square_queries: int,
) -> Study:
    """Every ε with every seed in the compared regimes, tried as `lsce.training.spec.Protocol` says; attacks
    are transferred from plain cross entropy with the seed after the run's."""
    judged = _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    if judged_radius is None and radii:
        judged_radius = radii[len(radii) // 2]
    runs: list[Run] = []
    for regime, fields in _compared(compared_regimes, regimes).items():
        for seed in seeds:
            protocol = Protocol(
                corrupted_images=corrupted_images,
                attacked_images=attacked_images,
                radii=tuple(radii),
                judged_radius=judged_radius,
                pgd_steps=pgd_steps,
                pgd_restarts=pgd_restarts,
                square_queries=square_queries,
                source=_spec(data_name, regime, {**fields, "epsilon": 0.0, "seed": seed + 1}),
            )
            tried = {regime: {**fields, "examination": protocol}}
            runs += _smoothed(MAIN, data_name, tried, epsilons, [seed])
    return _study(runs, judged)


#: The names of the designs of `number_of_classes` beside the main one of equal steps.
EQUAL_EPOCHS, SAME_IMAGES = "equal epochs", "same images"


def number_of_classes(
    *,
    data_name: str,
    class_run: Mapping[str, Any],
    class_counts: Sequence[int],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
) -> Study:
    """`class_run`, which has all classes, with nested random subsets of them and as many images of
    each, at ε = 0 and at the judged one.

    The main group takes as many steps whatever the classes, "equal epochs" as many epochs; and
    "same images" labels all images with their classes and with the 20 superclasses.
    """
    judged = USUAL_EPSILON if judged_epsilon is None else judged_epsilon
    epsilons = [0.0, judged]
    _check(data_name, {"class_run": class_run}, epsilons, seeds, judged)
    _distinct("class_counts", class_counts, "whole numbers from 2 to 100")
    designs: dict[str, dict[str, dict[str, Any]]] = {MAIN: {}, EQUAL_EPOCHS: {}}
    batch = Recipe(**class_run.get("recipe", {})).batch_size
    steps = class_run["epochs"] * max(1, class_run.get("train_size", 45_000) // batch)
    for count in class_counts:
        fits = isinstance(count, int) and 2 <= count <= 100
        require(fits, "class_counts", list(class_counts), "whole numbers from 2 to 100")
        fields, words = _of_classes(class_run, count), f"{count} classes"
        designs[EQUAL_EPOCHS][words] = fields
        epochs = round(steps / max(1, fields["train_size"] // batch))
        designs[MAIN][words] = {**fields, "epochs": epochs}
    designs[SAME_IMAGES] = {
        f"{data.SUPERCLASSES} superclasses": {**class_run, "labels": "superclasses"},
        "100 classes": dict(class_run),
    }
    runs = []
    for group, regimes in designs.items():
        runs += _smoothed(group, data_name, regimes, epsilons, seeds)
    return _study(runs, judged)


def distillation(
    *,
    data_name: str,
    teacher_run: Mapping[str, Any],
    student_run: Mapping[str, Any],
    teacher_epsilons: Sequence[float] | None = None,
    temperatures: Sequence[float],
    student_epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
) -> Study:
    """Students of `student_run`: smoothed alone, and distilled at each temperature from teachers
    of `teacher_run` with each ε; and the group "teachers", which keep information.

    A student's teacher has its seed."""
    alone = [0.0, *student_epsilons]
    judged = _check(data_name, {"student_run": student_run}, alone, seeds, judged_epsilon)
    if teacher_epsilons is None:
        teacher_epsilons = [0.0, judged]
    _check(data_name, {"teacher_run": teacher_run}, teacher_epsilons, seeds, judged)
    _distinct("temperatures", temperatures, "numbers > 0")
    fits = len(student_epsilons) == len(temperatures)
    want = f"{len(temperatures)} values, as many as there are temperatures, for equal tuning"
    require(fits, "student_epsilons", list(student_epsilons), want)
    teachers = _keeping({"teachers": teacher_run}, "information")
    runs = _smoothed("teachers", data_name, teachers, teacher_epsilons, seeds)
    regime = f"{student_run.get('model')} from {teacher_run.get('model')}"
    runs += _smoothed(MAIN, data_name, {regime: student_run}, alone, seeds)
    names = {0.0: "distilled, plain teacher", judged: "distilled, smoothed teacher"}
    for epsilon, seed in itertools.product(teacher_epsilons, seeds):
        method = names.get(epsilon, f"distilled, teacher with ε = {epsilon:g}")
        teacher = _spec(data_name, "teachers", {**teacher_run, "epsilon": epsilon, "seed": seed})
        for temperature in temperatures:
            fields = {**student_run, "teacher": teacher, "temperature": temperature}
            runs.append(_run(MAIN, data_name, regime, fields, seed, method, temperature))
    return _study(runs, judged)


def class_weights(
    *,
    data_name: str,
    long_tail_run: Mapping[str, Any],
    imbalances: Sequence[float],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
) -> Study:
    """`long_tail_run` with each imbalance, a regime each: every ε without weights and with class
    weights; those above 0 with the weights on the samples (at ε = 0 that is the same), and the
    judged one with class weights in the other convention."""
    runs_of = {"long_tail_run": long_tail_run}
    judged = _check(data_name, runs_of, epsilons, seeds, judged_epsilon)
    _distinct("imbalances", imbalances, "numbers > 1")
    above = [epsilon for epsilon in epsilons if epsilon > 0]
    terms, other = {"weighting": "terms"}, {"weighting": "terms", "convention": "include-true"}
    arms = [("smoothing", e, {}) for e in epsilons]
    arms += [("class weights", e, terms) for e in epsilons]
    arms += [("class weights, include-true", judged, other)]
    arms += [("sample weights", e, {"weighting": "samples"}) for e in above]
    runs = []
    for imbalance, seed, (method, epsilon, changes) in itertools.product(imbalances, seeds, arms):
        fields = {**long_tail_run, **changes, "imbalance": imbalance, "epsilon": epsilon}
        regime = f"imbalance {imbalance:g}"
        runs.append(_run(MAIN, data_name, regime, fields, seed, method, epsilon))
    return _study(runs, judged)


def costs(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float | None = None,
    compared_regimes: Sequence[str] | None = None,
    seen_classes: int,
) -> Study:
    """`smoothing` with what selective classification asks for; and the group "unseen": the compared
    regimes with `seen_classes` of the 100 classes, at ε = 0 and at the judged ε, asked about
    images of the others."""
    judged = _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    kept = _keeping(regimes, "selective")
    runs = _smoothed(MAIN, data_name, kept, epsilons, seeds)
    compared = _compared(compared_regimes, regimes)
    runs += _of_seen(data_name, compared, seen_classes, seeds, judged, keep="unseen")
    return _study(runs, judged)


#: Notebook → the study it asks for; a notebook that is not here trains nothing.
BY_NOTEBOOK: dict[str, Callable[..., Study]] = {
    "00_overview": smoothing,
    "02_epsilon_study": over_fitting,
    "03_calibration": calibration,
    "04_penultimate": penultimate,
    "05_noisy_labels": noisy_labels,
    "06_robustness": robustness,
    "07_number_of_classes": number_of_classes,
    "08_distillation": distillation,
    "09_class_weights": class_weights,
    "10_costs": costs,
    "12_reproduction": reproduction,
}

#: Notebooks with figures of single runs, image by image.
BY_IMAGE = ("03_calibration", "04_penultimate")

#: Notebooks that show runs, the last of them those of the others.
SHOW_RUNS = (*BY_NOTEBOOK, "11_summary")


def parameters(notebook: str, required: bool = False) -> list[str]:
    """The names of the parameters of a notebook's study, or of those without a default alone."""
    known = inspect.signature(BY_NOTEBOOK[notebook]).parameters.values()
    return [each.name for each in known if not required or each.default is each.empty]


def build(notebook: str, data_name: str, given: Mapping[str, Any]) -> Study:
    """The study of a notebook with the parameters `given`.

    Raises ValueError or TypeError, naming the parameter and its value, if there is no such
    parameter or it is out of range.
    """
    known = parameters(notebook)
    for name in given:
        require_known(name, known, f"the study of {notebook}")
    return BY_NOTEBOOK[notebook](**{"data_name": data_name} | dict(given))


def require_known(name: str, known: Sequence[str], whose: str) -> None:
    """Raise ValueError, with the likeliest of the `known` names, for one that is not among them."""
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {near[0]!r}" if near else f"it has {', '.join(sorted(known))}"
    raise ValueError(f"{whose} has no parameter {name!r}; {meant}{'?' if near else ''}")
