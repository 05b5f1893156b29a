"""Memory of trainings, estimated before anything is allocated: parameters, optimisers, and the outer step by engine.

The values of an outer step are counted for each parameter and for each hidden unit and point of every task, in the
inner steps (support points) and at their end (query points). The coefficients are measured peaks of memory, within a
factor of 1.5.
"""

from itertools import pairwise
from typing import NamedTuple

from maml_cli.config import Config
from maml_cli.core import layer_sizes
from maml_cli.experiment import num_inputs
from maml_cli.memory import require_memory


class ValuesPerStep(NamedTuple):
    """Values that an outer step holds at its peak, for each task.

    params, params_by_step: for each parameter, in all and for each inner step.
    support: for each hidden unit, support point and inner step; `curved` in place of it where f'' is not zero.
    query, curved_query: for each hidden unit and query point.
    """

    params: float
    params_by_step: float
    support: float
    curved: float
    query: float
    curved_query: float


ADJOINT = ValuesPerStep(2.5, 1.4, 4.2, 6.5, 5.0, 6.0)
ENGINES = {
    "eager": ADJOINT,
    "reference": ValuesPerStep(4.5, 0.9, 2.5, 5.3, 2.5, 3.7),
    "compiled": ValuesPerStep(5.0, 0.5, 2.5, 5.0, 6.0, 6.5),
}
"""Engines whose outer step takes all tasks at once; one that is missing counts as `reference`."""
RECOMPUTED_STEPS = 2.2
"""Inner steps whose activations the eager engine has in memory with inner.recompute_activations."""
FACTORS = {"adam": 2.5, "kronecker": 1.8, "implicit": 2.8}
"""Settings of the inner loop that need more: states of the optimiser, products of a curvature, conjugate gradients."""
RUN_COPIES = 8
"""Values for each meta-parameter of a run: itself, its gradient, moments, and copies in a checkpoint."""
BYTES_PER_POINT = 96
"""Bytes of a sampled point: random numbers, inputs and targets, in float64 and in the run's dtype."""
MAX_TASK_BYTES = 2**26
"""Working memory of a thread of the native engine at most."""


def check_training_memory(config: Config, engine: str, *, num_processes: int = 1) -> None:
    """Raises ConfigError if as many processes need more memory than is available: they would be killed."""
    sizes = " x ".join(map(str, config.model.hidden))
    purpose = (
        f"an outer step of {_tasks_at_a_time(config):,} tasks with "
        f"{config.tasks.num_support + config.tasks.num_query:,} points and hidden layers {sizes} (engine {engine})"
    )
    keys = {
        "outer.tasks_per_step": config.outer.tasks_per_step > 1,
        "tasks.num_support": config.tasks.num_support > 10,
        "tasks.num_query": config.tasks.num_query > 10,
        "inner.steps": config.inner.steps > 1,
        "run.seeds": len(config.seeds) > 1,
        "model.hidden": True,
    }
    *first, last = [key for key, can_be_lower in keys.items() if can_be_lower]
    lower = f"{', '.join(first)} or {last}" if first else last
    require_memory(num_processes * training_bytes(config, engine), purpose=purpose, lower=lower)


def training_bytes(config: Config, engine: str) -> float:
    """The estimated peak of memory of a training, in bytes, beyond that of the process before it."""
    sizes = layer_sizes(config.model.hidden, num_inputs=num_inputs(config))
    num_params = sum((ins + 1) * outs for ins, outs in pairwise(sizes))
    num_meta_params = num_params + _num_rule_params(config, sizes, num_params)
    num_tasks, points = _tasks_at_a_time(config), config.tasks
    value_bytes = 8 if config.run.dtype == "float64" else 4
    per_run = RUN_COPIES * num_meta_params * len(config.seeds) * value_bytes
    sampled = num_tasks * (points.num_support + points.num_query) * BYTES_PER_POINT
    if engine == "native":
        return per_run + sampled + config.run.threads * MAX_TASK_BYTES / 4 + _team_bytes(config, num_meta_params)
    return per_run + sampled + num_tasks * value_bytes * _values_of_task(config, engine, num_params, num_meta_params)


def _tasks_at_a_time(config: Config) -> int:
    """Tasks that the engine computes at once: those of a block, of all runs side by side."""
    in_block = -(-config.outer.tasks_per_step // (config.outer.task_blocks or 1))
    return in_block * (len(config.seeds) if config.run.side_by_side else 1)


def _values_of_task(config: Config, engine: str, num_params: int, num_meta_params: int) -> float:
    inner, tasks = config.inner, config.tasks
    values, units = ENGINES.get(engine, ENGINES["reference"]), sum(config.model.hidden)
    is_curved = config.model.activation != "relu"
    uses_adjoint = engine in ("eager", "compiled") and config.outer.meta_gradient == "query"
    if not uses_adjoint or inner.optimizer != "sgd" or inner.order == "implicit" or inner.proximal:
        values = ENGINES["reference"]
    stores_all = config.outer.meta_gradient == "query" and inner.order != "implicit"
    steps = inner.steps if stores_all else 1
    # The passes of a single step are in memory beside those that are stored.
    activations = RECOMPUTED_STEPS if engine == "eager" and inner.recompute_activations else steps
    if values is ENGINES["reference"] and stores_all:
        activations += 1
    factor = 1.0
    for setting, more in FACTORS.items():
        if setting in (inner.order, inner.optimizer, inner.curvature):
            factor = more
    learned = num_meta_params - num_params
    return factor * (
        num_params * (values.params + values.params_by_step * steps)
        + 3 * learned
        + (values.curved if is_curved else values.support) * tasks.num_support * units * min(activations, steps + 1)
        + (values.curved_query if is_curved else values.query) * tasks.num_query * units
    )


def _num_rule_params(config: Config, sizes: list[int], num_params: int) -> int:
    """Parameters of the update rule of a run: alphas of each parameter, and factors of a curvature."""
    inner, alpha = config.inner, config.inner.alpha
    count = num_params * (inner.steps if alpha.per_step else 1) if alpha.per == "parameter" else 0
    if inner.curvature != "none":
        factors = sum(ins * ins + outs * outs for ins, outs in pairwise(sizes))
        count += factors * (inner.steps if inner.curvature_per_step else 1)
    return count


def _team_bytes(config: Config, num_meta_params: int) -> int:
    """Gradients of each task, which the threads of a team share; runs with a thread of their own have none."""
    if config.run.threads < 2 * len(config.seeds):
        return 0
    num_tasks = len(config.seeds) * config.outer.tasks_per_step
    return num_tasks * num_meta_params * (8 if config.run.dtype == "float64" else 4)
