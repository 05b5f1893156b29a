"""The text of JSON documents: one object a command, with its schema version first, without PyTorch.

Numbers that are not finite are null. The text is ASCII: other characters are JSON's escapes, and a byte XX of a path
that is not UTF-8 is \\udcXX, as in Python's own strings.
"""

import json
from typing import Any

from maml_cli.reporting.format import finite_or_null

JSON_SCHEMA_VERSION = 1

Document = dict[str, Any]
"""An object of strings, numbers, booleans, None, lists and further objects; numbers may be infinite or NaN."""


def to_json(document: Document) -> str:
    """The text of a document, with `schema_version` first and null for numbers that are not finite."""
    return json.dumps(finite_or_null({"schema_version": JSON_SCHEMA_VERSION, **document}), indent=2, allow_nan=False)
