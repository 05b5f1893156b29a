"""The meta-gradient of a config: its source, and the order of differentiation through the inner loop."""

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

from maml_cli.config import Config
from maml_cli.core import InnerLoop, MetaGradient, StepWeights, lookup, meta_gradients


def step_weights(config: Config) -> StepWeights:
    """The weights of the query losses after each inner step."""
    steps, until = config.inner.steps, config.outer.multi_step_loss_until
    return (
        meta_gradients.annealed_step_weights(steps, until=until) if until else meta_gradients.last_step_weights(steps)
    )


def first_order_until(config: Config) -> float:
    """The outer step from which the meta-gradient is second order; infinity for first order throughout."""
    return _order(config).first_order_until(config)


MakeMetaGradient = Callable[[Config, InnerLoop, Collection[str]], MetaGradient]
"""(config, inner loop, keys of the rule's parameters that are learned) -> the meta-gradient."""


def _unrolled(config: Config, inner_loop: InnerLoop, learned: Collection[str]) -> MetaGradient:
    adapt = inner_loop.with_annealed_order(config.inner.steps, first_order_until=first_order_until(config))
    head = inner_loop.head
    loss = inner_loop.loss if head is None or config.inner.ridge.noise is None else head.nll
    return meta_gradients.query_gradient(adapt, loss, learned=learned, weights=step_weights(config))


def _implicit(config: Config, inner_loop: InnerLoop, learned: Collection[str]) -> MetaGradient:
    inner, adapt = config.inner, inner_loop.with_annealed_order(config.inner.steps)
    return meta_gradients.implicit_gradient(
        adapt, inner_loop.loss, adapted=inner_loop.adapted, proximal=inner.proximal, cg_steps=inner.cg_steps
    )


def _reptile(config: Config, inner_loop: InnerLoop, learned: Collection[str]) -> MetaGradient:
    adapt = inner_loop.with_annealed_order(config.inner.steps)
    return meta_gradients.reptile_gradient(adapt, inner_loop.loss, steps=config.inner.steps)


class Order(NamedTuple):
    """A way to differentiate the query loss through the inner loop.

    make: makes the meta-gradient.
    first_order_until: config -> the outer step before which the gradients of inner steps count as constants.
    support_passes: config -> passes over the support points in an outer step, forward or backward.
    """

    make: MakeMetaGradient
    first_order_until: Callable[[Config], float]
    support_passes: Callable[[Config], int]


ORDERS: dict[str, Order] = {
    "second": Order(_unrolled, lambda c: c.inner.first_order_until, lambda c: 9 * c.inner.steps),
    "first": Order(_unrolled, lambda c: math.inf, lambda c: 3 * c.inner.steps),
    "implicit": Order(_implicit, lambda c: 0, lambda c: 3 * c.inner.steps + 6 * c.inner.cg_steps),
}
"""Values of `inner.order`."""


def _order(config: Config) -> Order:
    return lookup(ORDERS, config.inner.order, "inner.order", "experiment.differentiation.ORDERS")


class MetaGradientSource(NamedTuple):
    """The origin of the meta-gradient: an outer objective, or Reptile's direction.

    make: makes the meta-gradient.
    support_passes: passes over the support points in an outer step, forward or backward.
    """

    make: MakeMetaGradient
    support_passes: Callable[[Config], int]


META_GRADIENTS: dict[str, MetaGradientSource] = {
    "query": MetaGradientSource(lambda c, *loop: _order(c).make(c, *loop), lambda c: _order(c).support_passes(c)),
    "reptile": MetaGradientSource(_reptile, lambda c: 3 * c.inner.steps),
    "joint": MetaGradientSource(lambda c, loop, learned: meta_gradients.joint_gradient(loop.loss), lambda c: 3),
}
"""Values of `outer.meta_gradient`."""


def meta_gradient_source(config: Config) -> MetaGradientSource:
    """The row of `META_GRADIENTS` for `config`; raises NotImplementedError if there is none."""
    return lookup(
        META_GRADIENTS, config.outer.meta_gradient, "outer.meta_gradient", "experiment.differentiation.META_GRADIENTS"
    )
