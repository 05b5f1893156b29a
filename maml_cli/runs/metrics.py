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

from maml_cli.documents import to_plain, trainings
from maml_cli.reading import read_if_exists
from maml_cli.runs.files import (
    TRUNCATED_LOG_BYTES,
    append_line,
    parse_record,
    read_last_record,
    split_lines,
    write_atomic,
)
from maml_cli.runs.log_values import decode_lists, decode_values

METRICS = "metrics.jsonl"


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


class LogShape(NamedTuple):
    """The shape of the records of a run; None for a size that is not checked.

    last_step: the last outer step.
    num_runs: R.
    num_errors: inner steps of an evaluation + 1.
    alpha_lengths: S of each alpha by key.
    """

    last_step: int = 2**63
    num_runs: int | None = None
    num_errors: int | None = None
    alpha_lengths: Mapping[str, int] | None = None


class Log(NamedTuple):
    """The records of metrics.jsonl.

    losses, evaluations: records with ascending outer steps.
    num_skipped: lines that are no such records.
    """

    losses: list[LossRecord]
    evaluations: list[EvaluationRecord]
    num_skipped: int

    @property
    def warning(self) -> str:
        """The message about lines that are skipped; empty if there are none."""
        count, verb = (self.num_skipped, "was" if self.num_skipped == 1 else "were")
        lines = f"{count:,} line{'' if count == 1 else 's'} that cannot be read {verb} skipped"
        return f"{METRICS}: {lines}" if count else ""


ANY_SHAPE = LogShape()
ERRORS = ("grid_mse", "grid_mae", "query_mse", "query_mae")


def write_losses(run: Path, record: LossRecord) -> None:
    """Append a loss record to metrics.jsonl."""
    line: dict[str, Any] = {
        "step": record.step,
        "loss": _encode_runs(record.loss, _null),
        "grad_norm": _encode_runs(record.grad_norm, _null),
    }
    if record.skipped_tasks is not None:
        line["skipped_tasks"] = _encode_runs(record.skipped_tasks, _count)
    for name, values in {"alpha": record.alpha, "alpha_grad": record.alpha_grad}.items():
        if values:
            line[name] = {key: _encode_runs(by_run, _null_list) for key, by_run in values.items()}
    append_line(run / METRICS, to_plain(trainings.LossLine.model_validate(line)))


def write_evaluation(run: Path, record: EvaluationRecord) -> None:
    """Append an evaluation to metrics.jsonl."""
    counts: dict[str, Any] = {"shots": record.shots, "num_tasks": record.num_tasks}
    errors = {name: _encode_runs(getattr(record, name), _null_list) for name in ERRORS}
    line = trainings.EvaluationLine.model_validate({"step": record.step, "eval": counts | errors})
    append_line(run / METRICS, to_plain(line))


def read_log(run: Path, shape: LogShape = ANY_SHAPE) -> Log:
    """The records of metrics.jsonl in the order of outer steps; lines that do not have `shape` are skipped and counted.

    Raises FileError if the file is not a regular one, or too large, as `split_lines` does.
    """
    log = Log([], [], 0)
    for line in split_lines(run / METRICS):
        try:
            record = parse_record(line)
            if record is None or record["step"] > shape.last_step:
                raise ValueError("not a record of this run")
            if "eval" in record:
                _append(log.evaluations, _decode_evaluation(record, shape))
            else:
                _append(log.losses, _decode_losses(record, shape))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            log = log._replace(num_skipped=log.num_skipped + 1)
    return log


def read_losses(run: Path) -> list[LossRecord]:
    """All loss records of a run, in the order of outer steps."""
    return read_log(run).losses


def read_alphas(run: Path) -> list[LossRecord]:
    """The loss records that have alphas: all of a run with learned alphas, none of one with fixed alphas."""
    return [record for record in read_losses(run) if record.alpha]


def read_evaluations(run: Path) -> list[EvaluationRecord]:
    """All evaluations of a run, in the order of outer steps."""
    return read_log(run).evaluations


