"""The lines of metrics.jsonl: training losses and validation errors, written and read.

{"step": 100, "loss": 3.1, "grad_norm": 0.8}             a loss record; with several runs each value is a list
{"step": 100, "eval": {"shots": 10, "grid_mse": [4.1, 2.9], ...}}         an evaluation, by inner step 0, 1, ...

A diverged run is null in the list of runs, and so is a number that is not finite: the lines are strict JSON. Both are
read as NaN. Only values that are the same whenever the run is repeated are in metrics.jsonl; times are in
timing.jsonl.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maml_cli.runs.files import append_line, read_lines

METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"


class LossRecord(NamedTuple):
    """Training losses since the previous record, with one entry for each run; NaN for runs that diverged.

    step: outer steps taken.
    loss: mean query loss over the outer steps since the previous record, (R,).
    grad_norm: norm of the last meta-gradient before clip_norm, (R,).
    skipped_tasks: tasks skipped since the previous record, (R,); None unless outer.clip_task_norm is set.
    alpha: mean alpha of each key by inner step, (R, S); empty if alpha is fixed.
    alpha_grad: mean over each alpha's elements of the last meta-gradient, (R, S); empty if alpha is fixed.
    """

    step: int
    loss: list[float]
    grad_norm: list[float]
    skipped_tasks: list[float] | None
    alpha: Mapping[str, list[list[float]]]
    alpha_grad: Mapping[str, list[list[float]]]


class EvaluationRecord(NamedTuple):
    """Mean errors on validation tasks by run and inner step, (R, inner steps + 1); NaN for runs that diverged.

    step: outer steps taken.
    shots: support points of each task.
    num_tasks: validation tasks.
    grid_mse, grid_mae: mean squared and mean absolute error on the evaluation grid.
    query_mse, query_mae: the same on the query points.
    """

    step: int
    shots: int
    num_tasks: int
    grid_mse: list[list[float]]
    grid_mae: list[list[float]]
    query_mse: list[list[float]]
    query_mae: list[list[float]]


ERRORS = ("grid_mse", "grid_mae", "query_mse", "query_mae")


def write_losses(run: Path, record: LossRecord) -> None:
    """Append a loss record to metrics.jsonl."""
    line: dict[str, Any] = {
        "step": record.step,
        "loss": _encode_runs(record.loss, _null),
        "grad_norm": _encode_runs(record.grad_norm, _null),
    }
    if record.skipped_tasks is not None:
        line["skipped_tasks"] = _encode_runs(record.skipped_tasks, _null)
    for name, values in {"alpha": record.alpha, "alpha_grad": record.alpha_grad}.items():
        if values:
            line[name] = {key: _encode_runs(by_run, _null_list) for key, by_run in values.items()}
    append_line(run / METRICS, line)


def write_evaluation(run: Path, record: EvaluationRecord) -> None:
    """Append an evaluation to metrics.jsonl."""
    line: dict[str, Any] = {"shots": record.shots, "num_tasks": record.num_tasks}
    line |= {name: _encode_runs(getattr(record, name), _null_list) for name in ERRORS}
    append_line(run / METRICS, {"step": record.step, "eval": line})


def write_timing(run: Path, step: int, *, seconds: float, steps_taken: int) -> None:
    """Append to timing.jsonl: the seconds in which this process took `steps_taken` outer steps, and its rate."""
    append_line(run / TIMING, {"step": step, "seconds": seconds, "outer_steps_per_second": steps_taken / seconds})


def read_losses(run: Path) -> list[LossRecord]:
    """All loss records of a run, in the order of outer steps."""
    return [
        LossRecord(
            line["step"],
            _decode_values(line["loss"]),
            _decode_values(line["grad_norm"]),
            _decode_values(line["skipped_tasks"]) if "skipped_tasks" in line else None,
            {key: _decode_lists(values) for key, values in line.get("alpha", {}).items()},
            {key: _decode_lists(values) for key, values in line.get("alpha_grad", {}).items()},
        )
        for line in read_lines(run / METRICS)
        if "loss" in line
    ]


def read_alphas(run: Path) -> list[LossRecord]:
    """The loss records that have alphas: all of a run with learned alphas, none of one with fixed alphas."""
    return [record for record in read_losses(run) if record.alpha]


def read_evaluations(run: Path) -> list[EvaluationRecord]:
    """All evaluations of a run, in the order of outer steps."""
    return [
        EvaluationRecord(
            line["step"],
            line["eval"]["shots"],
            line["eval"]["num_tasks"],
            *(_decode_lists(line["eval"][name]) for name in ERRORS),
        )
        for line in read_lines(run / METRICS)
        if "eval" in line
    ]


def _encode_runs(values: Sequence[Any], encode: Callable[[Any], Any]) -> Any:
    """A single run's value as it is; the values of several runs as a list."""
    encoded = [encode(value) for value in values]
    return encoded[0] if len(encoded) == 1 else encoded


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _null_list(values: Sequence[float]) -> list[float | None] | None:
    """Numbers by inner step; null for the whole list of a diverged run."""
    return None if all(map(math.isnan, values)) else [_null(value) for value in values]


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _decode_values(value: Any) -> list[float]:
    """A number, or one for each run."""
    return [_nan(number) for number in (value if isinstance(value, list) else [value])]


def _decode_lists(value: list[Any]) -> list[list[float]]:
    """A list by inner step, or one for each run. Training ends when all runs diverged: one run at least has a list."""
    lists = [run for run in value if isinstance(run, list)]
    if not lists:
        return [[_nan(number) for number in value]]
    return [[_nan(number) for number in (run or [None] * len(lists[0]))] for run in value]
