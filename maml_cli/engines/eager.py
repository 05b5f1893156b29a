"""The engines that take one outer step after the other in PyTorch: `reference` and `eager`.

`reference` differentiates the unrolled inner loop by autograd; `eager` uses the adjoint method where it can.
"""

from collections.abc import Iterator

import torch

from maml_cli.config import ADJOINT_LIMITS, Config, exceeded
from maml_cli.core import (
    ACTIVATION_DERIVATIVES,
    ACTIVATIONS,
    LOSS_DERIVATIVES,
    LOSSES,
    MetaGradient,
    layer_names,
    lookup,
)
from maml_cli.engines.adjoint import (
    AdjointSpec,
    adjoint_gradient,
    mean_adjoint_gradient,
    store_intermediates,
    store_params,
)
from maml_cli.engines.derivatives import NetworkSpec
from maml_cli.engines.outer_step import (
    AverageGradient,
    already_averaged,
    average_clipped_tasks,
    average_tasks,
    lr_scale,
    take_outer_step,
)
from maml_cli.engines.rule_derivatives import GradientClip, RuleSpec, norm_clip, value_clip
from maml_cli.engines.state import Engine, Notify, StepResult, TrainState
from maml_cli.engines.support_size import first_support, support_size
from maml_cli.engines.task_blocks import BlockShare, average_in_blocks, concat_blocks
from maml_cli.experiment import Experiment, first_order_until, step_weights


def reference_engine(config: Config, experiment: Experiment, *, notify: Notify, blocks: BlockShare) -> Engine:
    """Outer steps by autograd through the unrolled inner loop."""
    meta_gradient = experiment.algorithm.meta_gradient
    return _step_by_step(config, experiment, meta_gradient, _average(config, meta_gradient), blocks)


def eager_engine(config: Config, experiment: Experiment, *, notify: Notify, blocks: BlockShare) -> Engine:
    """Outer steps by the adjoint method; as `reference` takes them where it does not apply."""
    average = adjoint_average(config, experiment)
    if not any(adjoint_unsupported(config)):
        average = torch.inference_mode()(average)
    return _step_by_step(config, experiment, adjoint_meta_gradient(config, experiment), average, blocks)


def adjoint_meta_gradient(config: Config, experiment: Experiment) -> MetaGradient:
    """The meta-gradient of each task by the adjoint method; that of the algorithm where it does not apply."""
    if any(adjoint_unsupported(config)):
        return experiment.algorithm.meta_gradient
    return adjoint_gradient(adjoint_spec(config, experiment))


def adjoint_average(config: Config, experiment: Experiment) -> AverageGradient:
    """The meta-gradient averaged over tasks, by the adjoint method where it applies."""
    if config.outer.clip_task_norm is not None or any(adjoint_unsupported(config)):
        return _average(config, adjoint_meta_gradient(config, experiment))
    return already_averaged(mean_adjoint_gradient(adjoint_spec(config, experiment)))


def adjoint_spec(config: Config, experiment: Experiment) -> AdjointSpec:
    """The learner of `config`, which the adjoint method supports."""
    inner = config.inner
    return AdjointSpec(
        _network_spec(config),
        RuleSpec(
            experiment.alpha_groups,
            positive=inner.alpha.sign == "positive",
            has_curvature=inner.curvature == "kronecker",
            learned_keys=[key for keys in experiment.learned_keys.values() for key in keys],
            clip=_clip(config),
            momentum=inner.momentum,
        ),
        num_steps=inner.steps,
        step_weights=step_weights(config),
        first_order_until=first_order_until(config),
        store=store_params if inner.recompute_activations else store_intermediates,
    )


def _clip(config: Config) -> GradientClip | None:
    inner = config.inner
    if inner.clip_norm is not None:
        return norm_clip(inner.clip_norm)
    return None if inner.clip_value is None else value_clip(inner.clip_value)


def _network_spec(config: Config) -> NetworkSpec:
    activation, loss = config.model.activation, config.inner.loss
    derivatives, loss_derivatives = "core.network.ACTIVATION_DERIVATIVES", "core.losses.LOSS_DERIVATIVES"
    return NetworkSpec(
        [(f"{name}.w", f"{name}.b") for name in layer_names(len(config.model.hidden))],
        ACTIVATIONS[activation],
        lookup(ACTIVATION_DERIVATIVES, activation, "model.activation", derivatives),
        LOSSES[loss],
        lookup(LOSS_DERIVATIVES, loss, "inner.loss", loss_derivatives),
    )


def adjoint_unsupported(config: Config) -> Iterator[str]:
    """Settings of `config` that the adjoint method does not support."""
    return exceeded(ADJOINT_LIMITS, config)


def _average(config: Config, meta_gradient: MetaGradient) -> AverageGradient:
    limit = config.outer.clip_task_norm
    return average_tasks(meta_gradient) if limit is None else average_clipped_tasks(meta_gradient, limit)


def _step_by_step(
    config: Config, experiment: Experiment, meta_gradient: MetaGradient, average: AverageGradient, blocks: BlockShare
) -> Engine:
    outer = config.outer
    if outer.task_blocks is not None:
        average = average_in_blocks(average, outer.task_blocks, blocks)
        meta_gradient = concat_blocks(meta_gradient, outer.task_blocks)

    def engine(state: TrainState, count: int) -> StepResult:
        batches = experiment.sample(state.generators, num_steps=count)
        for batch in batches.iter_steps():
            result = take_outer_step(
                state,
                first_support(batch, support_size(config.tasks.support_range, state.step)),
                meta_gradient,
                average=average,
                scale=lr_scale(config, state.step),
                clip_norm=outer.clip_norm,
                weight_noise=outer.weight_noise,
            )
        return result

    return engine
