"""How a trained network stands perturbed images: common corruptions and adversarial attacks.

The attacks are those of the Adversarial Robustness Toolbox (Nicolae et al. 2018,
arXiv:1807.01069); each is judged by evaluating the network itself on the images that it made,
clipped to [0, 1] and to its radius.
"""

import contextlib
import copy
import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lsce import data
from lsce.training.batches import evaluate, evaluating, to_float
from lsce.training.networks import ImageClassifier
from lsce.training.spec import Protocol

#: Steps of the short PGD, and the radius (in 1/255) at which nothing should be left.
SHORT, UNBOUNDED = 20, 64.0

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

#: What is drawn for corruptions is the same for every network.
_SEED = 0

#: Attacked images a pass.
_BATCH = 250


def examine(
    network: ImageClassifier,
    source: ImageClassifier,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    seed: int,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Errors of a network on corrupted and on attacked test images.

    network, and source, an independently trained one for transfer: in float32, on the device of
    images, uint8 (N, P, P, 3), and labels, int64 (N,). The same seed gives the same numbers.

    Returns scalars, all but the gradient's norm in [0, 1]: `corrupted_error`, the mean over kinds
    and severities; `fgsm_error`, `pgd_error` and `worst_error` at the judged radius; `overstated`,
    the worst error less FGSM's; `gradient_norm`, the mean l2 norm of the gradient of the cross
    entropy by the image, and `zero_gradients`, the share of images where it is 0 throughout. And
    rows of `lsce.results.run.DETAILS`: errors by "corruption" and severity, by "attack" and radius
    (in 1/255), and of "masking", see `_masking`.
    """
    device = images.device

    def part(count: int) -> tuple[Tensor, Tensor]:
        chosen = data.subset(labels.cpu(), count, seed=0).to(device)
        return images[chosen], labels[chosen]

    with evaluating(network), evaluating(source):
        rows = _corrupted(network, *part(protocol.corrupted_images))
        found = {"corrupted_error": float(np.mean([row["value"] for row in rows]))}
        clean, truth = part(protocol.attacked_images)
        with _quiet_and_seeded(seed):
            attacks = _attacked(network, source, to_float(clean), truth, protocol)
        for each in (network, source):
            each.zero_grad()
        found |= _gradients(network, to_float(clean), truth)
    at = {row["case"]: row["value"] for row in attacks if row["x"] == protocol.judged_radius}
    found |= {"fgsm_error": at["FGSM"], "pgd_error": at[f"PGD-{SHORT}"]}
    found |= {"worst_error": at["worst case"], "overstated": at["worst case"] - at["FGSM"]}
    return found, rows + attacks


# ---- corruptions ----


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
    generator = torch.Generator().manual_seed(_SEED)
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
        adjust = {
            "brightness": v2.adjust_brightness,
            "contrast": v2.adjust_contrast,
            "saturation": v2.adjust_saturation,
        }
        x = adjust[kind](x, amount)
    return x.clamp(0, 1).mul(255).round().byte()


def _corrupted(network: ImageClassifier, images: Tensor, labels: Tensor) -> list[dict[str, Any]]:
    rows = []
    for kind in SEVERITIES:
        for severity in range(1, 6):
            changed = corrupt(images, kind, severity).permute(0, 2, 3, 1)
            value = _error(network, changed, labels)
            rows.append({"quantity": "corruption", "case": kind, "x": severity, "value": value})
    return rows


def _error(network: ImageClassifier, images: Tensor, labels: Tensor) -> float:
    return (evaluate(network, images)[0].argmax(1) != labels).double().mean().item()


# ---- attacks ----

#: Makes attacked images, float32 (N, 3, P, P), for a radius in [0, 1].
Attack = Callable[[float], np.ndarray]


class _Margin(nn.Module):
    """max_{k ≠ y} z_k − z_y (Carlini & Wagner 2017), of one-hot labels."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        others = logits - 1e9 * labels
        return (others.amax(1) - (logits * labels).sum(1)).mean()


class _Scaled(nn.Module):
    """A network whose logits are multiplied by a number."""

    def __init__(self, network: nn.Module, factor: float):
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * self.network(images)


class _Double(nn.Module):
    """A copy of a network that computes in float64 (the library hands it float32 images)."""

    def __init__(self, network: ImageClassifier):
        super().__init__()
        self.network = copy.deepcopy(network).double()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.network.body((images.double() - 0.5) * 4)
        return self.network.classifier(maps.mean(dim=(2, 3)))


class _Attacked:
    """The images that a network gets right without an attack, and attacks on them."""

    def __init__(self, network: ImageClassifier, images: Tensor, labels: Tensor):
        logits = evaluate(network, images)[0]
        right = logits.argmax(1) == labels
        self.network, self.all, self.right = network, len(labels), int(right.sum())
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

    def pgd(
        self,
        network: nn.Module,
        radius: float,
        steps: int = SHORT,
        starts: int = 1,
        loss: nn.Module | None = None,
        targets: np.ndarray | None = None,
    ) -> np.ndarray:
        from art.attacks.evasion import ProjectedGradientDescent

        attack = ProjectedGradientDescent(
            self.estimator(network, loss),
            eps=radius,
            eps_step=2.5 * radius / steps,
            max_iter=steps,
            num_random_init=starts,
            targeted=targets is not None,
            batch_size=_BATCH,
            verbose=False,
        )
        return attack.generate(self.x, self.y if targets is None else targets)

    def fgsm(self, radius: float) -> np.ndarray:
        from art.attacks.evasion import FastGradientMethod

        estimator = self.estimator(self.network)
        return FastGradientMethod(estimator, eps=radius, batch_size=_BATCH).generate(self.x, self.y)

    def square(self, radius: float, queries: int) -> Any:
        from art.attacks.evasion import SquareAttack

        return SquareAttack(
            self.estimator(self.network),
            eps=radius,
            max_iter=queries,
            batch_size=_BATCH,
            verbose=False,
        )

    def auto(self, radius: float, steps: int, queries: int) -> np.ndarray:
        """AutoAttack (Croce & Hein 2020): APGD with cross entropy and with the difference-of-logits
        ratio, and Square; without DeepFool, which the library puts in the place of FAB and which
        takes a gradient for each class."""
        from art.attacks.evasion import AutoAttack, AutoProjectedGradientDescent

        def apgd(loss: str) -> Any:
            return AutoProjectedGradientDescent(
                self.estimator(self.network),
                eps=radius,
                eps_step=2 * radius,
                max_iter=steps,
                nb_random_init=1,
                batch_size=_BATCH,
                loss_type=loss,
                verbose=False,
            )

        attacks = [apgd("cross_entropy"), apgd("difference_logits_ratio")]
        attacks.append(self.square(radius, queries))
        estimator = self.estimator(self.network)
        attack = AutoAttack(
            estimator, eps=radius, eps_step=2 * radius, attacks=attacks, batch_size=_BATCH
        )
        return attack.generate(self.x, self.y)

    def broken(self, attack: Attack, radius: float) -> np.ndarray:
        """Which of the images, bool (n,), the network gets wrong after an attack; radius in
        1/255."""
        if not self.right:
            return np.zeros(0, dtype=bool)
        made = torch.from_numpy(attack(radius / 255)).to(self.images)
        # A library's rounding can leave the ball.
        made = self.images + (made - self.images).clamp(-radius / 255, radius / 255)
        predicted = evaluate(self.network, made.clamp(0, 1))[0].argmax(1)
        return (predicted != self.labels).cpu().numpy()

    def error(self, broken: np.ndarray) -> float:
        return 1 - (self.right - int(broken.sum())) / self.all


def _attacked(
    network: ImageClassifier,
    source: ImageClassifier,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
) -> list[dict[str, Any]]:
    tried = _Attacked(network, images, labels)
    attacks: dict[str, Attack] = {
        "FGSM": tried.fgsm,
        f"PGD-{SHORT}": lambda r: tried.pgd(network, r),
        f"PGD-{SHORT}, margin": lambda r: tried.pgd(network, r, loss=_Margin()),
        f"PGD-{SHORT}, targeted": lambda r: tried.pgd(network, r, targets=tried.next_likely),
        protocol.longest: lambda r: tried.pgd(
            network, r, protocol.pgd_steps, protocol.pgd_restarts
        ),
        "AutoAttack": lambda r: tried.auto(r, protocol.pgd_steps, protocol.square_queries),
        "transfer": lambda r: tried.pgd(source, r),
        "Square": lambda r: tried.square(r, protocol.square_queries).generate(tried.x, tried.y),
    }
    rows = [_row("attack", "clean", 0.0, tried.error(np.zeros(0)))]
    for radius in protocol.radii:
        broken = {name: tried.broken(attack, radius) for name, attack in attacks.items()}
        rows += [_row("attack", name, radius, tried.error(b)) for name, b in broken.items()]
        if radius == protocol.judged_radius:
            repeated, more = _masking(tried, radius)
            rows += more
            broken |= repeated
        worst = np.logical_or.reduce(list(broken.values()))
        rows.append(_row("attack", "worst case", radius, tried.error(worst)))
    return rows


def _masking(tried: _Attacked, radius: float) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """PGD whose gradients are taken of rescaled logits and in float64, and with so large a radius
    that a network without masked gradients gets nothing right (Athalye et al. 2018,
    arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705; Mosbach et al. 2018,
    arXiv:1810.12042). What the first three broke at this radius, and rows of errors."""
    networks = {
        "logits × 10": _Scaled(tried.network, 10.0),
        "logits ÷ 10": _Scaled(tried.network, 0.1),
        "float64": _Double(tried.network),
    }
    broken = {
        name: tried.broken(functools.partial(tried.pgd, network), radius)
        for name, network in networks.items()
    }
    rows = [_row("masking", name, radius, tried.error(b)) for name, b in broken.items()]
    far = tried.broken(lambda r: tried.pgd(tried.network, r), UNBOUNDED)
    return broken, [*rows, _row("masking", "unbounded", UNBOUNDED, tried.error(far))]


def _row(quantity: str, case: str, x: float, value: float) -> dict[str, Any]:
    return {"quantity": quantity, "case": case, "x": float(x), "value": value}


def _gradients(network: ImageClassifier, images: Tensor, labels: Tensor) -> dict[str, float]:
    norms = []
    for part, of_part in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
        part = part.clone().requires_grad_()
        loss = F.cross_entropy(network(part), of_part, reduction="sum")
        norms.append(torch.autograd.grad(loss, part)[0].flatten(1).norm(dim=1))
    norm = torch.cat(norms)
    zero = (norm == 0).double().mean().item()
    return {"gradient_norm": norm.double().mean().item(), "zero_gradients": zero}


@contextlib.contextmanager
def _quiet_and_seeded(seed: int) -> Iterator[None]:
    """The library draws from the global generators, which get their state back, and logs much."""
    numpy, torch_ = np.random.get_state(), torch.get_rng_state()
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
    finally:
        np.random.set_state(numpy)
        torch.set_rng_state(torch_)
        logging.disable(disabled)


def workload(protocol: Protocol) -> tuple[int, int]:
    """Images passed forward and backward, and images only evaluated, if a third is classified
    rightly to begin with; the same as `lsce.training.train.workload`."""
    passes = 6 * SHORT + protocol.pgd_steps * (protocol.pgd_restarts + 2)
    # Twice: the library takes about as long as the network does.
    images = 2 * len(protocol.radii) * protocol.attacked_images // 3
    return images * passes, 45 * protocol.corrupted_images + images * 2 * protocol.square_queries
