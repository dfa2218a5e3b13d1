"""Runs that nobody trained, for tests of what is done with runs."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch

from lsce import data, studies
from lsce.machine import paths
from lsce.measures.features import STRENGTHS
from lsce.measures.robustness import SEVERITIES, SHORT, UNBOUNDED
from lsce.results import measure, recorded
from lsce.results.run import Run, details_of
from lsce.results.store import Store
from lsce.studies.evidence import Evidence, grouped
from lsce.studies.study import Study
from lsce.training.methods import Distillation, Smoothing
from lsce.training.spec import (
    Balanced,
    Evaluation,
    LongTail,
    NoisyLabels,
    Protocol,
    RunSpec,
    SomeClasses,
    Task,
)

#: What a page is asked on ten classes of 16 × 16 pixels.
TINY: dict[str, Any] = {"network": "resnet6", "train_size": 100, "epochs": 2, "monitor_size": 50}
ASKED: dict[str, dict[str, Any]] = {
    "02_epsilon_study": dict(fraction_run=TINY, more_regimes={}),
    "04_penultimate": dict(seen_classes=5),
    "05_noisy_labels": dict(noise_run=TINY, warmup_epochs=1, asymmetric_rates=[0.4]),
    "06_robustness": dict(corrupted_images=50, attacked_images=20),
    "07_number_of_classes": dict(class_run=TINY, class_counts=[5, 10]),
    "08_distillation": dict(teacher_run=TINY, student_run=TINY),
    "09_class_weights": dict(long_tail_run=TINY, imbalances=[5]),
    "10_costs": dict(seen_classes=5),
}

#: Parameters of a page with two regimes.
REGIMES = {
    "few": {"network": "resnet6", "train_size": 300, "epochs": 2},
    "many": {"network": "resnet6", "train_size": 600, "epochs": 1, "recipe": {"batch_size": 32}},
}
GRID: dict[str, Any] = dict(data_name="built-in", regimes=REGIMES, epsilons=[0.0, 0.1])
GRID |= {"seeds": [3, 4], "judged_epsilon": 0.1}


def spec(**changes: Any) -> RunSpec:
    fields: dict[str, Any] = dict(
        data="cifar-100",
        sample=Balanced(train_size=300),
        method=Smoothing(epsilon=0.1),
        network="resnet6",
        epochs=2,
        monitor_size=5_000,
        seed=0,
    )
    return RunSpec(**fields | changes)


def tiny(**changes: Any) -> RunSpec:
    """A run on the data set of `tiny_dataset`, which has to be registered."""
    usual = dict(data="tiny", sample=Balanced(train_size=100), monitor_size=100)
    return spec(**usual | changes)


def trial(run: RunSpec, source: RunSpec) -> Evaluation:
    """An evaluation with few images and steps."""
    sizes = dict(corrupted_images=10, attacked_images=10, radii=(4,), judged_radius=4)
    protocol = Protocol(**sizes, pgd_steps=2, pgd_restarts=1, square_queries=2)
    return Evaluation(run=run, source=source, protocol=protocol)


def build(notebook: str, **given: Any) -> Study:
    """The study of a page with these parameters."""
    study = studies.of(notebook)
    assert study is not None
    return study(study.Parameters(**given))


def on_tiny(notebook: str, **changes: Any) -> Study:
    """The study of a page on the data set of `tiny_dataset`, which has to be registered."""
    study = studies.of(notebook)
    assert study is not None
    given = {"regimes": {"few": TINY}} if "regimes" in study.Parameters.model_fields else {}
    return build(notebook, data_name="tiny", **given | ASKED.get(notebook, {}) | changes)


def seen(task: Task, **given: Any) -> Run:
    """A run as pages see it: an evaluation is that of its run, with what it found."""
    run = run_of(task.run, **given)
    return run.evaluated(run_of(task)) if isinstance(task, Evaluation) else run


def shown(study: Study, profile: str = "mine", of_recorded: bool = False) -> Evidence:
    """What a page shows of a study, with a posterior that need not be computed."""
    return grouped(study, runs_of(study.tasks), of_recorded, profile)


def runs_of(tasks: Iterable[Task], of: Callable[[Task], Run] = seen) -> dict[str, Run]:
    """Runs by their ids, each once and with all that is asked of it."""
    with patch.object(measure, "_posterior", _posterior):
        return {task.id: of(task) for task in Store(Path("nowhere")).missing(tasks)}


def _posterior(name: str) -> np.ndarray:
    entry = data.entry(name)
    return np.full((entry.sizes["test"], entry.num_classes), 1 / entry.num_classes)


def enter(root: Path, patch: pytest.MonkeyPatch, **profiles: str) -> None:
    """Work in a checkout with these profiles, where nothing is recorded and nothing was run."""
    for name in ("PROFILES", "FIGURES", "RUNS", "RECORDED"):
        patch.setattr(paths, name, root / getattr(paths, name).relative_to(paths.ROOT))
    patch.setattr(paths, "ROOT", root)
    paths.PROFILES.mkdir(parents=True)
    for name, text in profiles.items():
        (paths.PROFILES / f"{name}.toml").write_text(text, encoding="utf-8")


def record(tasks: Iterable[Task]) -> None:
    """Replace what is recorded by made-up runs of these."""
    runs = runs_of([each for task in tasks for each in (task.run, task)], run_of)
    recorded.write(runs.values(), paths.RECORDED)


def found_by(protocol: Protocol) -> pd.DataFrame:
    """The details of an evaluation."""
    short = f"PGD-{SHORT}"
    attacks = ["FGSM", short, protocol.longest, f"{short}, margin", f"{short}, targeted"]
    attacks += ["AutoAttack", "Square", "transfer", "worst case"]
    cells = [("corruption", kind, x) for kind in SEVERITIES for x in range(1, 6)]
    cells += [("attack", name, x) for x in protocol.radii for name in attacks]
    gradients = ("logits × 10", "logits ÷ 10", "float64")
    cells += [("masking", name, x) for x in protocol.radii for name in gradients]
    cells += [("attack", "clean", 0.0), ("masking", "unbounded", UNBOUNDED)]
    frame = pd.DataFrame(cells, columns=["quantity", "case", "x"]).astype({"x": float})
    # All attacks halve the accuracy of 0.4 at a radius of 2 / 255.
    attacked = 1 - 0.4 * 2 / (2 + frame["x"])
    error = attacked.mask(frame["quantity"] == "corruption", 0.75)
    return frame.assign(value=error.mask(frame["case"] == "unbounded", 1.0))


def survived(task: Evaluation) -> dict[str, np.ndarray]:
    """Which images survive in an evaluation, the same ones for the same seed."""
    protocol, generator = task.protocol, np.random.default_rng(task.seed)
    images = generator.random((len(protocol.radii), protocol.attacked_images))
    counts = generator.integers(0, 46, protocol.corrupted_images, dtype=np.uint8)
    attacked = {"survived_fgsm": images < 0.4, "survived_worst": images < 0.3}
    return attacked | {"survived_corruptions": counts}


def outputs_of(spec: RunSpec, images: int) -> dict[str, torch.Tensor]:
    """Logits and labels of a network that is often right."""
    generator, classes = np.random.default_rng(spec.seed), spec.num_classes
    labels = np.arange(images) % classes
    logits = generator.normal(size=(images, classes))
    logits[np.arange(images), labels] += 3
    both = {"logits": torch.from_numpy(logits), "labels": torch.tensor(labels)}
    return {f"{split}_{name}": both[name] for split in ("test", "validation") for name in both}


def run_of(task: Task, status: str = "completed", images: int | None = None) -> Run:
    """What a task might have left, with so many test images (five of each class)."""
    spec, seed = task.run, task.seed
    images = 5 * spec.num_classes if images is None else images
    origin = {
        "device": "an abacus",
        "precision": "float32",
        "versions": {"torch": "2.14.1"},
        "commit": "0123456789ab",
        "finished": f"2026-01-0{1 + seed}T00:00:00+00:00",
        "seconds": {"training": 1.0, "total": 2.0},
    }
    if isinstance(task, Evaluation):
        names = ("corrupted_error", "fgsm_error", "pgd_error", "worst_error", "overstated")
        scalars = dict(zip(names, (0.6, 0.7, 0.75, 0.8, 0.1), strict=True))
        scalars |= {"gradient_norm": 0.5, "zero_gradients": 0.0}
        details, origin["seconds"] = found_by(task.protocol), {"total": 2.0}
        if status == "diverged":
            return Run(task, status, origin)
        return Run(task, status, origin, scalars, samples=survived(task), details=details)
    history = {"epoch": range(1, spec.epochs + 1), "train_nll": 1.25, "validation_nll": 1.5}
    history["validation_refinement"] = 1.375
    if isinstance(spec.labels, NoisyLabels):
        history |= {"memorised": 0.25, "recovered": 0.125}
    if "information" in spec.keep:
        history |= {"information_similar": 1.5, "information_unlike": 1.25}
    run = Run(task, status, origin, history=pd.DataFrame(history), kept=frozenset(spec.keep))
    if run.diverged:
        return run
    rows: list[dict[str, Any]] = []
    scalars = {
        f"{split}_{name}": 0.5 + 0.1 * i
        for i, split in enumerate(("train", "validation", "test"))
        for name in ("nll", "accuracy")
    }
    scalars |= {"nll_gap": 0.2, "accuracy_gap": -0.2, "temperature": 2.0}
    scalars |= {"temperature_converged": 1.0, "validation_nll_scaled": 0.5}
    last = run.history.iloc[-1]
    scalars |= {name: last[name] for name in history if name not in ("epoch", "train_nll")}
    scalars.pop("validation_nll")
    scalars["validation_nll"] = 0.6
    if "features" in spec.keep:
        names = ("nc1", "nc2", "nc3", "nc4", "log_nc1", "log_scatter_ratio")
        scalars |= dict(zip(names, (0.5, 0.5, 0.5, 0.5, -0.3, -0.3), strict=True))
        probe = "unseen_probe" if isinstance(spec.sample, SomeClasses) else "superclass_probe"
        scalars |= {probe: 0.4, f"{probe}_usual": 0.3}
        rows += [
            {"quantity": "probe", "case": probe, "x": strength, "value": 0.4 if i else 0.3}
            for i, strength in enumerate(STRENGTHS)
        ]
    others = {"unseen": "unseen" in spec.keep, "far": "selective" in spec.keep}
    for name in (name for name, measured in others.items() if measured):
        for measured in (f"{name}_auroc", f"{name}_fpr95"):
            for suffix in ("", "_scaled", "_normalised", "_logit", "_energy"):
                scalars[measured + suffix] = 0.7
    if isinstance(spec.sample, LongTail):
        scalars |= {"rare_accuracy": 0.1, "rare_predicted": 0.2, "rare_elsewhere": 0.3}
        scalars["few_accuracy"] = 0.1
    if isinstance(spec.method, Distillation):
        scalars["smoothness"] = 0.2
    run.scalars.update(scalars)
    outputs = outputs_of(spec, images)
    measure.of_test_images(run, outputs)
    if "selected" in spec.keep:
        run.scalars["selected_epoch"] = 1
        run.scalars["selected_validation_accuracy"] = 0.5
        for name in ("top1_error", "nll", "ece", "debiased_ce"):
            run.scalars[f"{name}_selected"] = run.scalars[name]
    if "selective" in spec.keep:
        split = outputs["test_logits"].numpy(), outputs["test_labels"].numpy()
        found, risks = measure.selective.selective(*split, *split, 2.0)
        run.scalars.update(found)
        for name, value in {"size": 3.0, "coverage": 0.9}.items():
            for kind, suffix in itertools.product(("aps", "raps"), ("", "_scaled")):
                run.scalars[f"{kind}_{name}{suffix}"] = value
        rows += risks
    if "features" in spec.keep and spec.num_classes == spec.entry.num_classes:
        points = np.random.default_rng(spec.seed).normal(size=(3, 5, 2)).astype(np.float32)
        for name in ("similar.train", "similar.validation", "unlike.train", "unlike.validation"):
            run.projections[name] = points
    return replace(run, details=details_of(rows))
