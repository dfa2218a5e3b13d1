"""The built-in data set: its images, and the posterior that makes it worth having."""

import numpy as np
import pytest
import torch

from lsce import data
from lsce.data import synthetic


@pytest.fixture(scope="module")
def parts() -> tuple[data.Split, data.Split]:
    return synthetic.generate()


@pytest.fixture(scope="module")
def tested(parts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The 10,000 test images, their labels and posterior."""
    test = parts[1]
    return test.images, test.labels, synthetic.posterior(test.images)


def test_patterns_are_distinct_and_mirror_symmetric():
    theta, patterns = synthetic._model()
    assert len({p.tobytes() for p in patterns}) == synthetic.PATTERNS
    # What decoding looks at.
    assert len({p[0, :2].tobytes() for p in patterns}) == synthetic.PATTERNS
    np.testing.assert_array_equal(patterns, patterns[:, :, ::-1])
    np.testing.assert_allclose(theta.sum(1), 1, rtol=1e-12)


def test_posterior_equals_a_sum_over_cells(tested):
    images, _, posterior = tested
    theta, patterns = synthetic._model()
    index = {pattern.tobytes(): v for v, pattern in enumerate(patterns)}
    for i in (0, 777, 9999):
        density = np.zeros(100)
        for top in range(0, 32, 4):
            for left in range(0, 32, 4):
                cell = images[i, top : top + 4, left : left + 4].numpy().tobytes()
                density += np.log(theta[:, index[cell]])
        expected = np.exp(density - np.logaddexp.reduce(density))
        np.testing.assert_allclose(posterior[i].numpy(), expected, rtol=1e-9, atol=1e-300)
    assert posterior.dtype == torch.float64 and posterior.shape == (10_000, 100)
    torch.testing.assert_close(posterior.sum(1), torch.ones(10_000, dtype=torch.float64))


def test_posterior_is_calibrated_and_of_the_intended_difficulty(tested):
    _, labels, posterior = tested
    confidence, predicted = posterior.max(1)
    correct = predicted == labels
    # Calibration in the large: correctness is Bernoulli(confidence) for each image.
    error = (correct.double() - confidence).mean()
    standard_error = (confidence * (1 - confidence)).sum().sqrt() / len(labels)
    assert abs(error) < 4 * standard_error
    for low in (0.3, 0.5, 0.7):
        inside = (confidence > low) & (confidence <= low + 0.2)
        c = confidence[inside]
        gap = (correct[inside].double() - c).mean()
        assert abs(gap) < 4 * (c * (1 - c)).sum().sqrt() / inside.sum()
    assert 0.70 < correct.double().mean() < 0.80
    superclass = torch.tensor(data.entry("built-in").superclass)
    siblings = superclass[predicted[~correct]] == superclass[labels[~correct]]
    assert siblings.double().mean() > 0.75


def test_flip_keeps_the_posterior_and_foreign_images_are_refused(tested):
    images, _, posterior = tested
    torch.testing.assert_close(synthetic.posterior(images.flip(2)), posterior)
    broken = images.clone()
    broken[5, 31, 31, 2] ^= 1
    with pytest.raises(ValueError, match=r"images\[5\] is not an image of the built-in"):
        synthetic.posterior(broken)
    with pytest.raises(ValueError, match=r"images\[0\]"):
        synthetic.posterior(torch.full((1, 32, 32, 3), 255, dtype=torch.uint8))
    with pytest.raises(ValueError, match="images must be uint8"):
        synthetic.posterior(images.float())
    with pytest.raises(ValueError, match="images must be uint8"):
        synthetic.posterior(images.permute(0, 3, 1, 2))


def test_parts_share_no_image_and_look_like_cifar(parts):
    for part, per_class in zip(parts, (500, 100), strict=True):
        assert part.images.shape == (100 * per_class, 32, 32, 3)
        assert part.images.dtype == torch.uint8
        assert part.labels.bincount().tolist() == [per_class] * 100
    train, test = ({hash(i.tobytes()) for i in part.images.numpy()} for part in parts)
    assert not train & test and (len(train), len(test)) == (50_000, 10_000)
    pixels = parts[1].images.double()
    assert 110 < pixels.mean() < 140 and 55 < pixels.std() < 80


def test_the_data_set(parts, monkeypatch):
    monkeypatch.setattr(synthetic, "generate", lambda: parts)
    dataset, entry = data.load("built-in"), data.entry("built-in")
    assert dataset.checksum == entry.checksum and entry.posterior is synthetic.posterior
    for name, per_class in {"train": 450, "validation": 50, "test": 100}.items():
        assert getattr(dataset, name).labels.bincount().tolist() == [per_class] * 100
    assert torch.equal(dataset.test.images, parts[1].images)
    assert entry.classes[0] == "s00-c00" and entry.classes[99] == "s19-c99"
    for name, superclass in zip(entry.classes, entry.superclass, strict=True):
        assert name.startswith(entry.superclasses[superclass] + "-")


def test_another_source_and_drift_are_errors(parts, monkeypatch):
    with pytest.raises(ValueError, match="source must be None for the built-in.*'somewhere'"):
        data.load("built-in", "somewhere")
    monkeypatch.setattr(synthetic, "generate", lambda: (parts[1], parts[1]))
    with pytest.raises(RuntimeError, match="comes out different with NumPy"):
        data.load("built-in")
