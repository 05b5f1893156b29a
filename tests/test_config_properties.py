"""Properties of configs over all fields of the schema: round trips, and messages for hostile values."""

import json
import math
import string
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from maml_cli.config import Config, annotated_yaml, constraints, from_dict, strict_yaml, to_dict
from maml_cli.config.field_types import MAX_LAYERS, MAX_SEEDS, MAX_WIDTH
from maml_cli.config.fields import FIELDS, choices, section_model
from maml_cli.config.loaded import LoadedConfig
from maml_cli.config.validation_messages import faults

fast = settings(max_examples=40)
finite = st.floats(allow_nan=False, allow_infinity=False)
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(
        ("tasks.amplitude", "tasks.frequency", "tasks.phase", "tasks.offset", "tasks.x"),
        st.tuples(finite, finite).map(sorted) | finite,
    ),
    "model.hidden": st.lists(st.integers(1, MAX_WIDTH), max_size=MAX_LAYERS),
    "run.seeds": st.none()
    | st.integers(1, MAX_SEEDS)
    | st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5, unique=True),
}


def _values(key: str, field: FieldInfo) -> st.SearchStrategy[Any]:
    """All values that `field` takes, by its type and bounds."""
    words = choices(field)
    if key in SPECIAL:
        return SPECIAL[key]
    if words:
        return st.sampled_from([None if word == "null" else word for word in words])
    if field.annotation is bool:
        return st.booleans()
    limits = {
        name: getattr(mark, name) for mark in field.metadata for name in ("gt", "ge", "lt", "le") if hasattr(mark, name)
    }
    if field.annotation is int:
        return st.integers(limits["ge"], limits["le"] if "le" in limits else limits["lt"] - 1)
    numbers = st.floats(
        limits.get("gt", limits.get("ge")),
        limits.get("le"),
        exclude_min="gt" in limits,
        allow_nan=False,
        allow_infinity=False,
    )
    return numbers if field.annotation is float else st.none() | numbers


LEAVES = {key: _values(key, field) for key, field in FIELDS.items() if section_model(field) is None}


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Nested sections with the values of `flat`; a key inside a value that is no section goes to the top."""
    nested: dict[str, Any] = {}
    for key, value in sorted(flat.items()):
        *sections, name = key.split(".")
        section = nested
        for section_name in sections:
            inside = section.setdefault(section_name, {})
            section = inside if isinstance(inside, dict) else nested
        section[name] = value
    return nested


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Configs with any subset of keys set; keys that violate a constraint, or else all of `inner`, are left out."""
    chosen = draw(st.sets(st.sampled_from(sorted(LEAVES))))
    flat = {key: draw(LEAVES[key]) for key in sorted(chosen)}
    while True:
        try:
            return Config.model_validate(_nested(flat))
        except ValidationError as error:
            invalid = faults(error)
        assert all(fault.kind == "constraint" for fault in invalid), invalid
        blamed = {".".join(map(str, fault.key)) for fault in invalid}
        blamed = blamed & flat.keys() or {key for key in flat if key.startswith(("inner.", "outer."))}
        flat = {key: value for key, value in flat.items() if key not in blamed}


@fast
@given(configs())
def test_from_dict_inverts_to_dict_through_json(config: Config) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(config))), label="x") == config


@fast
@given(configs())
def test_annotated_yaml_loads_as_the_same_config(config: Config) -> None:
    document = strict_yaml.parse(annotated_yaml(LoadedConfig(config, "x", {})))
    assert document.errors == [] and from_dict(document.value, label="x") == config


@fast
@given(configs())
def test_a_validated_config_violates_no_constraint(config: Config) -> None:
    assert list(constraints.violations(config)) == []


@settings(max_examples=100)
@given(st.data())
def test_every_value_within_the_bounds_of_the_schema_is_invalid_only_by_a_constraint(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(LEAVES)))
    try:
        Config.model_validate(_nested({key: data.draw(LEAVES[key])}))
    except ValidationError as error:
        assert {fault.kind for fault in faults(error)} == {"constraint"}


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(string.ascii_letters + " :#-,'\"{}[]&*!|>%@?~_\n", max_size=12),
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=8), values, max_size=4)
    ),
    max_leaves=12,
)


@fast
@given(st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=8), plain, max_size=4))
def test_strict_yaml_agrees_with_pyyaml_on_plain_documents(value: dict[str, Any]) -> None:
    """PyYAML writes and reads YAML 1.1, from which YAML 1.2 differs only in words and numbers that have digits."""
    text = yaml.dump(json.loads(json.dumps(value)), Dumper=yaml.SafeDumper)
    document = strict_yaml.parse(text)
    assert document.errors == [] and document.value == yaml.safe_load(text) == value


hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [10**400, -(10**400), math.nan, math.inf, -math.inf, "", "\n", "\x00", "a" * 1000, "1e3", b"bytes"]
    )
    | st.floats()
    | st.text(max_size=8),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=6), values, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80)
@given(st.dictionaries(st.sampled_from(sorted([*FIELDS, "x", "inner.y", "a\nb", "inner.\x00"])), hostile, max_size=12))
def test_every_fault_of_a_hostile_config_is_one_line(flat: dict[str, Any]) -> None:
    try:
        Config.model_validate(_nested(flat))
    except ValidationError as error:
        messages = [fault.message for fault in faults(error)]
        assert messages and all(message.isprintable() and len(message) < 400 for message in messages)
