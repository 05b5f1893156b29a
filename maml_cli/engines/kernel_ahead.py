"""The kernel of a training, compiled while the training is still being prepared; without PyTorch, whose import takes as
long."""

from collections.abc import Sequence

from maml_cli.config import ENGINE_LIMITS, Config, exceeded, load_config
from maml_cli.engines.evaluation_spec import (
    evaluation_pays,
    evaluation_spec,
    evaluations_in_training,
    has_evaluation_kernel,
)
from maml_cli.engines.kernel_build import EVALUATION_SOURCE, start_compiling
from maml_cli.engines.kernel_spec import kernel_spec
from maml_cli.errors import InterruptedRun, UserError

MIN_EAGER_SECONDS = 5.0
"""`run.engine: auto` selects the kernel for trainings that last at least so long with `eager`."""
PASS_SECONDS = 2e-4
"""The overhead of a pass of `eager`, whatever the size of the network."""


def overhead_seconds(config: Config) -> float:
    """Estimated seconds of `eager` without any arithmetic, on one core."""
    return config.outer.steps * PASS_SECONDS * (1 + 2 * config.inner.steps)


def compile_ahead(source: str | None, overrides: Sequence[str], *, device: str | None) -> None:
    """Start to compile the kernels that a new training of the config `source` with `overrides` is sure to use: that of
    its outer steps, and that of its evaluations.

    What is wrong with the config is left to the training to report.
    """
    try:
        settings = [*overrides, *([f"run.device={device}"] if device else [])]
        config = load_config(source or "quickstart", settings).config
    except InterruptedRun:
        raise
    except UserError:
        return
    if _needs_kernel(config):
        start_compiling(kernel_spec(config))
        size = {"num_shots": config.tasks.max_support, "steps": config.inner.steps}
        num_tasks = evaluations_in_training(config) * config.run.eval_tasks
        if evaluation_pays(config, num_tasks=num_tasks, **size) and has_evaluation_kernel(config, **size):
            start_compiling(evaluation_spec(config, config.tasks.max_support), EVALUATION_SOURCE)


def _needs_kernel(config: Config) -> bool:
    """Whether the engine is `native`, or the one that `auto` chooses on a CPU whatever the arithmetic takes."""
    run = config.run
    is_chosen = run.engine == "native" or (run.engine == "auto" and overhead_seconds(config) >= MIN_EAGER_SECONDS)
    return is_chosen and run.device in ("auto", "cpu") and not any(exceeded(ENGINE_LIMITS["native"], config))
