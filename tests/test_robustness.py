"""Corruptions and attacks against closed forms, and networks that hide their gradients."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lsce import data
from lsce.measures import masking, robustness
from lsce.training.networks import ImageClassifier

CLASSES = 4


def protocol(**changes) -> SimpleNamespace:
    fields = dict(corrupted_images=40, attacked_images=100, radii=(1.0, 4.0), judged_radius=4.0)
    fields |= dict(pgd_steps=10, pgd_restarts=2, square_queries=20, longest="PGD-10 × 2")
    return SimpleNamespace(**fields | changes)


class Linear(nn.Module):
    """Feature maps that are linear in the pixels: each class sums them with its own weights."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        weight = torch.randn(CLASSES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.weight, self.scale = nn.Parameter(weight), scale

    def forward(self, x):
        return self.scale * torch.einsum("nchw,kchw->nk", x, self.weight)[:, :, None, None]


def network(scale: float = 1.0) -> ImageClassifier:
    found = ImageClassifier(Linear(scale), CLASSES, CLASSES)
    found.classifier.weight.data.copy_(torch.eye(CLASSES))
    found.classifier.bias.data.zero_()
    return found.eval()


@pytest.fixture(scope="module")
def test_set():
    """Images whose pixels stay away from 0 and 1, and labels that the network mostly agrees on."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(60, 196, (1_000, 32, 32, 3), generator=generator, dtype=torch.uint8)
    labels = network()(images.permute(0, 3, 1, 2).float() / 255).argmax(1)
    wrong = torch.rand(1_000, generator=generator) < 0.1
    return images, torch.where(wrong, (labels + 1) % CLASSES, labels)


def exactly_falls(tried, images, labels, radius: float) -> torch.Tensor:
    """An image falls where another class's margin is less than radius · ‖w_y − w_k‖₁."""
    weight = 4 * tried.body.scale * tried.body.weight.detach().flatten(1).double()
    x = images.permute(0, 3, 1, 2).double().div(255) - 0.5
    z = x.flatten(1) @ weight.T
    own = z.gather(1, labels[:, None])
    reach = radius / 255 * (weight[labels][:, None] - weight[None]).abs().sum(2)
    falls = (own - z <= reach).scatter(1, labels[:, None], False)
    return falls.any(1)


def exact_error(tried, images, labels, radius: float) -> float:
    return exactly_falls(tried, images, labels, radius).double().mean().item()


def attacked(details, case: str) -> dict[float, float]:
    errors = [row for row in details if row["quantity"] != "discordant"]
    return {row["x"]: row["value"] for row in errors if row["case"] == case}


@pytest.mark.slow
def test_on_a_linear_network_attacks_reach_what_can_be_reached(test_set):
    tried, radii = network(), (0.01, 0.05)
    subset = data.subset(test_set[1], 100, seed=0)
    images, labels = test_set[0][subset], test_set[1][subset]
    found, survived = robustness._attacked(
        tried,
        network(),
        robustness.to_float(images),
        labels,
        protocol(radii=radii, judged_radius=radii[1]),
    )
    for position, radius in enumerate(radii):
        exact = exact_error(tried, images, labels, radius)
        assert 0.1 < exact < 1
        for case in ("PGD-20, margin", "worst case"):
            assert attacked(found, case)[radius] == pytest.approx(exact, abs=0.011), case
        assert attacked(found, "FGSM")[radius] <= exact + 0.001
        for name, case in (("survived_fgsm", "FGSM"), ("survived_worst", "worst case")):
            error = 1 - survived[name][position].mean()
            assert error == pytest.approx(attacked(found, case)[radius])
        falls = exactly_falls(tried, images, labels, radius).numpy()
        assert (survived["survived_worst"][position] == ~falls).mean() > 0.98
        assert not (survived["survived_worst"] & ~survived["survived_fgsm"]).any()
    assert attacked(found, "clean")[0.0] == pytest.approx(exact_error(tried, images, labels, 0.0))


@pytest.mark.slow
def test_the_worst_case_is_no_better_than_any_attack_and_grows_with_the_radius(test_set):
    found, details, _ = robustness.examine(
        network(), network(), *test_set, protocol(radii=(0.01, 0.03), judged_radius=0.03), seed=0
    )
    worst = attacked(details, "worst case")
    assert worst[0.01] < worst[0.03] == found["worst_error"]
    for radius, error in attacked(details, "AutoAttack").items():
        assert error >= attacked(details, "Square")[radius]
    for row in details:
        if row["quantity"] in ("attack", "masking") and row["x"] in worst:
            assert row["value"] <= worst[row["x"]]
    assert found["overstated"] == pytest.approx(found["worst_error"] - found["fgsm_error"])
    there = robustness.errors_at(pd.DataFrame(details), 0.01)
    fgsm, short = attacked(details, "FGSM")[0.01], attacked(details, "PGD-20")[0.01]
    assert there == {
        "fgsm_error": fgsm,
        "pgd_error": short,
        "worst_error": worst[0.01],
        "overstated": worst[0.01] - fgsm,
    }
    table = pd.DataFrame(details).set_index(["quantity", "case", "x"])["value"]
    for _, name, other in masking.comparisons("PGD-10 × 2"):
        for radius in worst:
            one, two = (attacked(details, case)[radius] for case in (name, other))
            assert abs(one - two) - 1e-9 <= table["discordant", name, radius] <= one + two - 0.2


