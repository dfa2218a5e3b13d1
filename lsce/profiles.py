"""How much of the report to run: `notebooks/profiles/{smoke,quick,paper}.yaml`."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lsce import claims, data, paths, report, studies
from lsce.studies import Study


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file, the parameter and its value."""


@dataclass(frozen=True)
class Profile:
    """The data that the notebooks are run on unless the user says otherwise, and, for each
    notebook in order, the values of its parameters."""

    name: str
    data: str
    notebooks: dict[str, dict[str, Any]]

    def study(self, notebook: str, data_name: str, **changes: Any) -> Study | None:
        """The study that a notebook asks for, None if it trains nothing.

        Raises ProfileError if a parameter is out of range.
        """
        build = studies.BY_NOTEBOOK.get(notebook)
        if build is None:
            return None
        known = inspect.signature(build).parameters
        given = {"data_name": data_name} | self.notebooks[notebook] | changes
        arguments = {name: value for name, value in given.items() if name in known}
        try:
            study = build(**arguments)
            if "judged_epsilon" in given:
                claims.check_judged(given["judged_epsilon"], given["epsilons"])
            return study
        except (ValueError, TypeError) as error:
            raise ProfileError(f"{_file(self.name)}, {notebook}: {error}") from error


def _file(name: str):
    return (paths.PROFILES / f"{name}.yaml").relative_to(paths.ROOT)


def names() -> list[str]:
    return sorted(path.stem for path in paths.PROFILES.glob("*.yaml"))


def load(name: str) -> Profile:
    """Read a profile. Raises ProfileError if there is none of that name or it is malformed."""
    if name not in names():
        raise ProfileError(f"PROFILE is {name!r}; it must be one of {', '.join(names())}")
    try:
        content = yaml.safe_load((paths.PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise ProfileError(f"{_file(name)} is not valid YAML{line}") from error
    notebooks = content.get("notebooks") if isinstance(content, Mapping) else None
    if not isinstance(notebooks, Mapping) or content.get("data") not in data.CHECKSUMS:
        choices = " or ".join(data.CHECKSUMS)
        raise ProfileError(f"{_file(name)} must hold `data: {choices}` and a mapping `notebooks`")
    for notebook, parameters in notebooks.items():
        path = paths.NOTEBOOKS / f"{notebook}.ipynb"
        if not path.is_file():
            raise ProfileError(f"{_file(name)} names {notebook}, but there is no such notebook")
        if not isinstance(parameters, Mapping | None):
            raise ProfileError(f"{_file(name)}, {notebook} must be a mapping, not {parameters!r}")
        try:
            report.check_parameters(path, parameters or {})
        except ValueError as error:
            raise ProfileError(f"{_file(name)}, {notebook}: {error}") from error
    parameters = {notebook: dict(given or {}) for notebook, given in notebooks.items()}
    return Profile(name, content["data"], parameters)
