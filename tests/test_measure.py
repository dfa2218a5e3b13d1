"""What is measured of a run, from made-up logits and of a tiny one that was really trained."""

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny_dataset
import torch
from made_up import outputs_of, run_of, spec, tiny
from tiny_dataset import registered
from torch.nn import functional as F

from lsce import data
from lsce.data import datasets, synthetic
from lsce.measures import calibration, conformal, features, information
from lsce.measures.jackknife import GROUPS, groups_of
from lsce.measures.temperature import fit_temperature
from lsce.results import measure
from lsce.results.run import WIDTHS, Run
from lsce.training.batches import evaluate
from lsce.training.methods import Distillation, Smoothing
from lsce.training.spec import (
    LongTail,
    NoisyLabels,
    Recipe,
    RunSpec,
    SomeClasses,
    Superclasses,
)
from lsce.training.train import network_of, train


@pytest.fixture(scope="module", autouse=True)
def dataset():
    with registered():
        yield data.load("tiny")


# ---- test images, from made-up logits ----


def measured(outputs, bins: int = measure.BINS, temperature: float = 2.0) -> Run:
    run = Run(spec(), "completed", {}, {"temperature": temperature})
    measure.of_test_images(run, outputs, bins)
    return run


@pytest.fixture(scope="module")
def outputs():
    return outputs_of(spec(), images=500)


def test_test_images_are_measured_before_and_after_temperature(outputs):
    scalars = measured(outputs).scalars
    scaled = calibration.softmax(outputs["test_logits"], 2.0)
    expected = calibration.expected_calibration_error(scaled, outputs["test_labels"])
    assert scalars["ece_scaled"] == expected != scalars["ece"]


def test_the_parts_of_a_proper_score_add_up_to_it(outputs):
    scalars, labels = measured(outputs).scalars, outputs["test_labels"]
    scaled = calibration.softmax(outputs["test_logits"], 2.0)
    refinement = calibration.negative_log_likelihood(scaled, labels)
    assert scalars["nll_calibration"] + refinement == pytest.approx(scalars["nll"])
    refinement = calibration.brier_score(scaled, labels)
    assert scalars["brier_calibration"] + refinement == pytest.approx(scalars["brier"])


def test_bins_change_the_binned_errors_alone(outputs):
    few, many = (measured(outputs, bins).scalars for bins in (5, 50))
    assert few["ece"] != many["ece"] and few["nll"] == many["nll"]


def test_image_by_image_it_says_what_the_logits_say(outputs):
    run, labels = measured(outputs), outputs["test_labels"].numpy()
    samples, groups = run.samples, groups_of(labels)
    assert (samples["correct"] == (outputs["test_logits"].argmax(1).numpy() == labels)).all()
    for arm, nll, temperature in (("confidence", "nll", 1.0), ("scaled", "nll_scaled", 2.0)):
        probs = calibration.softmax(outputs["test_logits"], temperature)
        assert np.array_equal(samples[arm], probs.max(axis=1))
        likely = -np.log(probs[np.arange(500), labels])
        lost = [likely.mean() - likely[groups != group].mean() for group in range(GROUPS)]
        assert run.by_group[nll] == pytest.approx((GROUPS - 1) * np.array(lost))
    assert "true_probability" not in samples


def test_counts_hold_every_image_in_its_bin(outputs):
    run, logits = measured(outputs), outputs["test_logits"].numpy()
    top = logits.max(axis=1)
    gap = np.array([t - np.delete(z, z.argmax()).mean() for t, z in zip(top, logits, strict=True)])
    for quantity, values in (("confidence", run.samples["confidence"]), ("gap", gap)):
        counts, width = run.counts[quantity], WIDTHS[quantity]
        expected, _ = np.histogram(values, width * np.arange(len(counts) + 1))
        assert counts.sum() == len(values) and (counts == expected).all() and counts[-1] > 0


def test_a_loss_that_runs_away_leaves_few_counts(outputs):
    logits = outputs["test_logits"].clone()
    logits[0, 0] = 1e12
    counts = measured(outputs | {"test_logits": logits}).counts["gap"]
    assert counts.sum() == 500 and counts[-1] == 1
    assert len(counts) == measure.LARGEST_GAP / WIDTHS["gap"]


def test_on_the_built_in_data_it_knows_the_true_probability():
    run = run_of(spec(data="built-in"), images=500)
    predicted = outputs_of(run.spec, images=500)["test_logits"].argmax(1)
    posterior = synthetic.posterior(data.load("built-in").test.images[:500])
    expected = posterior[np.arange(500), predicted].numpy()
    assert np.array_equal(run.samples["true_probability"], expected)


# ---- runs that were really trained ----

EXTRAS = ("features", "information", "selected", "selective", "weights")


