"""Label noise: its matrix, its draws and what it refuses."""

import pytest
import torch
from scipy import stats

from lsce import data
from lsce.data import cifar100n, draw_labels, flip_labels, human_transition, transition_matrix
from lsce.machine import paths

CIFAR100 = data.entry("cifar-100")

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


# ---- noise as people make it ----


def test_counts_of_cifar_100n():
    """Wei et al. (2022): 50,000 labels, 40.2% of them wrong."""
    counts = CIFAR100.human_counts()
    assert counts.dtype == torch.int64 and counts.sum(1).tolist() == [500] * 100
    assert data.human_rate(counts) == 0.402
    off = counts - counts.diagonal().diag()
    superclass = torch.tensor(CIFAR100.superclass)
    inside = off[superclass[:, None] == superclass].sum() / off.sum()
    assert 0.34 < inside < 0.35
    # As the file's lines have them.
    names = CIFAR100.classes
    assert counts[names.index("apple"), names.index("apple")] == 429
    assert counts[names.index("apple"), names.index("beaver")] == 2
    assert counts[names.index("beaver"), names.index("bear")] == 35
    assert counts[names.index("apple"), names.index("bear")] == 0
    matrix = human_transition(counts)
    torch.testing.assert_close(matrix.sum(1), torch.ones(100, dtype=torch.float64))
    assert matrix[0, 0] == 429 / 500


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("apple,beaver,2", "apple,beaver,3", "was altered"),
        ("apple,beaver,2", "apple,beavers,2", "is no table"),
        ("apple,beaver,2", "apple,beaver,few", "is no table"),
        ("true,given", "true,said", "is no table"),
    ],
)
def test_other_counts_are_refused(old, new, words, tmp_path, monkeypatch):
    text = paths.CIFAR100N_COUNTS.read_text()
    assert old in text
    file = tmp_path / "counts.csv"
    file.write_text(text.replace(old, new, 1))
    monkeypatch.setattr(paths, "CIFAR100N_COUNTS", file)
    with pytest.raises(data.DataError, match=f"counts.csv {words}"):
        cifar100n.counts.__wrapped__(CIFAR100.classes)


def test_human_noise_follows_the_counts():
    """By a χ² test of each class, at 1% over all of them; never a label that nobody gave."""
    counts, n = CIFAR100.human_counts(), 5_000
    labels = torch.arange(100).repeat_interleave(n)
    noisy = draw_labels(labels, human_transition(counts), seed=3)
    assert noisy.dtype == torch.int64
    drawn = torch.bincount(100 * labels + noisy, minlength=100 * 100).reshape(100, 100)
    assert not drawn[counts == 0].any()
    p = [
        stats.chisquare(seen[given > 0], n * given[given > 0] / given.sum()).pvalue
        for seen, given in zip(drawn.numpy(), counts.numpy(), strict=True)
    ]
    assert min(p) > 0.01 / 100


def test_draws_from_a_matrix_of_each_kind_follow_it():
    labels = torch.arange(5).repeat_interleave(20_000)
    for kind in ("symmetric", "asymmetric"):
        matrix = transition_matrix(kind, 0.3, SUPERCLASS)
        noisy = draw_labels(labels, matrix, seed=3)
        drawn = torch.bincount(5 * labels + noisy, minlength=25).reshape(5, 5) / 20_000
        assert ((drawn - matrix).abs() <= 4.5 * (matrix * (1 - matrix) / 20_000).sqrt()).all()
        same = flip_labels(labels, kind, 0.3, 3, SUPERCLASS)
        assert torch.equal(noisy != labels, same != labels)


def test_same_seed_same_human_noise_nested_in_a_class_s_rate():
    """Of a class that people mistake less often than 60%, symmetric noise of 60% flips more."""
    matrix = human_transition(CIFAR100.human_counts())
    labels = torch.arange(100).repeat(300)
    original = labels.clone()
    noisy, again = (draw_labels(labels, matrix, 7) for _ in range(2))
    assert torch.equal(labels, original) and torch.equal(noisy, again)
    assert not torch.equal(noisy, draw_labels(labels, matrix, 8))
    flipped = flip_labels(labels, "symmetric", 0.6, 7, CIFAR100.superclass) != labels
    rarer = (1 - matrix.diagonal() < 0.6)[labels]
    wrong = noisy != labels
    assert (wrong & rarer).sum() > 5_000 and not (wrong & rarer & ~flipped).any()
    assert not (flipped & ~rarer & ~wrong).any()


@pytest.mark.parametrize(
    ("transition", "words"),
    [
        ([[0.5, 0.4], [0.0, 1.0]], "each of its rows in sum 1"),
        ([[1.5, -0.5], [0.0, 1.0]], "must hold probabilities"),
    ],
)
def test_a_matrix_of_no_probabilities_is_refused(transition, words):
    with pytest.raises(ValueError, match=words):
        draw_labels(torch.tensor([0]), torch.tensor(transition, dtype=torch.float64), 0)


@pytest.mark.parametrize("counts", [[[1, 2]], [[1, -1], [0, 1]], [[0, 0], [1, 1]]])
def test_counts_without_shares_are_refused(counts):
    with pytest.raises(ValueError, match="counts must be a square of numbers from 0"):
        human_transition(torch.tensor(counts))


def test_labels_outside_a_matrix_are_refused():
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 5\), got 1 to 5"):
        draw_labels(torch.tensor([1, 5]), torch.eye(5, dtype=torch.float64), 0)
