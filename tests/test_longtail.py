"""Long tails: how they are cut, weighted and measured."""

import pytest
import torch

from lsce import data
from lsce.measures import long_tail


def test_counts_are_those_of_cifar_100_lt():
    """Cui et al. 2019: 500 images of the commonest class; 10,847 in all at imbalance 100."""
    counts = data.long_tail_counts(500, 100, 100)
    assert (counts[0], counts[-1], sum(counts)) == (500, 5, 10_847)
    assert data.long_tail_counts(500, 100, 10)[-1] == 50
    assert counts == sorted(counts, reverse=True)


def test_a_long_tail_is_cut_from_the_balanced_subset_of_its_seed():
    labels = torch.arange(1_000).remainder(10)[torch.randperm(1_000)]
    balanced = data.subset(labels, 500, seed=3)
    cut = data.long_tail(labels, 500, 25, seed=3)
    assert set(cut.tolist()) <= set(balanced.tolist())
    assert labels[cut].bincount().tolist() == data.long_tail_counts(50, 10, 25)
    assert torch.equal(cut, cut.sort().values)


def test_weights_are_inverse_to_the_images_and_1_on_average():
    counts = [60, 30, 10]
    weights = long_tail.inverse_frequency(counts)
    assert (weights * torch.tensor(counts)).sum() / 100 == pytest.approx(1)
    assert weights[2] / weights[0] == pytest.approx(6)


#: Many-, medium- and few-shot classes; the last of five is the rarest fifth.
COUNTS = [200, 101, 100, 20, 19]


def test_classes_are_grouped_by_their_training_images():
    labels = torch.arange(5).repeat(2)
    logits = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 0, 4, 0, 0, 0, 0, 0]), 5) * 50.0
    found = long_tail.measure(logits, labels, COUNTS)
    assert found["many_accuracy"] == 0.75
    assert found["medium_accuracy"] == 0.25
    assert found["few_accuracy"] == found["rare_accuracy"] == 0.5
    assert found["rare_predicted"] == pytest.approx(0.1)
    assert found["rare_elsewhere"] == pytest.approx(0, abs=1e-9)


def test_a_network_that_sees_a_rare_class_everywhere_shows():
    logits = torch.zeros(5, 5)
    logits[:, 4] = 50.0
    found = long_tail.measure(logits, torch.arange(5), COUNTS)
    assert found["rare_predicted"] == 1 and found["rare_elsewhere"] == pytest.approx(1)
    assert "few_accuracy" not in long_tail.measure(logits, torch.arange(5), [50] * 5)


def test_the_optimum_of_the_weighted_smoothed_loss_is_where_its_gradient_vanishes():
    from lsce import LabelSmoothingCrossEntropy

    counts, epsilon = [100, 50, 20, 10, 1], 0.2
    weights = long_tail.inverse_frequency(counts)
    criterion = LabelSmoothingCrossEntropy(epsilon, class_weights=weights)
    logits = torch.zeros(4, 5, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def step():
        optimizer.zero_grad()
        loss = criterion(logits, torch.arange(4))
        loss.backward()
        return loss

    optimizer.step(step)
    rare = logits.detach().softmax(1)[:, 4].mean().item()
    assert long_tail.optimal_elsewhere(counts, epsilon) == pytest.approx(rare, abs=1e-3)
    assert rare > 0.2  # of ε / 4 = 0.05 without weights
    assert long_tail.optimal_elsewhere(counts, 0.0) == 0
