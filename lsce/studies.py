"""Every study of the report: the runs it asks for, and the tables it makes of their digests."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from lsce import data, metrics
from lsce.digest import WIDTHS, Digest
from lsce.runs import Protocol, Recipe, RunSpec, require

#: Whose runs a page shows: the larger set with the other beside it, or one alone.
Shown = Literal["both", "own", "recorded"]

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
    plain = (table["method"] == "smoothing") & (table["setting"] == 0)
    methods = table["method"].mask(plain, "plain cross entropy")
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
        seed, id, status and scalars (see `lsce.digest`)."""
        rows = [
            {**label, "epsilon": run.spec.epsilon, "train_size": run.spec.train_size}
            | {"noise": run.spec.noise, "noise_rate": run.spec.noise_rate or 0.0}
            | {"classes": run.spec.num_classes}
            | {"seed": run.spec.seed, "run": run.spec.id, "status": run.status}
            | run.scalars
            for label, run in zip(self.labels, runs, strict=True)
        ]
        return pd.DataFrame(rows)

    def histories(self, runs: Sequence[Digest]) -> pd.DataFrame:
        """Every run's history (see `lsce.train.Outcome`), with its labels, ε and seed."""
        parts = [
            run.history.assign(**label, epsilon=run.spec.epsilon, seed=run.spec.seed)
            for label, run in zip(self.labels, runs, strict=True)
        ]
        return pd.concat(parts, ignore_index=True)

    def _completed(
        self, runs: Sequence[Digest], epsilons: Sequence[float]
    ) -> Iterator[tuple[str, Digest]]:
        """Regime and digest of the runs with one of `epsilons` that did not diverge."""
        for label, run in zip(self.labels, runs, strict=True):
            if run.spec.epsilon in epsilons and not run.diverged:
                yield label["regime"], run

    def histograms(self, runs: Sequence[Digest], epsilons: Sequence[float]) -> pd.DataFrame:
        """Densities over the test images, pooled over seeds, of the runs with one of `epsilons`.

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
        """`lsce.metrics.reliability_table` of one seed's runs, as trained and with temperature.

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
                ece = metrics.expected_calibration_error(sure, correct, bins)
                panel = f"ε = {run.spec.epsilon:g}, {words}\nECE {ece:.3f}"
                found = metrics.reliability_table(sure, correct, bins)
                parts.append(found.assign(regime=regime, panel=panel))
        return pd.concat(parts, ignore_index=True)


def _named(name: str, value: Any, kind: type, want: str) -> None:
    if not isinstance(value, kind) or not value:
        raise ValueError(f"{name} is {value!r}; it must be {want}")


def check_judged(epsilon: float, epsilons: Sequence[float]) -> None:
    """Raise ValueError unless `epsilon` is one of `epsilons`, and can be compared with 0."""
    if epsilon not in epsilons or epsilon == 0 or 0 not in epsilons:
        raise ValueError(
            f"judged_epsilon is {epsilon}; it must be one of epsilons {list(epsilons)} other than "
            "0, which must be there too"
        )


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
    """The same regimes, whose records hold some of `lsce.runs.EXTRAS`."""
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
    judged_epsilon: float,
    keep: str,
) -> list[Run]:
    """The group "unseen": regimes with some of the classes, at ε = 0 and at the judged ε."""
    fewer = {regime: _of_classes(fields, seen_classes) for regime, fields in regimes.items()}
    kept = _keeping(fewer, keep)
    return _smoothed("unseen", data_name, kept, [0.0, judged_epsilon], seeds)


def _check(
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
) -> None:
    if data_name not in data.CHECKSUMS:
        raise ValueError(f"data_name is {data_name!r}; it must be {' or '.join(data.CHECKSUMS)}")
    _named("regimes", regimes, Mapping, "a mapping from a name to the fields of a run")
    _distinct("epsilons", epsilons, "numbers in [0, 1]")
    _distinct("seeds", seeds, "whole numbers")
    for epsilon in epsilons:
        fits = isinstance(epsilon, int | float) and 0 <= epsilon <= 1
        require(fits, "epsilons", list(epsilons), "numbers in [0, 1]")
    check_judged(judged_epsilon, epsilons)


