"""Update rules: the transforms from the gradients of an inner step to what is subtracted from the parameters.

A rule is a chain of transforms, each a pure function of the rule's parameters, the gradients, the inner step and a
state, as in optax. Keys of the rule's parameters: `alpha`, or the layer or tensor that an alpha is for.

To add an inner optimiser, write its transform and give it a row in `INNER_OPTIMIZERS`.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from maml_cli.core.inner_loop import RuleParamsByStep, UpdateRule
from maml_cli.core.network import Params
from maml_cli.core.tables import lookup


def chain(*transforms: UpdateRule) -> UpdateRule:
    """A rule of several transforms, first to last: the updates of each are the gradients of the next."""

    def update(rule_params: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        for transform in transforms:
            gradients, state = transform(rule_params, gradients, step, state)
        return gradients, state

    return update


def identity(rule_params: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
    """The gradients themselves: gradient descent."""
    return gradients, state


def scale_by_rms(*, decay: float = 0.999, eps: float = 1e-8) -> UpdateRule:
    """Adam without momentum (Kingma and Ba 2015, with beta1 = 0): g / sqrt(v + eps^2), v the running mean of g^2.

    The inner optimiser of Reptile (Nichol et al. 2018, arXiv:1803.02999, section 6). v is corrected for its start at
    zero. eps stands inside the root, so that the derivative at a gradient of zero, as that of an inactive ReLU, is
    finite.
    """

    def update(rule_params: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        squares = {key: (1 - decay) * gradient * gradient for key, gradient in gradients.items()}
        if step:
            squares = {key: square + decay * state[key] for key, square in squares.items()}
        correction = 1 - decay ** (step + 1)
        updates = {key: g / (squares[key] / correction + eps * eps).sqrt() for key, g in gradients.items()}
        return updates, state | squares

    return update


def heavy_ball(momentum: float) -> UpdateRule:
    """The velocity v <- momentum * v + g, from v = 0, in place of the gradient g: the heavy ball (Polyak 1964).

    As `torch.optim.SGD` has it; multiplied by alpha afterwards, so that a changed alpha acts on all of the velocity.

    >>> update = heavy_ball(0.5)
    >>> first, state = update({}, {"w": torch.tensor([[8.0]])}, 0, {})
    >>> second, _ = update({}, {"w": torch.tensor([[1.0]])}, 1, state)
    >>> first["w"].item(), second["w"].item()
    (8.0, 5.0)
    """

    def update(rule_params: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        if step:
            gradients = {key: momentum * state[f"{key}.velocity"] + gradient for key, gradient in gradients.items()}
        return gradients, state | {f"{key}.velocity": velocity for key, velocity in gradients.items()}

    return update


INNER_OPTIMIZERS: dict[str, UpdateRule] = {"sgd": identity, "adam": scale_by_rms()}
"""Values of `inner.optimizer`: the transform before momentum and the multiplication by alpha."""


class AlphaSign(NamedTuple):
    """A parametrisation of the step sizes.

    alpha: learned value -> step size, elementwise.
    inverse: step size -> learned value.
    """

    alpha: Callable[[Tensor], Tensor]
    inverse: Callable[[float], float]


ALPHA_SIGNS: dict[str, AlphaSign] = {
    "free": AlphaSign(alpha=lambda value: value, inverse=lambda alpha: alpha),
    "positive": AlphaSign(alpha=torch.exp, inverse=math.log),
}
"""Values of `inner.alpha.sign`."""


def scale_by_alpha(
    groups: Mapping[str, str], *, sign: AlphaSign = ALPHA_SIGNS["free"], scale: float = 1.0
) -> UpdateRule:
    """The step size: scale * alpha * gradient, with the alpha of each parameter's group (`alpha_groups`).

    An alpha for each parameter is Meta-SGD (Li et al. 2017, arXiv:1707.09835), one for each layer and inner step the
    LSLR of MAML++ (Antoniou et al. 2018, arXiv:1810.09502). Inner steps after the last that has an alpha use the last.

    >>> update = scale_by_alpha({"w": "alpha"})
    >>> rule_params = {"alpha": [torch.tensor([[0.5]]), torch.tensor([[0.25]])]}  # of inner steps 0 and 1
    >>> [update(rule_params, {"w": torch.tensor([[8.0]])}, step, {})[0]["w"].item() for step in range(3)]
    [4.0, 2.0, 2.0]
    """

    def update(rule_params: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        values = {group: value_at_step(rule_params[group], step) for group in dict.fromkeys(groups.values())}
        step_sizes = alphas(values, groups=groups, sign=sign, scale=scale)
        return {key: step_sizes[groups[key]] * gradient for key, gradient in gradients.items()}, state

    return update


def alphas(rule_params: Params, *, groups: Mapping[str, str], sign: AlphaSign, scale: float = 1.0) -> Params:
    """The step sizes by group, scale * alpha, of the shapes of the rule's parameters."""
    values = {group: sign.alpha(rule_params[group]) for group in dict.fromkeys(groups.values())}
    return values if scale == 1 else {group: scale * value for group, value in values.items()}


