"""Random configs: valid ones, from the fields and bounds of the schema, and nearly valid ones with a hostile value."""

import math
import random
import sys
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from maml_cli.config import Config
from maml_cli.config.field_types import MAX_LAYERS, MAX_RADIANS, MAX_SEEDS, MAX_SUPPORT, MAX_TARGET, MAX_WIDTH
from maml_cli.config.fields import FIELDS, choices, section_model
from maml_cli.config.validation_messages import Fault, faults
from maml_cli.formulas import DATA, FAMILIES

KEYS = sorted(key for key, field in FIELDS.items() if section_model(field) is None)
"""The keys of all values, without those of sections."""

RANGES = {
    "tasks.amplitude": MAX_TARGET,
    "tasks.frequency": MAX_RADIANS,
    "tasks.offset": MAX_TARGET,
    "tasks.phase": MAX_RADIANS,
    "tasks.x": MAX_RADIANS,
    "tasks.test_x": MAX_RADIANS,
}
"""Ranges, and the largest magnitude of their ends."""

OF_FILES: dict[str, list[Any]] = {
    "tasks.file": [None],
    "tasks.data.task_column": ["task", "station"],
    "tasks.data.x_column": ["x", "1e3"],
    "tasks.data.y_column": ["y", " "],
    "tasks.data.measured": [None],
    "run.init_from": [None],
    "run.init_sha256": [None, "0" * 64],
}
"""Values of keys that take text; no file is named, since a training would need it."""

SMALLEST = sys.float_info.min * sys.float_info.epsilon
"""The smallest number above 0."""
HOSTILE: list[Any] = [
    None, True, -1, 0, 10**400, math.nan, math.inf, -math.inf, 5e-324, -1e308, "", "\n", "\x00", "\x1b[31m", "\u202e",
    "\ud800", "a" * 1000, "1e3", "[/]", "$x^$", [], [[]], [1, 2, 3], [1e308, -1e308], {}, {"a": 1}, {"\ud83d\ude00": 1},
]  # fmt: skip
"""Values that no key takes, or few: wrong types, numbers out of bounds, and text that must be shown as data."""


def random_settings(stream: random.Random) -> dict[str, Any]:
    """The values of a random valid config by dotted key, for any subset of the keys.

    Keys that violate a constraint, or the keys that it depends on, are left out until the config is valid.
    """
    settings = {key: random_value(key, stream) for key in KEYS if stream.random() < 0.3}
    while invalid := _violations(settings):
        blamed = [".".join(map(str, key)) for key in (invalid[0].key, *invalid[0].depends_on)]
        del settings[next(key for key in blamed if key in settings)]
    return settings


def random_config(stream: random.Random) -> Config:
    """A random valid config; see `random_settings`."""
    return Config.model_validate(nested(random_settings(stream)))


def nearly_valid(stream: random.Random) -> dict[str, Any]:
    """The plain values of a random valid config in which up to three keys are hostile, misspelt or misplaced."""
    settings = random_settings(stream)
    for _ in range(stream.randint(1, 3)):
        key = stream.choice([*FIELDS, *KEYS])
        if stream.random() < 0.3:
            at = stream.randrange(len(key))
            key = key[:at] + stream.choice(["", "x", ".", "\n", "\x1b", "\ud83d", "é"]) + key[at + 1 :]
        settings[key] = stream.choice(HOSTILE)
    return nested(settings)


def random_value(key: str, stream: random.Random) -> Any:
    """A random value of `key` within its bounds, extremes included."""
    field = FIELDS[key]
    words = [word for word in choices(field) if word != DATA]  # it needs a file
    types = (field.annotation, *get_args(field.annotation))
    if key == "tasks.parameters":
        return stream.choice([None, {"slope": [-3, 3]}, {"amplitude": {"normal": [1, 0.5]}, "frequency": 2}])
    if key == "tasks.mixture":
        return stream.choice([None, [{"family": stream.choice([*FAMILIES])}, {"family": "sine", "weight": 3}]])
    if key in RANGES:
        low, high = sorted(_number(-RANGES[key], RANGES[key], stream) for _ in range(2))
        return low if key not in ("tasks.x", "tasks.test_x") and stream.random() < 0.3 else [low, high]
    if key == "model.hidden":
        return [stream.choice([1, 8, 40, MAX_WIDTH]) for _ in range(stream.choice([0, 1, 2, 3, MAX_LAYERS]))]
    if key == "run.seeds":
        count = stream.randint(1, 5)
        return stream.choice([None, count, MAX_SEEDS, sorted({stream.randrange(2**63) for _ in range(count)})])
    if key in OF_FILES:
        return stream.choice(OF_FILES[key])
    if key == "tasks.num_support":
        low, high = sorted(_whole_number(1, MAX_SUPPORT, stream) for _ in range(2))
        return stream.choice([low, [low, high]])
    if key == "inner.alpha.init":
        low, high = sorted(_number(SMALLEST, sys.float_info.max, stream) for _ in range(2))
        return stream.choice([low, [low, high]])
    if words:
        return stream.choice([None if word == "null" else word for word in words])
    if bool in types:
        return stream.random() < 0.5
    if type(None) in types and stream.random() < 0.3:
        return None
    low, high = _bounds(field)
    return _whole_number(low, high, stream) if int in types else _number(low, high, stream)


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Nested sections with the values of `settings`; a key inside a value that is no section goes to the top."""
    result: dict[str, Any] = {}
    for key, value in sorted(settings.items(), key=lambda item: item[0]):
        *sections, name = key.split(".")
        section = result
        for section_name in sections:
            inside = section.setdefault(section_name, {})
            section = inside if isinstance(inside, dict) else result
        section[name] = value
    return result


def _violations(settings: dict[str, Any]) -> list[Fault]:
    """The constraints that `settings` violate; every value is valid."""
    try:
        Config.model_validate(nested(settings))
    except ValidationError as error:
        invalid = faults(error)
        assert all(fault.kind == "constraint" for fault in invalid), [fault.message for fault in invalid]
        return invalid
    return []


def _bounds(field: FieldInfo) -> tuple[Any, Any]:
    """The least and the largest value of a number."""
    marks = {
        name: getattr(mark, name) for mark in field.metadata for name in ("gt", "ge", "lt", "le") if hasattr(mark, name)
    }
    low = marks["ge"] if "ge" in marks else marks["gt"] + SMALLEST
    below = marks.get("lt", math.inf)
    return low, marks.get("le", math.nextafter(below, 0) if float in (field.annotation, type(below)) else below - 1)


def _whole_number(low: int, high: int, stream: random.Random) -> int:
    return stream.choice([low, low + 1, stream.randint(low, min(high, low + 10)), stream.randint(low, high), high])


def _number(low: float, high: float, stream: random.Random) -> float:
    """A number from `low` to `high`: an end, an ordinary one, or one of any magnitude."""
    any_magnitude = stream.choice([-1, 1]) * 10.0 ** stream.uniform(-320, 300)
    ordinary = stream.choice([0.0, 1e-3, 0.1, 1.0, stream.uniform(-5, 5)])
    value: float = min(max(stream.choice([low, high, any_magnitude, ordinary, ordinary, ordinary]), low), high)
    return value
