"""The lines of metrics.jsonl: one run or several, diverged runs, and what is read back."""

import json
import math
import tracemalloc
from pathlib import Path

import pytest

from maml_cli.errors import FileError
from maml_cli.runs import EvaluationRecord, LossRecord, read_alphas, read_evaluations, read_lines, read_losses
from maml_cli.runs.files import LOG_LINES
from maml_cli.runs.metrics import (
    LogShape,
    ends_with_evaluation,
    read_last_evaluation,
    read_log,
    write_evaluation,
    write_losses,
)
from maml_cli.runs.timing import write_timing

NAN = math.nan


def _same(actual: object, expected: object) -> bool:
    """Equal, with NaN equal to NaN: repr writes both alike."""
    return repr(actual) == repr(expected)


def test_a_loss_of_one_run_is_a_number_and_of_several_a_list(tmp_path: Path) -> None:
    write_losses(tmp_path, LossRecord(5, [1.5], [0.25], [2], {"alpha": [[0.1, 0.2]]}, {"alpha": [[3.0, 4.0]]}))
    write_losses(tmp_path, LossRecord(10, [1.5, NAN], [0.25, NAN], None, {}, {}))
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == [
        '{"step": 5, "loss": 1.5, "grad_norm": 0.25, "skipped_tasks": 2, "alpha": {"alpha": [0.1, 0.2]}, '
        '"alpha_grad": {"alpha": [3.0, 4.0]}}',
        '{"step": 10, "loss": [1.5, null], "grad_norm": [0.25, null]}',
    ]


@pytest.mark.parametrize(
    "record",
    [
        LossRecord(5, [1.5], [0.25], [2.0], {"alpha": [[0.1, 0.2]]}, {"alpha": [[3.0, 4.0]]}),
        LossRecord(5, [1.5, NAN], [0.25, NAN], [0.0, NAN], {"h.w": [[0.1], [NAN]]}, {"h.w": [[0.1], [NAN]]}),
        LossRecord(5, [1.5, 2.5], [0.25, 1.0], None, {}, {}),
    ],
)
def test_losses_are_read_as_they_were_written(record: LossRecord, tmp_path: Path) -> None:
    write_losses(tmp_path, record)
    assert _same(read_losses(tmp_path), [record])
    assert _same(read_alphas(tmp_path), [record] if record.alpha else [])


@pytest.mark.parametrize(
    "errors", [[[3.0, 2.0]], [[3.0, 2.0], [NAN, NAN]], [[NAN, NAN], [5.0, NAN]]], ids=["one", "second", "first"]
)
def test_evaluations_are_read_as_they_were_written(errors: list[list[float]], tmp_path: Path) -> None:
    record = EvaluationRecord(5, 10, 100, errors, errors, errors, errors)
    write_evaluation(tmp_path, record)
    assert _same(read_evaluations(tmp_path), [record]) and read_losses(tmp_path) == []


def test_a_number_that_overflows_is_null_and_a_diverged_run_is_null_entirely(tmp_path: Path) -> None:
    errors = [[1.0, math.inf], [NAN, NAN]]
    write_evaluation(tmp_path, EvaluationRecord(5, 10, 100, errors, errors, errors, errors))
    (line,) = read_lines(tmp_path / "metrics.jsonl")
    assert line["eval"]["grid_mse"] == [[1.0, None], None]
    write_evaluation(tmp_path, EvaluationRecord(6, 10, 100, *([[[math.inf, math.inf]]] * 4)))
    last = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last, parse_constant=pytest.fail)["eval"]["query_mae"] == [None, None]
    assert _same(read_evaluations(tmp_path)[-1].query_mae, [[NAN, NAN]])


def test_a_timing_has_the_rate_of_the_steps_that_this_process_took(tmp_path: Path) -> None:
    """Resumed at outer step 100: 50 more in 4 s are 12.5 a second."""
    write_timing(tmp_path, 150, seconds=4.0, rate=12.5)
    assert read_lines(tmp_path / "timing.jsonl") == [{"step": 150, "seconds": 4.0, "outer_steps_per_second": 12.5}]


