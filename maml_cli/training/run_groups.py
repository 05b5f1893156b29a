"""Groups of runs that a process trains: all runs side by side, or a group for each run.

A run that diverges alone in its group is frozen there, as it would be beside others: its random streams continue, and
its checkpoint and log are those of a frozen run.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_cli.config import Config
from maml_cli.core import map_tensors
from maml_cli.engines import Engine, StepResult, TrainState, optimizer_state, sample_weight_noise
from maml_cli.errors import DivergedError
from maml_cli.experiment import Experiment
from maml_cli.training.processes import ONE_PROCESS, Processes


class RunGroup(NamedTuple):
    """Runs that are trained side by side.

    config: the config, with the seeds of these runs alone.
    experiment, state, engine: of these runs.
    is_recorded: whether this process reports for them; False where other processes train the same runs.
    """

    config: Config
    experiment: Experiment
    state: TrainState
    engine: Engine
    is_recorded: bool = True


def group_configs(config: Config, processes: Processes = ONE_PROCESS) -> list[tuple[int, Config]]:
    """The index of the first run and the config of each group that this process trains.

    One group of all runs, or else the runs of this rank: equal shares of the seeds in their order.
    """
    if config.run.side_by_side:
        return [(0, config)]
    count = len(config.seeds)
    mine = range(count * processes.rank // processes.size, count * (processes.rank + 1) // processes.size)
    return [(index, _with_seed(config, config.seeds[index])) for index in mine]


def _with_seed(config: Config, seed: int) -> Config:
    return config.model_copy(update={"run": config.run.model_copy(update={"seeds": [seed], "side_by_side": True})})


def take_steps(group: RunGroup, count: int) -> tuple[StepResult, DivergedError | None]:
    """Take `count` outer steps; the error of a group whose last active run diverges, which is then frozen.

    The results of frozen runs are NaN. Mutates the state of the group.
    """
    state = group.state
    streams = [*state.generators, *state.noise_generators]
    first_step, before = state.step, [stream.get_state() for stream in streams]
    error = None
    if (state.diverged == 0).any():
        try:
            return group.engine(state, count), None
        except DivergedError as raised:
            error = raised
            state.diverged = torch.where(state.diverged == 0, error.outer_step, state.diverged)
    for stream, stream_state in zip(streams, before, strict=True):
        stream.set_state(stream_state)
    _skip_steps(group, first_step, count)
    return StepResult(*_nan_result(state)), error


def _skip_steps(group: RunGroup, first_step: int, count: int) -> None:
    """Count the outer steps that frozen runs do not take, and draw their random numbers."""
    state = group.state
    group.experiment.sample(state.generators, num_steps=count)
    if state.noise_generators:
        sample_weight_noise(state.meta_params, state.noise_generators, 0.0, num_steps=count)
    state.step = first_step + count
    for outer in state.optimizers.values():
        for tensor in outer.tensors():
            optimizer_state(outer, tensor)  # zeros, if it took no step at all
        outer.add_steps(state.step - outer.steps_taken())


def _nan_result(state: TrainState) -> StepResult:
    nan = torch.full((len(state.diverged),), math.nan, dtype=torch.float64)
    return StepResult(nan, nan, map_tensors(lambda value: torch.full_like(value, math.nan), state.meta_params))


def concat_runs(parts: Sequence[Any]) -> Any:
    """The contents of one checkpoint from those of several groups: tensors are joined along the axis of runs.

    Numbers without that axis, such as counts of outer steps, are equal in all of them.
    """
    first = parts[0]
    if isinstance(first, dict):
        return {key: concat_runs([part[key] for part in parts]) for key in first}
    if isinstance(first, Tensor) and first.dim() > 0:
        return torch.cat([*parts])
    return first


def select_run_contents(contents: Any, index: int) -> Any:
    """The contents of a checkpoint for one of its runs, with copies of its tensors: the inverse of `concat_runs`."""
    return map_contents(lambda value: (value[index : index + 1] if value.dim() > 0 else value).clone(), contents)


def map_contents(change: Callable[[Tensor], Tensor], contents: Any) -> Any:
    """The contents of a checkpoint with `change` applied to every tensor."""
    if isinstance(contents, dict):
        return {key: map_contents(change, value) for key, value in contents.items()}
    return change(contents) if isinstance(contents, Tensor) else contents
