"""Results of a sweep: a row for each trial, the best first, from its storage."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from optuna.trial import FrozenTrial, TrialState

from maml_cli.config import parse_list, value_text
from maml_cli.evaluation import mean, t_interval
from maml_cli.sweeps.liveness import Watch
from maml_cli.sweeps.record import Sweep
from maml_cli.sweeps.slots import is_live, trials_by_slot
from maml_cli.sweeps.storage import Store, quiet_optuna, storage_errors
from maml_cli.sweeps.worker import ERRORS, PROBLEM, STEP

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


class TrialRow(NamedTuple):
    """A trial of a sweep.

    number: its number, from 1.
    values: the value of each key that varies; empty for one whose values no sampler has chosen yet.
    state: complete, pruned, diverged, failed, running, stopped or waiting.
    error: mean over seeds of its last validation error; None before the first, infinite if a seed diverged.
    ci95_seeds: half width of its 95 % interval over seeds; None for a single seed.
    errors: the error of each seed.
    step: the outer step of the error.
    run: its run directory.
    problem: why it failed or diverged, in words.
    """

    number: int
    values: Mapping[str, object]
    state: str
    error: float | None
    ci95_seeds: float | None
    errors: tuple[float, ...]
    step: int
    run: Path
    problem: str

    @property
    def is_ended(self) -> bool:
        """Whether no process will train it any more."""
        return self.state in ("complete", "diverged", "pruned", "failed")

    @property
    def is_ranked(self) -> bool:
        """Whether it was trained to the end, with an error that is finite."""
        return self.state == "complete" and self.error is not None and math.isfinite(self.error)


def read_rows(sweep: Sweep, store: Store) -> list[TrialRow]:
    """The trials of a sweep: those trained to the end by their error, then the others by their number."""
    watch = Watch(sweep.directory)
    with quiet_optuna(), storage_errors(sweep):
        combinations = list(sweep.space.combinations()) if sweep.space.is_grid else []
        rows = []
        for slot, trials in trials_by_slot(store, sweep.space).items():
            texts = combinations[slot - 1] if combinations else {}
            rows.append(_row(sweep, slot, trials, watch, texts))
    return sorted(rows, key=_rank)


def _row(sweep: Sweep, slot: int, trials: list[FrozenTrial], watch: Watch, texts: Mapping[str, str]) -> TrialRow:
    live = next(filter(is_live, trials), None)
    with_params = [trial for trial in trials if trial.params]
    if not texts and with_params:
        params = (live if live and live.params else with_params[-1]).params
        texts = {
            at.key: params[at.key] if at.values else value_text(params[at.key])
            for at in sweep.space.dimensions
            if at.key in params
        }
    values = {key: parse_list(text)[0] for key, text in texts.items()}
    attributes = live.user_attrs if live else {}
    errors = tuple(math.inf if error is None else float(error) for error in attributes.get(ERRORS, ()))
    has_interval = len(errors) > 1
    return TrialRow(
        number=slot,
        values=values,
        state=_state(live, trials, watch),
        error=mean(errors) if errors else None,
        ci95_seeds=t_interval(errors) if has_interval else None,
        errors=errors,
        step=int(attributes.get(STEP, 0)),
        run=sweep.run(slot),
        problem=str(attributes.get(PROBLEM, "")),
    )


def _state(live: FrozenTrial | None, trials: list[FrozenTrial], watch: Watch) -> str:
    if live is None:
        return "stopped" if trials else "waiting"
    if live.state == TrialState.FAIL:
        return "failed"
    if live.state == TrialState.COMPLETE and PROBLEM in live.user_attrs:
        return "diverged"
    if live.state == TrialState.RUNNING and watch.is_alive(live) is False:
        return "stopped"
    if live.state == TrialState.WAITING and any(trial.params for trial in trials if trial is not live):
        return "stopped"
    return STATES[live.state]


def _rank(row: TrialRow) -> tuple[int, float, int]:
    order = ("complete", "diverged", "pruned", "running", "stopped", "waiting", "failed")
    error = math.inf if row.error is None else row.error
    return order.index(row.state), error, row.number
