"""Combinations of the axes: parameters that adapt, update rule, derivatives, source of the meta-gradient.

COMBINATIONS is the full product; PAIRWISE covers every pair of values of two axes. Tests that are slow for each
combination take a cover of the pairs or of the single values, or with MAML_FULL_TESTS=1 in the environment all of them.
"""

import functools
import itertools
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
import torch

from maml_cli.config import Config
from maml_cli.core import MetaParams, TaskBatch, map_tensors
from maml_cli.experiment import Experiment
from maml_cli.tasks import make_generator

ADAPT = [("all", 0), ("all", 2), ("head", 0), ("body", 0), ("context", 2)]
RULES: dict[str, dict[str, Any]] = {
    "one alpha": {"alpha": {"learned": True}},
    "LSLR": {"alpha": {"per": "layer", "per_step": True, "learned": True}},
    "alpha per tensor": {"alpha": {"per": "tensor", "learned": True}},
    "Meta-SGD": {"alpha": {"per": "parameter", "learned": True}},
    "alpha per parameter and step": {"alpha": {"per": "parameter", "per_step": True, "learned": True}},
    "positive": {"alpha": {"per": "tensor", "per_step": True, "learned": True, "sign": "positive"}, "momentum": 0.6},
    "scaled": {"alpha": {"per": "tensor", "per_step": True, "learned": True, "sign": "positive", "scale": 0.5}},
    "Meta-Curvature": {"curvature": "kronecker"},
    "Meta-Curvature per step": {"curvature": "kronecker", "curvature_per_step": True},
    "clipped norm": {"clip_norm": 0.5, "curvature": "kronecker", "alpha": {"per": "parameter", "learned": True}},
    "clipped entries": {"clip_value": 0.1, "alpha": {"per": "layer", "per_step": True, "learned": True}},
    "momentum": {
        "momentum": 0.6,
        "clip_norm": 0.5,
        "curvature": "kronecker",
        "alpha": {"per": "parameter", "per_step": True, "learned": True},
    },
    "Meta-Curvature of Adam, momentum, Meta-SGD": {
        "curvature": "kronecker",
        "optimizer": "adam",
        "momentum": 0.6,
        "alpha": {"per": "parameter", "learned": True},
    },
}
GRADIENTS: dict[str, dict[str, dict[str, Any]]] = {
    "second": {},
    "first": {"inner": {"order": "first"}},
    "annealed, still first": {"inner": {"first_order_until": 5}},
    "annealed, now second": {"inner": {"first_order_until": 4}},
    "multi-step": {"outer": {"multi_step_loss_until": 10}},
    "multi-step, first": {"outer": {"multi_step_loss_until": 10}, "inner": {"order": "first"}},
    "proximal": {"inner": {"proximal": 0.3}},
    "proximal, first": {"inner": {"proximal": 0.3, "order": "first"}},
    "huber": {"inner": {"loss": "huber"}},
    "half MSE": {"inner": {"loss": "half_mse"}},
}
OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    "implicit": {"inner": {"order": "implicit", "proximal": 4.0, "cg_steps": 60, "steps": 200}},
    "reptile": {"outer": {"meta_gradient": "reptile"}},
    "joint": {"outer": {"meta_gradient": "joint"}},
}
RIDGE: dict[str, dict[str, dict[str, Any]]] = {
    "head": {"inner": {"adapt": "head", "steps": 1}},
    "head, penalty per feature": {"inner": {"adapt": "head", "steps": 1, "ridge": {"init": 0.5, "per": "feature"}}},
    "head, fixed penalty": {"inner": {"adapt": "head", "steps": 1, "ridge": {"init": 0.1, "learned": False}}},
    "head, noise": {"inner": {"adapt": "head", "steps": 1, "ridge": {"init": 0.5, "per": "feature", "noise": 0.3}}},
    "noise": {
        "inner": {"ridge": {"init": 0.5, "noise": 0.3}, "alpha": {"init": 0.1, "learned": True}},
        "outer": {"multi_step_loss_until": 10},
    },
    "linear head": {"inner": {"adapt": "head", "steps": 1}, "model": {"hidden": []}},
    "body": {"inner": {"alpha": {"init": 0.1, "per": "parameter", "per_step": True, "learned": True}}},
    "curvature": {"inner": {"ridge": {"init": 0.5, "per": "feature"}, "curvature": "kronecker", "clip_norm": 0.1}},
    "first order": {"inner": {"order": "first", "alpha": {"init": 0.1, "learned": True}}},
    "multi-step": {"inner": {"alpha": {"init": 0.1}}, "outer": {"multi_step_loss_until": 10}},
    "more points than features": {"inner": {"alpha": {"init": 0.1}}, "model": {"hidden": [4, 2]}},
}
"""Heads in closed form, alone and with gradient steps on the body."""
LEARNED_CONTEXT: dict[str, dict[str, dict[str, Any]]] = {
    "all": {"inner": {"curvature": "kronecker"}},
    "first order": {"inner": {"order": "first"}},
    "alone": {"inner": {"adapt": "context", "alpha": {"per": "parameter", "per_step": True, "learned": True}}},
    "reptile": OTHERS["reptile"] | {"inner": {}},
    "implicit": {"inner": {"adapt": "context", **OTHERS["implicit"]["inner"]}},
}
"""Context inputs that each task starts from learned values of."""
STEP = 4


def _product() -> Iterator[tuple[tuple[str, str, str], dict[str, dict[str, Any]]]]:
    for (adapt, context), (rule, update), (kind, gradient) in itertools.product(
        ADAPT, RULES.items(), GRADIENTS.items()
    ):
        inner = {"adapt": adapt, "steps": 3} | update | gradient.get("inner", {})
        sections = {"model": {"num_context": context}, "inner": inner, "outer": gradient.get("outer", {})}
        yield (f"{adapt}{context or ''}", rule, kind), sections


