"""Constraints across keys: reported together, only where they are certain, and each about the keys that it reads."""

import itertools
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from maml_cli.config import Config, load_config
from maml_cli.config.constraint import Constraint
from maml_cli.config.constraints import CONSTRAINTS
from maml_cli.config.data_schema import Measured
from maml_cli.config.fields import FIELDS, choices
from maml_cli.config.tasks_schema import Component
from maml_cli.errors import ConfigError
from maml_cli.formulas import Family, register_family, registry


def _blamed(tmp_path: Path, text: str) -> list[str]:
    """The keys that the messages about a config blame."""
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(str(file))
    return [line.split(": ")[1].split()[0] for line in str(error.value).splitlines()]


def test_all_violated_constraints_are_reported_at_once_and_only_those(tmp_path: Path) -> None:
    """Three at once; and no constraint is reported that only the removal of a blamed value would violate."""
    text = "inner: {order: implicit, loss: l1, optimizer: adam}"
    assert _blamed(tmp_path, text) == ["inner.proximal", "inner.loss", "inner.optimizer"]
    text = "model: {num_context: 3}\ninner: {adapt: context}\nouter: {meta_gradient: joint}"
    assert _blamed(tmp_path, text) == ["model.num_context"]


@pytest.mark.parametrize(
    ("text", "blamed"),
    [
        ("inner: {order: frist, cg_steps: 50}", ["inner.order"]),
        ("inner: {alpha: {learned: on, lr: 1}}", ["inner.alpha.learned"]),
        ("inner: {adapt: body}\nmodel: {hidden: [0]}", ["model.hidden[0]"]),
        ("outer: {multi_step_loss_until: 5}\ninner: 3", ["inner"]),
        ("inner: {loss: l3, cg_steps: 50}", ["inner.loss", "inner.cg_steps"]),
    ],
)
def test_constraints_that_depend_on_an_invalid_value_are_not_judged_by_its_default(
    text: str, blamed: list[str], tmp_path: Path
) -> None:
    assert _blamed(tmp_path, text) == blamed


def test_model_validate_raises_every_violated_constraint_at_once() -> None:
    data = {"inner": {"order": "implicit", "loss": "l1"}}
    with pytest.raises(
        ValidationError, match=r"inner.proximal must be greater than 0 .*; inner.loss must be mse, half_mse or hub"
    ):
        Config.model_validate(data)


def test_reasons_of_constraints_name_existing_keys_only() -> None:
    for key, depends_on, _, reason in CONSTRAINTS:
        assert {key, *depends_on} <= FIELDS.keys()
        if not isinstance(reason, str):
            continue
        named = re.findall(r"\b(?:tasks|model|inner|outer|run)\.[a-z_.]*[a-z]", reason)
        assert set(named) <= FIELDS.keys(), reason


PLAIN = Component.model_construct(family="plain", weight=1.0, parameters={})
VALUES: dict[str, list[Any]] = {
    "tasks.family": ["sine", "line", "mixture", "data"],
    "tasks.file": [None, "curves.csv"],
    "run.init_from": [None, "outputs/mine"],
    "run.init_sha256": [None, "0" * 64],
    "tasks.data.task_column": ["task", "station"],
    "tasks.data.x_column": ["x", "day"],
    "tasks.data.y_column": ["y", "celsius"],
    "tasks.data.validation": [0.15, 0.6],
    "tasks.data.test": [0.15, 0.6],
    "tasks.data.split_seed": [0, 1],
    "tasks.data.measured": [None, Measured(x=(0, 1), y=(0, 1), x_factor=1, x_shift=0, y_factor=1, y_shift=0)],
    "tasks.count": [None, 5],
    "tasks.amplitude": [(0.1, 5.0), (0.0, 1.0)],
    "tasks.phase": [(0.0, math.pi), (0.0, 1.0)],
    "tasks.parameters": [None, {"slope": 1.0}, {"amplitude": 1.0}],
    "tasks.mixture": [
        None,
        [Component(family="line"), Component()],
        [PLAIN],
    ],
    "tasks.noise": [0.0, 1.0],
    "tasks.relative_noise": [0.0, 1.0],
    "tasks.test_x": [None, (0.0, 1.0), (1.0, 1.0)],
    "tasks.x": [(0.0, 1.0), (0.0, 0.0), (1.0, 1.0001), (-1e6, 1e6)],
    "tasks.frequency": [(1.0, 1.0), (0.0, 1e6)],
    "tasks.offset": [(0.0, 0.0), (0.0, 1.0)],
    "tasks.num_support": [10, (2, 6)],
    "tasks.num_query": [1, 2],
    "model.hidden": [[4], [], [2000, 2000]],
    "model.activation": ["relu", "unknown"],
    "model.num_context": [0, 1],
    "inner.steps": [1, 2, 20],
    "inner.cg_steps": [5, 6],
    "inner.momentum": [0.0, 0.9],
    "inner.clip_norm": [None, 1.0],
    "inner.clip_value": [None, 1.0],
    "inner.ridge.noise": [None, 0.1],
    "inner.proximal": [0.0, 1.0, 1e9],
    "inner.first_order_until": [0, 1],
    "inner.alpha.init": [0.01, 1e39, (0.005, 0.1)],
    "inner.alpha.lr": [None, 1.0],
    "outer.multi_step_loss_until": [0, 1],
    "run.seed": [0, 2**63 - 1],
    "run.seeds": [None, 2, [1]],
}
"""Values of keys that are neither words nor booleans; every constraint is violated by some of them."""
MAX_COMBINATIONS = 2000


@pytest.fixture(autouse=True)
def _a_family_without_amplitude() -> Iterator[None]:
    register_family("plain", Family(lambda x, scale: scale * x, {"scale": 1.0}))
    yield
    registry._registered.clear()


