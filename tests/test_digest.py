import numpy as np
import pandas as pd
import pytest
from made_up import digest_of, record_of, spec

from lsce import data
from lsce.data import synthetic
from lsce.measures import calibration, features
from lsce.results import measurements


def test_scalars_are_measured_before_and_after_temperature():
    record = record_of(spec())
    outputs, scalars = record.outputs(), measurements.of(record).scalars
    scaled = calibration.softmax(outputs["test_logits"], 2.0)
    assert scalars["ece_scaled"] == calibration.expected_calibration_error(
        scaled, outputs["test_labels"]
    )
    assert scalars["ece"] != scalars["ece_scaled"]
    assert scalars["nll_gap"] == pytest.approx(0.2)
    assert scalars["accuracy_gap"] == pytest.approx(-0.2)
    assert scalars["temperature"] == 2 and scalars["temperature_converged"] == 1


def test_bins_change_the_binned_errors_alone():
    record = record_of(spec())
    few, many = measurements.of(record, 5).scalars, measurements.of(record, 50).scalars
    assert few["ece"] != many["ece"] and few["nll"] == many["nll"]


def test_image_by_image_it_says_what_the_logits_say():
    record = record_of(spec())
    run, outputs = measurements.of(record), record.outputs()
    correct = (outputs["test_logits"].argmax(1) == outputs["test_labels"]).numpy()
    assert (run.samples["correct"] == correct).all()
    for arm, temperature in (("confidence", 1.0), ("scaled", 2.0)):
        probs = calibration.softmax(outputs["test_logits"], temperature)
        assert np.array_equal(run.samples[arm], probs.max(axis=1))
    assert "true_probability" not in run.samples


def test_counts_hold_every_image_in_its_bin():
    record = record_of(spec())
    run, logits = measurements.of(record), record.outputs()["test_logits"].numpy()
    top = logits.max(axis=1)
    gap = np.array([t - np.delete(z, z.argmax()).mean() for t, z in zip(top, logits, strict=True)])
    for quantity, values in (("confidence", run.samples["confidence"]), ("gap", gap)):
        counts, width = run.counts[quantity], measurements.WIDTHS[quantity]
        expected, _ = np.histogram(values, width * np.arange(len(counts) + 1))
        assert counts.sum() == len(values) and (counts == expected).all()
        assert counts[-1] > 0


def test_on_the_built_in_data_it_knows_the_true_probability():
    run = digest_of(spec(data="built-in", data_checksum=data.CHECKSUMS["built-in"]), images=10_000)
    predicted = record_of(run.spec, images=10_000).outputs()["test_logits"].argmax(1)
    posterior = synthetic.posterior(data.load("built-in").test.images)
    expected = posterior[np.arange(10_000), predicted].numpy()
    assert np.array_equal(run.samples["true_probability"], expected)


def test_a_diverged_run_has_a_history_and_nothing_else():
    run = digest_of(spec(), status="diverged")
    assert run.diverged and len(run.history) == 2
    assert run.scalars == run.counts == run.samples == {}


FULL = ("features", "information", "selected")


def test_it_holds_what_the_record_was_asked_to_keep():
    assert digest_of(spec(keep=FULL)).has(FULL)
    assert not digest_of(spec()).has(("selected",)) and digest_of(spec()).has(())
    run = digest_of(spec(keep=FULL))
    assert run.scalars["top1_error_selected"] == run.scalars["top1_error"]
    assert run.scalars["log_scatter_ratio"] == pytest.approx(np.log10(0.5))
    assert run.scalars["information_similar"] == 1.5


def test_projections_are_of_the_classes_named():
    record = record_of(spec(keep=("features",)))
    names = {"similar": ("apple", "baby", "bear"), "unlike": data.EXAMPLES["cifar-100"]["unlike"]}
    usual, chosen = (
        measurements.of(record).projections,
        measurements.of(record, classes=names).projections,
    )
    assert chosen["similar.train"].shape == (3, 3, 2)
    assert np.array_equal(usual["unlike.train"], chosen["unlike.train"])
    kept = record.features()
    indices = [data.CLASSES["cifar-100"].index(name) for name in names["similar"]]
    points = features.projection(kept["train_features"], kept["classifier_weight"], indices)
    assert chosen["similar.train"][1] == pytest.approx(points[indices[1] :: 100], abs=1e-5)


def test_a_digest_is_computed_once(monkeypatch):
    record = record_of(spec(keep=FULL))
    first = measurements.of(record)
    monkeypatch.setattr(measurements, "_computed", None)
    again = measurements.of(record)
    assert again.scalars == first.scalars
    for name in ("counts", "samples", "projections"):
        for quantity, values in getattr(first, name).items():
            assert np.array_equal(getattr(again, name)[quantity], values)
    monkeypatch.undo()
    monkeypatch.setattr(measurements, "VERSION", measurements.VERSION + 1)
    monkeypatch.setattr(
        measurements, "_computed", lambda *_: ({"new": 1.0}, {}, {}, {}, pd.DataFrame())
    )
    assert measurements.of(record).scalars == {"new": 1.0}


def test_a_loss_that_runs_away_leaves_a_small_digest():
    record = record_of(spec())
    record.meta["outputs"]["test_logits"][0, 0] = 1e12
    counts = measurements.of(record).counts["gap"]
    assert counts.sum() == 500 and counts[-1] == 1
    assert len(counts) == measurements.LARGEST_GAP / measurements.WIDTHS["gap"]
