"""Typed values: frozen pydantic models whose errors are one sentence.

A value that is out of range raises ValueError with the first thing that is wrong: the field's name,
its value and what it must be. Numbers must be numbers (no text, no booleans) and finite; lists and
tuples are taken alike.
"""

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails


class MustBe(ValueError):
    """Raised by the check of a field alone: what its value must be."""


class Value(BaseModel):
    """A frozen record of typed fields; two with the same fields are equal."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ValueError(sentence(error, type(self))) from None


def sentence(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong first, in one sentence."""
    errors = error.errors(include_url=False)
    # A misspelt name explains why another is missing.
    found = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    kind, value, context = found["type"], found["input"], found.get("ctx", {})
    name = ".".join(str(part) for part in found["loc"])
    if kind == "value_error" and not isinstance(context["error"], MustBe):
        whole = str(context["error"])  # by a model's own check, perhaps by that of a field's model
        return f"{name}: {whole}" if name and isinstance(value, dict) else whole
    if kind == "missing":
        return f"{name} is missing; {model.__name__} needs it"
    if kind == "extra_forbidden":
        return unknown(name, list(model.model_fields), model.__name__)
    if kind == "union_tag_invalid":
        name, value = f"{name}.kind", context["tag"]
    return f"{name} is {value!r}; it must be {_wanted(found)}"


def _wanted(found: ErrorDetails) -> str:
    context = found.get("ctx", {})
    if found["type"] == "value_error":
        return str(context["error"])
    if found["type"] == "union_tag_not_found":
        return "a dictionary with a kind"
    if found["type"] == "union_tag_invalid":
        return f"one of {context['expected_tags']}"
    if found["type"] == "too_short":
        return f"of {context['min_length']} or more entries"
    words = found["msg"].removeprefix("Input should be ").removeprefix("Value should be ")
    words = words.replace("a valid tuple", "a list")
    return words.replace("greater than or equal to", "at least").replace(
        "less than or equal to", "at most"
    )


def unknown(name: str, known: list[str], whose: str, what: str = "parameter") -> str:
    """The sentence for a name that is not known, with the likeliest of those that are."""
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known))}"
    return f"{whose} has no {what} {name!r}; {meant}"
