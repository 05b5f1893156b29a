"""The composition root: from a Config to the functions and the distribution that a run is made of."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Generator

from maml_cli import runtime
from maml_cli.config import Config
from maml_cli.core import (
    ACTIVATIONS,
    CONTEXT,
    LOSSES,
    Algorithm,
    InnerLoop,
    MetaGradient,
    MetaParams,
    Params,
    Points,
    Predict,
    StepWeights,
    TaskBatch,
    TaskLoss,
    UpdateRule,
    adapted_keys,
    init_mlp,
    mean_loss,
    meta_gradients,
    mlp,
    update_rules,
    with_context,
)
from maml_cli.errors import CheckpointError
from maml_cli.tasks import FAMILIES, SampledTasks, Sinusoids, TaskFamily, make_generator, with_task_parameters


class Experiment(NamedTuple):
    """Everything that a config means, ready to compute on `device` in `dtype`.

    `inputs` makes of a task's points, and the truth behind them, what the network sees. `groups` names the alpha of
    each parameter that adapts. `learned` names the keys of the rule that the outer loop learns, `alpha` and `curvature`
    apart, and `alphas` makes step sizes of them.
    """

    family: TaskFamily
    sample: Callable[..., TaskBatch]
    network_inputs: Callable[[Points, Sinusoids], Points]
    predict: Predict
    loss: TaskLoss
    algorithm: Algorithm
    alpha_groups: Mapping[str, str]
    learned_keys: Mapping[str, Sequence[str]]
    alphas: Callable[[Params], Params]
    init_network: Callable[..., Params]
    device: torch.device
    dtype: torch.dtype

    def init_params(self, generator: Generator, *batch: int) -> Params:
        """Random parameters of the network, (*batch, in, out) and (*batch, 1, out)."""
        params = self.init_network(generator, batch=batch)
        return {key: value.to(self.device, self.dtype) for key, value in params.items()}

    def init_meta_params(self, seeds: Sequence[int]) -> MetaParams:
        """What is meta-learned as it is before training, one run for each seed along the first axis."""
        runs = [self.init_params(make_generator(seed, "init")) for seed in seeds]
        return self.algorithm.init({key: torch.stack([run[key] for run in runs]) for key in runs[0]})

    def load_meta_params(self, saved: Mapping[str, Mapping[str, torch.Tensor]]) -> MetaParams:
        """The Meta in a checkpoint; raises CheckpointError if it does not fit this experiment."""
        fresh = self.init_meta_params([0])  # for its shapes
        parts = []
        for name, part in fresh._asdict().items():
            shapes = {key: value.shape[1:] for key, value in part.items()}
            if {key: value.shape[1:] for key, value in saved.get(name, {}).items()} != shapes:
                raise CheckpointError(f"its {name} do not fit its config")
            parts.append({key: saved[name][key].to(self.device, self.dtype) for key in part})
        return MetaParams(*parts)


def build_experiment(config: Config, device: torch.device | str = "cpu") -> Experiment:
    """The experiment that `config` describes, on `device`."""
    model, tasks, alpha, dtype = config.model, config.tasks, config.inner.alpha, getattr(torch, config.run.dtype)
    family = FAMILIES[tasks.family](dict(tasks))
    predict = partial(mlp, activation=ACTIVATIONS[model.activation])
    loss = mean_loss(predict, LOSSES[config.inner.loss])
    network_inputs = with_task_parameters if model.oracle else lambda points, functions: points
    draw = partial(
        family.sample,
        num_tasks=config.outer.tasks_per_step,
        num_support=tasks.num_support,
        num_query=tasks.num_query,
        stratified=tasks.query_sampling == "stratified",
        dtype=dtype,
        device=device,
    )
    adapted = adapted_keys(param_keys(config), subset=config.inner.adapt)
    groups = update_rules.alpha_groups(adapted, per=alpha.per)
    curved = update_rules.kronecker_keys(adapted) if config.inner.curvature == "kronecker" else []
    learned = {"alpha": [*dict.fromkeys(groups.values())] if alpha.learned else [], "curvature": curved}
    descent = InnerLoop(
        loss,
        _update(config, groups),
        adapted,
        init_task_params=partial(with_context, num_context=model.num_context),
        proximal=config.inner.proximal,
    )
    return Experiment(
        family=family,
        sample=partial(_sample, draw, network_inputs),
        network_inputs=network_inputs,
        predict=predict,
        loss=loss,
        algorithm=Algorithm(
            init=partial(_init, config, descent.init_task_params, groups),
            unroll=partial(descent.unroll, first_order=config.inner.order == "first"),
            meta_gradient=_meta_grad(config, descent, [*learned["alpha"], *learned["curvature"]]),
        ),
        alpha_groups=groups,
        learned_keys=learned,
        alphas=partial(update_rules.alphas, groups=groups, positive=alpha.sign == "positive"),
        init_network=partial(
            init_mlp, hidden=model.hidden, init=model.init, gain=model.init_gain, num_inputs=num_inputs(config)
        ),
        device=torch.device(device),
        dtype=dtype,
    )


def _sample(
    draw: Callable[..., SampledTasks],
    network_inputs: Callable[[Points, Sinusoids], Points],
    generators: Sequence[Generator],
    *,
    num_steps: int | None = None,
) -> TaskBatch:
    batch, functions = draw(generators, num_steps=num_steps)
    return TaskBatch(*(network_inputs(points, functions) for points in batch))


def _update(config: Config, groups: Mapping[str, str]) -> UpdateRule:
    inner, alpha = config.inner, config.inner.alpha
    links = [update_rules.scale_by_alpha(groups, positive=alpha.sign == "positive")]
    if inner.optimizer == "adam":
        links.insert(0, update_rules.scale_by_rms())
    if inner.curvature == "kronecker":
        links.insert(0, update_rules.precondition_kronecker)
    if inner.has_per_step_params:
        links.append(
            update_rules.extrapolate(
                inner.steps, update_rules.EXTRAPOLATIONS[alpha.after_last_step] if alpha.after_last_step else None
            )
        )
    return update_rules.chain(*links)


def _init(config: Config, fresh: Callable[[Params], Params], groups: Mapping[str, str], params: Params) -> MetaParams:
    alpha, start = config.inner.alpha, fresh(params)
    rule = update_rules.init_alphas(
        start,
        groups,
        value=math.log(alpha.init) if alpha.sign == "positive" else alpha.init,
        per_parameter=alpha.per == "parameter",
        num_alphas=config.inner.steps if alpha.per_step else 1,
    )
    curved = groups if config.inner.curvature == "kronecker" else []
    num_steps = config.inner.steps if config.inner.curvature_per_step else 1
    return MetaParams(params, rule | update_rules.init_kronecker(start, curved, num_steps=num_steps))


def _meta_grad(config: Config, descent: InnerLoop, learned: Collection[str]) -> MetaGradient:
    inner, steps = config.inner, config.inner.steps
    adapt = descent.with_annealed_order(steps, first_order_until=first_order_until(config))
    if config.outer.meta_gradient == "reptile":
        return meta_gradients.reptile_gradient(adapt, descent.loss, steps=steps)
    if config.outer.meta_gradient == "joint":
        return meta_gradients.joint_gradient(descent.loss)
    if inner.order == "implicit":
        return meta_gradients.implicit_gradient(
            adapt, descent.loss, adapted=descent.adapted, proximal=inner.proximal, cg_steps=inner.cg_steps
        )
    return meta_gradients.query_gradient(adapt, descent.loss, learned=learned, weights=step_weights(config))


def step_weights(config: Config) -> StepWeights:
    """The weights of the query losses after each inner step."""
    steps, until = config.inner.steps, config.outer.multi_step_loss_until
    return (
        meta_gradients.annealed_step_weights(steps, until=until) if until else meta_gradients.last_step_weights(steps)
    )


def first_order_until(config: Config) -> float:
    """The outer step from which the inner loop is differentiated."""
    return math.inf if config.inner.order == "first" else config.inner.first_order_until


def choose_device(config: Config, requested: str | None = None) -> runtime.Choice:
    """The device for `config`, or the one that is `requested` in its place; raises ConfigError if it is not here."""
    return runtime.select_device(
        requested or config.run.device, work=outer_step_work(config), needs_float64=config.run.dtype == "float64"
    )


def outer_step_work(config: Config) -> int:
    """Multiply-adds of one outer step: 3 passes over the query, and for each inner step over the support 3, or 9
    through two derivatives; implicit has 6 more for each step of conjugate gradients."""
    inner, tasks = config.inner, config.tasks
    sizes = [num_inputs(config), *config.model.hidden, 1]
    weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(sizes))
    passes = inner.steps * (9 if inner.order == "second" and config.outer.meta_gradient == "query" else 3)
    if inner.order == "implicit":
        passes += 6 * inner.cg_steps
    if config.outer.meta_gradient == "joint":
        passes = 3
    return config.outer.tasks_per_step * (tasks.num_support * passes + tasks.num_query * 3) * weights


def num_inputs(config: Config) -> int:
    """How many inputs the network has: x, what an oracle is told, and the context."""
    return 1 + (3 if config.model.oracle else 0) + config.model.num_context


def param_keys(config: Config) -> list[str]:
    """The names of the parameters, and of the context if there is one."""
    names = [*(f"hidden{layer}" for layer in range(len(config.model.hidden))), "head"]
    keys = [f"{name}.{part}" for name in names for part in ("w", "b")]
    return [*keys, CONTEXT] if config.model.num_context else keys
