"""Ways to take outer steps, all with the same meta-gradient; the owner of all mutable training state."""

from maml_cli.engines.eager import adjoint_meta_gradient
from maml_cli.engines.finite import finite_runs, is_finite
from maml_cli.engines.kernel_build import describe_compiler
from maml_cli.engines.optimizers import (
    OUTER_OPTIMIZERS,
    OptimizerKind,
    OuterOptimizer,
    load_state,
    make_outer_optimizer,
    optimizer_state,
    save_state,
)
from maml_cli.engines.outer_step import SCHEDULES, sample_weight_noise, take_outer_step
from maml_cli.engines.registry import ENGINES, EngineKind, choose_engine, make_engine, unsupported
from maml_cli.engines.state import Engine, Notify, StepResult, TrainState
from maml_cli.engines.task_blocks import ALL_BLOCKS, BlockShare, average_in_blocks

__all__ = [
    "ALL_BLOCKS",
    "ENGINES",
    "OUTER_OPTIMIZERS",
    "SCHEDULES",
    "BlockShare",
    "Engine",
    "EngineKind",
    "Notify",
    "OptimizerKind",
    "OuterOptimizer",
    "StepResult",
    "TrainState",
    "adjoint_meta_gradient",
    "average_in_blocks",
    "choose_engine",
    "describe_compiler",
    "finite_runs",
    "is_finite",
    "load_state",
    "make_engine",
    "make_outer_optimizer",
    "optimizer_state",
    "sample_weight_noise",
    "save_state",
    "take_outer_step",
    "unsupported",
]
