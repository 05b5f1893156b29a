"""Slots: the numbered trials of a sweep, each trained exactly once, whichever processes come and go.

A slot is a number from 1; a trial of Optuna's belongs to one slot, and a slot has several of them only if a worker
died or was stopped. All slots are entered as waiting trials when a sweep begins. A worker claims one by a change of its
state, which the storage grants to one process alone. The trial of a worker that died fails, and another one with the
same values is entered, whose run is resumed. Of two that processes entered at the same time, the second is void.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from maml_cli.config import value_text
from maml_cli.sweeps.liveness import WORKER, Watch
from maml_cli.sweeps.space import Dimension, Space
from maml_cli.sweeps.storage import Store

SLOT, FINAL = "slot", "final"
"""Attributes of a trial: the number of its slot, and whether its failure is not repeated."""
LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)


class Claim(NamedTuple):
    """A trial that this worker trains.

    slot: its number in the sweep, from 1.
    number: its number in the storage.
    trial: its trial of Optuna's.
    values: the text of each value by key.
    """

    slot: int
    number: int
    trial: optuna.Trial
    values: Mapping[str, str]


def trials_by_slot(store: Store, space: Space) -> dict[int, list[FrozenTrial]]:
    """The trials of each slot in the order of their numbers; none for a slot that was not entered yet."""
    slots: dict[int, list[FrozenTrial]] = {slot: [] for slot in range(1, space.num_trials + 1)}
    for trial in store.study.get_trials(deepcopy=False):
        slots.get(trial.user_attrs.get(SLOT, 0), []).append(trial)
    return slots


def is_live(trial: FrozenTrial) -> bool:
    """Whether a trial stands for its slot: it waits, runs or has ended for good."""
    return trial.state in LIVE or FINAL in trial.user_attrs


def enter_slots(store: Store, space: Space, watch: Watch) -> None:
    """Fail the trials of workers that died, and enter a waiting trial for every slot without a live one."""
    for trial in store.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if watch.is_alive(trial) is False:
            with contextlib.suppress(RuntimeError):  # its worker, or another process, was faster
                store.storage.set_trial_state_values(store.trial_id(trial.number), state=TrialState.FAIL)
    grid = list(space.combinations()) if space.is_grid else None
    for slot, trials in trials_by_slot(store, space).items():
        if not any(map(is_live, trials)):
            params = _params(trials, grid[slot - 1] if grid else {})
            store.study.enqueue_trial(dict(params), user_attrs={SLOT: slot})


def claim_slot(store: Store, space: Space, worker: str) -> Claim | None:
    """Claim the first waiting trial for `worker`; None if no trial waits."""
    while True:
        slots = trials_by_slot(store, space)
        pairs = ((slot, trial) for slot, trials in slots.items() for trial in trials)
        slot, frozen = next(((s, t) for s, t in pairs if t.state == TrialState.WAITING), (0, None))
        if frozen is None:
            return None
        if not _begin(store, frozen, worker):
            continue
        others = [trial for trial in trials_by_slot(store, space)[slot] if trial.number < frozen.number]
        has_params = _params(others, {}).keys() <= frozen.system_attrs.get("fixed_params", {}).keys()
        if any(map(is_live, others)) or not has_params:
            store.study.tell(frozen.number, state=TrialState.FAIL)
            continue
        store.study.sampler = _sampler(space.seed, slot)
        trial = optuna.Trial(store.study, store.trial_id(frozen.number))
        return Claim(slot, frozen.number, trial, {at.key: _suggest(trial, at) for at in space.dimensions})


def _begin(store: Store, trial: FrozenTrial, worker: str) -> bool:
    """Whether this process, and no other, has changed the state of a waiting trial to running."""
    identity = store.trial_id(trial.number)
    try:
        if not store.storage.set_trial_state_values(identity, state=TrialState.RUNNING):
            return False
    except RuntimeError:  # another process has even finished it
        return False
    store.storage.set_trial_user_attr(identity, WORKER, worker)
    return True


def _params(trials: list[FrozenTrial], otherwise: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parameters that the last of `trials` with any was given, or `otherwise`."""
    return next((trial.params for trial in reversed(trials) if trial.params), otherwise)


def _sampler(seed: int, slot: int) -> optuna.samplers.BaseSampler:
    """The sampler of one slot: its proposal depends on the trials so far, and on nothing else of its process."""
    digest = hashlib.sha256(json.dumps([seed, slot]).encode()).digest()
    return optuna.samplers.TPESampler(
        seed=int.from_bytes(digest[:4], "big"),
        multivariate=True,
        constant_liar=True,
    )


def _suggest(trial: optuna.Trial, at: Dimension) -> str:
    if at.values:
        return trial.suggest_categorical(at.key, at.values)
    if at.is_whole:
        return value_text(trial.suggest_int(at.key, int(at.low), int(at.high), log=at.is_log))
    return value_text(trial.suggest_float(at.key, at.low, at.high, log=at.is_log))
