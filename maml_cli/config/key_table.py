"""The table of all config keys, generated from the schema."""

from maml_cli.config.dump import leaves, to_dict
from maml_cli.config.fields import FIELDS, section_model, takes
from maml_cli.config.formatting import format_value
from maml_cli.config.schema import Config


def key_table_markdown() -> str:
    """A Markdown table for each section: key, default, accepted values, meaning."""
    return "\n".join(_section_table(name) for name in Config.model_fields)


def _section_table(name: str) -> str:
    model = section_model(FIELDS[name])
    assert model is not None and model.__doc__ is not None
    summary = model.__doc__.partition("\n")[0]
    rows = [f"**`{name}`**: {summary}", "", "| key | default | takes | meaning |", "|---|---|---|---|"]
    for path, value in leaves(to_dict(Config())[name], (name,)):
        key = ".".join(map(str, path))
        default = value if isinstance(value, str) else format_value(value)
        rows.append(f"| `{key}` | `{default}` | {takes(FIELDS[key])} | {FIELDS[key].description} |")
    return "".join(f"{row}\n" for row in rows)
