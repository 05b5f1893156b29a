"""Updates that overflow: an engine is checked after each call, and the outer step at fault is repeated without them.

A value or moment that is not finite stays so in every later outer step, so that one check for each call finds it.
The outer steps of such a call are taken again from its start, one at a time: a run whose update overflows keeps the
values and moments from before that outer step, and is frozen. The outcome does not depend on how outer steps are
divided into calls.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.core import flatten, tensors, unflatten
from maml_cli.engines.state import Engine, StepResult, TrainState
from maml_cli.errors import DivergedError

LARGEST_SUM = torch.finfo(torch.float64).max


class _Saved(NamedTuple):
    """A copy of a TrainState, from which the state is restored in place.

    rows: the meta-parameters of each run, (R, P).
    moments: state tensors of the outer optimisers by optimiser and tensor; a tensor without any has no entry.
    streams: states of the random generators of tasks, then of weight noise.
    step, loss_sum, skipped_tasks, diverged: as in the TrainState.
    """

    rows: Tensor
    moments: dict[tuple[str, int], dict[str, Tensor]]
    streams: list[Tensor]
    step: int
    loss_sum: Tensor
    skipped_tasks: Tensor
    diverged: Tensor


def keep_finite(engine: Engine) -> Engine:
    """`engine`, except that a run whose update is not finite is frozen before that outer step.

    Where no active run is left, the state is that before the outer step, and DivergedError is raised.
    """

    def take_steps(state: TrainState, count: int) -> StepResult:
        before = _save(state)
        try:
            result = engine(state, count)
        except DivergedError:
            if is_finite(state):
                raise
        else:
            if is_finite(state):
                state.loss_sum.clamp_(max=LARGEST_SUM)  # a sum of finite losses may overflow in float64
                return result
        _restore(state, before)
        for _ in range(count):
            result = _take_step(engine, state)
        return result

    return take_steps


def finite_runs(state: TrainState) -> Tensor:
    """Whether all meta-parameters and moments of each run are finite: (R,), on the CPU."""
    values = [*tensors(state.meta_params), *_moments_by_run(state)]
    finite = torch.stack([value.isfinite().flatten(1).all(dim=1) for value in values]).all(dim=0)
    return finite.cpu()


def is_finite(state: TrainState) -> bool:
    """Whether all meta-parameters and moments of all runs are finite."""
    values = torch.cat([value.flatten() for value in (*tensors(state.meta_params), *_moments_by_run(state))])
    return bool(values.isfinite().all())


def _take_step(engine: Engine, state: TrainState) -> StepResult:
    """One outer step, in which runs whose update is not finite are frozen."""
    before = _save(state)
    result = engine(state, 1)
    overflowed = ~finite_runs(state)
    if overflowed.any():
        if (overflowed | (state.diverged > 0)).all():
            _restore(state, before)
            raise update_error(state.step + 1)
        _restore_runs(state, before, overflowed)
        state.diverged = torch.where(overflowed & (before.diverged == 0), state.step, state.diverged)
    state.loss_sum.clamp_(max=LARGEST_SUM)
    return result


def update_error(step: int) -> DivergedError:
    """The DivergedError of an update of outer step `step`, from 1, that overflows."""
    message = f"diverged at outer step {step}: the update of the outer step overflows: new values are not finite"
    return DivergedError(message, outer_step=step, cause="update")


def _save(state: TrainState) -> _Saved:
    return _Saved(
        flatten(tensors(state.meta_params)),
        {key: {name: value.clone() for name, value in entry.items()} for key, entry in _moments(state)},
        [stream.get_state() for stream in (*state.generators, *state.noise_generators)],
        state.step,
        state.loss_sum.clone(),
        state.skipped_tasks.clone(),
        state.diverged.clone(),
    )


def _restore(state: TrainState, saved: _Saved) -> None:
    """Return `state` to that which was saved; tensors are written in place."""
    _restore_runs(state, saved, torch.ones(len(state.diverged), dtype=torch.bool))
    for (name, index), entry in list(_moments(state)):
        if (name, index) not in saved.moments:
            outer = state.optimizers[name]
            del outer.optimizer.state[outer.tensors()[index]]
        elif "step" in entry:
            entry["step"].copy_(saved.moments[name, index]["step"])
    for stream, stream_state in zip((*state.generators, *state.noise_generators), saved.streams, strict=True):
        stream.set_state(stream_state)
    state.step = saved.step
    state.diverged = saved.diverged.clone()


def _restore_runs(state: TrainState, saved: _Saved, runs: Tensor) -> None:
    """Return the values, moments and sums of `runs`, a mask (R,), to those that were saved."""
    values = tensors(state.meta_params)
    for value, before in zip(values, unflatten(saved.rows, values), strict=True):
        mask = runs.to(value.device)
        value[mask] = before[mask]
    for key, entry in _moments(state):
        for name, moment in entry.items():
            if moment.dim():  # not the count of steps, which all runs share
                mask = runs.to(moment.device)
                moment[mask] = saved.moments[key][name][mask] if key in saved.moments else 0
    for total, before in ((state.loss_sum, saved.loss_sum), (state.skipped_tasks, saved.skipped_tasks)):
        total[runs] = before[runs]


def _moments(state: TrainState) -> Iterator[tuple[tuple[str, int], dict[str, Tensor]]]:
    """The state tensors of each learned tensor that has any, by the names of torch.optim."""
    for name, outer in state.optimizers.items():
        for index, tensor in enumerate(outer.tensors()):
            if entry := outer.optimizer.state.get(tensor):
                yield (name, index), entry


def _moments_by_run(state: TrainState) -> Iterator[Tensor]:
    return (moment for _, entry in _moments(state) for moment in entry.values() if moment.dim())
