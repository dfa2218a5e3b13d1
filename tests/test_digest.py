import numpy as np
import pytest
from made_up import digest_of, record_of, spec

from lsce import builtin, data, digest, metrics


def test_scalars_are_measured_before_and_after_temperature():
    record = record_of(spec())
    outputs, scalars = record.outputs(), digest.of(record).scalars
    scaled = metrics.softmax(outputs["test_logits"], 2.0)
    assert scalars["ece_scaled"] == metrics.expected_calibration_error(
        scaled, outputs["test_labels"]
    )
    assert scalars["ece"] != scalars["ece_scaled"]
    assert scalars["nll_gap"] == pytest.approx(0.2)
    assert scalars["accuracy_gap"] == pytest.approx(-0.2)
    assert scalars["temperature"] == 2 and scalars["temperature_converged"] == 1


def test_bins_change_the_binned_errors_alone():
    record = record_of(spec())
    few, many = digest.of(record, 5).scalars, digest.of(record, 50).scalars
    assert few["ece"] != many["ece"] and few["nll"] == many["nll"]


def test_image_by_image_it_says_what_the_logits_say():
    record = record_of(spec())
    run, outputs = digest.of(record), record.outputs()
    correct = (outputs["test_logits"].argmax(1) == outputs["test_labels"]).numpy()
    assert (run.samples["correct"] == correct).all()
    for arm, temperature in (("confidence", 1.0), ("scaled", 2.0)):
        probs = metrics.softmax(outputs["test_logits"], temperature)
        assert np.array_equal(run.samples[arm], probs.max(axis=1))
    assert "true_probability" not in run.samples


def test_counts_hold_every_image_in_its_bin():
    record = record_of(spec())
    run, logits = digest.of(record), record.outputs()["test_logits"].numpy()
    top = logits.max(axis=1)
    gap = np.array([t - np.delete(z, z.argmax()).mean() for t, z in zip(top, logits, strict=True)])
    for quantity, values in (("confidence", run.samples["confidence"]), ("gap", gap)):
        counts, width = run.counts[quantity], digest.WIDTHS[quantity]
        expected, _ = np.histogram(values, width * np.arange(len(counts) + 1))
        assert counts.sum() == len(values) and (counts == expected).all()
        assert counts[-1] > 0


def test_on_the_built_in_data_it_knows_the_true_probability():
    run = digest_of(spec(data="built-in", data_checksum=data.CHECKSUMS["built-in"]), images=10_000)
    predicted = record_of(run.spec, images=10_000).outputs()["test_logits"].argmax(1)
    posterior = builtin.posterior(data.load("built-in").test.images)
    expected = posterior[np.arange(10_000), predicted].numpy()
    assert np.array_equal(run.samples["true_probability"], expected)


def test_a_diverged_run_has_a_history_and_nothing_else():
    run = digest_of(spec(), status="diverged")
    assert run.diverged and len(run.history) == 2
    assert run.scalars == run.counts == run.samples == {}
