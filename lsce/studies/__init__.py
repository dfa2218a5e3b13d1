"""The studies: one module a page, found by the page's name."""

import functools
import importlib
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
    """The study of a page, None if it shows no runs.

    That of `notebooks/NN_name.ipynb` is the class in `lsce/studies/name.py` that has parameters.
    """
    name = notebook.partition("_")[2]
    if not Path(__file__).with_name(f"{name}.py").is_file():
        return None
    module = importlib.import_module(f"lsce.studies.{name}")
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Study) and each.__module__ == module.__name__
    ]
    (study,) = found
    study.notebook = notebook
    return study


def with_runs() -> dict[str, type[Study]]:
    """The pages that show runs of their own."""
    return {notebook: study for notebook in notebooks() if (study := of(notebook))}


@functools.cache
def claims_of(notebook: str) -> list[Claim]:
    """The claims that a page judges, declared beside its study."""
    file = Path(__file__).with_name(notebook.partition("_")[2] + ".yaml")
    return claims.declared(file, notebook)


def all_claims() -> dict[str, Claim]:
    """Every declared claim by its id, page by page."""
    return {claim.id: claim for notebook in notebooks() for claim in claims_of(notebook)}