def _values(key: str) -> list[Any]:
    words = [None if word == "null" else word for word in choices(FIELDS[key])]
    new_name = ["unknown"]  # of a later version of the schema: engines support it only once it is listed
    return VALUES.get(key) or (words + new_name if words else [False, True])


def _with_values(section: BaseModel, values: dict[str, Any]) -> Any:
    """`section` with values at dotted keys, without validation."""
    update: dict[str, Any] = {}
    for key, value in values.items():
        name, _, inside = key.partition(".")
        update[name] = _with_values(update.get(name, getattr(section, name)), {inside: value}) if inside else value
    return section.model_copy(update=update)


def _combinations(keys: list[str]) -> list[tuple[Any, ...]]:
    """Values of the keys: all combinations, or MAX_COMBINATIONS drawn at random where there are more."""
    values = list(map(_values, keys))
    if math.prod(map(len, values)) <= MAX_COMBINATIONS:
        return list(itertools.product(*values))
    draws = random.Random(0)
    return [tuple(map(draws.choice, values)) for _ in range(MAX_COMBINATIONS)]


class Recorder:
    """A section of a config that adds the dotted keys of the values read from it to a set."""

    def __init__(self, section: BaseModel, keys_read: set[str], prefix: str = "") -> None:
        self._section, self._keys_read, self._prefix = section, keys_read, prefix

    def __getattr__(self, name: str) -> Any:
        if name not in type(self._section).model_fields:
            return getattr(type(self._section), name).fget(self)
        value = getattr(self._section, name)
        if isinstance(value, BaseModel):
            return Recorder(value, self._keys_read, f"{self._prefix}{name}.")
        self._keys_read.add(f"{self._prefix}{name}")
        return value


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda constraint: constraint.key)
def test_a_constraint_depends_on_the_keys_that_it_reads_and_some_of_their_values_violate_it(
    constraint: Constraint,
) -> None:
    keys = [constraint.key, *constraint.depends_on]
    keys_read: set[str] = set()
    violated = []
    for values in _combinations(keys):
        config = _with_values(Config(), dict(zip(keys, values, strict=True)))
        violated.append(constraint.is_violated(Recorder(config, keys_read)))  # type: ignore[arg-type]
    assert keys_read == set(keys) and any(violated) and not all(violated)
    assert not constraint.is_violated(Config())


def test_implicit_gradients_take_no_inner_optimiser_but_sgd() -> None:
    """Also not one that a later version of the schema has."""
    implicit = _with_values(Config(), {"inner.order": "implicit", "inner.proximal": 1.0, "inner.optimizer": "lion"})
    assert [c.key for c in CONSTRAINTS if c.is_violated(implicit)] == ["inner.optimizer"]


def test_the_seeds_counted_from_run_seed_end_at_the_largest_seed() -> None:
    """Two runs from 2^63 - 2 on have the seeds 2^63 - 2 and 2^63 - 1; a third would have 2^63."""
    first = 2**63 - 2
    assert Config.model_validate({"run": {"seed": first, "seeds": 2}}).seeds == [first, first + 1]
    with pytest.raises(ValidationError, match=r"run\.seeds would exceed the largest seed"):
        Config.model_validate({"run": {"seed": first, "seeds": 3}})


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("inner: {order: implicit, proximal: 1}\nrun: {engine: native}", "inner.order = implicit"),
        ("inner: {head: ridge, adapt: head, ridge: {noise: 0.1}}\nrun: {engine: native}", "inner.ridge.noise = 0.1"),
        (
            "inner: {curvature: kronecker, clip_value: 10}\nrun: {engine: native}",
            "inner.clip_value = 10 with inner.curvature = kronecker",
        ),
        (
            "inner: {curvature: kronecker, proximal: 0.5}\nrun: {engine: native}",
            "inner.proximal = 0.5 with inner.curvature = kronecker",
        ),
        (
            "model: {num_context: 3}\ninner: {curvature: kronecker}\nrun: {engine: native}",
            "model.num_context = 3 with inner.curvature = kronecker",
        ),
        ("outer: {optimizer: rmsprop}\nrun: {engine: native}", "outer optimiser rmsprop"),
        ("inner: {alpha: {learned: true, optimizer: momentum}}\nrun: {engine: native}", "outer optimiser momentum"),
        ("model: {hidden: [2000, 2000]}\nrun: {engine: native}", "tasks of 154 MiB of memory, more than 64 MiB"),
        ("inner: {steps: 21}\nrun: {engine: compiled}", "21 inner steps, more than 20 in one graph"),
        (
            "inner: {steps: 2}\nouter: {multi_step_loss_until: 5}\nrun: {engine: compiled}",
            "outer.multi_step_loss_until",
        ),
        ("run: {engine: native, device: cuda}", "device cuda"),
        ("run: {engine: compiled, device: mps}", "device mps"),
    ],
)
def test_a_named_engine_is_refused_where_the_config_has_what_it_does_not_support(
    text: str, setting: str, tmp_path: Path
) -> None:
    """1-2000-2000-1 has 4.008 million parameters, of which the kernel has 7 copies, 3 copies of its 4.000 million
    hidden weights, and 0.24 million numbers of points: 40.3 million of 4 bytes, 154 MiB."""
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(str(file))
    engine = "native" if "native" in text else "compiled"
    messages = [line.partition(": ")[2] for line in error.value.lines]
    assert any(line.startswith(f"run.engine {engine} does not support {setting}") for line in messages), messages
    assert all(line.endswith("; use auto") for line in messages)
    file.write_text(text.replace(f"engine: {engine}", "engine: auto"))
    load_config(str(file))
