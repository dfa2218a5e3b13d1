"""Runs that nobody trained, for tests of what is done with runs."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lsce import data
from lsce.results import measurements
from lsce.results.measurements import Digest
from lsce.results.store import Record
from lsce.training.spec import RunSpec


class MadeUp(Record):
    """A record that lies in memory."""

    def outputs(self):
        return self.meta["outputs"]

    def selected(self):
        return self.meta["outputs"]

    def features(self):
        generator = torch.Generator().manual_seed(self.spec.seed)
        validation = len(self.meta["outputs"]["validation_labels"])
        return {
            "train_features": torch.randn(300, 8, generator=generator),
            "train_labels": torch.arange(300) % 100,
            "validation_features": torch.randn(validation, 8, generator=generator),
            "classifier_weight": torch.randn(100, 8, generator=generator),
        }

    def unseen(self):
        return self.meta["outputs"]["test_logits"].flip(0)

    @property
    def keep(self):
        return set(self.spec.keep)

    @property
    def history(self):
        return self.meta["history"]


def spec(**changes) -> RunSpec:
    fields = dict(
        data="cifar-100",
        data_checksum=data.CHECKSUMS["cifar-100"],
        train_size=300,
        model="resnet6",
        epsilon=0.1,
        epochs=2,
        seed=0,
    )
    return RunSpec(**fields | changes)


FOLDERS = tempfile.TemporaryDirectory()


def record_of(spec: RunSpec, status: str = "completed", images: int = 500) -> Record:
    generator = np.random.default_rng(spec.seed)
    labels = np.arange(images) % 100
    logits = generator.normal(size=(images, 100))
    logits[np.arange(images), labels] += 3
    history = {"epoch": range(1, spec.epochs + 1), "train_nll": 1.25, "validation_nll": 1.5}
    if spec.noise is not None:
        history |= {"memorised": 0.25, "recovered": 0.125}
    if "information" in spec.keep:
        history |= {"information_similar": 1.5, "information_unlike": 1.25}
    meta = {
        "final": {
            f"{split}_{measure}": 0.5 + 0.1 * i
            for i, split in enumerate(("train", "validation", "test"))
            for measure in ("nll", "accuracy")
        },
        "temperature": {"value": 2.0, "converged": True},
        "outputs": {
            f"{split}_{name}": values
            for split in ("test", "validation")
            for name, values in (
                ("logits", torch.from_numpy(logits)),
                ("labels", torch.tensor(labels)),
            )
        },
        "history": pd.DataFrame(history),
        "device": "an abacus",
        "precision": "float32",
        "versions": {"torch": "2.14.1"},
        "commit": "0123456789ab",
        "finished": f"2026-01-0{1 + spec.seed}T00:00:00+00:00",
        "seconds": {"training": 1.0, "total": 2.0},
    }
    if "selected" in spec.keep:
        meta["final"] |= {"selected_epoch": 1, "selected_validation_accuracy": 0.5}
    if "features" in spec.keep:
        meta["final"] |= {"nc1": 0.5, "within": 1.0, "between": 2.0}
        probe = "superclass_probe" if spec.classes is None else "unseen_probe"
        meta["final"] |= {"nc2": 0.5, "nc3": 0.5, "nc4": 0.5, probe: 0.4}
    if spec.examination is not None:
        meta["final"] |= {"corrupted_error": 0.6, "fgsm_error": 0.7, "pgd_error": 0.75}
        meta["final"] |= {"worst_error": 0.8, "overstated": 0.1}
    if spec.imbalance is not None:
        meta["final"] |= {"rare_accuracy": 0.1, "rare_predicted": 0.2, "rare_elsewhere": 0.3}
    return MadeUp(Path(tempfile.mkdtemp(dir=FOLDERS.name)), spec, status, meta)


def digest_of(spec: RunSpec, status: str = "completed", images: int = 500) -> Digest:
    return measurements.of(record_of(spec, status, images))