class AlphaGrouping(NamedTuple):
    """A partition of the parameters into groups.

    group: name of a parameter tensor -> name of its group.
    per_parameter: whether a group has a tensor of alphas, one for each of its parameters, instead of one alpha.
    """

    group: Callable[[str], str]
    per_parameter: bool = False


ALPHA_GROUPINGS: dict[str, AlphaGrouping] = {
    "scalar": AlphaGrouping(lambda key: "alpha"),
    "layer": AlphaGrouping(lambda key: key.rpartition(".")[0] or key),
    "tensor": AlphaGrouping(lambda key: key),
    "parameter": AlphaGrouping(lambda key: key, per_parameter=True),
}
"""Values of `inner.alpha.per`."""


def alpha_groups(params: Collection[str], *, per: str) -> dict[str, str]:
    """The group of each of the parameters `params`: those of a group share an alpha, or a tensor of alphas.

    >>> alpha_groups(["hidden0.w", "hidden0.b", "head.w"], per="layer")
    {'hidden0.w': 'hidden0', 'hidden0.b': 'hidden0', 'head.w': 'head'}
    """
    grouping = lookup(ALPHA_GROUPINGS, per, "inner.alpha.per", "core.update_rules.ALPHA_GROUPINGS")
    return {key: grouping.group(key) for key in params}


class AlphaStart(NamedTuple):
    """The initial values of the alphas.

    low, high: equal, or the ends of the range in which each alpha is drawn uniformly and independently of the others.
    sign: the parametrisation of the learned values.
    per_parameter: whether each parameter has an alpha.
    num_alphas: the number of inner steps that have alphas of their own, or 1.
    """

    low: float
    high: float
    sign: AlphaSign = ALPHA_SIGNS["free"]
    per_parameter: bool = False
    num_alphas: int = 1


def init_alphas(
    params: Params, groups: Mapping[str, str], start: AlphaStart, generators: Sequence[Generator] = ()
) -> Params:
    """Initial learned values of the alphas: (R, num_alphas, 1, 1), or (R, num_alphas, in, out) per parameter.

    Of a range, each entry of these tensors is a draw of its own (`torch.rand`, in float64, from the generator of its
    run, group by group): for `inner.alpha.per: parameter` an alpha for each parameter, as public implementations of
    Meta-SGD (Li et al. 2017, arXiv:1707.09835) draw theirs in 0.005 ... 0.1; for `scalar` a single one.
    """
    initial = Params()
    for key, group in groups.items():
        runs, *shape = params[key].shape
        size = [start.num_alphas, *(shape if start.per_parameter else [1, 1])]
        if group not in initial:
            initial[group] = params[key].new_full((runs, *size), start.sign.inverse(start.low))
            if start.low < start.high and not initial[group].is_meta:
                for run, generator in zip(initial[group], generators, strict=True):
                    share = torch.rand(size, generator=generator, dtype=torch.float64)
                    run.copy_((start.low + (start.high - start.low) * share).apply_(start.sign.inverse))
    return initial


def value_at_step(values: Sequence[Tensor], step: int) -> Tensor:
    """`values[step]`, or the last value for later inner steps."""
    return values[min(step, len(values) - 1)]
