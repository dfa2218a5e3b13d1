"""How much of the report to run: `notebooks/profiles/*.toml`."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lsce import data, studies
from lsce.machine import paths
from lsce.studies import Study


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file, the parameter and its value."""


@dataclass(frozen=True)
class Profile:
    """The data that the notebooks are run on unless the user says otherwise, and, for each notebook
    in order, the values of its parameters."""

    name: str
    data: str
    notebooks: dict[str, dict[str, Any]]
    #: What has to be known of it before it is run, a sentence; empty for most.
    note: str = ""
    #: Trainings of other lengths, which only the appendix on speed shows: name → fields of a run.
    budgets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def study(self, notebook: str, data_name: str, **changes: Any) -> Study | None:
        """The study that a notebook asks for, None if it trains nothing.

        Raises ProfileError if a parameter is out of range.
        """
        if notebook not in studies.BY_NOTEBOOK:
            return None
        try:
            return studies.build(notebook, data_name, self.notebooks[notebook] | changes)
        except (ValueError, TypeError) as error:
            raise ProfileError(f"{file(self.name)}, {notebook}: {error}") from error

    def studies(self) -> Iterator[tuple[str, Study]]:
        """Each page that asks for runs, by its notebook, with its study; then the budgets, with
        three seeds."""
        for notebook in self.notebooks:
            if study := self.study(notebook, self.data):
                yield notebook, study
        if self.budgets:
            epsilons = [0.0, studies.USUAL_EPSILON]
            yield (
                "A1_speed",
                studies.smoothing(
                    data_name=self.data, regimes=self.budgets, epsilons=epsilons, seeds=[0, 1, 2]
                ),
            )


def file(name: str):
    """A profile's file, as seen from the checkout."""
    return (paths.PROFILES / f"{name}.toml").relative_to(paths.ROOT)


def names() -> list[str]:
    return sorted(path.stem for path in paths.PROFILES.glob("*.toml"))


def notebooks() -> list[str]:
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))


def load(name: str) -> Profile:
    """Read a profile. Raises ProfileError if there is none of that name or it is malformed."""
    if name not in names():
        raise ProfileError(f"PROFILE is {name!r}; it must be one of {', '.join(names())}")
    try:
        content = tomllib.loads((paths.PROFILES / f"{name}.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{file(name)} is not valid TOML: {error}") from error
    if strangers := sorted(set(content) - {"data", "note", "shared", "notebooks", "budgets"}):
        raise ProfileError(
            f"{file(name)} sets {strangers[0]!r}; "
            "it must set data, note, shared, notebooks and budgets alone"
        )
    if content.get("data") not in data.CHECKSUMS:
        raise ProfileError(
            f"{file(name)}: data is {content.get('data')!r}; "
            f"it must be one of {', '.join(data.CHECKSUMS)}"
        )
    shared = content.get("shared", {})
    own = content.get("notebooks", {})
    budgets = content.get("budgets", {})
    tables = {"shared": shared, "notebooks": own, "budgets": budgets} | own
    for words, value in tables.items():
        if not isinstance(value, Mapping):
            raise ProfileError(f"{file(name)}: {words} is {value!r}; it must be a table")
    known = notebooks()
    if strangers := sorted(set(own) - set(known)):
        raise ProfileError(f"{file(name)} names {strangers[0]}, but there is no such notebook")
    taken = {notebook: _taken(notebook, shared) for notebook in known}
    if strangers := sorted(set(shared).difference(*taken.values())):
        raise ProfileError(f"{file(name)}: no notebook has the shared parameter {strangers[0]!r}")
    given = {notebook: taken[notebook] | own.get(notebook, {}) for notebook in known}
    return Profile(name, content["data"], given, content.get("note", ""), budgets)


def _taken(notebook: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the shared parameters that a notebook's study has."""
    if notebook not in studies.BY_NOTEBOOK:
        return {}
    known = studies.parameters(notebook)
    return {name: value for name, value in shared.items() if name in known}
