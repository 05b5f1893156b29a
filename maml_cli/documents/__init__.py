"""JSON documents: the fields of all that commands print, each described and checked, and their schemas; no PyTorch."""

from typing import TYPE_CHECKING

from maml_cli.lazy import lazy_attributes

if TYPE_CHECKING:
    from maml_cli.documents.registry import DOCUMENTS, json_schema, json_schema_text
    from maml_cli.documents.shape import finite_or_null, to_json, to_plain

__all__ = ["DOCUMENTS", "finite_or_null", "json_schema", "json_schema_text", "to_json", "to_plain"]

_MODULES = {
    "registry": ["DOCUMENTS", "json_schema", "json_schema_text"],
    "shape": ["finite_or_null", "to_json", "to_plain"],
}
__getattr__ = lazy_attributes(__name__, {name: module for module, names in _MODULES.items() for name in names})
