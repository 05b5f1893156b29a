"""From a YAML file or a preset, and dotted overrides, to a checked `Config` that knows where each value came from."""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from maml_cli.config import presets, strict_yaml
from maml_cli.config.schema import Config
from maml_cli.config.validation_messages import Key, error_key, format_error
from maml_cli.errors import ConfigError, FileError

MAX_PROBLEMS = 100


class Origin(NamedTuple):
    """Where a key and its value were written, how that reads in short, and its rank in a list of problems."""

    label: str
    key: str
    value: str
    order: tuple[int, int, int]


class _Problem(NamedTuple):
    order: tuple[int, int, int]
    where: str
    message: str


class LoadedConfig(NamedTuple):
    """A config, the name its runs go by, and the origin of every value that is not a default."""

    config: Config
    name: str
    origins: dict[Key, Origin]

    def origin(self, key: Key) -> str:
        """`x.yaml:7`, `--set`, or `default`."""
        return self.origins[key].label if key in self.origins else "default"


def load_config(source: str, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read `source`, a file or the name of a preset, and apply `overrides` such as `inner.steps=5` in order.

    Raises ConfigError with everything that is wrong, one line each, or FileError if there is nothing to read.
    """
    path = presets.find(source)
    document = strict_yaml.parse(_read(path))
    label = _relative(path)
    problems = [_Problem((0, *fault.mark), _at(label, fault.mark), fault.message) for fault in document.errors]
    data = {} if document.value is None else document.value
    if not isinstance(data, dict):
        message = "a config must be a mapping of sections, such as inner:"
        problems.append(_Problem((0, 1, 1), f"{label}:1:1", message))
        data = {}
    origins = {
        key: Origin(f"{label}:{place.key.line}", _at(label, place.key), _at(label, place.value), (0, *place.key))
        for key, place in document.locations.items()
    }
    config, origins = _resolve(data, label, origins, overrides, problems)
    return LoadedConfig(config, path.stem, origins)


def override(config: Config, overrides: Sequence[str], *, label: str) -> Config:
    """`config` with `overrides` applied; `label` names the config in messages."""
    return _resolve(to_dict(config), label, {}, overrides, [])[0]


def from_dict(data: dict[str, Any], *, label: str) -> Config:
    """The Config that `to_dict` made `data` of; raises ConfigError if it is not one."""
    return _resolve(data, label, {}, (), [])[0]


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values in the order of the schema, enough to make the config again."""
    return config.model_dump(mode="json")


def annotated_yaml(loaded: LoadedConfig) -> str:
    """The whole config as YAML that can be loaded again, with the origin of each value in a comment."""
    lines: list[tuple[str, str]] = []
    open_sections: Key = ()
    for key, value in leaves(to_dict(loaded.config)):
        for depth, section in enumerate(key[:-1]):
            if open_sections[: depth + 1] != key[: depth + 1]:
                lines.append((f"{'  ' * depth}{section}:", ""))
        open_sections = key[:-1]
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("...\n").strip()
        lines.append((f"{'  ' * (len(key) - 1)}{key[-1]}: {text}", f"# {loaded.origin(key)}"))
    width = max(len(text) for text, _ in lines)
    return "".join(f"{text:{width}}  {comment}".rstrip() + "\n" for text, comment in lines)


def leaves(data: dict[str, Any], path: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every value of nested mappings with its path; lists are values."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _resolve(
    data: dict[str, Any],
    label: str,
    origins: dict[Key, Origin],
    overrides: Sequence[str],
    problems: list[_Problem],
) -> tuple[Config, dict[Key, Origin]]:
    for index, text in enumerate(overrides):
        origin = Origin("--set", f"--set {text}", f"--set {text}", (1, index, 0))
        try:
            key, value = _parse_override(text)
            _assign(data, key, value)
        except ValueError as error:
            problems.append(_Problem(origin.order, origin.key, str(error)))
            continue
        origins = {old: known for old, known in origins.items() if old[: len(key)] != key}
        origins |= {(*key, *inside): origin for inside in [(), *_paths(value)]}
    config, senseless = None, list[tuple[str, str]]()
    while config is None:
        try:
            config = Config.model_validate(data, context=senseless)
        except ValidationError as error:
            for item in error.errors():
                origin = _nearest(origins, error_key(item)) or Origin(label, label, label, (2, 0, 0))
                where = origin.key if item["type"] == "extra_forbidden" else origin.value
                problems.append(_Problem(origin.order, where, format_error(item)))
            # What is wrong is taken out and the rest read again, so that checks across keys report in the same pass.
            if not any([_remove(data, error_key(item)) for item in error.errors()]):
                break
    for name, reason in senseless:
        origin = _nearest(origins, tuple(name.split("."))) or Origin(label, label, label, (2, 0, 0))
        problems.append(_Problem(origin.order, origin.value, f"{name} {reason}"))
    if problems or config is None:
        lines = [f"{problem.where}: {problem.message}" for problem in sorted(problems)]
        unique = list(dict.fromkeys(lines))
        more = [f"... and {len(unique) - MAX_PROBLEMS:,} more"] if len(unique) > MAX_PROBLEMS else []
        raise ConfigError("\n".join(unique[:MAX_PROBLEMS] + more))
    return config, origins


def _parse_override(text: str) -> tuple[Key, Any]:
    name, equals, value = text.partition("=")
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        raise ValueError("must be KEY=VALUE, such as inner.steps=5")
    document = strict_yaml.parse(value)
    if document.errors:
        raise ValueError(document.errors[0].message)
    return key, document.value


def _paths(value: Any) -> list[Key]:
    return [path for path, _ in leaves(value)] if isinstance(value, dict) else []


def _assign(data: dict[str, Any], key: Key, value: Any) -> None:
    for part in key[:-1]:
        if data.get(str(part)) is None:
            data[str(part)] = {}
        data = data[str(part)]
        if not isinstance(data, dict):
            raise ValueError(f"{part} is a value, not a section")
    data[str(key[-1])] = value


def _remove(data: dict[str, Any], key: Key) -> bool:
    """Take out what is at `key`, or the list it stands in; False if there is nothing."""
    for part in key[:-1]:
        inside = data.get(str(part))
        if not isinstance(inside, dict):
            return data.pop(str(part), data) is not data
        data = inside
    return data.pop(str(key[-1]), data) is not data


def _nearest(origins: dict[Key, Origin], key: Key) -> Origin | None:
    """The origin of `key`, else of what it stands in, else of something inside it."""
    around = (origins[key[:end]] for end in range(len(key), 0, -1) if key[:end] in origins)
    inside = (origin for other, origin in origins.items() if other[: len(key)] == key)
    return next(around, None) or next(inside, None)


def _at(label: str, mark: strict_yaml.Mark) -> str:
    return f"{label}:{mark.line}:{mark.column}"


def _relative(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