def count_losses(run: Path) -> int:
    """The number of outer steps with a loss in metrics.jsonl, whatever its value; raises FileError as `read_log`."""
    records = map(parse_record, split_lines(run / METRICS))
    return len({record["step"] for record in records if record and "loss" in record})


def ends_with_evaluation(run: Path, step: int) -> bool:
    """Whether the last line of metrics.jsonl is an evaluation at outer step `step`, in a log of any number of lines."""
    last = read_last_record(run / METRICS)
    return last is not None and last["step"] == step and "eval" in last


def read_final_evaluation(run: Path, step: int) -> EvaluationRecord | None:
    """The evaluation in the last line of metrics.jsonl, if it is one after `step` outer steps; None if it is not."""
    return read_last_evaluation(run) if ends_with_evaluation(run, step) else None


def read_last_evaluation(run: Path) -> EvaluationRecord | None:
    """The last evaluation in metrics.jsonl, a log of any number of lines, of which no other record is decoded; None
    without one, or if it cannot be read. Raises FileError as `read_last_record`."""
    data = read_if_exists(run / METRICS, limit=TRUNCATED_LOG_BYTES) or b""
    end = data.rfind(b"\n") + 1  # a last line without its end was cut short by a crash
    start = data.rfind(b"\n", 0, max(data.rfind(b'"eval": {', 0, end), 0)) + 1
    try:
        return _decode_evaluation(parse_record(data[start:].partition(b"\n")[0]) or {}, ANY_SHAPE)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def remove_evaluation(run: Path, step: int) -> None:
    """Remove the last line of metrics.jsonl if it is an evaluation at outer step `step`."""
    if ends_with_evaluation(run, step):
        data = read_if_exists(run / METRICS, limit=TRUNCATED_LOG_BYTES) or b""
        write_atomic(run / METRICS, data[: data.rfind(b"\n", 0, -1) + 1])


def _encode_runs(values: Sequence[Any], encode: Callable[[Any], Any]) -> Any:
    """A single run's value as it is; the values of several runs as a list."""
    encoded = [encode(value) for value in values]
    return encoded[0] if len(encoded) == 1 else encoded


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _count(value: float) -> int | None:
    return int(value) if math.isfinite(value) else None


def _null_list(values: Sequence[float]) -> list[float | None] | None:
    """Numbers by inner step; null for the whole list of a diverged run."""
    return None if all(map(math.isnan, values)) else [_null(value) for value in values]


def _append(records: list[Any], record: Any) -> None:
    """Append `record`, whose outer step must be after that of the last one."""
    if records and record.step <= records[-1].step:
        raise ValueError("not in the order of outer steps")
    records.append(record)


def _decode_losses(line: dict[str, Any], shape: LogShape) -> LossRecord:
    loss = decode_values(line["loss"], shape.num_runs)
    skipped = decode_values(line["skipped_tasks"], len(loss)) if "skipped_tasks" in line else None
    alpha, alpha_grad = line.get("alpha", {}), line.get("alpha_grad", {})
    lengths = shape.alpha_lengths or dict.fromkeys(alpha)
    if (alpha and alpha.keys() != lengths.keys()) or not alpha_grad.keys() <= lengths.keys():
        raise ValueError("alphas of another learner")
    by_key = (
        {key: decode_lists(values, len(loss), lengths[key]) for key, values in section.items()}
        for section in (alpha, alpha_grad)
    )
    return LossRecord(line["step"], loss, decode_values(line["grad_norm"], len(loss)), skipped, *by_key)


def _decode_evaluation(line: dict[str, Any], shape: LogShape) -> EvaluationRecord:
    counts, num_runs, num_errors = line["eval"], shape.num_runs, shape.num_errors
    if any(type(counts[name]) is not int or counts[name] < 1 for name in ("shots", "num_tasks")):
        raise ValueError("not a count")
    lists: list[list[list[float]]] = []
    for name in ERRORS:
        lists.append(decode_lists(counts[name], num_runs, num_errors))
        num_runs, num_errors = len(lists[0]), len(lists[0][0])
    return EvaluationRecord(line["step"], counts["shots"], counts["num_tasks"], *lists)
