"""This machine's records: what each task left, in a folder named by its id.

A record is a folder of recorded results (see `lsce.results.recorded`) that holds one run, with the
tensors that it was measured from beside it: `outputs.safetensors` and, where they were asked for,
`features.safetensors` and `weights.safetensors` (see `lsce.results.measure`).
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from lsce.machine import paths
from lsce.results import recorded
from lsce.results.run import Run
from lsce.training.spec import Evaluation, RunSpec, Task


class Store:
    """The records of one machine."""

    def __init__(self, root: Path | None = None):
        self.root = root or paths.RUNS

    def __contains__(self, task: Task) -> bool:
        kept = self._kept(task)
        if kept is None:
            return False
        return task.run in self if isinstance(task, Evaluation) else task.keep <= kept

    def _kept(self, task: Task) -> frozenset[str] | None:
        """Which extras a record holds; None without a record."""
        try:
            text = (self.root / task.id / recorded.MANIFEST).read_text(encoding="utf-8")
            return frozenset(json.loads(text)["runs"][task.id]["kept"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def missing(self, tasks: Iterable[Task]) -> list[Task]:
        """The tasks without a complete record, each once, in the order given: a run keeps all that
        any of the tasks asks for and that its record holds already."""
        missing: dict[str, Task] = {}
        for task in tasks:
            if task in self:
                continue
            if isinstance(task, RunSpec):
                kept = missing[task.id].keep if task.id in missing else self._kept(task)
                task = task.keeping(*(kept or ()))
            missing[task.id] = task
        return list(missing.values())

    def load(self, task: Task) -> Run:
        """The run of a task; an evaluation is that of its run, with what it measured. Raises
        KeyError if there is none, ValueError if it is damaged."""
        if task not in self:
            raise KeyError(f"no record of run {task.id} in {self.root}")
        run = self.read(task)
        return self.read(task.run).evaluated(run) if isinstance(task, Evaluation) else run

    def read(self, task: Task) -> Run:
        """What a task itself left. Raises ValueError if it is damaged or not there."""
        folder = self.root / task.id
        try:
            (run,) = recorded.Recorded(folder)
            if run.task.id != task.id:
                raise ValueError(f"it holds run {run.task.id}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the record {folder} is damaged ({error}); delete it") from error
        return run

    def tensors(self, task: RunSpec, name: str) -> dict[str, Tensor]:
        """A run's "outputs", "features" or "weights"; empty if it diverged."""
        file = self.root / task.id / f"{name}.safetensors"
        return load_file(file) if file.is_file() else {}

    def save(self, run: Run, tensors: Mapping[str, dict[str, Tensor]]) -> Run:
        """Write or replace a record, whole or not at all, and read it back. Raises OSError, naming
        the folder, if it cannot be written."""
        folder = self.root / run.task.id
        temporary = paths.beside(folder)
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            recorded.write([run], temporary)
            for name, group in tensors.items():
                save_file(group, temporary / f"{name}.safetensors")
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
        except OSError as error:
            reason = error.strerror or error.__cause__
            raise OSError(f"a record cannot be written to {self.root} ({reason})") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return self.read(run.task)
