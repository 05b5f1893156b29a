"""JSON documents of the developers' tools: typed NamedTuples, written to a file and read back from it.

A float that overflowed is null in the file and infinite in Python; in a field of type `float | None` null stays None.
"""

import json
import math
import types
from pathlib import Path
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from maml_cli.errors import FileError
from maml_cli.runs import write_atomic

SCHEMA_VERSION = 1
Document = TypeVar("Document")


def write_document(file: Path, document: object) -> None:
    """Write a NamedTuple as a JSON object of its fields, after `schema_version`."""
    plain = {"schema_version": SCHEMA_VERSION, **to_plain(document)}
    write_atomic(file, f"{json.dumps(plain, indent=1, allow_nan=False)}\n".encode())


def read_document(file: Path, kind: type[Document]) -> Document:
    """The document of type `kind` in `file`; raises FileError if the file does not hold one."""
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        if plain["schema_version"] != SCHEMA_VERSION:
            raise ValueError
        return cast(Document, from_plain(plain, kind))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FileError(f"{file}: not a {file.name} as this project writes it; fix or remove it") from None


def to_plain(value: object) -> Any:
    """`value` as JSON holds it: NamedTuples are objects, other sequences lists, floats that are not finite null."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: to_plain(item) for key, item in value._asdict().items()}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_plain(plain: Any, kind: Any) -> Any:
    """The value of type `kind` that `to_plain` turned into `plain`; raises KeyError, TypeError or ValueError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        (present,) = (argument for argument in arguments if argument is not type(None))
        return None if plain is None else from_plain(plain, present)
    if origin is list:
        return [from_plain(item, arguments[0]) for item in plain]
    if origin is tuple:
        kinds = [arguments[0]] * len(plain) if arguments[-1] is Ellipsis else arguments
        return tuple(from_plain(item, each) for item, each in zip(plain, kinds, strict=True))
    if origin is dict:
        return {key: from_plain(item, arguments[1]) for key, item in plain.items()}
    if hasattr(kind, "_fields"):
        return kind(*(from_plain(plain[name], field) for name, field in get_type_hints(kind).items()))
    if kind is float:
        return math.inf if plain is None else float(plain)
    if not isinstance(plain, kind):
        raise TypeError
    return plain
