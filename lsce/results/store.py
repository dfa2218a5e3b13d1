"""The record that a run leaves, and the store of all records of this machine.

A record is a folder named by the spec's hash::

    data/runs/<id>/record.json           spec, status, final scalars, temperature, timing, machine
    data/runs/<id>/history.parquet       one row an epoch
    data/runs/<id>/outputs.safetensors   logits and labels, validation and test
    data/runs/<id>/features.safetensors  penultimate features, where a study asked for them
    data/runs/<id>/selected.safetensors  logits at the validation-chosen epoch, likewise
    data/runs/<id>/unseen.safetensors    logits of test images of classes never seen, likewise
    data/runs/<id>/weights.safetensors   the network, where another run needs it
    data/runs/<id>/details.parquet       measurements that are more than a number, where there are

It is written under a temporary name and renamed, so a record is there whole or not at all.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load_file, save_file
from torch import Tensor

from lsce.machine import paths
from lsce.training import networks
from lsce.training.spec import DETAILS, RunSpec


def size(spec: RunSpec) -> int:
    """Bytes that a run's record takes, about: its float32 tensors."""
    test = 100 * (spec.classes or 100)
    logits = (test + test // 2) * spec.num_classes
    numbers = logits * (1 + ("selected" in spec.keep))
    if "features" in spec.keep:
        numbers += (min(spec.images, 10_000) + test + test // 2) * networks.width(spec.model)
    if "weights" in spec.keep:
        numbers += networks.parameters(spec.model)
    if "unseen" in spec.keep:
        numbers += (10_000 - test) * spec.num_classes
    return 4 * numbers


@dataclass(frozen=True)
class Record:
    """A finished run. Scalars are in memory, tensors are read each time they are asked for."""

    folder: Path
    spec: RunSpec
    #: "completed", or "diverged" if the training loss stopped being finite.
    status: str
    #: final: scalars after the last epoch; temperature, seconds, device, precision, versions, …
    meta: dict[str, Any]

    @property
    def diverged(self) -> bool:
        return self.status == "diverged"

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch; losses in nats a sample, accuracies in [0, 1]. See `lsce.training.train`."""
        return pd.read_parquet(self.folder / "history.parquet")

    def outputs(self) -> dict[str, Tensor]:
        """`{test,validation}_logits` float32 (N, C), `…_labels` int64 (N,); empty if diverged."""
        return load_file(self.folder / "outputs.safetensors")

    def features(self) -> dict[str, Tensor]:
        """`{train,validation,test}_features` float32 (N, D), `train_labels` int64 (N,), and the
        last layer's `classifier_weight` (C, D) and `classifier_bias` (C,)."""
        return load_file(self.folder / "features.safetensors")

    def selected(self) -> dict[str, Tensor]:
        """`{test,validation}_logits` float32 (N, C) at the epoch that validation chose."""
        return load_file(self.folder / "selected.safetensors")

    def unseen(self) -> Tensor:
        """Logits, float32 (N, C), of test images of the classes that the run never saw."""
        return load_file(self.folder / "unseen.safetensors")["unseen_logits"]

    def weights(self) -> dict[str, Tensor]:
        """The network's state dict, on the CPU."""
        return load_file(self.folder / "weights.safetensors")

    @property
    def keep(self) -> set[str]:
        """Of `EXTRAS`, what the record holds, which may be more than its spec asks for."""
        return set(self.meta["spec"].get("keep", ()))

    def details(self) -> pd.DataFrame:
        """`DETAILS`; no rows for most runs."""
        file = self.folder / "details.parquet"
        return pd.read_parquet(file) if file.is_file() else pd.DataFrame(columns=list(DETAILS))


class Store:
    """The records of one machine, each in a folder named by its spec's hash."""

    def __init__(self, root: Path | None = None):
        self.root = root or paths.RUNS

    def _folder(self, spec: RunSpec) -> Path:
        return self.root / spec.id

    def __contains__(self, spec: RunSpec) -> bool:
        if not spec.keep:
            return (self._folder(spec) / "record.json").is_file()
        return set(spec.keep) <= self._kept(spec)

    def _kept(self, spec: RunSpec) -> set[str]:
        """What the record of a run holds of `EXTRAS`, if there is one."""
        try:
            text = (self._folder(spec) / "record.json").read_text()
            return set(json.loads(text)["spec"].get("keep", ()))
        except (OSError, ValueError, KeyError):
            return set()

    def missing(self, specs: Iterable[RunSpec]) -> list[RunSpec]:
        """The specs without a record, each once, in the order given.

        Specs that differ only in what they keep are one run, which keeps all of it; and a record
        that lacks some of it is made anew with what it holds.
        """
        wanted: dict[str, RunSpec] = {}
        for spec in specs:
            if spec not in self:
                known = wanted[spec.id].keep if spec.id in wanted else self._kept(spec)
                keep = {*spec.keep, *known}
                wanted[spec.id] = dataclasses.replace(spec, keep=tuple(sorted(keep)))
        return list(wanted.values())

    def load(self, spec: RunSpec) -> Record:
        """The record of a spec. Raises KeyError if there is none, ValueError if it is damaged."""
        folder = self._folder(spec)
        if spec not in self:
            raise KeyError(f"no record of run {spec.id} in {self.root}")
        try:
            meta = json.loads((folder / "record.json").read_text())
            same = RunSpec.from_dict(meta["spec"]).id == spec.id
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the record {folder} is damaged ({error}); delete it") from error
        if not same:
            raise ValueError(f"the record {folder} holds another run's spec; delete it")
        return Record(folder, spec, meta["status"], meta)

    def save(
        self,
        spec: RunSpec,
        *,
        status: str,
        meta: Mapping[str, Any],
        history: pd.DataFrame,
        outputs: Mapping[str, Tensor],
        extras: Mapping[str, Mapping[str, Tensor]],
        details: pd.DataFrame,
    ) -> Record:
        """Write a record, whole or not at all; a record that is already there is replaced.

        Raises OSError, naming the folder, if it cannot be written.
        """
        temporary = paths.beside(self.root / spec.id)
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            history.to_parquet(temporary / "history.parquet", index=False)
            save_file(dict(outputs), temporary / "outputs.safetensors")
            for name, tensors in extras.items():
                save_file(dict(tensors), temporary / f"{name}.safetensors")
            if len(details):
                details.to_parquet(temporary / "details.parquet", index=False)
            fields = spec.to_dict() | ({"keep": spec.keep} if spec.keep else {})
            text = json.dumps({"spec": fields, "status": status, **meta}, indent=1)
            (temporary / "record.json").write_text(text)
            folder = self._folder(spec)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        except OSError as error:
            raise OSError(
                f"a record cannot be written to {self.root} ({error.strerror})"
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return self.load(spec)