def _compared(names: Sequence[str], regimes: Mapping[str, Any]) -> dict[str, Any]:
    """The regimes of these names, in which other methods are trained, too."""
    for name in names:
        want = f"some of {', '.join(regimes)}"
        require(name in regimes, "compared_regimes", list(names), want)
    return {name: regimes[name] for name in names}


def _check_effort(
    compared: Sequence[float], epsilons: Sequence[float], **rivals: Sequence[float]
) -> None:
    """Every method is tuned over as many settings as smoothing is."""
    fits = set(compared) <= {epsilon for epsilon in epsilons if epsilon > 0} and len(compared)
    require(fits, "compared_epsilons", list(compared), "some of epsilons above 0")
    for name, settings in rivals.items():
        fits = len(settings) == len(compared)
        want = f"{len(compared)} values, as many as compared_epsilons has, for equal tuning"
        require(fits, name, list(settings), want)


def smoothing(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
) -> Study:
    """Every ε with every seed in every regime.

    A regime is a name and the fields of `RunSpec` that make it, for example
    ``{"small data": {"model": "resnet6", "train_size": 4500, "epochs": 30}}``.

    Raises ValueError, naming the parameter and its value, if one is out of range.
    """
    _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    return _study(_smoothed(MAIN, data_name, regimes, epsilons, seeds), judged_epsilon)


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
    judged_epsilon: float,
    fractions: Sequence[float],
    fraction_run: Mapping[str, Any],
    fraction_epsilons: Sequence[float],
    compared_regimes: Sequence[str],
    compared_epsilons: Sequence[float],
    weight_decays: Sequence[float],
) -> Study:
    """`smoothing` in `regimes` and `more_regimes`; and two groups of runs beside it.

    "fractions": `fraction_run` with these fractions of its training images, for as many more
    epochs, so that all take the same number of steps. "alternatives": the compared regimes with
    plain cross entropy and each of `weight_decays`, and with `compared_epsilons`; these keep the
    epoch that validation chose.
    """
    regimes = {**regimes, **more_regimes}
    _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    runs = _smoothed(MAIN, data_name, regimes, epsilons, seeds)
    _distinct("fractions", fractions, "numbers in (0, 1]")
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
    _check_effort(compared_epsilons, epsilons, weight_decays=weight_decays)
    runs += _smoothed("alternatives", data_name, compared, [0.0, *compared_epsilons], seeds)
    for regime, fields in compared.items():
        for decay in weight_decays:
            recipe = {**fields.get("recipe", {}), "weight_decay": decay}
            changed = {**fields, "recipe": recipe}
            runs += [
                _run("alternatives", data_name, regime, changed, seed, "weight decay", decay)
                for seed in seeds
            ]
    return _study(runs, judged_epsilon)


def calibration(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
    truth_epsilons: Sequence[float],
    compared_regimes: Sequence[str],
    compared_epsilons: Sequence[float],
    focal_gammas: Sequence[float],
    mixup_alphas: Sequence[float],
    maxsup_weights: Sequence[float],
) -> Study:
    """`smoothing`; and two groups of runs beside it.

    `KNOWN_POSTERIOR`: the first regime and seed on the built-in data, whose true posterior is
    known, for each of `truth_epsilons`. "peers": the compared regimes with focal loss, mixup and
    MaxSup, and with `compared_epsilons`.
    """
    _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    runs = _smoothed(MAIN, data_name, regimes, epsilons, seeds)
    _distinct("truth_epsilons", truth_epsilons, "numbers in [0, 1]")
    first = dict([next(iter(regimes.items()))])
    runs += _smoothed(KNOWN_POSTERIOR, "built-in", first, truth_epsilons, seeds[:1])
    compared = _compared(compared_regimes, regimes)
    _check_effort(
        compared_epsilons,
        epsilons,
        focal_gammas=focal_gammas,
        mixup_alphas=mixup_alphas,
        maxsup_weights=maxsup_weights,
    )
    runs += _smoothed("peers", data_name, compared, [0.0, *compared_epsilons], seeds)
    peers = {
        "focal loss": [(g, {"loss": "focal", "loss_parameter": g}) for g in focal_gammas],
        "mixup": [(a, {"mixup": a}) for a in mixup_alphas],
        "MaxSup": [(w, {"loss": "maxsup", "loss_parameter": w}) for w in maxsup_weights],
    }
    for regime, fields in compared.items():
        for method, settings in peers.items():
            for setting, changes in settings:
                changed = {**fields, **changes}
                runs += [
                    _run("peers", data_name, regime, changed, seed, method, setting)
                    for seed in seeds
                ]
    return _study(runs, judged_epsilon)


