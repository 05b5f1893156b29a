"""Every combination of the axes: what adapts, by which update, how it is differentiated, where the gradient is from."""

import itertools
from collections.abc import Iterator
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
    "positive": {"alpha": {"per": "tensor", "per_step": True, "learned": True, "sign": "positive"}},
    "Meta-Curvature": {"curvature": "kronecker"},
    "Meta-Curvature per step": {"curvature": "kronecker", "curvature_per_step": True},
    "Meta-Curvature of Adam, Meta-SGD": {
        "curvature": "kronecker",
        "optimizer": "adam",
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
}
OTHERS: dict[str, dict[str, dict[str, Any]]] = {
    "implicit": {"inner": {"order": "implicit", "proximal": 4.0, "cg_steps": 60, "steps": 200}},
    "reptile": {"outer": {"meta_gradient": "reptile"}},
    "joint": {"outer": {"meta_gradient": "joint"}},
}
STEP = 4


def crossed() -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """What adapts x by which update x how that is differentiated and where the meta-gradient comes from."""
    for (adapt, context), (rule, update), (kind, gradient) in itertools.product(
        ADAPT, RULES.items(), GRADIENTS.items()
    ):
        inner = {"adapt": adapt, "steps": 3} | update | gradient.get("inner", {})
        sections = {"model": {"num_context": context}, "inner": inner, "outer": gradient.get("outer", {})}
        yield f"{adapt}{context or ''}-{rule}-{kind}", sections
    for kind, gradient in (GRADIENTS | OTHERS).items():
        inner = {"steps": 3, "alpha": {"init": 0.01}} | gradient.get("inner", {})
        if kind == "implicit":  # with inputs as large as an amplitude it takes more to be convex
            inner |= {"proximal": 50.0, "steps": 400}
        yield f"oracle-{kind}", {"model": {"oracle": True}, "inner": inner, "outer": gradient.get("outer", {})}
    for (adapt, context), optimizer, (kind, gradient) in itertools.product(ADAPT, ["sgd", "adam"], OTHERS.items()):
        if (kind == "reptile" and adapt != "all") or (kind == "joint" and context):
            continue
        if kind == "implicit" and optimizer == "adam":  # which goes around a minimum, and not into it
            continue
        inner = {"adapt": adapt, "optimizer": optimizer, "steps": 3, "alpha": {"init": 0.03}}
        sections = {
            "model": {"num_context": context},
            "inner": inner | gradient.get("inner", {}),
            "outer": gradient.get("outer", {}),
        }
        yield f"{adapt}{context or ''}-{optimizer}-{kind}", sections


CROSSED = dict(crossed())


def crossed_config(name: str, **run: Any) -> Config:
    """A combination on a small network in float64, three tasks a step."""
    sections = CROSSED[name]
    return Config.model_validate(
        {
            "tasks": {"num_support": 6, "num_query": 5},
            "model": {"hidden": [4, 3], "activation": "tanh"} | sections["model"],
            "inner": sections["inner"],
            "outer": {"tasks_per_step": 3} | sections["outer"],
            "run": {"dtype": "float64", "device": "cpu"} | run,
        }
    )


def scattered(meta: MetaParams) -> MetaParams:
    """Everything a little off where it starts, so that no two alphas are alike and no curvature is the identity."""
    stream = make_generator(7, "x")
    return map_tensors(lambda value: value + 0.02 * torch.randn(value.shape, generator=stream, dtype=value.dtype), meta)


def sample_batch(experiment: Experiment, seeds: tuple[int, ...] = (0,), num_tasks: int = 4) -> TaskBatch:
    batch, functions = experiment.family.sample(
        [make_generator(seed, "x") for seed in seeds],
        num_tasks=num_tasks,
        num_support=6,
        num_query=5,
        dtype=torch.float64,
    )
    return TaskBatch(*(experiment.network_inputs(points, functions) for points in batch))


def trace_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function in the place of its graph."""
    monkeypatch.setattr(
        "torch.fx.experimental.proxy_tensor.make_fx", lambda step: lambda *given: torch.enable_grad()(step)
    )
