"""The built-in data set: its images, and the posterior that makes it worth having."""

import numpy as np
import pytest
import torch

from lsce.data import synthetic


@pytest.fixture(scope="module")
def fresh() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """2,000 images that `generate` does not hold, their labels and posterior."""
    images, labels = synthetic.sample(20, seed=1)
    return images, labels, synthetic.posterior(images)


def test_patterns_are_distinct_and_mirror_symmetric():
    theta, patterns = synthetic._model()
    assert len({p.tobytes() for p in patterns}) == synthetic.PATTERNS
    # What decoding looks at.
    assert len({p[0, :2].tobytes() for p in patterns}) == synthetic.PATTERNS
    np.testing.assert_array_equal(patterns, patterns[:, :, ::-1])
    np.testing.assert_allclose(theta.sum(1), 1, rtol=1e-12)


def test_posterior_equals_a_sum_over_cells(fresh):
    images, _, posterior = fresh
    theta, patterns = synthetic._model()
    index = {pattern.tobytes(): v for v, pattern in enumerate(patterns)}
    for i in (0, 777, 1999):
        density = np.zeros(100)
        for top in range(0, 32, 4):
            for left in range(0, 32, 4):
                cell = images[i, top : top + 4, left : left + 4].numpy().tobytes()
                density += np.log(theta[:, index[cell]])
        expected = np.exp(density - np.logaddexp.reduce(density))
        np.testing.assert_allclose(posterior[i].numpy(), expected, rtol=1e-9, atol=1e-300)
    assert posterior.dtype == torch.float64 and posterior.shape == (2000, 100)
    torch.testing.assert_close(posterior.sum(1), torch.ones(2000, dtype=torch.float64))


def test_posterior_is_calibrated_and_of_the_intended_difficulty():
    images, labels = synthetic.sample(100, seed=2)
    posterior = synthetic.posterior(images)
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
    superclass = torch.tensor(synthetic.SUPERCLASS)
    siblings = superclass[predicted[~correct]] == superclass[labels[~correct]]
    assert siblings.double().mean() > 0.75


def test_flip_keeps_the_posterior_and_foreign_images_are_refused(fresh):
    images, _, posterior = fresh
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


def test_samples_depend_on_the_seed_alone(fresh):
    images, labels, _ = fresh
    again, _ = synthetic.sample(20, seed=1)
    other, _ = synthetic.sample(20, seed=2)
    assert torch.equal(images, again) and not (images == other).all()
    assert torch.equal(labels.bincount(), torch.full((100,), 20))
    with pytest.raises(ValueError, match="per_class must be at least 1, got 0"):
        synthetic.sample(0, seed=1)
    with pytest.raises(ValueError, match="seed must not be negative"):
        synthetic.sample(1, seed=-1)


def test_parts_share_no_image_and_look_like_cifar():
    train, train_labels, test, test_labels = synthetic.generate()
    assert train.shape == (50_000, 32, 32, 3) and train.dtype == torch.uint8
    assert test.shape == (10_000, 32, 32, 3) and test.dtype == torch.uint8
    assert train_labels.bincount().unique().tolist() == [500]
    assert test_labels.bincount().unique().tolist() == [100]
    assert not {i.tobytes() for i in train.numpy()} & {i.tobytes() for i in test.numpy()}
    pixels = test.double()
    assert 110 < pixels.mean() < 140 and 55 < pixels.std() < 80


def test_names_agree():
    assert synthetic.CLASSES[0] == "s00-c00" and synthetic.CLASSES[99] == "s19-c99"
    for name, superclass in zip(synthetic.CLASSES, synthetic.SUPERCLASS, strict=True):
        assert name.startswith(synthetic.SUPERCLASSES[superclass] + "-")
