"""Configs as plain values and as YAML with the origin of each value."""

import math
from collections.abc import Iterator
from typing import Any

import yaml

from maml_cli.config.formatting import Key
from maml_cli.config.loaded import LoadedConfig
from maml_cli.config.schema import Config

MAX_WIDTH = 60
"""Longest line whose comment stands in a column with those of the others."""


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested dictionaries of plain values, in the order of the schema."""
    return config.model_dump(mode="json")


def annotated_yaml(loaded: LoadedConfig) -> str:
    """The config as YAML that loads again, defaults included, with the origin of each value in a comment."""
    lines: list[tuple[str, str]] = []
    open_sections: Key = ()
    for key, value in leaves(to_dict(loaded.config)):
        for depth, section in enumerate(key[:-1]):
            if open_sections[: depth + 1] != key[: depth + 1]:
                lines.append((f"{'  ' * depth}{section}:", ""))
        open_sections = key[:-1]
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("...\n").strip()
        lines.append((f"{'  ' * (len(key) - 1)}{key[-1]}: {text}", f"# {loaded.origin(key)}"))
    width = max(len(text) for text, _ in lines if len(text) <= MAX_WIDTH)
    return "".join(f"{text:{width}}  {comment}".rstrip() + "\n" for text, comment in lines)


def leaves(data: dict[str, Any], path: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every value of nested mappings with its path; lists are values."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value
