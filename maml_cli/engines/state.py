"""The mutable state of a training, and the types of what engines compute with it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Generator, Tensor

from maml_cli.core import MetaParams
from maml_cli.engines.optimizers import OuterOptimizer

Notify = Callable[[str], None]
"""Called with a message for the user, such as that something is being compiled."""


@dataclass
class TrainState:
    """Everything that training changes, for R runs side by side; engines mutate it in place.

    meta_params: everything that is meta-learned, and the rule parameters that are not, (R, ...).
    optimizers: an outer optimiser for each group of learned tensors: `params`, `alpha`, `curvature`.
    generators: the random generator of each run that samples its tasks.
    step: outer steps taken.
    loss_sum: mean query losses, summed over the outer steps since the last line of the log, (R,).
    skipped_tasks: tasks left out for a loss or gradient that is not finite, since the last line of the log, (R,).
    diverged: the outer step, from 1, at which a run was frozen for a loss, gradient or update that is not finite; 0 for
        active runs, (R,).
    noise_generators: the random generator of each run for weight noise; none without.
    """

    meta_params: MetaParams
    optimizers: dict[str, OuterOptimizer]
    generators: list[Generator]
    step: int
    loss_sum: Tensor
    skipped_tasks: Tensor
    diverged: Tensor
    noise_generators: list[Generator] = field(default_factory=list)


class StepResult(NamedTuple):
    """Results of an outer step.

    loss: mean query loss of each run, (R,).
    grad_norm: norm of each run's meta-gradient before `outer.clip_norm`, (R,).
    gradients: the meta-gradient, (R, ...), as the outer optimisers got it.
    """

    loss: Tensor
    grad_norm: Tensor
    gradients: MetaParams


class BatchGradient(NamedTuple):
    """The meta-gradient of a batch of tasks, averaged over the tasks of each run.

    loss: mean query loss, (R,).
    norm: norm of the gradients, (R,).
    gradients: (R, ...).
    skipped_tasks: tasks left out because they are not finite, (R,); None where none can be.
    """

    loss: Tensor
    norm: Tensor
    gradients: MetaParams
    skipped_tasks: Tensor | None


Engine = Callable[[TrainState, int], StepResult]
"""(state, count) -> the result of the last of `count` outer steps; mutates the state, and only it."""
