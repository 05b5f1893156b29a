"""Every name that the schema accepts has a row in the table that implements it, and a missing row is an error."""

import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch

from maml_cli.checks import torch_func
from maml_cli.config import Config
from maml_cli.config.schema import Section
from maml_cli.core import ACTIVATION_DERIVATIVES, ACTIVATIONS, LOSS_DERIVATIVES, LOSSES, relative_distance, tensors
from maml_cli.core.algorithms import ADAPTED_SUBSETS
from maml_cli.core.curvature import CURVATURES
from maml_cli.core.inner_loop import RuleParamsByStep
from maml_cli.core.network import INITIALIZERS, Params
from maml_cli.core.update_rules import ALPHA_GROUPINGS, ALPHA_SIGNS, EXTRAPOLATIONS, INNER_OPTIMIZERS
from maml_cli.engines import ENGINES, OUTER_OPTIMIZERS, SCHEDULES
from maml_cli.experiment import DTYPES, META_GRADIENTS, ORDERS, STRATIFIED, build_experiment
from maml_cli.tasks import FAMILIES
from tests.conformance import sample_batch

# Field of the schema -> the tables with a row for each of its values.
TABLES: dict[str, list[Mapping[str, Any]]] = {
    "tasks.family": [FAMILIES],
    "tasks.query_sampling": [STRATIFIED],
    "model.activation": [ACTIVATIONS, ACTIVATION_DERIVATIVES],
    "model.init": [INITIALIZERS],
    "inner.loss": [LOSSES, LOSS_DERIVATIVES],
    "inner.adapt": [ADAPTED_SUBSETS, torch_func.ADAPTS],
    "inner.optimizer": [INNER_OPTIMIZERS, torch_func.INNER_OPTIMIZERS],
    "inner.curvature": [CURVATURES, torch_func.CURVATURES],
    "inner.order": [ORDERS, torch_func.ORDERS],
    "inner.alpha.per": [ALPHA_GROUPINGS, torch_func.ALPHA_NAMES],
    "inner.alpha.sign": [ALPHA_SIGNS, torch_func.ALPHA_SIGNS],
    "inner.alpha.after_last_step": [EXTRAPOLATIONS],
    "inner.alpha.optimizer": [OUTER_OPTIMIZERS],
    "outer.optimizer": [OUTER_OPTIMIZERS],
    "outer.schedule": [SCHEDULES],
    "outer.meta_gradient": [META_GRADIENTS, torch_func.META_GRADIENTS],
    "run.engine": [{"auto": None, **ENGINES}],
    "run.dtype": [DTYPES],
}
ELSEWHERE = {"run.device"}  # the devices of torch


def _literals(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return [value for member in get_args(annotation) for value in _literals(member)]
    return []


def _named_choices(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every field of the schema with a closed set of names, by its dotted key."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _named_choices(field.annotation, f"{prefix}{name}.")
        elif values := _literals(field.annotation):
            yield f"{prefix}{name}", values


CHOICES = dict(_named_choices())


def test_every_field_with_names_has_a_table() -> None:
    assert CHOICES.keys() == TABLES.keys() | ELSEWHERE


@pytest.mark.parametrize("key", TABLES)
def test_tables_have_a_row_for_each_name_and_no_other(key: str) -> None:
    for table in TABLES[key]:
        assert set(table) == set(CHOICES[key])


def test_the_independent_check_shares_no_table_with_the_core() -> None:
    for key, tables in TABLES.items():
        assert len({id(table) for table in tables}) == len(tables), key


NOT_BUILT = {"inner.alpha.optimizer", "outer.optimizer", "outer.schedule", "run.engine"}  # looked up by engines
BUILT = [key for key in TABLES if key not in NOT_BUILT]
OWN = {id(value) for value in vars(torch_func).values()}
CHECKED = [key for key, tables in TABLES.items() if any(id(table) in OWN for table in tables)]


def _with_name(key: str, name: str = "unknown") -> Config:
    """A small config with a name that the schema would refuse."""
    config = Config.model_validate({"model": {"hidden": [5]}, "inner": {"steps": 2}, "run": {"dtype": "float64"}})
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


@pytest.mark.parametrize("key", BUILT)
def test_an_accepted_name_without_a_row_is_refused_by_the_experiment(key: str) -> None:
    with pytest.raises(
        NotImplementedError, match=rf"^{key}: unknown has no row in the table (core|experiment|tasks)\."
    ):
        build_experiment(_with_name(key)).init_meta_params([0])


@pytest.mark.parametrize("key", CHECKED)
def test_an_accepted_name_without_a_row_is_refused_by_the_independent_check(key: str) -> None:
    experiment = build_experiment(_with_name("run.dtype", "float64"))
    meta_params, batch = experiment.init_meta_params([0]), sample_batch(experiment)
    with pytest.raises(NotImplementedError, match=rf"^{key}: unknown has no row in the table checks\.torch_func\."):
        torch_func.torch_func_gradient(_with_name(key), experiment, meta_params, batch, 0)


def test_seven_choices_are_implemented_twice() -> None:
    assert len(CHECKED) == 7


def test_sign_sgd_is_one_function_and_one_row_in_each_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each parameter moves by alpha against the sign of its gradient; the independent check agrees once it knows it."""

    def sign(rule_params: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        return {key: gradient.sign() for key, gradient in gradients.items()}, state

    config = _with_name("inner.optimizer", "sign")
    with pytest.raises(NotImplementedError, match=r"inner\.optimizer: sign has no row .*, which has sgd, adam"):
        build_experiment(config)
    monkeypatch.setitem(INNER_OPTIMIZERS, "sign", sign)
    experiment = build_experiment(config)
    meta_params, batch = experiment.init_meta_params([0]), sample_batch(experiment)
    with pytest.raises(NotImplementedError, match=r"checks\.torch_func\.INNER_OPTIMIZERS"):
        torch_func.torch_func_gradient(config, experiment, meta_params, batch, 0)
    monkeypatch.setitem(
        torch_func.INNER_OPTIMIZERS, "sign", lambda gradient, step, state: (torch.sign(gradient), state)
    )
    actual = experiment.algorithm.meta_gradient(meta_params, batch, 0)[1]
    expected = torch_func.torch_func_gradient(config, experiment, meta_params, batch, 0)
    assert relative_distance(tensors(actual), tensors(expected)) < 1e-12
