"""Ways to take outer steps, all with the same meta-gradient; the owner of all mutable training state."""

from typing import TYPE_CHECKING

from maml_cli.lazy import lazy_attributes

if TYPE_CHECKING:
    from maml_cli.engines.eager import adjoint_meta_gradient
    from maml_cli.engines.evaluation_spec import evaluation_pays, evaluations_in_training
    from maml_cli.engines.finite import finite_runs, is_finite
    from maml_cli.engines.kernel_ahead import compile_ahead
    from maml_cli.engines.kernel_build import describe_compiler
    from maml_cli.engines.kernel_evaluation import (
        AdaptedPoints,
        EvaluationKernel,
        EvaluationOptions,
        evaluation_kernel,
    )
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
    "AdaptedPoints",
    "BlockShare",
    "Engine",
    "EngineKind",
    "EvaluationKernel",
    "EvaluationOptions",
    "Notify",
    "OptimizerKind",
    "OuterOptimizer",
    "StepResult",
    "TrainState",
    "adjoint_meta_gradient",
    "average_in_blocks",
    "choose_engine",
    "compile_ahead",
    "describe_compiler",
    "evaluation_kernel",
    "evaluation_pays",
    "evaluations_in_training",
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

_NAMES = {
    "eager": ["adjoint_meta_gradient"],
    "evaluation_spec": ["evaluation_pays", "evaluations_in_training"],
    "finite": ["finite_runs", "is_finite"],
    "kernel_ahead": ["compile_ahead"],
    "kernel_build": ["describe_compiler"],
    "kernel_evaluation": ["AdaptedPoints", "EvaluationKernel", "EvaluationOptions", "evaluation_kernel"],
    "optimizers": [
        "OUTER_OPTIMIZERS",
        "OptimizerKind",
        "OuterOptimizer",
        "load_state",
        "make_outer_optimizer",
        "optimizer_state",
        "save_state",
    ],
    "outer_step": ["SCHEDULES", "sample_weight_noise", "take_outer_step"],
    "registry": ["ENGINES", "EngineKind", "choose_engine", "make_engine", "unsupported"],
    "state": ["Engine", "Notify", "StepResult", "TrainState"],
    "task_blocks": ["ALL_BLOCKS", "BlockShare", "average_in_blocks"],
}
__getattr__ = lazy_attributes(__name__, {name: home for home, names in _NAMES.items() for name in names})
