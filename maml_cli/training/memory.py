"""Memory of trainings, estimated before anything is allocated: parameters, optimisers, and the outer step by engine.

The values of an outer step are counted for each parameter and for each hidden unit and point of every task, in the
inner steps (support points) and at their end (query points). The coefficients are measured peaks of memory, mostly
within a factor of two; first-order gradients by autograd and Adam in the inner loop take less than estimated.
"""

from typing import Any, NamedTuple

from maml_cli.config import Config, layer_widths, native_thread_bytes, num_params, num_rule_params
from maml_cli.core import MetaParams
from maml_cli.evaluation import Lower, check_memory
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
POSTERIOR_COPIES = 20
"""Values for each entry of the covariance of a head with noise, most of them in float64."""
RUN_COPIES = 16
"""Values for each meta-parameter of a run: itself, its gradient, moments, copies before a call and in a checkpoint."""
PROCESS_BYTES = 2**27
"""Bytes of modules that are imported for training, and of the smallest training."""
INPUT_UNITS = 0.3
"""Hidden units that an input of the network counts as: it is stored, without an activation or derivatives."""
BYTES_PER_FIXED_TASK = 256
"""Bytes of a task of a fixed set: some thirty uniform numbers."""
BYTES_PER_POINT = 96
"""Bytes of a sampled point: random numbers, inputs and targets, in float64 and in the run's dtype."""
LOWEST: dict[str, Any] = {
    "outer.tasks_per_step": 1,
    "tasks.num_support": 1,
    "tasks.num_query": 1,
    "tasks.count": None,
    "inner.steps": 1,
    "run.seeds": None,
    "run.threads": 1,
    "model.num_context": 0,
    "model.hidden": [],
}
"""Keys that can be lowered, each with the value of least memory."""
HELPFUL = 0.8
"""Fraction of the memory that must remain at most, at the lowest value of a key, for the key to be named."""


def check_training_memory(config: Config, engine: str, template: MetaParams, *, num_processes: int = 1) -> None:
    """Raises ConfigError if the training would need more memory than is available: the process would be killed.

    `template` has the shapes of the meta-parameters, which evaluations adapt; `num_processes` on this machine train.
    """
    sizes = " x ".join(map(str, config.model.hidden)) or "none"
    purpose = (
        f"an outer step of {_tasks_at_a_time(config):,} tasks with "
        f"{config.tasks.max_support + config.tasks.num_query:,} points and hidden layers {sizes} (engine {engine})"
    )
    needed = num_processes * training_bytes(config, engine)
    require_memory(needed, purpose=purpose, lower=" or ".join(keys_to_lower(config, engine)))
    if config.run.eval_every:
        check_memory(
            template,
            num_tasks=config.run.eval_tasks,
            num_shots=config.tasks.max_support,
            steps=config.inner.steps,
            lower=Lower("run.eval_tasks, run.seeds or inner.steps", "tasks.num_support, run.seeds or model.hidden"),
        )


def keys_to_lower(config: Config, engine: str) -> list[str]:
    """The keys that reduce the memory of a training by themselves, in the order of LOWEST, or else the one that
    reduces it most."""
    needed = training_bytes(config, engine)
    remaining = {key: training_bytes(_lowered(config, key), engine) / needed for key in LOWEST}
    return [key for key in remaining if remaining[key] < HELPFUL] or [min(remaining, key=lambda key: remaining[key])]


def _lowered(config: Config, key: str) -> Config:
    """`config` with the value of least memory at `key`; constraints are not checked."""
    section, name = key.split(".")
    changed = getattr(config, section).model_copy(update={name: LOWEST[key]})
    return config.model_copy(update={section: changed})


def training_bytes(config: Config, engine: str) -> float:
    """The estimated peak of memory of a training, in bytes, beyond that of the process before it."""
    num_meta_params = num_params(config) + num_rule_params(config)
    num_tasks, points = _tasks_at_a_time(config), config.tasks
    value_bytes = 8 if config.run.dtype == "float64" else 4
    per_run = PROCESS_BYTES + RUN_COPIES * num_meta_params * len(config.seeds) * value_bytes
    sampled = num_tasks * (points.max_support + points.num_query) * BYTES_PER_POINT
    sampled += (points.count or 0) * len(config.seeds) * BYTES_PER_FIXED_TASK
    if engine == "native":
        return (
            per_run + sampled + config.run.threads * native_thread_bytes(config) + _team_bytes(config, num_meta_params)
        )
    return per_run + sampled + num_tasks * value_bytes * _values_of_task(config, engine)


def _tasks_at_a_time(config: Config) -> int:
    """Tasks that the engine computes at once: those of a block, of all runs side by side."""
    in_block = -(-config.outer.tasks_per_step // (config.outer.task_blocks or 1))
    return in_block * (len(config.seeds) if config.run.side_by_side else 1)


def _num_units(config: Config) -> float:
    """Hidden units, and the inputs that are stored for each point: x, the context, and the parameters of a task."""
    return sum(config.model.hidden) + INPUT_UNITS * layer_widths(config)[0]


def _values_of_task(config: Config, engine: str) -> float:
    inner, tasks = config.inner, config.tasks
    values, units = ENGINES.get(engine, ENGINES["reference"]), _num_units(config)
    is_curved = config.model.activation != "relu"
    uses_adjoint = engine in ("eager", "compiled") and config.outer.meta_gradient == "query"
    if (
        not uses_adjoint
        or inner.optimizer != "sgd"
        or inner.head != "gradient"
        or inner.order == "implicit"
        or inner.proximal
        or inner.alpha.scale != 1
    ):
        values = ENGINES["reference"]
    stores_all = config.outer.meta_gradient == "query" and inner.order != "implicit"
    steps = inner.steps if stores_all else 1
    activations = RECOMPUTED_STEPS if engine == "eager" and inner.recompute_activations else steps
    if stores_all and values is not ENGINES["compiled"]:
        activations += 1  # the passes of a single step, beside those that are stored
    factor = 1.0
    for setting, more in FACTORS.items():
        if setting in (inner.order, inner.optimizer, inner.curvature):
            factor = more
    posterior = 0 if inner.ridge.noise is None else POSTERIOR_COPIES * (config.model.hidden[-1:] or [1])[0] ** 2
    return posterior + factor * (
        num_params(config) * (values.params + values.params_by_step * steps)
        + 3 * num_rule_params(config)
        + (values.curved if is_curved else values.support) * tasks.max_support * units * min(activations, steps + 1)
        + (values.curved_query if is_curved else values.query) * tasks.num_query * units
    )


def _team_bytes(config: Config, num_meta_params: int) -> int:
    """Gradients of each task, which the threads of a team share; runs with a thread of their own have none."""
    if config.run.threads < 2 * len(config.seeds):
        return 0
    num_tasks = len(config.seeds) * config.outer.tasks_per_step
    return num_tasks * num_meta_params * (8 if config.run.dtype == "float64" else 4)
