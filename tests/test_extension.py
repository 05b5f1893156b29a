"""Extended runs, `maml train --resume RUN --set outer.steps=N`: they end with the bytes of a run planned with N."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maml_cli.config import load_config
from maml_cli.engines import kernel_build
from maml_cli.errors import ConfigError
from maml_cli.runs import checkpoint_files, open_checkpoint, read_lines
from maml_cli.training import Hooks, extension, loop, plan_training, session
from tests.conformance import FULL
from tests.conftest import Cli

TINY = [
    *("outer.tasks_per_step=3", "model.hidden=[6]", "run.eval_tasks=3", "run.device=cpu", "run.engine=eager"),
    *("run.log_every=5", "run.eval_every=5", "run.checkpoint_every=5"),
]
ENGINES = ["eager", "reference", *(["native"] if kernel_build.compiler() else [])]


def _train(cli: Cli, out: str, *changes: str) -> Path:
    settings = [word for key in [*TINY, *changes] for word in ("-s", key)]
    result = cli("train", "-c", "smoke", "-q", *settings, "--out", out)
    assert result.code == 0, result.err
    return Path(out)


def _extend(cli: Cli, run: Path | str, steps: int = 40, *options: str) -> str:
    result = cli("train", "--resume", run, "-s", f"outer.steps={steps}", *options)
    assert result.code == 0, result.err
    return result.out + result.err


def _files(run: Path) -> dict[str, bytes]:
    """All files of a run that are the same whenever it is repeated."""
    files = [file for file in run.rglob("*") if file.is_file() and file.name not in ("timing.jsonl", ".lock")]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def _intervals(log: int, evaluation: int, saved: int) -> list[str]:
    return [f"run.log_every={log}", f"run.eval_every={evaluation}", f"run.checkpoint_every={saved}"]


@pytest.mark.parametrize(
    ("intervals", "first_step"),
    [
        (_intervals(5, 5, 5), 20),  # all are due at outer step 20
        (_intervals(5, 7, 5), 20),  # the evaluation at 20 is not
        (_intervals(4, 0, 7), 20),  # the checkpoint at 20 is not
        (_intervals(7, 5, 5), 15),  # the log line at 20 is not: it started new sums of losses
        (_intervals(7, 6, 9), 18),
        (_intervals(30, 30, 30), 0),
    ],
)
def test_a_run_of_20_extended_to_40_has_the_files_of_one_planned_with_40(
    intervals: list[str], first_step: int, cli: Cli
) -> None:
    run, planned = _train(cli, "a", "outer.steps=20", *intervals), _train(cli, "b", "outer.steps=40", *intervals)
    assert f"a: resumed at outer step {first_step}\n" in _extend(cli, run)
    assert _files(run) == _files(planned)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("log_every", [5, 7])
@pytest.mark.parametrize("side_by_side", ["true", "false"])
def test_two_seeds_with_learned_alpha_and_weight_noise_are_extended(
    side_by_side: str, log_every: int, engine: str, cli: Cli
) -> None:
    changes = [
        *("run.seeds=2", f"run.side_by_side={side_by_side}", "inner.alpha.learned=true", "outer.weight_noise=0.01"),
        *(f"run.engine={engine}", f"run.log_every={log_every}", "run.eval_every=6"),
    ]
    run, planned = _train(cli, "a", "outer.steps=20", *changes), _train(cli, "b", "outer.steps=40", *changes)
    _extend(cli, run, 40, "-q")
    assert _files(run) == _files(planned)


@pytest.mark.parametrize(("stopped_at", "steps"), [(13, 40), (13, 17), (15, 16)])
def test_an_interrupted_run_of_20_gets_more_or_fewer_outer_steps(stopped_at: int, steps: int, cli: Cli) -> None:
    changes = ["run.log_every=7", "run.eval_every=6"]
    planned = _files(_train(cli, "b", f"outer.steps={steps}", *changes))
    run = _stopped(cli, "a", stopped_at, *changes)
    _extend(cli, run, steps, "-q")
    actual = _files(run)
    if stopped_at % 5:  # the checkpoint of an interruption stays, as it does without an extension
        del actual[f"checkpoints/step-{stopped_at:08d}.pt"]
        actual["checkpoints/SHA256SUMS"] = planned["checkpoints/SHA256SUMS"]
    assert actual == planned


def _stopped(cli: Cli, out: str, step: int, *changes: str) -> Path:
    """A run of 20 outer steps that a signal stopped after `step`."""
    with pytest.MonkeyPatch.context() as patch:

        def stop(config: object, groups: list[object], *arguments: object, **options: object) -> object:
            options["hooks"] = Hooks(interrupted=lambda: 2 if groups[0].state.step >= step else 0)  # type: ignore[attr-defined]
            return loop.train(config, groups, *arguments, **options)  # type: ignore[arg-type]

        patch.setattr(session, "train", stop)
        patch.setattr(loop, "MAX_STEPS_PER_CALL", 1)
        settings = [word for key in [*TINY, "outer.steps=20", *changes] for word in ("-s", key)]
        assert cli("train", "-c", "smoke", "-q", *settings, "--out", out).code == 130
    assert open_checkpoint(Path(out)).step == step
    return Path(out)


def test_a_run_is_extended_twice(cli: Cli) -> None:
    run, planned = _train(cli, "a", "outer.steps=11"), _train(cli, "b", "outer.steps=26")
    _extend(cli, run, 17)
    _extend(cli, run, 26)
    assert _files(run) == _files(planned)


def test_a_run_without_a_checkpoint_starts_again_with_the_new_number(cli: Cli) -> None:
    run, planned = _train(cli, "a", "outer.steps=20"), _train(cli, "b", "outer.steps=40")
    for file in [*(run / "checkpoints").iterdir(), run / "last.json"]:
        file.unlink()
    _extend(cli, run)
    assert _files(run) == _files(planned)


AGAIN = ["-s", "outer.steps=40"]


@pytest.mark.parametrize(("log_every", "again"), [(5, []), (7, AGAIN), *([(7, []), (5, AGAIN)] if FULL else [])])
def test_a_kill_before_any_change_of_a_file_leaves_a_run_that_is_resumed_or_extended_again(
    log_every: int, again: list[str], cli: Cli
) -> None:
    """Resumed, it ends as a run planned with 20 or with 40 outer steps; extended again, with 40."""
    changes = [f"run.log_every={log_every}", "run.eval_every=6", "run.checkpoint_every=10"]
    _train(cli, "source", "outer.steps=20", *changes)
    planned = {
        steps: (_train(cli, f"planned-{steps}", f"outer.steps={steps}", *changes) / "metrics.jsonl").read_bytes()
        for steps in (20, 40)
    }
    kills = 0
    while _killed(cli, run := shutil.copytree("source", f"run-{log_every}-{kills}"), after=kills):
        kills += 1
        result = cli("train", "--resume", run, *again, "-q")
        assert result.code == 0, result.err
        config = load_config(f"{run}/config.yaml").config
        assert config.outer.steps == 40 or (not again and config.outer.steps == 20)
        newest = open_checkpoint(Path(run))
        assert (newest.step, newest.config) == (config.outer.steps, config)
        assert (Path(run) / "metrics.jsonl").read_bytes() == planned[config.outer.steps]
    assert kills > 12  # config.yaml, the logs, last.json, two or three checkpoints and their sums


class _Killed(BaseException):
    """The process ended here."""


def _killed(cli: Cli, run: Path | str, *, after: int) -> bool:
    """Begin to extend `run` to 40 outer steps; the process ends at the change of a file that follows `after` others, or
    else where training begins. Returns whether it ended before that."""
    changes, is_training = 0, False

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal changes
            changes += 1
            if changes > after:
                raise _Killed
            return change(*arguments, **options)

        return call

    def begin(*arguments: object, **options: object) -> None:
        nonlocal is_training
        is_training = True
        raise _Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(_Killed):
        for name in ("replace", "unlink", "write"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(session, "train", begin)
        cli("train", "--resume", run, "-s", "outer.steps=40", "-q")
    return not is_training


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (["outer.schedule=cosine"], ["outer.steps=40"], "--set outer.steps=40: outer.schedule of a is cosine: its"),
        (["outer.schedule=linear"], ["outer.steps=40"], "--set outer.steps=40: outer.schedule of a is linear: its"),
        ([], ["outer.steps=20"], "--set outer.steps=20: a has taken 20 outer steps; give more\n"),
        ([], ["outer.steps=8"], "--set outer.steps=8: a has taken 20 outer steps; give more\n"),
        ([], ["outer.lr=0.1"], "--set outer.lr=0.1: a resumed run keeps its config; it takes nothing but more outer."),
        ([], ["outer.steps=40", "run.seed=1"], "--set run.seed=1: a resumed run keeps its config; it takes nothing"),
        ([], ["outer.steps=x"], "--set outer.steps=x: outer.steps must be a whole number"),
    ],
)
def test_what_a_planned_run_would_not_do_is_refused(
    changes: list[str], options: list[str], message: str, cli: Cli
) -> None:
    run = _train(cli, "a", "outer.steps=20", *changes)
    before = _files(run)
    result = cli("train", "--resume", run, *(word for key in options for word in ("-s", key)))
    assert result.code == 2 and result.err.startswith(message) and result.err.count("\n") == 1, result.err
    assert _files(run) == before


def test_a_number_for_which_auto_takes_another_engine_is_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _train(cli, "a", "outer.steps=20", "run.engine=auto")

    class Choice:
        def __init__(self, config: object, device: object) -> None:
            self.name = "native" if config.outer.steps > 20 else "eager"  # type: ignore[attr-defined]

    monkeypatch.setattr(extension, "choose_engine", Choice)
    with pytest.raises(ConfigError, match="is auto, which takes eager for 20 outer steps and native for 40, with"):
        plan_training(None, ["outer.steps=40"], out=None, resume=str(run), device=None)


def test_a_run_with_no_checkpoint_of_the_same_bytes_is_not_extended(cli: Cli) -> None:
    run = _train(cli, "a", "outer.steps=20", "run.log_every=7")
    for file in checkpoint_files(run)[1:]:
        file.unlink()
    result = cli("train", "--resume", run, "-s", "outer.steps=40")
    assert result.code == 2 and result.err.startswith("a: no good checkpoint before outer step 20, whose log line is")


def test_a_dry_run_says_which_steps_are_taken_again_and_writes_nothing(cli: Cli) -> None:
    run = _train(cli, "a", "outer.steps=20", "run.log_every=7")
    before = _files(run)
    again = "; those after 15 are taken again, as the log line after 20 is not one of every 7"
    assert f"extended 40 outer steps in place of 20{again}\n" in _extend(cli, run, 40, "--dry-run")
    assert '"steps": 40' in _extend(cli, run, 40, "--dry-run", "--json")
    assert _files(run) == before


def test_an_extension_from_an_older_checkpoint_removes_later_ones(cli: Cli) -> None:
    run, planned = _train(cli, "a", "outer.steps=20"), _train(cli, "b", "outer.steps=24")
    _extend(cli, run / "checkpoints" / "step-00000010.pt", 24)
    assert _files(run) == _files(planned)
    assert [record["step"] for record in read_lines(run / "metrics.jsonl") if "eval" in record] == [
        0,
        5,
        10,
        15,
        20,
        24,
    ]
