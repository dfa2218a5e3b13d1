"""Typed values: frozen pydantic models whose errors are one sentence.

A wrong value raises ValueError with the first field that is wrong, its value and what it must be.
Numbers must be numbers (no text, no booleans) and finite; lists and tuples are taken alike.
"""

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class MustBe(ValueError):
    """Raised by the check of a field alone: what its value must be."""


class Value(BaseModel):
    """A frozen record of typed fields; two with the same fields are equal."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ValueError(_sentence(error, type(self))) from None


#: What a value must be, by pydantic's type of the error; else its message, in these words.
_WANTED = {
    "value_error": "{error}",
    "union_tag_not_found": "a dictionary with a kind",
    "union_tag_invalid": "one of {expected_tags}",
    "too_short": "of {min_length} or more entries",
}
_WORDS = {
    "Input should be ": "",
    "Value should be ": "",
    "a valid tuple": "a list",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}


def _sentence(error: ValidationError, model: type[BaseModel]) -> str:
    errors = error.errors(include_url=False)
    # A misspelt name explains why another is missing.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    kind, value, context = first["type"], first["input"], first.get("ctx", {})
    name = ".".join(map(str, first["loc"]))
    if kind == "value_error" and not isinstance(context["error"], MustBe):
        text = str(context["error"])  # by a model's own check, perhaps by that of a field's model
        return f"{name}: {text}" if name and isinstance(value, dict) else text
    if kind == "missing":
        return f"{name} is missing; {model.__name__} needs it"
    if kind == "extra_forbidden":
        return unknown(name, list(model.model_fields), model.__name__)
    if kind == "union_tag_invalid":
        name, value = f"{name}.kind", context["tag"]
    if kind in _WANTED:
        wanted = _WANTED[kind].format(**context)
    else:
        wanted = first["msg"]
        for old, new in _WORDS.items():
            wanted = wanted.replace(old, new)
    return f"{name} is {value!r}; it must be {wanted}"


def unknown(name: str, known: list[str], whose: str, what: str = "parameter") -> str:
    """The sentence for a name that is not known, with the likeliest of those that are."""
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known))}"
    return f"{whose} has no {what} {name!r}; {meant}"
