"""Properties of configs over all fields of the schema: round trips, and messages for hostile values."""

import json
import math
import string
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from maml_cli.config import Config, annotated_yaml, constraints, from_dict, override, plain_yaml, strict_yaml, to_dict
from maml_cli.config.fields import FIELDS
from maml_cli.config.load import load_config
from maml_cli.config.loaded import LoadedConfig
from maml_cli.config.sizes import VALUES_PER_PARAM, num_params, num_rule_params
from maml_cli.config.validation_messages import faults
from maml_cli.dev.soak.configs import KEYS, nearly_valid, nested, random_config, random_value
from maml_cli.engines import OUTER_OPTIMIZERS
from maml_cli.errors import ConfigError
from maml_cli.experiment import build_experiment
from maml_cli.runs.directory import dump_yaml

fast = settings(max_examples=40)
streams = st.randoms(use_true_random=False)
configs = streams.map(random_config)


@fast
@given(configs)
def test_from_dict_inverts_to_dict_through_json(config: Config) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(config))), label="x") == config


@pytest.mark.parametrize("flow", [True, False, None])
@given(text=st.one_of(st.text(), st.text("0123456789e.+-_:xob", max_size=64)))
@example(text="1e5")  # a number in YAML 1.2, and text in YAML 1.1, which PyYAML follows
@example(text="1" * 40 + "e" + "2" * 23)  # 64 hexadecimal digits
@example(text="null")
@example(text="on")
def test_any_text_of_a_dumped_value_is_loaded_as_the_same_text(text: str, flow: bool | None) -> None:
    assert strict_yaml.parse(plain_yaml({"key": text}, flow=flow, width=100)).value == {"key": text}


@fast
@given(configs)
def test_annotated_yaml_loads_as_the_same_config(config: Config) -> None:
    document = strict_yaml.parse(annotated_yaml(LoadedConfig(config, "x", {})))
    assert document.errors == [] and from_dict(document.value, label="x") == config


@fast
@given(configs)
def test_a_validated_config_violates_no_constraint(config: Config) -> None:
    assert list(constraints.violations(config)) == []


@settings(max_examples=100)
@given(configs)
def test_the_sizes_of_a_config_are_those_of_its_meta_parameters(config: Config) -> None:
    params, rule_params = build_experiment(config).template
    grows_with_the_network = config.inner.alpha.per == "parameter"
    counted = [tensor for key, tensor in rule_params.items() if grows_with_the_network or key[-3:] in (".in", "out")]
    assert sum(tensor.numel() for tensor in params.values()) == num_params(config) * len(config.seeds)
    assert sum(tensor.numel() for tensor in counted) == num_rule_params(config) * len(config.seeds)


def test_a_checkpoint_has_no_more_values_for_a_parameter_than_its_size_counts() -> None:
    assert max(1 + len(kind.state_names) for kind in OUTER_OPTIMIZERS.values()) == VALUES_PER_PARAM


def test_a_config_is_valid_up_to_the_largest_checkpoint() -> None:
    """1-8192-n-1 has 2 * 8192 + 8193 n + n + 1 parameters of 12 bytes, moments included: 240 MiB at n = 2557.4."""
    Config.model_validate({"model": {"hidden": [8192, 2557]}})
    with pytest.raises(
        ConfigError, match=r"model.hidden makes checkpoints of 240.1 MiB, more than 240 MiB; try smaller"
    ):
        from_dict({"model": {"hidden": [8192, 2558]}}, label="x")


@settings(max_examples=100)
@given(st.sampled_from(KEYS), streams)
def test_every_value_within_the_bounds_of_the_schema_is_invalid_only_by_a_constraint(key: str, stream: Any) -> None:
    try:
        Config.model_validate(nested({key: random_value(key, stream)}))
    except ValidationError as error:
        assert {fault.kind for fault in faults(error)} == {"constraint"}


@fast
@given(configs)
def test_a_written_config_is_the_same_when_it_is_read(config: Config) -> None:
    document = strict_yaml.parse(dump_yaml(to_dict(config)))
    assert document.errors == [] and from_dict(document.value, label="x") == config


def _assert_refused_in_lines_that_print(error: ConfigError) -> None:
    assert error.lines and all(line.isprintable() and len(line) < 500 for line in error.lines)


@settings(max_examples=60)
@given(streams)
def test_a_nearly_valid_config_is_read_or_refused_in_lines_that_print(stream: Any) -> None:
    try:
        from_dict(nearly_valid(stream), label="x")
    except ConfigError as error:
        _assert_refused_in_lines_that_print(error)


YAML_WORDS = ["inner", "steps", "alpha", ": ", ":\n  ", "\n", "- ", "? ", "[", "]", "{", "}", ",", "'", '"', "\\ud83d"]
YAML_WORDS += [
    "&a ",
    "*a",
    "!!int ",
    "|\n ",
    ">",
    "#",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "\t",
    "\ufeff",
    "\u2028",
    "1e3",
    "\\x1b",
]


@settings(max_examples=100)
@given(
    st.binary(max_size=40)
    | st.lists(st.sampled_from(YAML_WORDS), max_size=30).map(lambda words: "".join(words).encode())
)
def test_any_bytes_are_read_or_refused_as_a_config(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(data)
    try:
        load_config(str(file))
    except ConfigError as error:
        _assert_refused_in_lines_that_print(error)


@settings(max_examples=100)
@given(
    st.lists(
        st.text(max_size=30)
        | st.tuples(st.sampled_from([*FIELDS, "x", "inner.x"]), st.text(max_size=12)).map("=".join)
        | st.tuples(st.text(max_size=12), st.sampled_from(["=1", "={a: 1}", "=[1"])).map("".join),
        max_size=4,
    )
)
def test_any_overrides_are_applied_or_refused(overrides: list[str]) -> None:
    try:
        override(Config(), overrides, label="x")
    except ConfigError as error:
        _assert_refused_in_lines_that_print(error)


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
@example(flat={"tasks.parameters": {"\x1f": None}})
@given(st.dictionaries(st.sampled_from(sorted([*FIELDS, "x", "inner.y", "a\nb", "inner.\x00"])), hostile, max_size=12))
def test_every_fault_of_a_hostile_config_is_one_line(flat: dict[str, Any]) -> None:
    try:
        Config.model_validate(nested(flat))
    except ValidationError as error:
        messages = [fault.message for fault in faults(error)]
        assert messages and all(message.isprintable() and len(message) < 400 for message in messages)