def penultimate(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
    compared_regimes: Sequence[str],
    seen_classes: int,
    similar_classes: Sequence[str] | None = None,
    unlike_classes: Sequence[str] | None = None,
) -> Study:
    """`smoothing` with features and information kept; and the group "unseen": the compared regimes
    with `seen_classes` of the 100 classes, at ε = 0 and at the judged ε."""
    _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    for name, three in (("similar_classes", similar_classes), ("unlike_classes", unlike_classes)):
        known = three is None or (len(set(three)) == 3 and {*three} <= {*data.CLASSES[data_name]})
        require(known, name, three, f"three names of classes of {data_name}, or None")
    kept = _keeping(regimes, "features", "information")
    runs = _smoothed(MAIN, data_name, kept, epsilons, seeds)
    compared = _compared(compared_regimes, regimes)
    runs += _of_seen(data_name, compared, seen_classes, seeds, judged_epsilon, keep="features")
    return _study(runs, judged_epsilon)


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
    judged_epsilon: float,
) -> Study:
    """`noise_run` with labels flipped at each rate, a regime a kind and rate.

    By smoothing, negative smoothing with and without a warm-up, generalised cross entropy, and
    forward and backward correction with the true noise; and the group "clean" without noise, by
    smoothing. All keep the epoch that (noisy) validation chose."""
    cells: dict[str, dict[str, Any]] = {"no noise": {}}
    for kind, rates in (("symmetric", symmetric_rates), ("asymmetric", asymmetric_rates)):
        for rate in rates:
            cells[f"{kind}, {rate:.0%}"] = {"noise": kind, "noise_rate": rate}
    _check(data_name, cells, epsilons, seeds, judged_epsilon)
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
    return _study(runs, judged_epsilon)


def reproduction(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
    published_regimes: Mapping[str, Mapping[str, Any]],
    published_epsilons: Sequence[float],
) -> Study:
    """`smoothing`, and regimes that follow a published recipe, if any, with the ε of the paper."""
    _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    runs = _smoothed(MAIN, data_name, regimes, epsilons, seeds)
    if published_regimes:
        check_judged(judged_epsilon, published_epsilons)
    runs += _smoothed(MAIN, data_name, published_regimes, published_epsilons, seeds)
    return _study(runs, judged_epsilon)


def robustness(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    compared_regimes: Sequence[str],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
    corrupted_images: int,
    attacked_images: int,
    radii: Sequence[float],
    judged_radius: float,
    pgd_steps: int,
    pgd_restarts: int,
    square_queries: int,
) -> Study:
    """Every ε with every seed in the compared regimes, tried as `lsce.runs.Protocol` says; attacks
    are transferred from plain cross entropy with the seed after the run's."""
    _check(data_name, regimes, epsilons, seeds, judged_epsilon)
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
    return _study(runs, judged_epsilon)


#: The names of the designs of `number_of_classes` beside the main one of equal steps.
EQUAL_EPOCHS, SAME_IMAGES = "equal epochs", "same images"


def number_of_classes(
    *,
    data_name: str,
    class_run: Mapping[str, Any],
    class_counts: Sequence[int],
    seeds: Sequence[int],
    judged_epsilon: float,
) -> Study:
    """`class_run`, which has all classes, with nested random subsets of them and as many images of
    each, at ε = 0 and at the judged one.

    The main group takes as many steps whatever the classes, "equal epochs" as many epochs; and
    "same images" labels all images with their classes and with the 20 superclasses.
    """
    epsilons = [0.0, judged_epsilon]
    _check(data_name, {"class_run": class_run}, epsilons, seeds, judged_epsilon)
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
    return _study(runs, judged_epsilon)