def _others() -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Oracle networks, and meta-gradients that are not those of the query loss after an unrolled inner loop."""
    for kind, gradient in (GRADIENTS | OTHERS).items():
        inner = {"steps": 3, "alpha": {"init": 0.01}} | gradient.get("inner", {})
        if kind == "implicit":  # inputs as large as an amplitude need a stronger proximal term to be convex
            inner |= {"proximal": 100.0, "steps": 400}
        yield f"oracle-{kind}", {"model": {"oracle": True}, "inner": inner, "outer": gradient.get("outer", {})}
    for name, sections in LEARNED_CONTEXT.items():
        inner = {"steps": 3, "alpha": {"init": 0.03}} | sections["inner"]
        model = {"num_context": 2, "context_learned": True}
        yield f"learned context-{name}", {"model": model, "inner": inner, "outer": sections.get("outer", {})}
    for name, sections in RIDGE.items():
        inner = {"steps": 3, "head": "ridge", "ridge": {"init": 0.5}} | sections["inner"]
        yield (
            f"ridge-{name}",
            {"model": sections.get("model", {}), "inner": inner, "outer": sections.get("outer", {})},
        )
    for (adapt, context), optimizer, (kind, gradient) in itertools.product(ADAPT, ["sgd", "adam"], OTHERS.items()):
        if (kind == "reptile" and adapt != "all") or (kind == "joint" and context):
            continue
        if kind == "implicit" and optimizer == "adam":  # circles a minimum instead of converging to it
            continue
        inner = {"adapt": adapt, "optimizer": optimizer, "steps": 3, "alpha": {"init": 0.03}}
        sections = {
            "model": {"num_context": context},
            "inner": inner | gradient.get("inner", {}),
            "outer": gradient.get("outer", {}),
        }
        yield f"{adapt}{context or ''}-{optimizer}-{kind}", sections


def value_pairs(row: tuple[str, ...]) -> set[tuple[int, str, int, str]]:
    """The pairs of values on two axes in a row of the product, each with the indices of the axes."""
    return {(i, row[i], j, row[j]) for i, j in itertools.combinations(range(len(row)), 2)}


def single_values(row: tuple[str, ...]) -> set[tuple[int, str]]:
    """The values in a row of the product, each with the index of its axis."""
    return {*enumerate(row)}


def covering_rows(
    rows: Collection[tuple[str, ...]], parts: Callable[[tuple[str, ...]], set[Any]] = value_pairs
) -> list[tuple[str, ...]]:
    """A cover of `rows`, by default pairwise: rows with all their `parts`, chosen greedily by those still missing."""
    missing = set[Any]().union(*(parts(row) for row in rows))
    chosen = list[tuple[str, ...]]()
    while missing:
        best = max(rows, key=lambda row: len(parts(row) & missing))
        chosen.append(best)
        missing -= parts(best)
    return chosen


PRODUCT = dict(_product())
SINGLES = dict(_others())
COMBINATIONS = {"-".join(row): sections for row, sections in PRODUCT.items()} | SINGLES
PAIRWISE = ["-".join(row) for row in covering_rows(PRODUCT)] + [*SINGLES]
FULL = os.environ.get("MAML_FULL_TESTS") == "1"


def names_to_test(
    supported: Callable[[Config], bool] = lambda config: True,
    parts: Callable[[tuple[str, ...]], set[Any]] = value_pairs,
) -> list[str]:
    """Names of the supported combinations that tests run: with FULL all, else a cover of their `parts`."""
    names = {name: None for name in COMBINATIONS if supported(combined_config(name))}
    if FULL:
        return list(names)
    rows = covering_rows([row for row in PRODUCT if "-".join(row) in names], parts)
    return ["-".join(row) for row in rows] + [name for name in SINGLES if name in names]


@functools.cache
def combined_config(name: str, **run: Any) -> Config:
    """A combination on a small network in float64, three tasks a step."""
    sections = COMBINATIONS[name]
    return Config.model_validate(
        {
            "tasks": {"num_support": 6, "num_query": 5},
            "model": {"hidden": [4, 3], "activation": "tanh"} | sections["model"],
            "inner": sections["inner"],
            "outer": {"tasks_per_step": 3} | sections["outer"],
            "run": {"dtype": "float64", "device": "cpu"} | run,
        }
    )


def perturbed(meta_params: MetaParams) -> MetaParams:
    """`meta_params` near their initial values, so that no two alphas are equal and no curvature is the identity."""
    stream = make_generator(7, "x")
    return map_tensors(
        lambda value: value + 0.02 * torch.randn(value.shape, generator=stream, dtype=value.dtype), meta_params
    )


def sample_batch(experiment: Experiment, seeds: tuple[int, ...] = (0,), num_tasks: int = 4) -> TaskBatch:
    """A batch in float64 of one run for each of the `seeds`, with 6 support and 5 query points."""
    batch, functions = experiment.family.sampler.sample(
        [make_generator(seed, "x") for seed in seeds],
        num_tasks=num_tasks,
        num_support=6,
        num_query=5,
        dtype=torch.float64,
    )
    return TaskBatch(*(experiment.network_inputs(points, functions) for points in batch))


def skip_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compiled engine run the function that it would trace, instead of the traced graph."""
    monkeypatch.setattr(
        "torch.fx.experimental.proxy_tensor.make_fx", lambda step: lambda buffers, inputs: torch.enable_grad()(step)
    )
