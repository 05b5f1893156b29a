"""Configs: the schema, strict YAML, constraints, messages and presets, without PyTorch."""

from typing import TYPE_CHECKING

from maml_cli.lazy import lazy_attributes

if TYPE_CHECKING:
    from maml_cli.config.configs_page import configs_readme, presets_markdown
    from maml_cli.config.dump import annotated_yaml, to_dict
    from maml_cli.config.key_table import key_table_markdown
    from maml_cli.config.load import from_dict, load_config, load_config_file, override
    from maml_cli.config.schema import Config

__all__ = [
    "Config",
    "annotated_yaml",
    "configs_readme",
    "from_dict",
    "key_table_markdown",
    "load_config",
    "load_config_file",
    "override",
    "presets_markdown",
    "to_dict",
]

__getattr__ = lazy_attributes(
    __name__,
    {
        "Config": "schema",
        "annotated_yaml": "dump",
        "configs_readme": "configs_page",
        "from_dict": "load",
        "key_table_markdown": "key_table",
        "load_config": "load",
        "load_config_file": "load",
        "override": "load",
        "presets_markdown": "configs_page",
        "to_dict": "dump",
    },
)
