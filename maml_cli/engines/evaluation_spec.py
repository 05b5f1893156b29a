"""The kernel of an evaluation: whether there is one, whether it pays, and its constants; without PyTorch."""

from itertools import pairwise

from maml_cli.config import ENGINE_LIMITS, NUM_GRID, Config, exceeded, layer_widths
from maml_cli.engines.kernel_spec import KernelSpec, kernel_spec

MIN_TORCH_SECONDS = 2.0
"""A kernel is compiled for evaluations that last at least so long with PyTorch: compiling takes about a second."""
MULTIPLY_ADDS_PER_SECOND = 5e9
"""Of PyTorch in evaluations, on one core."""


def evaluation_pays(config: Config, *, num_tasks: int, num_shots: int, steps: int) -> bool:
    """Whether evaluations of `num_tasks` tasks in all, of one run, after up to `steps` inner steps at K = `num_shots`
    points, take PyTorch long enough for a kernel; and whether the engine of `config` may be one.

    The choice depends neither on seeds trained side by side nor on kernels compiled earlier.
    """
    weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(layer_widths(config)))
    passes = (steps + 1) * (NUM_GRID + 2 * num_shots) + 3 * steps * num_shots
    seconds = num_tasks * passes * weights / MULTIPLY_ADDS_PER_SECOND
    return config.run.engine in ("auto", "native") and seconds >= MIN_TORCH_SECONDS


def has_evaluation_kernel(config: Config, *, num_shots: int, steps: int) -> bool:
    """Whether the kernel supports the learner of `config` in such an evaluation."""
    inner = config.inner
    if inner.has_per_step_params and inner.alpha.after_last_step is None and steps > inner.steps:
        return False
    return not any(exceeded(ENGINE_LIMITS["native"], _as_training(config, num_shots)))


def evaluation_spec(config: Config, num_shots: int) -> KernelSpec:
    """The constants of the kernel that adapts the learner of `config` to K = `num_shots` points."""
    return kernel_spec(_as_training(config, num_shots))


def evaluations_in_training(config: Config) -> int:
    """The number of evaluations in a training."""
    return config.outer.steps // config.run.eval_every if config.run.eval_every else 0


def _as_training(config: Config, num_shots: int) -> Config:
    """The config of a training with the inner steps of `config`, whose values are in the order of MetaParams, and which
    is else as simple as possible, so that many learners share a kernel."""
    inner = config.inner
    changes = {
        "alpha": inner.alpha.model_copy(update={"learned": True, "optimizer": None}),
        "ridge": inner.ridge.model_copy(update={"learned": True}),
        "order": "second",
        "steps": inner.steps if inner.has_per_step_params or inner.head == "ridge" else 1,
    }
    sections = {
        "tasks": config.tasks.model_copy(update={"num_support": num_shots, "num_query": 1}),
        "inner": inner.model_copy(update=changes),
        "outer": config.outer.model_copy(update={"optimizer": "sgd", "meta_gradient": "query", "task_blocks": None}),
    }
    return config.model_copy(update=sections)
