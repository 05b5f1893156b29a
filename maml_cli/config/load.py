"""From a YAML file or a preset, and dotted overrides, to a checked `Config` that knows where each value came from."""

import copy
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from maml_cli.config import limits, presets, strict_yaml
from maml_cli.config.dump import leaves, to_dict
from maml_cli.config.formatting import Key, format_key
from maml_cli.config.loaded import LoadedConfig, Origin
from maml_cli.config.schema import Config
from maml_cli.config.table_path import find_table
from maml_cli.config.validation_messages import Fault, faults
from maml_cli.errors import ConfigError, printable, shorten
from maml_cli.reading import read_file, read_file_or_pipe

MAX_PROBLEMS = 100
"""Lines of a message, and problems that are put into words; the others are counted."""
MAX_POSITION = 100
"""Characters of an override in a message."""
CONFIG_BYTES = 4 * limits.MAX_CHARACTERS
"""Largest file of a config that is read: a character has at most four bytes in UTF-8."""
NOT_A_MAPPING = "a config must be a mapping of sections, such as inner:"


class _Problem(NamedTuple):
    """A line of a ConfigError: its rank, the position, and the message or the fault that it describes."""

    order: tuple[int, int, int]
    position: str
    cause: str | Fault


def load_config(source: str | Config, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read `source`, a file or the name of a preset, and apply `overrides` such as `inner.steps=5` in order.

    A config in place of a file is taken as it is. Raises ConfigError with every problem, one line each, or FileError if
    `source` cannot be read.
    """
    if isinstance(source, Config):
        return LoadedConfig(override(source, overrides, label="config"), "run", {})
    path = presets.find(source)
    loaded = _parse(read_file_or_pipe(path, limit=CONFIG_BYTES), path, overrides)
    return loaded._replace(config=locate_table(loaded.config, path.parent))


def load_config_file(file: Path) -> Config:
    """The config in a regular file, with the path of its table as written; raises ConfigError or FileError."""
    return _parse(read_file(file, limit=CONFIG_BYTES), file, ()).config


def load_quickly(file: Path) -> Config:
    """As `load_config_file`, several times as fast, for many files whose faults are only counted."""
    return _parse(read_file(file, limit=CONFIG_BYTES), file, (), loader=strict_yaml.QUICK_LOADER).config


def _parse(
    content: bytes, path: Path, overrides: Sequence[str], *, loader: Any = strict_yaml.DEFAULT_LOADER
) -> LoadedConfig:
    label = _relative(path)
    document = strict_yaml.parse(_decode(content, path), loader=loader)
    problems = [_Problem((0, *error.mark), _at(label, error.mark), error.message) for error in document.errors]
    data: Any = {} if document.value is None else document.value
    if not isinstance(data, dict):
        problems.append(_Problem((0, 1, 1), f"{label}:1:1", NOT_A_MAPPING))
        data = {}
    origins = {
        key: Origin(f"{label}:{mark.line}", _at(label, mark), _at(label, value_mark), (0, *mark))
        for key, (mark, value_mark) in document.locations.items()
    }
    config, origins = _resolve(data, label, origins, overrides, problems)
    return LoadedConfig(config, path.stem, origins)


def locate_table(config: Config, folder: Path) -> Config:
    """`config` with the path of its table as seen from the current directory, where `find_table` finds it by `folder`,
    that of the config or of its run; unchanged where it does not."""
    if config.tasks.file is None:
        return config
    file, measured = Path(config.tasks.file), config.tasks.data.measured
    table = find_table(file, folder, digest=measured.digest if measured else None)
    if table in (None, file):
        return config
    return override(config, [f"tasks.file={json.dumps(_relative(table))}"], label="config")


def override(config: Config, overrides: Sequence[str], *, label: str, option: str = "--set") -> Config:
    """`config` with `overrides` applied; raises ConfigError, in which `label` names the config, and `option` the option
    that gave the overrides."""
    return _resolve(to_dict(config), label, {}, overrides, [], option)[0]


def from_dict(data: Any, *, label: str) -> Config:
    """The inverse of `to_dict`; raises ConfigError, in which `label` names the config, for all other data."""
    problem = limits.plain_values_problem(data)
    if problem or not isinstance(data, dict):
        raise ConfigError(f"{label}: {problem or NOT_A_MAPPING}")
    return _resolve(copy.deepcopy(data), label, {}, (), [])[0]


def _resolve(
    data: dict[str, Any],
    label: str,
    origins: dict[Key, Origin],
    overrides: Sequence[str],
    problems: list[_Problem],
    option: str = "--set",
) -> tuple[Config, dict[Key, Origin]]:
    """The config of `data` with `overrides` applied to it in place, and the origins of its values.

    Raises ConfigError with `problems` and all further ones, if there are any.
    """
    problems = list(problems)
    if len(overrides) > limits.MAX_OVERRIDES or sum(map(len, overrides)) > limits.MAX_CHARACTERS:
        most = f"at most {limits.MAX_OVERRIDES:,}, of {limits.MAX_CHARACTERS:,} characters in all"
        raise ConfigError(f"{option}: {len(overrides):,} overrides; a config takes {most}")
    for index, text in enumerate(overrides):
        position = f"{option} {shorten(text, MAX_POSITION)}"
        origin = Origin(option, position, position, (1, index, 0))
        try:
            key, value = _parse_override(text)
            _assign(data, key, value)
        except ValueError as error:
            problems.append(_Problem(origin.order, origin.key, str(error)))
            continue
        origins = {old: known for old, known in origins.items() if old[: len(key)] != key}
        origins |= {(*key, *path): origin for path in [(), *_paths(value)]}
    config, invalid = _validate(data)
    for fault in invalid:
        origin = _nearest(origins, fault.key) or Origin(label, label, label, (2, 0, 0))
        problems.append(_Problem(origin.order, origin.key if fault.kind == "key" else origin.value, fault))
    if problems or config is None:
        raise ConfigError(*_list_problems(problems))
    return config, origins


def _validate(data: dict[str, Any]) -> tuple[Config | None, list[Fault]]:
    """The config, or None, and its faults; invalid values are removed from `data`.

    Constraints are checked only where all values are valid. So invalid values are removed and the others validated
    again, until constraints are checked as well: those that depend on an invalid value hold or not by its default, and
    are skipped.
    """
    invalid: list[Fault] = []
    while True:
        try:
            return Config.model_validate(data), invalid
        except ValidationError as error:
            new = faults(error)
        removed = [_remove(data, fault.key) for fault in new if fault.kind != "constraint"]
        if not any(removed):
            unknown = [fault.key for fault in invalid]
            return None, invalid + [fault for fault in new if not _depends_on_any(fault, unknown)]
        invalid += new


def _depends_on_any(fault: Fault, keys: Sequence[Key]) -> bool:
    """Whether a violated constraint depends on one of `keys`, or on a value inside or around it."""
    return any(key[: len(known)] == known[: len(key)] for key in keys for known in fault.depends_on)


def _list_problems(problems: Sequence[_Problem]) -> list[str]:
    """The lines of a message: the first problems by their position, and the number of further ones."""
    ordered = sorted(problems, key=lambda problem: (problem.order, problem.position))
    lines = [
        f"{position}: {cause.message if isinstance(cause, Fault) else cause}"
        for _, position, cause in ordered[:MAX_PROBLEMS]
    ]
    num_more = len(ordered) - MAX_PROBLEMS
    return [*dict.fromkeys(lines), *([f"... and {num_more:,} more"] if num_more > 0 else [])]


def _parse_override(text: str) -> tuple[Key, Any]:
    name, equals, value = text.partition("=")
    key = tuple(name.strip().split("."))
    if not equals or not all(key):
        raise ValueError("must be KEY=VALUE, such as inner.steps=5")
    if len(key) > limits.MAX_DEPTH:
        raise ValueError(limits.TOO_DEEP)
    if limits.is_no_text(name):
        raise ValueError(f"key with {limits.NOT_TEXT}")
    document = strict_yaml.parse(value)
    if document.errors:
        raise ValueError(document.errors[0].message)
    return key, document.value


def _paths(value: Any) -> list[Key]:
    return [path for path, _ in leaves(value)] if isinstance(value, dict) else []


def _assign(data: dict[str, Any], key: Key, value: Any) -> None:
    for depth, name in enumerate(key[:-1], start=1):
        if data.get(str(name)) is None:
            data[str(name)] = {}
        data = data[str(name)]
        if not isinstance(data, dict):
            raise ValueError(f"{format_key(key[:depth])} is a value, not a section")
    data[str(key[-1])] = value


def _remove(data: dict[str, Any], key: Key) -> bool:
    """Remove the value at `key`, or the list that contains it; False if there is none."""
    for name in key[:-1]:
        section = data.get(str(name))
        if not isinstance(section, dict):
            return data.pop(str(name), data) is not data
        data = section
    return data.pop(str(key[-1]), data) is not data


def _nearest(origins: dict[Key, Origin], key: Key) -> Origin | None:
    """The origin of `key`, else of a section or list that contains it, else of a value inside it."""
    around = (origins[key[:end]] for end in range(len(key), 0, -1) if key[:end] in origins)
    inside = (origin for known, origin in origins.items() if known[: len(key)] == key)
    return next(around, None) or next(inside, None)


def _at(label: str, mark: strict_yaml.Mark) -> str:
    return f"{label}:{mark.line}:{mark.column}"


def _relative(path: Path) -> str:
    relative = os.path.relpath(path)
    return printable(str(path) if relative.startswith("..") else relative)


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
