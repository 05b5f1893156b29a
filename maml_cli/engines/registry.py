"""Engines: ways to take outer steps, all by the same meta-gradient, and which of them a training takes.

`reference` differentiates the unrolled inner loop; `eager` writes the derivative out, where it can (adjoint.py);
`compiled` has torch.compile make one piece of code of that; `native` is a kernel for the CPU (native.cpp).
"""

import itertools
from collections.abc import Callable, Iterator

import torch

from maml_cli.config import Config
from maml_cli.core import ACTIVATION_DERIVATIVES, ACTIVATIONS, LOSS_DERIVATIVES, LOSSES, MetaGradient
from maml_cli.engines import compiled, kernel_build, native
from maml_cli.engines.adjoint import NetworkSpec, RuleSpec, adjoint_gradient
from maml_cli.engines.outer_step import (
    SCHEDULES,
    AverageGradient,
    Engine,
    StepResult,
    TrainState,
    already_averaged,
    average_gradient,
    take_outer_step,
)
from maml_cli.errors import ConfigError
from maml_cli.experiment import Experiment, first_order_until, outer_step_work, step_weights
from maml_cli.runtime import Choice, keep_freed_memory

Notify = Callable[[str], None]

MIN_EAGER_SECONDS = {"native": 5.0, "compiled": 120.0}
"""Seconds that `eager` would take, from which it pays to compile."""
MAX_UNROLLED_STEPS = 20


def choose_engine(config: Config, device: torch.device) -> Choice:
    """The engine for `config` on `device`: the one it names, or the fastest that can do it and pays.

    It depends on the config and the machine alone, not on what was compiled before, so that equal trainings are equal.
    Raises ConfigError if the one that is named cannot do it.
    """
    named = config.run.engine
    if named != "auto":
        if reason := unsupported(named, config, device):
            raise ConfigError(f"run.engine: {named} cannot do this: {reason}; auto takes one that can")
        return Choice(named, "as asked")
    passed: list[str] = []
    for name, worth in MIN_EAGER_SECONDS.items():
        reason = unsupported(name, config, device)
        if reason is None and eager_seconds(config) >= worth:
            return Choice(name, "; ".join([*passed, "the fastest that can do this"]))
        passed.append(f"not {name}: {reason or 'too short a training to earn back the time to compile'}")
    return Choice("eager", "; ".join(passed))


def eager_seconds(config: Config) -> float:
    """About how long `eager` would take on one core: the calls of its passes, and the arithmetic."""
    return config.outer.steps * (2e-4 * (1 + 2 * config.inner.steps) + outer_step_work(config) / 2e10)


def unsupported(name: str, config: Config, device: torch.device) -> str | None:
    """Why the engine cannot do it; None if it can."""
    reasons: Iterator[str] = iter(())
    if name == "compiled":
        reasons = _compiled_unsupported(config, device)
    elif name == "native":
        reasons = itertools.chain(adjoint_unsupported(config), native.native_unsupported(config, device))
    return next(reasons, None)


def make_engine(name: str, config: Config, experiment: Experiment, *, say: Notify = lambda text: None) -> Engine:
    """The engine of that name for `config`, which it can do; raises ConfigError if it does not compile."""
    if name not in ("reference", "eager", *MIN_EAGER_SECONDS):
        raise ValueError(f"no engine {name}")
    keep_freed_memory()
    if name == "native":
        return native.native_engine(config, experiment, notify=say)
    outer = config.outer
    meta_grad: MetaGradient = experiment.algorithm.meta_gradient
    mean: AverageGradient = average_gradient
    if name != "reference":
        meta_grad = adjoint_meta_gradient(config, experiment)
        if outer.clip_task_norm is None and not any(adjoint_unsupported(config)):
            mean = already_averaged(adjoint_meta_gradient(config, experiment, mean=True))
    if name == "compiled":
        return compiled.compiled_engine(config, experiment, meta_grad, mean, say=say)
    if name == "eager" and mean is not average_gradient:
        mean = torch.inference_mode()(mean)

    def advance(state: TrainState, count: int) -> StepResult:
        batches = experiment.sample(state.generators, num_steps=count)
        for batch in batches.iter_steps():
            outcome = take_outer_step(
                state,
                batch,
                meta_grad,
                lr_scale=SCHEDULES[outer.schedule](state.step / outer.steps),
                clip_norm=outer.clip_norm,
                clip_task_norm=outer.clip_task_norm,
                weight_noise=outer.weight_noise,
                mean=mean,
            )
        return outcome

    return advance


def adjoint_meta_gradient(config: Config, experiment: Experiment, *, mean: bool = False) -> MetaGradient:
    """The meta-gradient by explicit adjoints, of each task or the mean over them; or, where that is not written out, as
    the algorithm has it, of each task."""
    if any(adjoint_unsupported(config)):
        return experiment.algorithm.meta_gradient
    inner = config.inner
    return adjoint_gradient(
        NetworkSpec(
            _layers(config),
            ACTIVATIONS[config.model.activation],
            ACTIVATION_DERIVATIVES[config.model.activation],
            LOSSES[inner.loss],
            LOSS_DERIVATIVES[inner.loss],
        ),
        RuleSpec(
            experiment.alpha_groups,
            positive=inner.alpha.sign == "positive",
            has_curvature=inner.curvature == "kronecker",
            learned_keys=[key for keys in experiment.learned_keys.values() for key in keys],
        ),
        steps=inner.steps,
        weights=step_weights(config),
        first_order_until=first_order_until(config),
        recompute=inner.recompute_activations,
        mean=mean,
    )


def _layers(config: Config) -> list[tuple[str, str]]:
    names = [*(f"hidden{layer}" for layer in range(len(config.model.hidden))), "head"]
    return [(f"{name}.w", f"{name}.b") for name in names]


def adjoint_unsupported(config: Config) -> Iterator[str]:
    """What of `config` has no derivative that is written out."""
    if config.outer.meta_gradient != "query":
        yield f"outer.meta_gradient is {config.outer.meta_gradient}"
    if config.inner.order == "implicit":
        yield "inner.order is implicit"
    if config.inner.optimizer != "sgd":
        yield f"inner.optimizer is {config.inner.optimizer}"
    if config.inner.proximal:
        yield "inner.proximal is not 0"
    if config.model.num_context:
        yield "model.num_context is not 0"


def _compiled_unsupported(config: Config, device: torch.device) -> Iterator[str]:
    steps = config.inner.steps + (config.inner.cg_steps if config.inner.order == "implicit" else 0)
    if steps > MAX_UNROLLED_STEPS:
        yield f"{steps} inner steps are too many for one graph"
    if config.outer.multi_step_loss_until:
        yield "outer.multi_step_loss_until changes the loss at every step"
    if device.type == "cpu" and kernel_build.compiler() is None:
        yield "there is no C++ compiler"
    if device.type == "mps":
        yield "not on mps"
