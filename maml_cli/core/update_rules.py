"""Update rules: how the gradients of an inner step become what is subtracted from the parameters.

A rule is a chain of links, each a pure function of what is learned, the gradients so far, the inner step and what
the earlier steps left. The keys of a rule: `alpha`, or the name of the layer or tensor that an alpha is for; and
`hidden0.w.in`, `hidden0.w.out` for the factors of a curvature.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from maml_cli.core.inner_loop import RuleParamsByStep, UpdateRule
from maml_cli.core.network import Params

Extrapolation = Callable[[int], float]
"""How many steps past the last that has an alpha of its own -> the factor on its update."""

EXTRAPOLATIONS: dict[str, Extrapolation] = {
    "hold": lambda excess: 1.0,
    "decay": lambda excess: 0.5**excess,
    "stop": lambda excess: 0.0,
}


def chain(*links: UpdateRule) -> UpdateRule:
    """One rule after the other: the updates of the first are the gradients of the next."""

    def update(rule: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        for link in links:
            gradients, state = link(rule, gradients, step, state)
        return gradients, state

    return update


def scale_by_alpha(groups: Mapping[str, str], *, positive: bool = False) -> UpdateRule:
    """The step size alpha of each parameter's group: alpha * gradient.

    One alpha for each parameter is Meta-SGD (Li et al. 2017, arXiv:1707.09835), one for each layer and inner step the
    LSLR of MAML++ (Antoniou et al. 2018, arXiv:1810.09502). After the last step that has an alpha of its own, that
    alpha goes on. With `positive`, what the rule holds is log(alpha).
    """

    def update(rule: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        held = {group: _value_at_step(rule[group], step) for group in dict.fromkeys(groups.values())}
        alphas = {group: alpha.exp() for group, alpha in held.items()} if positive else held
        return {key: alphas[groups[key]] * gradient for key, gradient in gradients.items()}, state

    return update


def extrapolate(num_steps: int, beyond: Extrapolation | None) -> UpdateRule:
    """What becomes of updates after `num_steps`, when no step has anything of its own any more.

    They are multiplied by `beyond(1)`, `beyond(2)`, ...; without `beyond`, ValueError is raised there.
    """

    def update(rule: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        if step < num_steps:
            return gradients, state
        if beyond is None:
            raise ValueError(f"no alpha for inner step {step + 1}: there are {num_steps}, and no rule for the rest")
        factor = beyond(step - num_steps + 1)
        return {key: factor * gradient for key, gradient in gradients.items()}, state

    return update


def precondition_kronecker(
    rule: RuleParamsByStep, gradients: Params, step: int, state: Params
) -> tuple[Params, Params]:
    """Meta-Curvature (Park and Oliva 2019, arXiv:1902.03356, eq. 10): M_in G M_out for the gradient G of a weight.

    The whole matrix that multiplies the flattened gradient is the Kronecker product of the two factors. A bias, or
    a context, has one axis and one factor: g M_out. Factors of their own for each inner step are used in turn, the
    last goes on.
    """
    curved = {}
    for key, gradient in gradients.items():
        turned = gradient @ _value_at_step(rule[f"{key}.out"], step)
        curved[key] = _value_at_step(rule[f"{key}.in"], step) @ turned if f"{key}.in" in rule else turned
    return curved, state


def scale_by_rms(*, decay: float = 0.999, eps: float = 1e-8) -> UpdateRule:
    """Adam without momentum (Kingma and Ba 2015, with beta1 = 0): g / sqrt(v + eps^2), v the running mean of g^2.

    The inner optimiser of Reptile (Nichol et al. 2018, arXiv:1803.02999, section 6). eps stands inside the root, so
    that the derivative at a gradient of zero, as that of a ReLU which is off, is finite.
    """

    def update(rule: RuleParamsByStep, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        squares = {key: (1 - decay) * gradient * gradient for key, gradient in gradients.items()}
        if step:
            squares = {key: square + decay * state[key] for key, square in squares.items()}
        correction = 1 - decay ** (step + 1)
        updates = {key: g / (squares[key] / correction + eps * eps).sqrt() for key, g in gradients.items()}
        return updates, state | squares

    return update


def alphas(rule: Params, *, groups: Mapping[str, str], positive: bool) -> Params:
    """The step sizes that `rule` holds, by the names of their groups."""
    held = {group: rule[group] for group in dict.fromkeys(groups.values())}
    return {group: value.exp() for group, value in held.items()} if positive else held


def alpha_groups(params: Collection[str], *, per: str) -> dict[str, str]:
    """Which alpha each of the parameters `params` goes by: one for all, one a layer, one a tensor or more."""
    name: dict[str, Callable[[str], str]] = {
        "scalar": lambda key: "alpha",
        "layer": lambda key: key.rpartition(".")[0] or key,
        "tensor": lambda key: key,
        "parameter": lambda key: key,
    }
    return {key: name[per](key) for key in params}


def init_alphas(
    params: Params, groups: Mapping[str, str], *, value: float, per_parameter: bool, num_alphas: int
) -> Params:
    """What the rule holds where every alpha starts: (R, num_alphas, 1, 1), or of the shape of their parameter."""
    alphas = {}
    for key, group in groups.items():
        runs, *shape = params[key].shape
        size = shape if per_parameter else [1, 1]
        alphas[group] = params[key].new_full((runs, num_alphas, *size), value)
    return alphas


def init_kronecker(params: Params, keys: Collection[str], *, num_steps: int) -> Params:
    """The identity for each factor of the curvature of the parameters `keys`: it starts as gradient descent.

    (R, num_steps, n, n), where num_steps is 1 for factors that all inner steps share.
    """
    factors = {}
    for name in kronecker_keys(keys):
        key, _, side = name.rpartition(".")
        runs, fan_in, fan_out = params[key].shape
        eye = torch.eye(fan_in if side == "in" else fan_out, dtype=params[key].dtype, device=params[key].device)
        factors[name] = eye.repeat(runs, num_steps, 1, 1)
    return factors


def kronecker_keys(keys: Collection[str]) -> list[str]:
    """The names of the factors: two for each weight among the parameters `keys`, one for a bias or a context."""
    return [f"{key}.{side}" for key in keys for side in (("in", "out") if key.endswith(".w") else ("out",))]


def _value_at_step(values: Sequence[Tensor], step: int) -> Tensor:
    """What is for inner step `step`; beyond the last of them, that."""
    return values[min(step, len(values) - 1)]
