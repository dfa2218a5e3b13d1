"""How much of the report to run: `notebooks/profiles/*.toml`.

A profile holds the parameters that differ from those of the notebooks: in `shared` for every page
that has them, in `notebooks` for one.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

from lsce import studies
from lsce.machine import paths
from lsce.machine.values import Value, unknown
from lsce.studies.overview import Overview
from lsce.studies.parameters import USUAL_EPSILON, Regime
from lsce.studies.study import Study
from lsce.training.spec import DataName

#: Of what is recorded, a page shows the profile that comes first here.
ORDER = ("full", "gpu", "cpu", "small", "quick", "smoke")


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the file, the parameter and its value."""


class Content(Value):
    """What a profile's file holds."""

    data: DataName
    note: str = ""
    """What has to be known of it before it is run, a sentence."""
    recorded_first: list[str] = []
    """The pages in the order in which they are recorded; those left out come after them."""
    shared: dict[str, Any] = {}
    notebooks: dict[str, dict[str, Any]] = {}
    budgets: dict[str, Regime] = {}
    """Trainings of other lengths, which only the appendix on speed shows."""


class Profile:
    """The parameters of every page. Raises ProfileError if there is none of that name, or if a
    parameter is out of range."""

    def __init__(self, name: str):
        if name not in names():
            raise ProfileError(f"PROFILE is {name!r}; it must be one of {', '.join(names())}")
        self.name = name
        path = paths.PROFILES / f"{name}.toml"
        #: As seen from the checkout.
        self.file = path.relative_to(paths.ROOT)
        try:
            self.content = Content(**tomllib.loads(path.read_text(encoding="utf-8")))
        except tomllib.TOMLDecodeError as error:
            raise ProfileError(f"{self.file} is not valid TOML: {error}") from error
        except ValueError as error:
            raise ProfileError(f"{self.file}: {error}") from error
        pages = studies.with_runs()
        taken = {field for study in pages.values() for field in study.Parameters.model_fields}
        for whose, what, given, known in (
            ("notebooks", "page", self.content.notebooks, list(pages)),
            ("shared", "parameter", self.content.shared, sorted(taken)),
            ("recorded_first", "page", self.content.recorded_first, list(pages)),
        ):
            for name in given:
                if name not in known:
                    raise ProfileError(f"{self.file}: {unknown(name, known, whose, what)}")

    @property
    def data(self) -> str:
        return self.content.data

    def parameters(self, notebook: str) -> dict[str, Any]:
        """The values of a page's parameters that this profile changes."""
        study = studies.of(notebook)
        if study is None:
            return {}
        known, content = study.Parameters.model_fields, self.content
        shared = {name: value for name, value in content.shared.items() if name in known}
        return shared | content.notebooks.get(notebook, {})

    def study(self, notebook: str, data_name: str | None = None) -> Study:
        """The study that a page asks for, on this profile's data or on other data."""
        study = studies.of(notebook)
        assert study is not None
        given = {"data_name": data_name or self.data} | self.parameters(notebook)
        try:
            return study(study.Parameters(**given))
        except ValueError as error:
            raise ProfileError(f"{self.file}, {notebook}: {error}") from error

    def studies(self, data_name: str | None = None) -> Iterator[tuple[str, Study]]:
        """Each page that shows runs with its study; then the budgets, with three seeds."""
        for notebook in studies.with_runs():
            yield notebook, self.study(notebook, data_name)
        if self.content.budgets:
            parameters = Overview.Parameters(
                data_name=data_name or self.data,
                regimes=self.content.budgets,
                epsilons=(0.0, USUAL_EPSILON),
            )
            yield "A1_speed", Overview(parameters)


def names() -> list[str]:
    """The profiles, in the order in which pages show them; others after these."""
    present = sorted(path.stem for path in paths.PROFILES.glob("*.toml"))
    return sorted(present, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
