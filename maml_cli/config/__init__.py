"""What the user wrote: the schema of a config, strict YAML, constraints, messages and presets, without PyTorch."""

from typing import TYPE_CHECKING

from maml_cli.lazy import lazy_attributes

if TYPE_CHECKING:
    from maml_cli.config.key_table import key_table_markdown
    from maml_cli.config.load import annotated_yaml, from_dict, load_config, override, to_dict
    from maml_cli.config.schema import Config

__all__ = ["Config", "annotated_yaml", "from_dict", "key_table_markdown", "load_config", "override", "to_dict"]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Config": "schema",
        "annotated_yaml": "load",
        "override": "load",
        "to_dict": "load",
        "load_config": "load",
        "from_dict": "load",
        "key_table_markdown": "key_table",
    },
)
