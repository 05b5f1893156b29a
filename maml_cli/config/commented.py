"""Configs to start from: the keys that matter most, each with its meaning as a comment."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from maml_cli.config.dump import leaves, plain_yaml, to_dict
from maml_cli.config.fields import FIELDS
from maml_cli.config.presets import modeline
from maml_cli.config.schema import Config

COMMON_KEYS = (
    "tasks.num_support",
    "model.hidden",
    "inner.steps",
    "inner.alpha.init",
    "inner.alpha.learned",
    "outer.steps",
    "outer.tasks_per_step",
    "outer.lr",
    "run.seed",
)
"""Keys that are written even where they have their defaults."""
WIDTH = 100
"""Characters of a line with a comment."""


def commented_yaml(config: Config, title: str) -> str:
    """The YAML of COMMON_KEYS and of all values that differ from the defaults, each below its description.

    Its first line names the schema for editors; `title` is the second.
    """
    defaults = _by_key(Config())
    values = {
        key: value for key, value in _by_key(config).items() if key in COMMON_KEYS or defaults.get(key, None) != value
    }
    lines = [modeline(), f"# {title}", "# All keys: maml config show FILE, maml config keys"]
    open_sections: Sequence[str] = ()
    for key, value in values.items():
        *sections, name = key.split(".")
        for depth, section in enumerate(sections):
            if open_sections[: depth + 1] != sections[: depth + 1]:
                lines += ["", f"{section}:"] if depth == 0 else [f"{'  ' * depth}{section}:"]
        open_sections = sections
        indent = "  " * len(sections)
        if key in FIELDS:
            lines += textwrap.wrap(
                FIELDS[key].description or "", WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
            )
        text = plain_yaml(value, flow=True, width=10_000).removesuffix("...\n").strip()
        lines.append(f"{indent}{name}: {text}")
    return "\n".join(lines) + "\n"


def _by_key(config: Config) -> Mapping[str, Any]:
    return {".".join(map(str, key)): value for key, value in leaves(to_dict(config))}
