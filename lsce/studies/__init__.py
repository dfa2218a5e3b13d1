"""The studies: one module a page, found by the page's name."""

import functools
import importlib.util
import inspect
from pathlib import Path

from lsce.judging import claims
from lsce.judging.claims import Claim
from lsce.machine import paths
from lsce.studies.study import Study


def notebooks() -> list[str]:
    """The pages, in order."""
    return sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))


@functools.cache
def of(notebook: str) -> type[Study] | None:
    """The study of `notebooks/NN_name.ipynb`: the one that `lsce.studies.name` defines, or None if
    the page shows no runs."""
    name = f"lsce.studies.{notebook.partition('_')[2]}"
    if not importlib.util.find_spec(name):
        return None
    (study,) = (
        value
        for value in vars(importlib.import_module(name)).values()
        if isinstance(value, type) and issubclass(value, Study) and value.__module__ == name
    )
    study.notebook = notebook
    return study


def with_runs() -> dict[str, type[Study]]:
    """The pages that show runs of their own."""
    return {notebook: study for notebook in notebooks() if (study := of(notebook))}


@functools.cache
def claims_of(notebook: str) -> list[Claim]:
    """The claims that a page judges, declared beside its study."""
    study = of(notebook)
    if study is None:
        return []
    return claims.declared(Path(inspect.getfile(study)).with_suffix(".yaml"), notebook)


def all_claims() -> dict[str, Claim]:
    """Every declared claim by its id, page by page."""
    return {claim.id: claim for notebook in notebooks() for claim in claims_of(notebook)}
