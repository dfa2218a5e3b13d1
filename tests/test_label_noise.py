"""Label noise: its matrix, its draws and what it refuses."""

import pytest
import torch

from lsce.data import flip_labels, transition_matrix

SUPERCLASS = (0, 1, 0, 1, 0)  # 0 -> 2 -> 4 -> 0 and 1 -> 3 -> 1


def test_matrices_by_hand():
    symmetric = transition_matrix("symmetric", 0.4, SUPERCLASS)
    assert symmetric.dtype == torch.float64
    expected = torch.full((5, 5), 0.1, dtype=torch.float64)
    torch.testing.assert_close(symmetric, expected.fill_diagonal_(0.6))
    expected = [
        [0.7, 0, 0.3, 0, 0],
        [0, 0.7, 0, 0.3, 0],
        [0, 0, 0.7, 0, 0.3],
        [0, 0.3, 0, 0.7, 0],
        [0.3, 0, 0, 0, 0.7],
    ]
    asymmetric = transition_matrix("asymmetric", 0.3, SUPERCLASS)
    torch.testing.assert_close(asymmetric, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_draws_follow_the_matrix(kind, rate):
    n = 20_000
    labels = torch.arange(5).repeat_interleave(n)
    noisy = flip_labels(labels, kind, rate, seed=3, superclass=SUPERCLASS)
    assert noisy.dtype == torch.int64
    drawn = torch.bincount(5 * labels + noisy, minlength=25).reshape(5, 5) / n
    matrix = transition_matrix(kind, rate, SUPERCLASS)
    assert ((drawn > 0) <= (matrix > 0)).all()  # never a class that the matrix rules out
    standard_error = (matrix * (1 - matrix) / n).sqrt()
    assert ((drawn - matrix).abs() <= 4.5 * standard_error).all()


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_same_seed_same_noise_nested_in_the_rate(kind):
    labels = torch.arange(5).repeat(400)
    original = labels.clone()
    low, again, high = (flip_labels(labels, kind, r, 7, SUPERCLASS) for r in (0.2, 0.2, 0.4))
    assert torch.equal(labels, original) and torch.equal(low, again)
    assert not torch.equal(low, flip_labels(labels, kind, 0.2, 8, SUPERCLASS))
    wrong = low != labels
    assert torch.equal(high[wrong], low[wrong])
    assert int((high != labels).sum()) > int(wrong.sum())


def test_flipped_images_do_not_depend_on_the_kind():
    labels = torch.arange(5).repeat(400)
    noisy = [flip_labels(labels, k, 0.3, 1, SUPERCLASS) for k in ("symmetric", "asymmetric")]
    assert torch.equal(noisy[0] != labels, noisy[1] != labels)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("uniform", 0.2, SUPERCLASS), ValueError, "kind must be .*'uniform'"),
        (("symmetric", 1.5, SUPERCLASS), ValueError, "rate must lie in .*1.5"),
        (("symmetric", float("nan"), SUPERCLASS), ValueError, "rate must lie in .*nan"),
        (("symmetric", "0.2", SUPERCLASS), TypeError, "rate must be a number"),
        (("symmetric", 0.2, (0,)), ValueError, "at least two classes"),
        (("asymmetric", 0.2, (0, 0, 4)), ValueError, "superclass 4 holds one class"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        transition_matrix(*arguments)
    with pytest.raises(error, match=words):
        flip_labels(torch.tensor([0]), *arguments[:2], 0, arguments[2])


def test_bad_labels():
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 5\), got 1 to 5"):
        flip_labels(torch.tensor([1, 5]), "symmetric", 0.2, 0, SUPERCLASS)
    with pytest.raises(TypeError, match="labels must be an int64 tensor"):
        flip_labels(torch.tensor([1.0]), "symmetric", 0.2, 0, SUPERCLASS)
