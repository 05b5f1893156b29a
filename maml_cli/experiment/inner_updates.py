"""The update rule of a config, with the initial values of what it learns."""

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Generator

from maml_cli.config import PENALTY_ROWS, Config
from maml_cli.core import (
    BODY_PENALTY,
    NOISE,
    PENALTY,
    MetaParams,
    Params,
    Predict,
    RidgeHead,
    UpdateRule,
    clipping,
    curvature,
    extrapolation,
    log_noise,
    lookup,
    update_rules,
)

HEADS: dict[str, Callable[[Predict], RidgeHead | None]] = {"gradient": lambda features: None, "ridge": RidgeHead}
"""Values of `inner.head`: the network without its head -> the head in closed form, if it is."""


def update_rule(config: Config, groups: Mapping[str, str]) -> UpdateRule:
    """The update rule of `config`: clipping, curvature, optimiser, momentum, step size, factor past the last trained
    step. The velocity is thus a sum of what each inner step would subtract, but for alpha: of clipped, preconditioned
    gradients."""
    inner, table = config.inner, "core.update_rules.INNER_OPTIMIZERS"
    transforms = [
        *_clips(config),
        curvature_of(config).transform,
        lookup(update_rules.INNER_OPTIMIZERS, inner.optimizer, "inner.optimizer", table),
        *([update_rules.heavy_ball(inner.momentum)] if inner.momentum else []),
        update_rules.scale_by_alpha(groups, sign=alpha_sign(config), scale=inner.alpha.scale),
    ]
    if inner.has_per_step_params:
        transforms.append(extrapolation.extrapolate(inner.steps, _extrapolation(config)))
    return update_rules.chain(*transforms)


def _clips(config: Config) -> list[UpdateRule]:
    clips = {clipping.clip_by_norm: config.inner.clip_norm, clipping.clip_by_value: config.inner.clip_value}
    return [clip(limit) for clip, limit in clips.items() if limit is not None]


def init_meta_params(
    config: Config,
    init_task_params: Callable[[Params], Params],
    groups: Mapping[str, str],
    params: Params,
    generators: Sequence[Generator],
) -> MetaParams:
    """Initial meta-parameters: the network's `params`, and the alphas and preconditioners of the rule; `generators`,
    one for each run, draw the alphas that are random."""
    inner, alpha, start = config.inner, config.inner.alpha, init_task_params(params)
    alpha_start = update_rules.AlphaStart(
        *alpha.init_range,
        sign=alpha_sign(config),
        per_parameter=update_rules.ALPHA_GROUPINGS[alpha.per].per_parameter,
        num_alphas=inner.steps if alpha.per_step else 1,
    )
    alphas = update_rules.init_alphas(start, groups, alpha_start, generators)
    num_steps = inner.steps if inner.curvature_per_step else 1
    factors = curvature_of(config).init(start, groups, num_steps=num_steps)
    return MetaParams(params, alphas | factors | _init_penalties(config, start))


def ridge_head(config: Config, features: Predict) -> RidgeHead | None:
    """The head in closed form on `features`; None if the head of `config` adapts by gradient steps."""
    return lookup(HEADS, config.inner.head, "inner.head", "experiment.inner_updates.HEADS")(features)


def ridge_keys(config: Config) -> list[str]:
    """The keys of the penalties of a head in closed form, and of the noise if it has any."""
    inner = config.inner
    if inner.head == "gradient":
        return []
    keys = {PENALTY: True, BODY_PENALTY: inner.adapt != "head", NOISE: inner.ridge.noise is not None}
    return [key for key, is_used in keys.items() if is_used]


def _init_penalties(config: Config, params: Params) -> Params:
    """Initial log lambda: (R, 1, 1, 1) of the head, (R, S, 1, 1) of the inner steps; (.., H + 1, 1) per feature; and
    the rho of the noise, (R, 1, 1, 1)."""
    runs, size, _ = params["head.w"].shape
    ridge, table = config.inner.ridge, "config.sizes.PENALTY_ROWS"
    rows = lookup(PENALTY_ROWS, ridge.per, "inner.ridge.per", table)(size + 1)
    starts = {
        PENALTY: (1, rows, math.log(ridge.init)),
        BODY_PENALTY: (config.inner.steps, rows, math.log(ridge.init)),
        NOISE: (1, 1, log_noise(ridge.noise or 1.0)),
    }
    return {
        key: params["head.w"].new_full((runs, steps, count, 1), value)
        for key, (steps, count, value) in starts.items()
        if key in ridge_keys(config)
    }


def curvature_of(config: Config) -> curvature.Curvature:
    """The curvature that `config` names."""
    name, table = config.inner.curvature, "core.curvature.CURVATURES"
    return lookup(curvature.CURVATURES, name, "inner.curvature", table)


def alpha_sign(config: Config) -> update_rules.AlphaSign:
    """The parametrisation of the step sizes that `config` names."""
    name, table = config.inner.alpha.sign, "core.update_rules.ALPHA_SIGNS"
    return lookup(update_rules.ALPHA_SIGNS, name, "inner.alpha.sign", table)


def _extrapolation(config: Config) -> extrapolation.Extrapolation | None:
    name, table = config.inner.alpha.after_last_step, "core.extrapolation.EXTRAPOLATIONS"
    return None if name is None else lookup(extrapolation.EXTRAPOLATIONS, name, "inner.alpha.after_last_step", table)
