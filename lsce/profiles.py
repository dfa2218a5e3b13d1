"""How much of the report to run: `notebooks/profiles/{smoke,quick,cpu,paper}.toml`."""

import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from lsce import data, paths, studies
from lsce.studies import Shown, Study


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file, the parameter and its value."""


@dataclass(frozen=True)
class Profile:
    """The data that the notebooks are run on unless the user says otherwise, whose runs their
    figures show, and, for each notebook in order, the values of its parameters."""

    name: str
    data: str
    runs: Shown
    notebooks: dict[str, dict[str, Any]]

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


def file(name: str):
    """A profile's file, as seen from the checkout."""
    return (paths.PROFILES / f"{name}.toml").relative_to(paths.ROOT)


def names() -> list[str]:
    return sorted(path.stem for path in paths.PROFILES.glob("*.toml"))


def load(name: str) -> Profile:
    """Read a profile. Raises ProfileError if there is none of that name or it is malformed."""
    if name not in names():
        raise ProfileError(f"PROFILE is {name!r}; it must be one of {', '.join(names())}")
    try:
        content = tomllib.loads((paths.PROFILES / f"{name}.toml").read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{file(name)} is not valid TOML: {error}") from error
    runs, shared = content.get("runs", "both"), content.get("shared", {})
    for key, value, choices in (
        ("data", content.get("data"), tuple(data.CHECKSUMS)),
        ("runs", runs, get_args(Shown)),
    ):
        if value not in choices:
            raise ProfileError(
                f"{file(name)}: {key} is {value!r}; it must be one of {', '.join(choices)}"
            )
    own = content.get("notebooks", {})
    for words, value in (("shared", shared), ("notebooks", own), *own.items()):
        if not isinstance(value, Mapping):
            raise ProfileError(f"{file(name)}: {words} is {value!r}; it must be a table")
    known = sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))
    if strangers := sorted(set(own) - set(known)):
        raise ProfileError(f"{file(name)} names {strangers[0]}, but there is no such notebook")
    taken = {notebook: _taken(notebook, shared) for notebook in known}
    if strangers := sorted(set(shared).difference(*taken.values())):
        raise ProfileError(f"{file(name)}: no notebook has the shared parameter {strangers[0]!r}")
    notebooks = {notebook: taken[notebook] | own.get(notebook, {}) for notebook in known}
    return Profile(name, content["data"], runs, notebooks)


def _taken(notebook: str, shared: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the shared parameters that a notebook's study has."""
    if notebook not in studies.BY_NOTEBOOK:
        return {}
    known = inspect.signature(studies.BY_NOTEBOOK[notebook]).parameters
    return {name: value for name, value in shared.items() if name in known}