def left_by(spec: RunSpec, dataset, **networks) -> tuple[Run, measure.Tensors]:
    def monitors(material):
        watched = "information" in spec.keep
        return [information.monitor(material, spec.entry.examples)] if watched else []

    with train(spec, dataset, monitors=monitors, **networks) as trained:
        return measure.measure(trained, {"step": trained.step, "seconds": trained.seconds})


@pytest.fixture(scope="module")
def whole(dataset):
    """A run that keeps all it can, and its tensors."""
    return left_by(tiny(keep=EXTRAS), dataset)


def test_every_split_is_measured_by_its_own_logits(whole):
    run, tensors = whole
    outputs, s = tensors["outputs"], run.scalars
    for split, images in (("validation", 100), ("test", 100)):
        logits, labels = (outputs[f"{split}_{part}"] for part in ("logits", "labels"))
        assert logits.shape == (images, 10) and labels.bincount().tolist() == [images // 10] * 10
        nll = F.cross_entropy(logits.double(), labels).item()
        assert s[f"{split}_nll"] == pytest.approx(nll)
        accuracy = (logits.argmax(1) == labels).double().mean().item()
        assert s[f"{split}_accuracy"] == pytest.approx(accuracy)
    assert s["nll_gap"] == s["test_nll"] - s["train_nll"]
    assert s["accuracy_gap"] == s["train_accuracy"] - s["test_accuracy"]
    assert s["top1_error"] == pytest.approx(1 - s["test_accuracy"])
    kept = tensors["features"]
    rebuilt = F.linear(kept["test_features"], kept["classifier_weight"], kept["classifier_bias"])
    torch.testing.assert_close(rebuilt, outputs["test_logits"])
    assert kept["train_features"].shape == (100, 128)


def test_the_temperature_is_fitted_on_the_validation_split(whole):
    run, tensors = whole
    logits, labels = (tensors["outputs"][f"validation_{part}"] for part in ("logits", "labels"))
    temperature = fit_temperature(logits, labels).value
    assert run.scalars["temperature"] == pytest.approx(temperature)
    scaled = F.cross_entropy(logits.double() / temperature, labels).item()
    assert run.scalars["validation_nll_scaled"] == pytest.approx(scaled)
    assert scaled <= run.scalars["validation_nll"] and run.scalars["temperature_converged"] == 1
    # All validation images are monitored, so the last epoch left the same.
    refinement = run.history["validation_refinement"]
    assert run.scalars["validation_refinement"] == refinement.iloc[-1] == pytest.approx(scaled)
    assert (refinement <= run.history["validation_nll"]).all()


def test_it_holds_what_it_was_asked_to_keep(whole):
    run, tensors = whole
    assert run.kept == set(EXTRAS) and set(tensors) == {"outputs", "features", "weights"}
    last, kept = run.history.iloc[-1], tensors["features"]
    assert run.scalars["information_similar"] == last["information_similar"] > 0
    parts = [kept[name] for name in ("train_features", "train_labels")]
    weights = [kept[name] for name in ("classifier_weight", "classifier_bias")]
    assert run.scalars["nc1"] == pytest.approx(features.neural_collapse(*parts, *weights)["nc1"])
    assert run.scalars["log_nc1"] == math.log10(run.scalars["nc1"])
    assert set(run.details["quantity"]) == {"risk", "probe"} and run.scalars["excess_aurc"] > 0
    network = network_of(run.spec, tensors["weights"], torch.device("cpu"))
    logits, _ = evaluate(network, data.load("tiny").test.images)
    torch.testing.assert_close(logits, tensors["outputs"]["test_logits"])
    best = run.history["validation_accuracy"].argmax() + 1
    assert run.scalars["selected_epoch"] == best
    same = run.scalars["nll_selected"] == run.scalars["nll"]
    assert same == (best == run.spec.epochs)


def test_a_probe_is_recorded_with_every_strength(whole):
    run, tensors = whole
    kept, labels = tensors["features"], tensors["outputs"]
    above = torch.tensor(run.spec.entry.superclass)
    of_split = {"train": kept["train_labels"]}
    of_split |= {split: labels[f"{split}_labels"] for split in ("validation", "test")}
    parts = [(kept[f"{split}_features"], above[of_split[split]]) for split in of_split]
    probe = features.linear_probe(*parts[0], *parts[1], *parts[2])
    assert run.scalars["superclass_probe"] == probe.accuracy
    assert run.scalars["superclass_probe_usual"] == probe.accuracies[features.USUAL_STRENGTH]
    rows = run.details[run.details["quantity"] == "probe"]
    assert set(rows["case"]) == {"superclass_probe"}
    assert dict(zip(rows["x"], rows["value"], strict=True)) == probe.accuracies


def test_prediction_sets_have_their_threshold_from_the_validation_split(whole):
    run, tensors = whole
    outputs = tensors["outputs"]
    for suffix, temperature in (("", 1.0), ("_scaled", run.scalars["temperature"])):
        parts = []
        for split in ("validation", "test"):
            parts.append(calibration.softmax(outputs[f"{split}_logits"], temperature))
            parts.append(outputs[f"{split}_labels"])
        for kind, penalty in conformal.KINDS.items():
            sizes, covered = conformal.adaptive_sets(*parts, penalty)
            assert run.scalars[f"{kind}_size{suffix}"] == sizes.mean()
            assert run.scalars[f"{kind}_coverage{suffix}"] == covered.mean()


def test_far_images_are_of_another_data_set_of_the_same_size(whole, dataset, monkeypatch):
    """Here of the tiny one under another name, whose test images can't be told from the run's."""
    usual = whole[0].scalars
    assert not any(name.startswith("far_") for name in usual)
    monkeypatch.setattr(measure, "FAR", "other")
    monkeypatch.setitem(datasets._ENTRIES, "other", replace(tiny_dataset.ENTRY, name="other"))
    monkeypatch.setattr(measure, "_far_images", measure._far_images.__wrapped__)
    run, _ = left_by(tiny(keep=("selective",)), dataset)
    suffixes = ("", "_scaled", "_normalised", "_logit", "_energy")
    for suffix in suffixes:
        assert run.scalars[f"far_auroc{suffix}"] == 0.5
        assert run.scalars[f"far_fpr95{suffix}"] == 0.95
    assert "far_auroc" not in left_by(tiny(), dataset)[0].scalars


def test_projections_are_of_the_classes_named(whole):
    run, tensors = whole
    three = {
        "similar": ("class 9", "class 4", "class 7"),
        "unlike": run.spec.entry.examples["unlike"],
    }
    chosen = measure.projections(run.spec, tensors, three)
    assert np.array_equal(run.projections["unlike.train"], chosen["unlike.train"])
    assert not np.array_equal(run.projections["similar.train"], chosen["similar.train"])
    kept = tensors["features"]
    points = features.projection(kept["train_features"], kept["classifier_weight"], [9, 4, 7])
    assert chosen["similar.train"].shape == (3, 10, 2)
    assert chosen["similar.train"][1] == pytest.approx(points[kept["train_labels"] == 4], abs=1e-5)


def test_a_run_that_keeps_nothing_has_the_same_numbers(whole, dataset):
    run, tensors = left_by(tiny(), dataset)
    assert set(tensors) == {"outputs"} and not run.kept and run.details.empty
    assert run.scalars.items() <= whole[0].scalars.items()
    assert {"superclass_probe", "nll_selected", "information_similar"}.isdisjoint(run.scalars)


def test_a_diverged_run_has_a_history_and_nothing_else(dataset):
    run, tensors = left_by(tiny(recipe=Recipe(peak_learning_rate=1e30), keep=EXTRAS), dataset)
    assert run.diverged and len(run.history) > 0 and run.kept == set(EXTRAS)
    assert run.scalars == run.counts == run.samples == tensors == {}


def test_what_only_some_runs_have(dataset):
    noisy = NoisyLabels(noise="symmetric", rate=0.4)
    run, _ = left_by(tiny(labels=noisy), dataset)
    for name in ("memorised", "recovered"):
        assert run.scalars[name] == run.history[name].iloc[-1]
    tailed, _ = left_by(tiny(sample=LongTail(train_size=300, imbalance=10)), dataset)
    assert {"few_accuracy", "medium_accuracy", "rare_elsewhere"} <= set(tailed.scalars)
    assert "many_accuracy" not in tailed.scalars
    some = SomeClasses(classes=8, train_size=80)
    few, tensors = left_by(tiny(sample=some, monitor_size=80, keep=("features", "unseen")), dataset)
    assert tensors["outputs"]["test_logits"].shape == (80, 8)
    assert 0 <= few.scalars["unseen_probe"] <= 1 and 0 <= few.scalars["unseen_auroc"] <= 1
    assert 0 <= few.scalars["unseen_probe_usual"] <= 1
    assert set(few.details["case"]) == {"unseen_probe"}
    coarse, tensors = left_by(tiny(labels=Superclasses()), dataset)
    assert tensors["outputs"]["test_labels"].bincount().tolist() == [30, 30, 20, 20]
    for run in (few, coarse):
        assert {"superclass_probe", "related_auroc"}.isdisjoint(run.scalars)
        assert run.projections == {}


def test_a_student_says_how_smooth_its_teacher_is(whole, dataset):
    """γ of Müller et al. (2019): 1 where the teacher's probabilities are uniform."""
    teacher, weights = whole[0].spec, whole[1]["weights"]
    found = {}
    for temperature in (1.0, 1e6):
        method = Distillation(teacher=teacher, temperature=temperature)
        run, _ = left_by(tiny(method=method), dataset, networks=lambda _: weights)
        found[temperature] = run.scalars["smoothness"]
    assert 0 < found[1.0] < found[1e6] == pytest.approx(1, abs=1e-3)
    assert "smoothness" not in left_by(tiny(method=Smoothing(epsilon=0.5)), dataset)[0].scalars
