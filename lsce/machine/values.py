"""Typed values: frozen pydantic models whose errors are one sentence.

A value that is out of range raises ValueError with the first thing that is wrong: the field's name,
its value and what it must be. Numbers must be numbers (no text, no booleans) and finite; lists and
tuples are taken alike.
"""

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails


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
    found = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in found["loc"])
    if found["type"] == "value_error":  # raised by a model's own check, whole
        return str(found["ctx"]["error"])
    if found["type"] == "missing":
        return f"{name} is missing; {model.__name__} needs it"
    if found["type"] == "extra_forbidden":
        return unknown(name, list(model.model_fields), model.__name__)
    return f"{name} is {found['input']!r}; it must be {_wanted(found)}"


def _wanted(found: ErrorDetails) -> str:
    words = found["msg"].removeprefix("Input should be ").removeprefix("Value should be ")
    return words.replace("greater than or equal to", "at least").replace(
        "less than or equal to", "at most"
    )


def unknown(name: str, known: list[str], whose: str) -> str:
    """The sentence for a name that is not known, with the likeliest of those that are."""
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known))}"
    return f"{whose} has no parameter {name!r}; {meant}"
