"""Tables of the JSON documents, from their schemas: the keys of each, and the fields of the objects inside."""

from collections.abc import Mapping
from typing import Any

from maml_cli.dev.markdown import table
from maml_cli.documents import DOCUMENTS, json_schema


def documents_table() -> str:
    """Two tables: the documents by name, with their fields; and the objects inside, each once."""
    schemas = {name: json_schema(name) for name in DOCUMENTS}
    objects = {
        _object(key): f"{_line(schema.get('description', 'Errors of test tasks.'))}{_fields(schema)}"
        for document in schemas.values()
        for key, schema in document.get("$defs", {}).items()
        if "properties" in schema
    }
    rows = [[f"`{name}`", f"{_line(schema['description'])}{_fields(schema)}"] for name, schema in schemas.items()]
    return (
        table(["document", "fields"], rows) + "\n" + table(["object inside", "fields"], [*map(list, objects.items())])
    )


def _fields(schema: Mapping[str, Any]) -> str:
    fields = {name: field for name, field in schema.get("properties", {}).items() if name != "schema_version"}
    return "".join(f"<br>`{name}` ({_kind(field)}): {field['description']}" for name, field in fields.items())


def _kind(schema: Mapping[str, Any]) -> str:
    """The values that a schema admits, in a few words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema["anyOf"])))
    if "$ref" in schema:
        return _object(schema["$ref"].rpartition("/")[2])
    if "items" in schema:
        return f"list of {_grouped(_kind(schema['items']))}"
    if "additionalProperties" in schema:
        return f"{_grouped(_kind(schema['additionalProperties']))} by name"
    return str(schema.get("const", schema.get("type", "any value")))


def _grouped(kinds: str) -> str:
    return f"({kinds})" if " or " in kinds else kinds


def _object(key: str) -> str:
    """The name of an object, of a generic one without the kind of its fields."""
    return key.partition("_")[0].replace("JsonValue", "any value")


def _line(text: str) -> str:
    return " ".join(text.split())
