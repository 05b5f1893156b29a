"""Every name that the schema accepts has a row in the table that implements it, and a missing row is an error."""

import importlib
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch

from maml_cli.checks import gradients, task_learner, torch_func
from maml_cli.config import PENALTY_ROWS, Config
from maml_cli.config.section import Section
from maml_cli.core import ACTIVATION_DERIVATIVES, ACTIVATIONS, LOSS_DERIVATIVES, LOSSES
from maml_cli.core.algorithms import ADAPTED_SUBSETS
from maml_cli.core.curvature import CURVATURES
from maml_cli.core.extrapolation import EXTRAPOLATIONS
from maml_cli.core.network import INITIALIZERS
from maml_cli.core.update_rules import ALPHA_GROUPINGS, ALPHA_SIGNS, INNER_OPTIMIZERS
from maml_cli.engines import ENGINES, OUTER_OPTIMIZERS, SCHEDULES, make_engine, unsupported
from maml_cli.engines.kernel_spec import GROUP_LABELS
from maml_cli.experiment import DTYPES, META_GRADIENTS, ORDERS, STRATIFIED, build_experiment
from maml_cli.experiment.inner_updates import HEADS
from maml_cli.tasks.curves import NORMALISATIONS
from maml_cli.training import init_state
from tests.conformance import sample_batch

# Field of the schema -> the tables with a row for each of its values.
TABLES: dict[str, list[Mapping[str, Any]]] = {
    "tasks.query_sampling": [STRATIFIED],
    "tasks.data.normalise": [NORMALISATIONS],
    "model.activation": [ACTIVATIONS, ACTIVATION_DERIVATIVES],
    "model.init": [INITIALIZERS],
    "inner.loss": [LOSSES, LOSS_DERIVATIVES],
    "inner.adapt": [ADAPTED_SUBSETS, task_learner.ADAPTS],
    "inner.optimizer": [INNER_OPTIMIZERS, task_learner.INNER_OPTIMIZERS],
    "inner.curvature": [CURVATURES, task_learner.CURVATURES],
    "inner.head": [HEADS, task_learner.HEADS],
    "inner.ridge.per": [PENALTY_ROWS],
    "inner.order": [ORDERS, torch_func.ORDERS, gradients.ORDER_CHECKS],
    "inner.alpha.per": [ALPHA_GROUPINGS, GROUP_LABELS, task_learner.ALPHA_NAMES],
    "inner.alpha.sign": [ALPHA_SIGNS, task_learner.ALPHA_SIGNS],
    "inner.alpha.after_last_step": [EXTRAPOLATIONS],
    "inner.alpha.optimizer": [OUTER_OPTIMIZERS],
    "outer.optimizer": [OUTER_OPTIMIZERS],
    "outer.schedule": [SCHEDULES],
    "outer.meta_gradient": [META_GRADIENTS, torch_func.META_GRADIENTS, gradients.META_GRADIENT_CHECKS],
    "run.engine": [ENGINES],
    "run.dtype": [DTYPES],
}
ELSEWHERE = {"run.device"}  # the devices of torch