def distillation(
    *,
    data_name: str,
    teacher_run: Mapping[str, Any],
    student_run: Mapping[str, Any],
    teacher_epsilons: Sequence[float],
    temperatures: Sequence[float],
    student_epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
) -> Study:
    """Students of `student_run`: smoothed alone, and distilled at each temperature from teachers
    of `teacher_run` with each ε; and the group "teachers", which keep information.

    A student's teacher has its seed."""
    _check(data_name, {"teacher_run": teacher_run}, teacher_epsilons, seeds, judged_epsilon)
    alone = [0.0, *student_epsilons]
    _check(data_name, {"student_run": student_run}, alone, seeds, judged_epsilon)
    _distinct("temperatures", temperatures, "numbers > 0")
    _check_effort(student_epsilons, alone, temperatures=temperatures)
    teachers = _keeping({"teachers": teacher_run}, "information")
    runs = _smoothed("teachers", data_name, teachers, teacher_epsilons, seeds)
    regime = f"{student_run.get('model')} from {teacher_run.get('model')}"
    runs += _smoothed(MAIN, data_name, {regime: student_run}, alone, seeds)
    names = {0.0: "distilled, plain teacher", judged_epsilon: "distilled, smoothed teacher"}
    for epsilon, seed in itertools.product(teacher_epsilons, seeds):
        method = names.get(epsilon, f"distilled, teacher with ε = {epsilon:g}")
        teacher = _spec(data_name, "teachers", {**teacher_run, "epsilon": epsilon, "seed": seed})
        for temperature in temperatures:
            fields = {**student_run, "teacher": teacher, "temperature": temperature}
            runs.append(_run(MAIN, data_name, regime, fields, seed, method, temperature))
    return _study(runs, judged_epsilon)


def class_weights(
    *,
    data_name: str,
    long_tail_run: Mapping[str, Any],
    imbalances: Sequence[float],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
) -> Study:
    """`long_tail_run` with each imbalance, a regime each: every ε without weights and with class
    weights; those above 0 with the weights on the samples (at ε = 0 that is the same), and the
    judged one with class weights in the other convention."""
    _check(data_name, {"long_tail_run": long_tail_run}, epsilons, seeds, judged_epsilon)
    _distinct("imbalances", imbalances, "numbers > 1")
    above = [epsilon for epsilon in epsilons if epsilon > 0]
    terms, other = {"weighting": "terms"}, {"weighting": "terms", "convention": "include-true"}
    arms = [("smoothing", e, {}) for e in epsilons]
    arms += [("class weights", e, terms) for e in epsilons]
    arms += [("class weights, include-true", judged_epsilon, other)]
    arms += [("sample weights", e, {"weighting": "samples"}) for e in above]
    runs = []
    for imbalance, seed, (method, epsilon, changes) in itertools.product(imbalances, seeds, arms):
        fields = {**long_tail_run, **changes, "imbalance": imbalance, "epsilon": epsilon}
        regime = f"imbalance {imbalance:g}"
        runs.append(_run(MAIN, data_name, regime, fields, seed, method, epsilon))
    return _study(runs, judged_epsilon)


def costs(
    *,
    data_name: str,
    regimes: Mapping[str, Mapping[str, Any]],
    epsilons: Sequence[float],
    seeds: Sequence[int],
    judged_epsilon: float,
    compared_regimes: Sequence[str],
    seen_classes: int,
) -> Study:
    """`smoothing` with what selective classification asks for; and the group "unseen": the compared
    regimes with `seen_classes` of the 100 classes, at ε = 0 and at the judged ε, asked about
    images of the others."""
    _check(data_name, regimes, epsilons, seeds, judged_epsilon)
    kept = _keeping(regimes, "selective")
    runs = _smoothed(MAIN, data_name, kept, epsilons, seeds)
    compared = _compared(compared_regimes, regimes)
    runs += _of_seen(data_name, compared, seen_classes, seeds, judged_epsilon, keep="unseen")
    return _study(runs, judged_epsilon)


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


def build(notebook: str, data_name: str, parameters: Mapping[str, Any]) -> Study:
    """The study of a notebook with those of `parameters` that it has.

    Raises ValueError or TypeError, naming the parameter and its value, if one is out of range.
    """
    build = BY_NOTEBOOK[notebook]
    known = inspect.signature(build).parameters
    given = {"data_name": data_name} | parameters
    return build(**{name: value for name, value in given.items() if name in known})
