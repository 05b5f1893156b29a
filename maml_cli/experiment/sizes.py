"""Sizes of a config: the parameters of its network, the work of an outer step, and the device for it."""

from itertools import pairwise

from maml_cli import runtime
from maml_cli.config import Config, layer_widths
from maml_cli.core import CONTEXT, layer_names
from maml_cli.experiment.differentiation import meta_gradient_source


def param_keys(config: Config) -> list[str]:
    """The names of the parameters, with the context if there is one."""
    keys = [f"{name}.{kind}" for name in layer_names(len(config.model.hidden)) for kind in ("w", "b")]
    return [*keys, CONTEXT] if config.model.num_context else keys


def choose_device(config: Config, requested: str | None = None) -> runtime.Choice:
    """The device of `config`, or the `requested` one in its place; raises ConfigError if it is not available."""
    return runtime.select_device(
        requested or config.run.device, work=outer_step_work(config), needs_float64=config.run.dtype == "float64"
    )


def outer_step_work(config: Config) -> int:
    """Multiply-adds of an outer step: 3 passes over the query points, and the passes over the support points.

    An inner step has 3 passes, or 9 if differentiated; a step of conjugate gradients has 6.
    """
    weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(layer_widths(config)))
    passes = meta_gradient_source(config).support_passes(config)
    mean_support = sum(config.tasks.support_range) // 2
    return config.outer.tasks_per_step * (mean_support * passes + config.tasks.num_query * 3) * weights
