"""The documentation of parameters, from the models of the studies."""

import html
import json
from collections.abc import Collection
from pathlib import Path

from lsce import studies
from lsce.machine.values import Value
from lsce.studies.cells import literal
from lsce.studies.parameters import Regime, Shows
from lsce.training.spec import Recipe, RunSpec


def write(folder: Path, pages: Collection[str]) -> None:
    """Write the page `parameters.md`, which links to `pages`, and for programs the JSON Schema of a
    run."""
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
    (folder / "parameters.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    schema = json.dumps(RunSpec.model_json_schema(), indent=1, ensure_ascii=False)
    (folder / "_static" / "run.schema.json").write_text(schema, encoding="utf-8")


def _table(model: type[Value]) -> str:
    rows = ["| name | default | what it is |", "| --- | --- | --- |"]
    for name, field in model.model_fields.items():
        default = "" if field.is_required() else f"`{literal(field.default)}`"
        description = html.escape(field.description or "", quote=False)
        cells = (" ".join(words.split()) for words in (default, description))
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)
