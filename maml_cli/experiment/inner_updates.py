"""The update rule of a config, with the initial values of what it learns."""

from collections.abc import Callable, Mapping

from maml_cli.config import Config
from maml_cli.core import MetaParams, Params, UpdateRule, curvature, lookup, update_rules


def update_rule(config: Config, groups: Mapping[str, str]) -> UpdateRule:
    """The update rule of `config`: clipping, curvature, optimiser, step size, factor past the last trained step."""
    inner, table = config.inner, "core.update_rules.INNER_OPTIMIZERS"
    transforms = [
        *_clips(config),
        curvature_of(config).transform,
        lookup(update_rules.INNER_OPTIMIZERS, inner.optimizer, "inner.optimizer", table),
        update_rules.scale_by_alpha(groups, sign=alpha_sign(config), scale=inner.alpha.scale),
    ]
    if inner.has_per_step_params:
        transforms.append(update_rules.extrapolate(inner.steps, _extrapolation(config)))
    return update_rules.chain(*transforms)


def _clips(config: Config) -> list[UpdateRule]:
    clips = {update_rules.clip_by_norm: config.inner.clip_norm, update_rules.clip_by_value: config.inner.clip_value}
    return [clip(limit) for clip, limit in clips.items() if limit is not None]


def init_meta_params(
    config: Config, init_task_params: Callable[[Params], Params], groups: Mapping[str, str], params: Params
) -> MetaParams:
    """Initial meta-parameters: the network's `params`, and the alphas and preconditioners of the rule."""
    inner, alpha, start = config.inner, config.inner.alpha, init_task_params(params)
    alphas = update_rules.init_alphas(
        start,
        groups,
        value=alpha_sign(config).inverse(alpha.init),
        per_parameter=update_rules.ALPHA_GROUPINGS[alpha.per].per_parameter,
        num_alphas=inner.steps if alpha.per_step else 1,
    )
    num_steps = inner.steps if inner.curvature_per_step else 1
    return MetaParams(params, alphas | curvature_of(config).init(start, groups, num_steps=num_steps))


def curvature_of(config: Config) -> curvature.Curvature:
    """The curvature that `config` names."""
    name, table = config.inner.curvature, "core.curvature.CURVATURES"
    return lookup(curvature.CURVATURES, name, "inner.curvature", table)


def alpha_sign(config: Config) -> update_rules.AlphaSign:
    """The parametrisation of the step sizes that `config` names."""
    name, table = config.inner.alpha.sign, "core.update_rules.ALPHA_SIGNS"
    return lookup(update_rules.ALPHA_SIGNS, name, "inner.alpha.sign", table)


def _extrapolation(config: Config) -> update_rules.Extrapolation | None:
    name, table = config.inner.alpha.after_last_step, "core.update_rules.EXTRAPOLATIONS"
    return None if name is None else lookup(update_rules.EXTRAPOLATIONS, name, "inner.alpha.after_last_step", table)
