"""The peers train what ours trains; no test here asserts a time."""

import functools
import importlib
import multiprocessing

import numpy as np
import pytest
import torch
from torch import nn

from lsce.losses import LabelSmoothingCrossEntropy
from lsce.machine import paths
from lsce.training import networks
from lsce.training.spec import Recipe
from lsce.training.step import Trainer, one_cycle

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
STYLES = ["torchvision", "popular", "timm"]


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(paths.ROOT / "benchmarks"))
    return importlib.import_module("peers")


@pytest.fixture
def bench(peers):
    return importlib.import_module("bench_training")


@pytest.fixture
def make(peers):
    """Make a peer's loop on 256 random images; each image's label is its place, modulo 100."""

    def make(style: str, *, count: int = 256, workers: int = 0, recipe: Recipe | None = None):
        images, labels = some_images(count), torch.arange(count) % 100
        if style == "timm":
            pytest.importorskip("timm")
        makers = {
            "torchvision": functools.partial(peers.torchvision_style, amp=False),
            "popular": peers.popular_style,
            "timm": peers.timm_style,
        }
        return makers[style](
            images, labels, epsilon=0.3, workers=workers, recipe=recipe or Recipe(),
            device=CPU, network="resnet6", epochs=2, seed=5,
        )  # fmt: skip

    return make


def some_images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)


def crops(image: np.ndarray) -> np.ndarray:
    """Every crop of a uint8 (32, 32, 3) image after reflection padding by 4, plain and flipped."""
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    plain = [padded[y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    return np.stack(plain + [crop[:, ::-1] for crop in plain])


@pytest.mark.parametrize("style", STYLES)
def test_batches_are_shuffled_crops_and_flips_in_0_to_1(make, style):
    loop, originals = make(style, count=128), some_images(128).numpy()
    (batch,) = list(loop.loader)
    images, labels = batch
    assert images.shape == (128, 3, 32, 32) and images.dtype == torch.float32
    assert labels.tolist() != (torch.arange(128) % 100).tolist()
    pixels = (images.permute(0, 2, 3, 1) * 255).round().numpy()
    torch.testing.assert_close(images, torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)
    drawn = []
    for image, label in zip(pixels, labels.tolist(), strict=True):
        found = [
            place
            for index in range(label, 128, 100)
            for place in np.flatnonzero((crops(originals[index]) == image).all(axis=(1, 2, 3)))
        ]
        assert len(found) == 1
        drawn += found
    assert len(set(drawn)) > 60  # of 162 equally likely ones, 128 draws leave about 89
    assert 40 < sum(place >= 81 for place in drawn) < 88


@pytest.fixture
def in_float64(monkeypatch):
    """Networks keep the precision of their weights, so that rounding cannot hide a difference."""

    def features(self, images):
        return self.body((images - 0.5) / 0.25).mean(dim=(2, 3))

    monkeypatch.setattr(networks.ImageClassifier, "features", features)


@pytest.mark.parametrize("style", STYLES)
def test_on_the_same_batches_a_peer_ends_where_ours_does(make, style, in_float64):
    recipe = Recipe(peak_learning_rate=0.1)
    loop = make(style, recipe=recipe)
    generator = torch.Generator().manual_seed(1)
    loop.loader = batches = [
        (
            torch.rand(128, 3, 32, 32, generator=generator, dtype=torch.float64),
            torch.randint(0, 100, (128,), generator=generator),
        )
        for _ in range(2)
    ]
    trainer = Trainer("resnet6", 100, CPU)
    criterion = LabelSmoothingCrossEntropy(0.3)
    trainer.begin(recipe, criterion, steps=4, batch_size=128, pixels=32, seed=5)
    start = {name: value.double() for name, value in trainer.network.state_dict().items()}
    for network in (loop.network, trainer.network):
        network.double().train()
    for _ in range(2):
        loop.epoch()
        for batch in batches:
            trainer.step(*batch)
    ours, theirs = trainer.network.state_dict(), loop.network.state_dict()
    for name, value in ours.items():
        assert not torch.equal(value, start[name])
        torch.testing.assert_close(theirs[name], value, rtol=1e-6, atol=1e-8, msg=name)


def test_the_popular_loop_keeps_its_batch_and_the_noise_of_a_step(make):
    loop = make("popular", recipe=Recipe(batch_size=512, peak_learning_rate=0.4))
    rates = []
    loop.optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    loop.epoch()
    assert loop.images == 256
    assert rates == pytest.approx([0.1 * one_cycle(step, 4, 0.25) for step in range(2)])


@pytest.mark.parametrize("style", STYLES)
def test_less_than_a_batch_is_refused(make, style):
    with pytest.raises(ValueError, match="fewer images than a batch of 128"):
        make(style, count=64)


@pytest.mark.parametrize("style", STYLES)
def test_closing_a_loop_ends_its_processes(make, style):
    before = set(multiprocessing.active_children())
    loop = make(style, workers=1)
    loop.epoch()
    started = set(multiprocessing.active_children()) - before
    assert started
    loop.close()
    for process in started:
        process.join(600)
    assert not any(process.is_alive() for process in started)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_peer_has_something_to_train_in_every_case(bench, monkeypatch, device):
    jobs = []

    def keep(job, *_, **__):
        jobs.append(job)
        return []

    def blank(job):
        images = min(job.images, 1_024)
        return torch.zeros(images, 32, 32, 3, dtype=torch.uint8), torch.zeros(images).long()

    monkeypatch.setattr(bench.precision, "of", lambda *_: "bf16")
    monkeypatch.setattr(bench.train, "default_device", lambda: torch.device(device))
    monkeypatch.setattr(bench.data, "load", lambda name: None)
    for part in ("warm_up_rows", "throughput_rows", "accuracy_rows"):
        monkeypatch.setattr(bench, part, keep)
    monkeypatch.setattr(bench.Job, "split", blank)
    monkeypatch.setattr(bench.sweep, "cores", lambda: 2)
    for quick in (True, False):
        list(bench.rows(quick=quick))
    assert jobs
    for job in jobs:
        for name, loop in bench.peer_loops(job, 0, CPU).items():
            assert loop().images > 0, (job, name)


def test_operations_are_counted_as_by_hand(bench):
    """Two a multiply-add; backward twice the forward pass, less the images' own gradient."""
    network, found = networks.build("resnet6", 100), []

    def count(module, inputs, output):
        per_output = module.weight[0].numel()
        passes = 2 if isinstance(module, nn.Conv2d) and module.in_channels == 3 else 3
        found.append(passes * 2 * per_output * output[0].numel())

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(torch.rand(1, 3, 32, 32).expand(2, -1, -1, -1))
    assert bench.flops_per_image("resnet6") == sum(found) > 1e6
