"""The experiment of a config: its functions and distributions, ready to compute."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Generator

from maml_cli.config import Config, layer_widths
from maml_cli.core import (
    ACTIVATIONS,
    LOSSES,
    Algorithm,
    InnerLoop,
    MetaParams,
    Params,
    Points,
    Predict,
    TaskBatch,
    TaskLoss,
    adapted_keys,
    init_mlp,
    lookup,
    mean_loss,
    mlp,
    mlp_features,
    param_shapes,
    update_rules,
    with_context,
)
from maml_cli.experiment.differentiation import first_order_until, meta_gradient_source
from maml_cli.experiment.inner_updates import (
    alpha_sign,
    curvature_of,
    init_meta_params,
    ridge_head,
    ridge_keys,
    update_rule,
)
from maml_cli.experiment.sizes import param_keys
from maml_cli.runs import check_tensors
from maml_cli.tasks import (
    SampledTasks,
    Scaling,
    TaskFamily,
    make_bank,
    make_family,
    make_generator,
    with_task_parameters,
)

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}
"""Values of `run.dtype`."""

STRATIFIED: dict[str, bool] = {"uniform": False, "stratified": True}
"""Values of `tasks.query_sampling`: whether the query points are stratified."""


class Experiment(NamedTuple):
    """The functions and distributions that a config describes, on one device and in one dtype.

    config: the config.
    family: distribution of the tasks.
    sample: (generators of R runs, num_steps=, runs=) -> a TaskBatch of network inputs (R, B, K, D) and targets (R, B,
        K, 1), with an axis of outer steps in front where `num_steps` is given; `runs` are the indices of the runs, by
        default all. K is the largest of `tasks.num_support`; engines take the first K of each outer step.
    network_inputs: (points, their functions) -> points in the units of the network, with task parameters for an oracle.
    predict: (params, inputs) -> predictions.
    variance: (adapted params, inputs) -> the variance of new targets, of the shape of the predictions; None for a
        learner without predictive distribution.
    loss: mean loss of each task, in the inner loop, and in the outer loop of a learner without predictive distribution.
    algorithm: initial meta-parameters, inner loop and meta-gradient.
    alpha_groups: parameter that adapts -> the group whose alpha it uses.
    learned_keys: keys of the rule's parameters that the outer loop learns, those of `alpha`, `curvature` and `ridge`.
    alphas: the rule's parameters -> step sizes by group.
    init_network: (generator, batch=) -> initial parameters in float64 on the CPU.
    device: of parameters and points.
    dtype: of parameters and points.
    template: the meta-parameters on the device meta: keys, shapes (R, ...) and dtype, without values.
    """

    config: Config
    family: TaskFamily
    sample: Callable[..., TaskBatch]
    network_inputs: Callable[[Points, Any], Points]
    predict: Predict
    variance: Predict | None
    loss: TaskLoss
    algorithm: Algorithm
    alpha_groups: Mapping[str, str]
    learned_keys: Mapping[str, Sequence[str]]
    alphas: Callable[[Params], Params]
    init_network: Callable[..., Params]
    device: torch.device
    dtype: torch.dtype
    template: MetaParams

    def init_params(self, generator: Generator, *batch: int) -> Params:
        """Random parameters of the network, (*batch, in, out) and (*batch, 1, out)."""
        params = self.init_network(generator, batch=batch)
        return {key: value.to(self.device, self.dtype) for key, value in params.items()}

    def init_meta_params(self, seeds: Sequence[int]) -> MetaParams:
        """The meta-parameters before training, (R, ...): one run for each of the `seeds`."""
        generators = [make_generator(seed, "init") for seed in seeds]
        runs = [self.init_params(generator) for generator in generators]
        return self.algorithm.init({key: torch.stack([run[key] for run in runs]) for key in runs[0]}, generators)

    def load_meta_params(self, saved: Mapping[str, Mapping[str, torch.Tensor]]) -> MetaParams:
        """The meta-parameters in a checkpoint; raises CheckpointError unless they have keys, shapes (R, ...) and dtype
        of `template`, which is compared before any memory is allocated."""
        for name, expected in self.template._asdict().items():
            check_tensors(saved[name], expected, f"meta_params.{name}")
        groups = (
            {key: saved[name][key].to(self.device) for key in expected}
            for name, expected in self.template._asdict().items()
        )
        return MetaParams(*groups)


def build_experiment(config: Config, device: torch.device | str = "cpu") -> Experiment:
    """The experiment that `config` describes, on `device`.

    Raises NotImplementedError for a value that the schema accepts and a table lacks.
    """
    model, alpha, inner = config.model, config.inner.alpha, config.inner
    activation = lookup(ACTIVATIONS, model.activation, "model.activation", "core.network.ACTIVATIONS")
    predict = partial(mlp, activation=activation)
    loss = mean_loss(predict, lookup(LOSSES, inner.loss, "inner.loss", "core.losses.LOSSES"))
    head = ridge_head(config, partial(mlp_features, activation=activation))
    adapted = adapted_keys(param_keys(config), subset=inner.adapt)
    adapted = [key for key in adapted if head is None or not key.startswith("head.")]
    groups = update_rules.alpha_groups(adapted, per=alpha.per)
    learned_keys = {
        "alpha": [*dict.fromkeys(groups.values())] if alpha.learned else [],
        "curvature": curvature_of(config).keys(adapted),
        "ridge": ridge_keys(config) if inner.ridge.learned else [],
    }
    init_task_params = partial(with_context, num_context=model.num_context)
    init = partial(init_meta_params, config, init_task_params, groups)
    inner_loop = InnerLoop(loss, update_rule(config, groups), adapted, init_task_params, inner.proximal, head)
    learned = [key for keys in learned_keys.values() for key in keys]
    family = make_family(dict(config.tasks))
    network_inputs = with_task_parameters if model.oracle else partial(_to_network, family.scaling)
    bank = cache(partial(_bank, config, family))
    dtype = lookup(DTYPES, config.run.dtype, "run.dtype", "experiment.build.DTYPES")
    return Experiment(
        config=config,
        family=family,
        sample=partial(_sample, _sampler(config, family), network_inputs, bank, device, dtype),
        network_inputs=network_inputs,
        predict=predict,
        variance=None if head is None or inner.ridge.noise is None else head.variance,
        loss=loss,
        algorithm=Algorithm(
            init=init,
            unroll=partial(inner_loop.unroll, first_order=math.isinf(first_order_until(config))),
            meta_gradient=meta_gradient_source(config).make(config, inner_loop, learned),
        ),
        alpha_groups=groups,
        learned_keys=learned_keys,
        alphas=partial(update_rules.alphas, groups=groups, sign=alpha_sign(config), scale=alpha.scale),
        init_network=_initializer(config),
        device=torch.device(device),
        dtype=dtype,
        template=init(_empty_params(config, dtype), []),
    )


def _empty_params(config: Config, dtype: torch.dtype) -> Params:
    """The network's parameters of all runs on the device meta, (R, in, out) and (R, 1, out): shapes without memory."""
    shapes = param_shapes(layer_widths(config))
    return _with_learned_context(
        config,
        {key: torch.empty(len(config.seeds), *shape, dtype=dtype, device="meta") for key, shape in shapes.items()},
    )


