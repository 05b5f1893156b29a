"""The base of the objects in JSON documents, and their text: the schema version first, null for what is not finite.

The text is ASCII: other characters are JSON's escapes, and a byte XX of a path that is not UTF-8 is \\udcXX, as in
Python's own strings.
"""

import json
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Number = float | None
"""A number, null if it is infinite or NaN. In Python it may be either; a description says where null means anything
else."""


class Shape(BaseModel):
    """An object with exactly these fields, in this order; one that equals its default is left out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Document(Shape):
    """The one object that a command prints."""

    schema_version: Literal[1] = Field(1, description="version of the schema")


def to_plain(shape: BaseModel) -> Any:
    """Nested dictionaries and lists of the values of `shape`; numbers may be infinite or NaN."""
    return shape.model_dump(exclude_defaults=True, by_alias=True)


def to_json(document: Document) -> str:
    """The text of a document."""
    plain = {"schema_version": document.schema_version, **to_plain(document)}
    return json.dumps(finite_or_null(plain), indent=2, allow_nan=False)


def finite_or_null(value: Any) -> Any:
    """Plain lists and dictionaries, with None (null in JSON) for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