def _literal_values(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return [value for member in get_args(annotation) for value in _literal_values(member)]
    return []


def _closed_choices(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every field of the schema with a closed set of names, by its dotted key."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _closed_choices(field.annotation, f"{prefix}{name}.")
        elif values := _literal_values(field.annotation):
            yield f"{prefix}{name}", values


CHOICES = dict(_closed_choices())


def test_every_field_with_names_has_a_table() -> None:
    assert CHOICES.keys() == TABLES.keys() | ELSEWHERE


@pytest.mark.parametrize("key", TABLES)
def test_tables_have_a_row_for_each_name_and_no_other(key: str) -> None:
    for table in TABLES[key]:
        assert set(table) == set(CHOICES[key]) - {"auto"}  # the choice of an engine is no engine


def test_the_independent_check_shares_no_table_with_the_core() -> None:
    for key, tables in TABLES.items():
        assert len({id(table) for table in tables}) == len(tables), key


BY_ENGINES = ["inner.alpha.optimizer", "outer.optimizer", "outer.schedule", "run.engine"]
BY_TABLES_OF_CURVES = ["tasks.data.normalise"]  # see tests/test_own_curves.py
BY_EXPERIMENT = [key for key in TABLES if key not in [*BY_ENGINES, *BY_TABLES_OF_CURVES]]
OF_CHECKS = {id(value) for module in (task_learner, torch_func) for value in vars(module).values()}
BY_CHECKS = [key for key, tables in TABLES.items() if any(id(table) in OF_CHECKS for table in tables)]


def _with_name(key: str, name: str = "unknown") -> Config:
    """A small config with a name that the schema would refuse."""
    inner = {"steps": 2, "alpha": {"learned": True}}
    config = Config.model_validate({"model": {"hidden": [5]}, "inner": inner, "run": {"dtype": "float64"}})
    *path, field = key.split(".")
    sections: list[Any] = [config]
    for section in path:
        sections.append(getattr(sections[-1], section))
    changed = sections.pop().model_copy(update={field: name})
    if field == "after_last_step":
        changed = changed.model_copy(update={"per_step": True})
    for parent, section in zip(reversed(sections), reversed(path), strict=True):
        changed = parent.model_copy(update={section: changed})
    assert isinstance(changed, Config)
    return changed


def _assert_refused(key: str, compute: Callable[[], object], *, package: str) -> None:
    """`compute` refuses the value of `key`, and names the module and the table that lack it."""
    with pytest.raises(NotImplementedError) as error:
        compute()
    match = re.fullmatch(r"(\S+): unknown has no row in the table (\S+)\.([A-Z_]+), which has (.*)", str(error.value))
    assert match is not None, error.value
    refused, module, name, rows = match.groups()
    table = getattr(importlib.import_module(f"maml_cli.{module}"), name)
    assert refused.split(".")[-1] == key.split(".")[-1] and module.split(".")[0] in package.split()
    assert rows.split(", ") == list(table) and any(table is expected for expected in TABLES[key])


@pytest.mark.parametrize("key", BY_EXPERIMENT)
def test_an_accepted_name_without_a_row_is_refused_by_the_experiment(key: str) -> None:
    config = _with_name(key)
    _assert_refused(key, lambda: build_experiment(config).init_meta_params([0]), package="core config experiment tasks")


@pytest.mark.parametrize("key", BY_CHECKS)
def test_an_accepted_name_without_a_row_is_refused_by_the_independent_check(key: str) -> None:
    config = _with_name("run.dtype", "float64")
    experiment = build_experiment(config)
    meta_params, batch = experiment.init_meta_params([0]), sample_batch(experiment)
    arguments = experiment, meta_params, batch, 0
    _assert_refused(key, lambda: torch_func.torch_func_gradient(_with_name(key), *arguments), package="checks")


def test_eight_choices_are_implemented_twice() -> None:
    assert len(BY_CHECKS) == 8


@pytest.mark.parametrize("key", BY_ENGINES)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_accepted_name_without_a_row_is_refused_by_every_engine(key: str, engine: str) -> None:
    """In its first outer step at the latest."""
    config = _with_name(key)
    name = config.run.engine if key == "run.engine" else engine

    def take_outer_step() -> None:
        experiment = build_experiment(config)
        unsupported(name, config, torch.device("cpu"))
        make_engine(name, config, experiment)(init_state(config, experiment), 1)

    _assert_refused(key, take_outer_step, package="engines")


NEW_NAMES = ["inner.optimizer", "inner.curvature", "inner.order", "inner.alpha.sign", "outer.meta_gradient"]


@pytest.mark.parametrize("key", NEW_NAMES)
def test_a_new_name_is_not_differentiated_by_the_adjoint_method_as_an_old_one(key: str) -> None:
    assert unsupported("native", _with_name(key), torch.device("cpu")) == f"{key} = unknown"


def test_losses_and_activations_that_the_kernel_lacks_are_not_supported() -> None:
    for key in "inner.loss", "model.activation":
        assert unsupported("native", _with_name(key), torch.device("cpu")) == f"{key} = unknown"
