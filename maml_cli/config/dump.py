"""Configs as plain values and as YAML with the origin of each value."""

import math
from collections.abc import Iterator
from typing import Any

import yaml

from maml_cli.config.formatting import Key
from maml_cli.config.loaded import LoadedConfig
from maml_cli.config.schema import Config
from maml_cli.config.strict_yaml import scalar

MAX_WIDTH = 60
"""Longest line whose comment stands in a column with those of the others."""


class _Dumper(yaml.SafeDumper):
    """The dumper of PyYAML, which follows YAML 1.1, with quotes around text that is a number in YAML 1.2, as 1e5 is."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if scalar(text) == text else "'")


_Dumper.add_representer(str, _represent_text)


def to_dict(config: Config) -> dict[str, Any]:
    """The config as nested dictionaries of plain values, in the order of the schema."""
    return config.model_dump(mode="json")


def plain_yaml(data: Any, *, flow: bool | None, width: float) -> str:
    """Plain values as YAML that `strict_yaml` reads as the same values; `flow` is PyYAML's default_flow_style."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=flow, width=width)


def annotated_yaml(loaded: LoadedConfig) -> str:
    """The config as YAML that loads again, defaults included, with the origin of each value in a comment."""
    lines: list[tuple[str, str]] = []
    open_sections: Key = ()
    for key, value in leaves(to_dict(loaded.config)):
        for depth, section in enumerate(key[:-1]):
            if open_sections[: depth + 1] != key[: depth + 1]:
                lines.append((f"{'  ' * depth}{section}:", ""))
        open_sections = key[:-1]
        lines.append((f"{'  ' * (len(key) - 1)}{key[-1]}: {value_text(value)}", f"# {loaded.origin(key)}"))
    width = max(len(text) for text, _ in lines if len(text) <= MAX_WIDTH)
    return "".join(f"{text:{width}}  {comment}".rstrip() + "\n" for text, comment in lines)


def value_text(value: Any) -> str:
    """One value as YAML on one line, as `--set KEY=VALUE` takes it."""
    return plain_yaml(value, flow=True, width=math.inf).removesuffix("...\n").strip()


def leaves(data: dict[str, Any], path: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every value of nested mappings with its path; lists are values."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value
