"""Configs: the schema, strict YAML, constraints, messages and presets, without PyTorch."""

from typing import TYPE_CHECKING

from maml_cli.lazy import lazy_attributes

if TYPE_CHECKING:
    from maml_cli.config.commented import commented_yaml
    from maml_cli.config.configs_page import configs_readme, presets_markdown
    from maml_cli.config.dump import annotated_yaml, leaves, plain_yaml, to_dict, value_text
    from maml_cli.config.engine_support import (
        ADJOINT_LIMITS,
        ENGINE_DEVICES,
        ENGINE_LIMITS,
        KERNEL_ACTIVATIONS,
        KERNEL_CLIPS,
        KERNEL_LOSSES,
        KERNEL_OPTIMIZERS,
        exceeded,
    )
    from maml_cli.config.fields import changed_keys, is_whole_number
    from maml_cli.config.json_schema import json_schema_text
    from maml_cli.config.kernel_sizes import (
        gradient_steps,
        inner_clip,
        kernel_clip,
        kernel_points,
        native_thread_bytes,
    )
    from maml_cli.config.key_table import key_table_markdown
    from maml_cli.config.load import from_dict, load_config, load_config_file, load_quickly, locate_table, override
    from maml_cli.config.schema import Config
    from maml_cli.config.sizes import NUM_GRID, PENALTY_ROWS, layer_widths, num_curvatures, num_params, num_rule_params
    from maml_cli.config.strict_yaml import parse_list
    from maml_cli.config.table_path import has_digest

__all__ = [
    "ADJOINT_LIMITS",
    "ENGINE_DEVICES",
    "ENGINE_LIMITS",
    "KERNEL_ACTIVATIONS",
    "KERNEL_CLIPS",
    "KERNEL_LOSSES",
    "KERNEL_OPTIMIZERS",
    "NUM_GRID",
    "PENALTY_ROWS",
    "Config",
    "annotated_yaml",
    "changed_keys",
    "commented_yaml",
    "configs_readme",
    "exceeded",
    "from_dict",
    "gradient_steps",
    "has_digest",
    "inner_clip",
    "is_whole_number",
    "json_schema_text",
    "kernel_clip",
    "kernel_points",
    "key_table_markdown",
    "layer_widths",
    "leaves",
    "load_config",
    "load_config_file",
    "load_quickly",
    "locate_table",
    "native_thread_bytes",
    "num_curvatures",
    "num_params",
    "num_rule_params",
    "override",
    "parse_list",
    "plain_yaml",
    "presets_markdown",
    "to_dict",
    "value_text",
]

_MODULES = {
    "commented": ["commented_yaml"],
    "json_schema": ["json_schema_text"],
    "configs_page": ["configs_readme", "presets_markdown"],
    "dump": ["annotated_yaml", "leaves", "plain_yaml", "to_dict", "value_text"],
    "engine_support": [
        "ADJOINT_LIMITS",
        "ENGINE_DEVICES",
        "ENGINE_LIMITS",
        "KERNEL_ACTIVATIONS",
        "KERNEL_CLIPS",
        "KERNEL_LOSSES",
        "KERNEL_OPTIMIZERS",
        "exceeded",
    ],
    "fields": ["changed_keys", "is_whole_number"],
    "kernel_sizes": [
        "gradient_steps",
        "inner_clip",
        "kernel_clip",
        "kernel_points",
        "native_thread_bytes",
    ],
    "key_table": ["key_table_markdown"],
    "load": ["from_dict", "load_config", "load_config_file", "load_quickly", "locate_table", "override"],
    "schema": ["Config"],
    "sizes": ["NUM_GRID", "PENALTY_ROWS", "layer_widths", "num_curvatures", "num_params", "num_rule_params"],
    "strict_yaml": ["parse_list"],
    "table_path": ["has_digest"],
}
__getattr__ = lazy_attributes(__name__, {name: module for module, names in _MODULES.items() for name in names})
