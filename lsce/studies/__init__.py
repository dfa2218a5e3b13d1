"""The studies: one module a page, found by the page's name."""

import functools
import importlib.util
import sys
from pathlib import Path
from typing import TypeGuard

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

    That of `notebooks/NN_name.ipynb` is the class of `lsce.studies.name` that is a study.
    """
    module = f"lsce.studies.{notebook.partition('_')[2]}"
    if not importlib.util.find_spec(module):
        return None
    own = [each for each in vars(importlib.import_module(module)).values() if _is_of(each, module)]
    (study,) = own
    study.notebook = notebook
    return study


def _is_of(value: object, module: str) -> TypeGuard[type[Study]]:
    return isinstance(value, type) and issubclass(value, Study) and value.__module__ == module


def with_runs() -> dict[str, type[Study]]:
    """The pages that show runs of their own."""
    return {notebook: study for notebook in notebooks() if (study := of(notebook))}


@functools.cache
def claims_of(notebook: str) -> list[Claim]:
    """The claims that a page judges, declared beside its study."""
    study = of(notebook)
    if study is None:
        return []
    module = sys.modules[study.__module__]
    return claims.declared(Path(module.__file__ or "").with_suffix(".yaml"), notebook)


def all_claims() -> dict[str, Claim]:
    """Every declared claim by its id, page by page."""
    return {claim.id: claim for notebook in notebooks() for claim in claims_of(notebook)}
