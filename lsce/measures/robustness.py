"""How well a trained network withstands perturbed images: common corruptions and attacks.

The attacks are those of the Adversarial Robustness Toolbox (Nicolae et al. 2018, arXiv:1807.01069).
Each is judged by the network's own prediction of the attacked images, clipped to [0, 1] and to the
radius.
"""

import contextlib
import functools
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsce import data
from lsce.measures import masking
from lsce.measures.masking import SHORT, UNBOUNDED
from lsce.training.batches import evaluate, evaluating, to_float
from lsce.training.networks import ImageClassifier
from lsce.training.spec import Protocol

#: Severities 1 to 5 of each kind of corruption, as in Hendrycks & Dietterich's CIFAR sets except
#: for the saturation's, and for the brightness, which is scaled here.
SEVERITIES = {
    "Gaussian noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot noise": (500, 250, 100, 75, 50),
    "impulse noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "Gaussian blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "brightness": (1.1, 1.2, 1.3, 1.4, 1.6),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "saturation": (0.6, 0.4, 0.2, 1.8, 2.5),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "JPEG": (80, 65, 58, 50, 40),
}

#: Attacked images a pass.
_BATCH = 250

#: Makes attacked images, float32 (n, 3, P, P), for a radius in [0, 1].
Attack = Callable[[float], np.ndarray]

#: Logits of images, by the library.
Predict = Callable[..., np.ndarray]


def examine(
    network: ImageClassifier,
    source: ImageClassifier,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    seed: int,
) -> tuple[dict[str, float], list[dict[str, Any]], dict[str, np.ndarray]]:
    """Errors of a network on corrupted and on attacked test images.

    network, and source, an independently trained one for transfer: in float32, on the device of
    images, uint8 (N, P, P, 3), and labels, int64 (N,). The images tried are `data.subset` of these
    with seed 0, in its order. The same seed gives the same numbers.

    Returns scalars, all but the gradient's norm in [0, 1]: `corrupted_error`, the mean over kinds
    and severities; `errors_at` the protocol's `judged_radius`; `gradient_norm`, the mean l2 norm of
    the gradient of the cross entropy by the image, and `zero_gradients`, the share of images where
    it is 0 throughout. Then rows of `lsce.results.run.DETAILS`: errors by "corruption" and
    severity; by "attack" and radius (in 1/255), and those of "masking", see
    `lsce.measures.masking`; and "discordant", the share of images that an attack finds and the one
    it is compared with there does not, or the reverse. At last, for the single images, the
    `survived_…` of `lsce.results.run.Run.samples`.
    """

    def part(count: int) -> tuple[Tensor, Tensor]:
        chosen = data.subset(labels.cpu(), count, seed=0).to(images.device)
        return images[chosen], labels[chosen]

    with evaluating(network), evaluating(source), _frozen(network, source):
        rows, survived = _corrupted(network, *part(protocol.corrupted_images))
        samples = {"survived_corruptions": survived}
        scalars = {"corrupted_error": float(np.mean([row["value"] for row in rows]))}
        clean, truth = part(protocol.attacked_images)
        with _quiet_and_seeded(seed):
            attacks, stood = _attacked(network, source, to_float(clean), truth, protocol)
        scalars |= _gradients(network, to_float(clean), truth)
    scalars |= errors_at(pd.DataFrame(attacks), protocol.judged_radius)
    return scalars, rows + attacks, samples | stood


def errors_at(details: pd.DataFrame, radius: float) -> dict[str, float]:
    """Errors under attacks of one radius (in 1/255), in [0, 1], from a run's details: `fgsm_error`;
    `pgd_error`, of the short PGD; `worst_error`, of the worst of all attacks for each image; and
    `overstated`, the worst error less FGSM's."""
    rows = details[(details["quantity"] == "attack") & (details["x"] == radius)]
    error = dict(zip(rows["case"], rows["value"].astype(float), strict=True))
    fgsm, worst = error["FGSM"], error["worst case"]
    errors = {"fgsm_error": fgsm, "pgd_error": error[f"PGD-{SHORT}"]}
    return errors | {"worst_error": worst, "overstated": worst - fgsm}


