"""Poisons: NaN and Inf in what an engine reads in one outer step, so that its own code computes values that are not
finite. The engine is that of the program, kernels and graphs included."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from maml_cli.config import Config
from maml_cli.core import TaskBatch
from maml_cli.engines import ALL_BLOCKS, ENGINES, StepResult, TrainState, optimizer_state
from maml_cli.engines.registry import MakeEngine
from maml_cli.experiment import Experiment

OPTIONS = (
    "--set=model.activation=tanh",
    "--set=inner.alpha.init=1e-5",
    "--set=inner.alpha.learned=true",
    "--set=inner.alpha.per=tensor",
    "--set=inner.alpha.lr=1e-8",
    "--set=run.log_every=7",
    "--set=run.checkpoint_every=9",
)
"""Options of trainings that are poisoned: alpha is learned and stays about 1e-5, and calls of the engine take up to six
outer steps."""
HUGE = 1e22
"""A support target at which the query loss is finite and the gradient of an alpha overflows.

The inner gradient of the output bias is -2e22, so that the inner step, with alpha 1e-5, takes predictions to 2e17, and
with 40 hidden units that are at most 1 to 8e18 at most: their squares are finite in float32. The gradient of the alpha
of that bias is the product of its inner gradient and its gradient in the query loss: -2e22 * 4e17."""


class Injection(NamedTuple):
    """A value that is not finite in one outer step.

    poison: key of POISONS.
    step: the outer step, from 1.
    run: index of the run.
    """

    poison: str
    step: int
    run: int


class Poison(NamedTuple):
    """A change of the tasks or of the state that an engine reads in an outer step.

    problem: what the message about an outer step of four tasks says.
    in_batch: (batch of the outer step, run) -> None; mutates its first task of that run.
    in_state: (state before the outer step, run) -> None; mutates the state.
    """

    problem: str
    in_batch: Callable[[TaskBatch, int], None] | None = None
    in_state: Callable[[TrainState, int], None] | None = None


def _query_target(value: float) -> Callable[[TaskBatch, int], None]:
    def poison(batch: TaskBatch, run: int) -> None:
        batch.query.y[run, 0, 0] = value

    return poison


def _query_input(batch: TaskBatch, run: int) -> None:
    batch.query.x[run, 0, 0] = torch.inf


def _support_targets(batch: TaskBatch, run: int) -> None:
    batch.support.y[run, 0] = HUGE


def _first_moments(value: float) -> Callable[[TrainState, int], None]:
    def poison(state: TrainState, run: int) -> None:
        outer = state.optimizers["params"]
        (first, *_), *_ = [optimizer_state(outer, tensor) for tensor in outer.tensors()]  # creates those of all
        first[run] = value

    return poison


LOSS = "the query loss of 1 of 4 tasks is not finite"
GRADIENT = "the gradient of 1 of 4 tasks is not finite"
UPDATE = "the update of the outer step overflows: new values are not finite"
POISONS: Mapping[str, Poison] = {
    "NaN in the loss": Poison(LOSS, in_batch=_query_target(torch.nan)),
    "Inf in the loss": Poison(LOSS, in_batch=_query_target(torch.inf)),
    "NaN in the gradient": Poison(GRADIENT, in_batch=_query_input),
    "Inf in the gradient": Poison(GRADIENT, in_batch=_support_targets),
    "NaN in the update": Poison(UPDATE, in_state=_first_moments(torch.nan)),
    "Inf in the update": Poison(UPDATE, in_state=_first_moments(torch.inf)),
}
"""The poisons by name.

Loss: a query target is NaN or Inf. NaN in the gradient: a query input is Inf, where tanh is 1 or -1 and its derivative
0, so that the loss is finite and the gradient of the first weights 0 * Inf. Inf in the gradient: support targets are
HUGE. Update: the first moment of Adam of the first tensor is NaN or Inf.
"""


@dataclass
class PoisonedEngine:
    """An engine of the program in which one outer step can be poisoned.

    make: the function of the program that makes it, called once: all forks of this process share what it compiles.
    injection: the poisoned outer step; None for none.
    """

    make: MakeEngine
    config: Config
    experiment: Experiment
    injection: Injection | None = None
    _step: int = 0

    def __post_init__(self) -> None:
        experiment = self.experiment._replace(sample=self._sample)
        self._engine = self.make(self.config, experiment, notify=lambda text: None, blocks=ALL_BLOCKS)

    def __call__(self, state: TrainState, count: int) -> StepResult:
        """Take `count` outer steps, in two calls if the state is poisoned between them; mutates the state."""
        injection, self._step = self.injection, state.step
        if injection is None or not state.step < injection.step <= state.step + count:
            return self._engine(state, count)
        if (in_state := POISONS[injection.poison].in_state) is None:
            return self._engine(state, count)
        if before := injection.step - 1 - state.step:
            self._engine(state, before)
        in_state(state, injection.run)
        return self._engine(state, count - before)

    def _sample(self, generators: Sequence[torch.Generator], *, num_steps: int) -> TaskBatch:
        """The tasks of the next outer steps, those of the poisoned one among them."""
        batches: TaskBatch = self.experiment.sample(generators, num_steps=num_steps)
        if self.injection is not None and (in_batch := POISONS[self.injection.poison].in_batch) is not None:
            index = self.injection.step - 1 - self._step
            if 0 <= index < num_steps:
                in_batch(batches.step(index), self.injection.run)
        return batches


def install(engine: PoisonedEngine, injection: Injection | None) -> None:
    """Make `engine` with `injection` the program's engine of its name in this process."""
    engine.injection = injection
    name = engine.config.run.engine
    ENGINES[name] = ENGINES[name]._replace(make=lambda config, experiment, *, notify, blocks: engine)
