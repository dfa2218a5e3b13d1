"""The documentation of parameters, from the models of the studies."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from lsce import studies
from lsce.studies.cells import literal
from lsce.studies.parameters import Regime, Shows
from lsce.training.spec import Recipe, RunSpec


def write(folder: Path, pages: Collection[str]) -> None:
    """Write the page `parameters.md`, which links to `pages`, and for programs the JSON Schema of a
    run."""
    (folder / "parameters.md").write_text(_page(pages), encoding="utf-8")
    schema = json.dumps(RunSpec.model_json_schema(), indent=1, ensure_ascii=False)
    (folder / "_static" / "run.schema.json").write_text(schema, encoding="utf-8")


def _page(pages: Collection[str]) -> str:
    parts = [
        "# Parameters",
        "Every notebook's parameters with their defaults, which are the profile `quick`. A profile "
        "changes some of them. What determines a run is in its "
        "[JSON Schema](_static/run.schema.json).",
        "## Of every page with runs",
        _table(Shows),
    ]
    for notebook, study in studies.with_runs().items():
        heading = f"[{notebook}]({notebook})" if notebook in pages else notebook
        parts += [f"## {heading}", _table(study.Parameters)]
    parts += ["## Of a regime", _table(Regime), "## Of a recipe", _table(Recipe)]
    return "\n\n".join(parts) + "\n"


def _table(model: Any) -> str:
    rows = ["| name | default | what it is |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        default = "" if field.default is PydanticUndefined else f"`{_in_row(field.default)}`"
        words = " ".join((field.description or "").split())
        rows.append(f"| `{name}` | {default} | {words} |")
    return "\n".join(rows)


def _in_row(value: Any) -> str:
    return " ".join(literal(value).split())