def corrupt(images: Tensor, kind: str, severity: int) -> Tensor:
    """Images with a corruption in the manner of Hendrycks & Dietterich 2019 (ICLR,
    arXiv:1903.12261), as far as torchvision has them; these are not the files of CIFAR-100-C.

    images: uint8 (N, P, P, 3). kind: one of `SEVERITIES`; severity: 1 to 5. Returns uint8
    (N, 3, P, P); the same draws every time.
    """
    from torchvision.transforms.v2 import functional as v2

    amount = SEVERITIES[kind][severity - 1]
    pixels = images.permute(0, 3, 1, 2).contiguous()
    if kind == "JPEG":
        return torch.stack([v2.jpeg(image, amount) for image in pixels.cpu()]).to(images.device)
    generator = torch.Generator().manual_seed(0)
    x = pixels.float() / 255
    if kind == "Gaussian noise":
        x = x + amount * torch.randn(x.shape, generator=generator).to(x.device)
    elif kind == "shot noise":
        x = torch.poisson(amount * x.cpu(), generator=generator).to(x.device) / amount
    elif kind == "impulse noise":
        draw = torch.rand(x.shape, generator=generator).to(x.device)
        x = torch.where(draw < amount / 2, 0.0, torch.where(draw > 1 - amount / 2, 1.0, x))
    elif kind == "Gaussian blur":
        x = v2.gaussian_blur(x, [7, 7], [amount, amount])
    elif kind == "pixelate":
        shape = x.shape[2:]
        small = F.interpolate(x, [int(side * amount) for side in shape], mode="area")
        x = F.interpolate(small, shape, mode="nearest")
    else:
        x = getattr(v2, f"adjust_{kind}")(x, amount)
    return x.clamp(0, 1).mul(255).round().byte()


