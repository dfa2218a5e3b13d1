"""The cell of parameters at the top of a notebook, from the model of its study."""

from typing import Any

from lsce import studies
from lsce.machine.values import Value
from lsce.studies.parameters import Shows


def cell(notebook: str) -> str:
    """The source of the cell: every parameter with its default and its explanation."""
    study = studies.of(notebook)
    if study is None:
        known = ", ".join(studies.with_runs())
        raise ValueError(f"notebook is {notebook!r}; it must be one of {known}")
    shows = dict(Shows.model_fields)
    fields = {"profile": shows.pop("profile")} | study.Parameters.model_fields | shows
    return "\n".join(
        _assignment(name, field.get_default(), field.description or "")
        for name, field in fields.items()
    )


def _assignment(name: str, value: Any, words: str) -> str:
    line = f"{name} = {literal(value)}"
    if "\n" not in line and len(line) + len(words) <= 96:
        return f"{line}  # {words}"
    return f"# {words}\n{line}"


def literal(value: Any) -> str:
    """A value as it is written in a notebook; regimes one a line."""
    if isinstance(value, dict) and value:
        rows = [f"    {name!r}: {literal(entry)},\n" for name, entry in value.items()]
        return "{\n" + "".join(rows).replace("'", '"') + "}"
    if isinstance(value, Value):
        return repr(value.model_dump(exclude_defaults=True)).replace("'", '"')
    if isinstance(value, str):
        return f'"{value}"'
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
