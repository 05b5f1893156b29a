"""The JSON schema of a config, by which editors complete and check it while it is written."""

import json

from maml_cli.config.schema import Config


def json_schema_text() -> str:
    """The schema as JSON: sections, keys, types, bounds, defaults and descriptions; not the constraints across keys."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    schema |= {
        "title": "maml config",
        "description": "A config of maml; `maml config check` knows more than this schema.",
    }
    return json.dumps(schema, indent=1) + "\n"