def _corrupted(
    network: ImageClassifier, images: Tensor, labels: Tensor
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The rows of the corruptions, and how many of them each image survives, uint8 (n,)."""
    rows, survived = [], torch.zeros_like(labels, dtype=torch.uint8)
    for kind, severity in itertools.product(SEVERITIES, range(1, 6)):
        logits, _ = evaluate(network, corrupt(images, kind, severity).permute(0, 2, 3, 1))
        right = logits.argmax(1) == labels
        survived += right
        error = (~right).double().mean().item()
        rows.append({"quantity": "corruption", "case": kind, "x": severity, "value": error})
    return rows, survived.cpu().numpy()


class _Margin(nn.Module):
    """max_{k ≠ y} z_k − z_y (Carlini & Wagner 2017), of one-hot labels."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        others = logits - 1e9 * labels
        return (others.amax(1) - (logits * labels).sum(1)).mean()


class _Target:
    """The images that a network gets right without an attack, and attacks on them."""

    def __init__(self, network: ImageClassifier, images: Tensor, labels: Tensor):
        logits, _ = evaluate(network, images)
        right = logits.argmax(1) == labels
        self.network, self.count = network, len(labels)
        self.right = right.cpu().numpy()
        self.images, self.labels = images[right], labels[right]
        others = logits[right].scatter(1, self.labels[:, None], -torch.inf)
        self.next_likely = others.argmax(1).cpu().numpy()
        self.x, self.y = self.images.cpu().numpy(), self.labels.cpu().numpy()

    def estimator(self, network: nn.Module, loss: nn.Module | None = None) -> Any:
        from art.estimators.classification import PyTorchClassifier

        return PyTorchClassifier(
            network,
            loss or nn.CrossEntropyLoss(),
            input_shape=tuple(self.images.shape[1:]),
            nb_classes=self.network.classifier.out_features,
            clip_values=(0.0, 1.0),
            device_type="gpu" if self.images.is_cuda else "cpu",
        )

    def attack(self, name: str, radius: float, estimator: Any = None, **options: Any) -> Any:
        """An attack of the library, on the network itself unless on another estimator."""
        from art.attacks import evasion

        estimator = estimator or self.estimator(self.network)
        return getattr(evasion, name)(estimator, eps=radius, batch_size=_BATCH, **options)

    def fgsm(self, radius: float) -> np.ndarray:
        return self.attack("FastGradientMethod", radius).generate(self.x, self.y)

    def pgd(
        self,
        network: nn.Module,
        radius: float,
        steps: int = SHORT,
        starts: int = 1,
        loss: nn.Module | None = None,
        targets: np.ndarray | None = None,
    ) -> np.ndarray:
        attack = self.attack(
            "ProjectedGradientDescent",
            radius,
            self.estimator(network, loss),
            eps_step=2.5 * radius / steps,
            max_iter=steps,
            num_random_init=starts,
            targeted=targets is not None,
            verbose=False,
        )
        return attack.generate(self.x, self.y if targets is None else targets)

    def square(self, radius: float, queries: int) -> np.ndarray:
        estimator = self.estimator(self.network)
        estimator.predict = _remembering(estimator.predict)
        attack = self.attack("SquareAttack", radius, estimator, max_iter=queries, verbose=False)
        return attack.generate(self.x, self.y)

    def auto(self, radius: float, steps: int) -> np.ndarray:
        """AutoAttack (Croce & Hein 2020) but for its Square, whose own outcomes complete it: APGD
        with cross entropy and with the difference-of-logits ratio; without DeepFool, which the
        library puts in the place of FAB and which takes a gradient for each class."""
        options = {"eps_step": 2 * radius, "max_iter": steps, "nb_random_init": 1, "verbose": False}
        attacks = [
            self.attack("AutoProjectedGradientDescent", radius, loss_type=loss, **options)
            for loss in ("cross_entropy", "difference_logits_ratio")
        ]
        auto = self.attack("AutoAttack", radius, eps_step=2 * radius, attacks=attacks)
        return auto.generate(self.x, self.y)

    def broken(self, attack: Attack, radius: float) -> np.ndarray:
        """Which of the images, bool (n,), the network gets wrong after an attack; radius in
        1/255."""
        if not len(self.x):
            return np.zeros(0, dtype=bool)
        attacked = torch.from_numpy(attack(radius / 255)).to(self.images)
        # A library's rounding can leave the ball.
        attacked = self.images + (attacked - self.images).clamp(-radius / 255, radius / 255)
        logits, _ = evaluate(self.network, attacked.clamp(0, 1))
        return (logits.argmax(1) != self.labels).cpu().numpy()

    def row(self, quantity: str, case: str, radius: float, broken: np.ndarray) -> dict[str, Any]:
        error = 1 - (len(self.x) - int(broken.sum())) / self.count
        return {"quantity": quantity, "case": case, "x": float(radius), "value": error}

    def survivors(self, broken: np.ndarray) -> np.ndarray:
        """Which of all images, bool (N,), are right without the attack and after it."""
        survived = self.right.copy()
        survived[self.right] = ~broken
        return survived


def _remembering(predict: Predict) -> Predict:
    """The same, but what it was asked in the last three calls it still knows: the library's Square
    attack asks thrice for each query."""
    known: deque[dict[int, np.ndarray]] = deque(maxlen=3)

    def remembered(x: np.ndarray, **options: Any) -> np.ndarray:
        keys = [hash(image.tobytes()) for image in x]
        rows = {key: each[key] for each in known for key in keys if key in each}
        new = [i for i, key in enumerate(keys) if key not in rows]
        if new:
            rows |= zip((keys[i] for i in new), predict(x[new], **options), strict=True)
        known.append(rows)
        return np.stack([rows[key] for key in keys])

    return remembered


def _attacked(
    network: ImageClassifier,
    source: ImageClassifier,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """The rows of the attacks, and which images survive FGSM and the worst of all attacks, bool
    (radii, n)."""
    target = _Target(network, images, labels)
    attacks = _attacks(target, source, protocol)
    repeated = {
        name: functools.partial(target.pgd, other)
        for name, other in masking.networks(network).items()
    }
    rows = [target.row("attack", "clean", 0.0, np.zeros(0))]
    survived: dict[str, list[np.ndarray]] = {"survived_fgsm": [], "survived_worst": []}
    for radius in protocol.radii:
        broken = {
            name: target.broken(attack, radius) for name, attack in (attacks | repeated).items()
        }
        broken["AutoAttack"] |= broken["Square"]
        for name, wrong in broken.items():
            quantity = "masking" if name in repeated else "attack"
            rows.append(target.row(quantity, name, radius, wrong))
        for _, name, other in masking.comparisons(protocol.longest):
            differ = int((broken[name] != broken[other]).sum()) / target.count
            found = {"quantity": "discordant", "case": name, "x": float(radius), "value": differ}
            rows.append(found)
        worst = np.logical_or.reduce(list(broken.values()))
        rows.append(target.row("attack", "worst case", radius, worst))
        survived["survived_fgsm"].append(target.survivors(broken["FGSM"]))
        survived["survived_worst"].append(target.survivors(worst))
    unbounded = target.broken(attacks[f"PGD-{SHORT}"], UNBOUNDED)
    rows.append(target.row("masking", "unbounded", UNBOUNDED, unbounded))
    return rows, {name: np.stack(each) for name, each in survived.items()}


def _attacks(target: _Target, source: ImageClassifier, protocol: Protocol) -> dict[str, Attack]:
    network = target.network
    steps, starts, queries = protocol.pgd_steps, protocol.pgd_restarts, protocol.square_queries
    return {
        "FGSM": target.fgsm,
        f"PGD-{SHORT}": lambda r: target.pgd(network, r),
        f"PGD-{SHORT}, margin": lambda r: target.pgd(network, r, loss=_Margin()),
        f"PGD-{SHORT}, targeted": lambda r: target.pgd(network, r, targets=target.next_likely),
        protocol.longest: lambda r: target.pgd(network, r, steps, starts),
        "AutoAttack": lambda r: target.auto(r, steps),
        "transfer": lambda r: target.pgd(source, r),
        "Square": lambda r: target.square(r, queries),
    }


def _gradients(network: ImageClassifier, images: Tensor, labels: Tensor) -> dict[str, float]:
    norms = []
    for part, part_labels in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
        part = part.clone().requires_grad_()
        loss = F.cross_entropy(network(part), part_labels, reduction="sum")
        norms.append(torch.autograd.grad(loss, part)[0].flatten(1).norm(dim=1))
    norm = torch.cat(norms).double()
    zero = (norm == 0).double().mean().item()
    return {"gradient_norm": norm.mean().item(), "zero_gradients": zero}


@contextlib.contextmanager
def _frozen(*networks: ImageClassifier) -> Iterator[None]:
    """Attacks want gradients by the images alone; those by the weights take a quarter of the
    time."""
    parameters = [p for each in networks for p in each.parameters() if p.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def _quiet_and_seeded(seed: int) -> Iterator[None]:
    """The library draws from the global generators, which get their state back, and logs much."""
    states = np.random.get_state(), torch.get_rng_state(), logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
    finally:
        np.random.set_state(states[0])
        torch.set_rng_state(states[1])
        logging.disable(states[2])


def workload(protocol: Protocol) -> tuple[int, int]:
    """Images passed forward and backward, and images only evaluated, as in
    `lsce.sweeps.cost.workload`; two thirds are taken to be classified rightly without attacks."""
    # Seven short PGDs, of which that in float64 counts four times.
    passes = 10 * SHORT + protocol.pgd_steps * (protocol.pgd_restarts + 2)
    images = 2 * len(protocol.radii) * protocol.attacked_images // 3
    return images * passes, 45 * protocol.corrupted_images + images * protocol.square_queries