LOSS = '{"step": 5, "loss": 2.0, "grad_norm": 1.0}'
HOSTILE_LINES = [
    "",
    "not json",
    "[" * 100_000,
    '{"step": 6, "loss": 1.0, "grad_norm": 1.0, "x": [' + "[]," * 100_000 + "1]}",
    '{"step": 6, "loss": 1.0, "grad_norm": 1.0, "x": [' + "{}," * 100_000 + "1]}",
    '{"step": true, "loss": 1.0, "grad_norm": 1.0}',
    '{"step": -1, "loss": 1.0, "grad_norm": 1.0}',
    '{"step": 6, "loss": "1", "grad_norm": 1.0}',
    '{"step": 6, "loss": {"a": 1}, "grad_norm": 1.0}',
    '{"step": 6, "loss": [1.0, 2.0], "grad_norm": 1.0}',
    '{"step": 6, "loss": true, "grad_norm": 1.0}',
    '{"step": 6, "loss": 1.0}',
    '{"step": 6, "loss": 1.0, "grad_norm": 1.0, "alpha": [1]}',
    '{"step": 6, "loss": 1.0, "grad_norm": 1.0, "alpha": {"a": 3}}',
    '{"step": 6, "eval": []}',
    '{"step": 6, "eval": {"shots": 5, "num_tasks": 2, "grid_mse": 1}}',
    '{"step": 1' + "0" * 400 + ', "loss": 1.0, "grad_norm": 1.0}',
    '{"step": 4, "loss": 1.0, "grad_norm": 1.0}',
]


@pytest.mark.parametrize("line", HOSTILE_LINES, ids=range(len(HOSTILE_LINES)))
def test_a_line_that_is_no_record_is_skipped_and_counted(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f"{LOSS}\n{line}\n")
    log = read_log(tmp_path)
    assert [(record.step, record.loss) for record in log.losses] == [(5, [2.0])] and not log.evaluations
    assert log.num_skipped == (line != "")
    expected = "metrics.jsonl: 1 line that cannot be read was skipped" if line else ""
    assert log.warning == expected


def test_a_log_of_more_lines_than_are_read_in_a_second_is_refused_and_its_last_line_is_still_read(
    tmp_path: Path,
) -> None:
    """However short they are: a line costs more than its bytes."""
    file = tmp_path / "metrics.jsonl"
    file.write_text("{}\n" * (LOG_LINES - 1) + f"{LOSS}\n")
    assert [record.step for record in read_log(tmp_path).losses] == [5] and not ends_with_evaluation(tmp_path, 5)
    evaluation = '{"step": 5, "eval": {}}'
    file.write_text("{}\n" * LOG_LINES + f"{evaluation}\n")
    with pytest.raises(FileError, match=r"metrics\.jsonl: more than 100,000 lines, the limit for a log that is read"):
        read_log(tmp_path)
    assert ends_with_evaluation(tmp_path, 5) and not ends_with_evaluation(tmp_path, 4)
    file.write_text(f"{evaluation[:-1]}")
    assert not ends_with_evaluation(tmp_path, 5)


def test_lists_of_a_line_are_refused_by_their_lengths_and_take_memory_in_proportion_to_it(tmp_path: Path) -> None:
    """One list of 3,000 numbers and 2,999 diverged runs would be 9 million numbers: 72 MB for a line of 30 KB."""
    value = json.dumps([[0.5] * 3000] + [None] * 2999)
    errors = ", ".join(f'"{name}": {value}' for name in ("grid_mse", "grid_mae", "query_mse", "query_mae"))
    line = f'{{"step": 5, "eval": {{"shots": 5, "num_tasks": 2, {errors}}}}}\n'
    (tmp_path / "metrics.jsonl").write_text(line)
    tracemalloc.start()
    log = read_log(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(log.evaluations[0].grid_mse) == 3000 and peak < 5e6
    for shape in LogShape(num_runs=2999), LogShape(num_errors=2999):
        assert read_log(tmp_path, shape).num_skipped == 1
    assert read_log(tmp_path, LogShape(num_runs=3000, num_errors=3000)).num_skipped == 0


def test_whole_numbers_of_any_size_are_read_as_floats_or_skipped(tmp_path: Path) -> None:
    """numpy has no whole numbers of more than 64 bits."""
    numbers = [2**64, 10**308, 10**400]
    lines = [f'{{"step": {step}, "loss": {loss}, "grad_norm": 1}}\n' for step, loss in enumerate(numbers)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    log = read_log(tmp_path)
    assert _same([record.loss for record in log.losses], [[2.0**64], [1e308]]) and log.num_skipped == 1


def test_the_last_evaluation_is_that_of_the_last_complete_line_with_one(tmp_path: Path) -> None:
    assert read_last_evaluation(tmp_path) is None
    for step in (4, 8):
        write_evaluation(tmp_path, EvaluationRecord(step, 10, 100, *([[[float(step)]]] * 4)))
    write_losses(tmp_path, LossRecord(9, [1.0], [1.0], None, {}, {}))
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 12, "eval": {"shots": 10, "num_')  # a crash
    last = read_last_evaluation(tmp_path)
    assert last is not None and (last.step, last.grid_mse) == (8, [[8.0]])