@pytest.mark.slow
def test_masked_gradients_are_exposed(test_set):
    """A softmax saturated in float32 has no gradient, and the margin of the logits has one. With
    smaller logits, at which nothing is saturated, every check passes."""
    given = protocol(radii=(0.1,), judged_radius=0.1)
    masked, details, _ = robustness.examine(network(1e3), network(), *test_set, given, seed=0)
    plain, good, _ = robustness.examine(network(0.05), network(), *test_set, given, seed=0)
    assert masked["zero_gradients"] > 0.5 > plain["zero_gradients"]
    assert masked["fgsm_error"] < plain["fgsm_error"] - 0.1
    assert masked["worst_error"] == pytest.approx(plain["worst_error"], abs=0.02)
    assert masked["overstated"] > plain["overstated"] + 0.1
    margin, cross_entropy = (attacked(details, c)[0.1] for c in ("PGD-20, margin", "PGD-20"))
    assert margin > cross_entropy + 0.1
    failed = [
        set(table.loc[~table["passes"], "check"])
        for rows in (details, good)
        for table in [masking.checks(pd.DataFrame(rows), given.longest, 0.1, 100)]
    ]
    assert failed[0] > {"another loss finds no more than cross entropy"} and not failed[1]


def test_square_does_the_same_with_a_third_of_the_passes(test_set, monkeypatch):
    found, passes = [], []
    images, labels = robustness.to_float(test_set[0][:40]), test_set[1][:40]
    remembering = robustness._remembering
    for wrap in (remembering, lambda predict: predict):
        monkeypatch.setattr(robustness, "_remembering", wrap)
        tried, counted = network(), []
        tried.register_forward_hook(lambda module, given, out, n=counted: n.append(len(out)))
        target = robustness._Target(tried, images, labels)
        with robustness._quiet_and_seeded(0):
            found.append(target.square(0.03 / 255, 60))
        passes.append(sum(counted))
    assert np.array_equal(*found) and not np.array_equal(found[0], target.x)
    assert passes[0] < 0.45 * passes[1]


def test_nothing_right_is_an_error_of_1_throughout(test_set):
    images, labels = test_set
    wrong = (network()(robustness.to_float(images)).argmax(1) + 1) % CLASSES
    found, details, survived = robustness.examine(
        network(), network(), images, wrong, protocol(corrupted_images=4), seed=0
    )
    assert {row["value"] for row in details if row["quantity"] == "attack"} == {1.0}
    assert found["worst_error"] == 1 and found["overstated"] == 0
    assert not survived["survived_worst"].any() and survived["survived_worst"].shape == (2, 100)


def test_each_image_survives_the_corruptions_that_it_is_right_under(test_set):
    images, labels = (part[:50] for part in test_set)
    rows, survived = robustness._corrupted(network(), images, labels)
    expected = sum(
        robustness.evaluate(network(), robustness.corrupt(images, kind, s).permute(0, 2, 3, 1))[0]
        .argmax(1)
        .eq(labels)
        for kind in robustness.SEVERITIES
        for s in range(1, 6)
    )
    assert survived.dtype == np.uint8 and np.array_equal(survived, expected.numpy())
    assert 0 < survived.max() <= 45
    error = np.mean([row["value"] for row in rows])
    assert survived.mean() / 45 == pytest.approx(1 - error)


@pytest.mark.slow
def test_examining_leaves_no_trace_and_repeats(test_set):
    tried, source = network(), network()
    before = {name: value.clone() for name, value in tried.state_dict().items()}
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    given = protocol(attacked_images=40, radii=(0.05,), judged_radius=0.05)
    first, again = (robustness.examine(tried, source, *test_set, given, seed=0) for _ in range(2))
    assert first[:2] == again[:2]
    assert all(np.array_equal(values, again[2][name]) for name, values in first[2].items())
    assert all(torch.equal(before[name], value) for name, value in tried.state_dict().items())
    for each in (tried, source):
        assert all(p.grad is None and p.requires_grad for p in each.parameters())
    assert np.array_equal(np.random.get_state()[1], states[0])
    assert torch.equal(torch.get_rng_state(), states[1]) and not tried.training


@pytest.mark.parametrize("kind", robustness.SEVERITIES)
def test_a_corruption_keeps_images_images(kind, test_set):
    images = test_set[0][:20]
    clean = images.permute(0, 3, 1, 2)
    distances = []
    for severity in range(1, 6):
        changed = robustness.corrupt(images, kind, severity)
        assert changed.dtype == torch.uint8 and changed.shape == clean.shape
        assert torch.equal(changed, robustness.corrupt(images, kind, severity))
        distances.append((changed.float() - clean.float()).abs().mean().item())
    assert min(distances) > 0.3
    if kind not in ("saturation", "pixelate"):  # up and down; one grid may fit by chance
        assert distances == sorted(distances)


@pytest.mark.parametrize("kind", robustness.SEVERITIES)
def test_a_corruption_takes_images_of_any_size(kind):
    images = torch.randint(256, (2, 16, 16, 3), dtype=torch.uint8)
    assert robustness.corrupt(images, kind, 5).shape == (2, 3, 16, 16)