def _initializer(config: Config) -> Callable[..., Params]:
    model = config.model
    init = partial(
        init_mlp, hidden=model.hidden, init=model.init, gain=model.init_gain, num_inputs=layer_widths(config)[0]
    )
    return lambda generator, batch: _with_learned_context(config, init(generator, batch=batch))


def _with_learned_context(config: Config, params: Params) -> Params:
    """`params`, and the context inputs if the outer loop learns them: zero before training, as in MMAML's code."""
    return with_context(params, num_context=config.model.num_context) if config.model.context_learned else params


def _to_network(scaling: Scaling, points: Points, functions: Any) -> Points:
    """Points of a family in the units of the network."""
    return Points(scaling.x_to_network(points.x), scaling.y_to_network(points.y)) if scaling != Scaling() else points


def _sampler(config: Config, family: TaskFamily) -> Callable[..., SampledTasks]:
    tasks = config.tasks
    return partial(
        family.sampler.sample,
        num_tasks=config.outer.tasks_per_step,
        num_support=tasks.max_support,
        num_query=tasks.num_query,
        stratified=lookup(STRATIFIED, tasks.query_sampling, "tasks.query_sampling", "experiment.build.STRATIFIED"),
        dtype=torch.float64,
    )


def _bank(config: Config, family: TaskFamily) -> torch.Tensor | None:
    """The fixed set of training tasks of each run, as uniform numbers (R, N, P); None for ever new tasks."""
    if config.tasks.count is None:
        return None
    generators = [make_generator(seed, "task-bank") for seed in config.seeds]
    return make_bank(generators, num_tasks=config.tasks.count, num_parameters=family.sampler.num_parameters)


def _sample(
    sample: Callable[..., SampledTasks],
    network_inputs: Callable[[Points, Any], Points],
    make_bank_once: Callable[[], torch.Tensor | None],
    device: torch.device | str,
    dtype: torch.dtype,
    generators: Sequence[Generator],
    *,
    num_steps: int | None = None,
    runs: Sequence[int] | None = None,
) -> TaskBatch:
    bank = make_bank_once()  # not before the first tasks of a training: evaluations need none
    of_runs = {} if bank is None else {"bank": bank if runs is None else bank[[*runs]]}
    batch, functions = sample(generators, num_steps=num_steps, **of_runs)
    inputs = (network_inputs(points, functions) for points in batch)
    return TaskBatch(*(Points(*(tensor.to(device, dtype) for tensor in points)) for points in inputs))
