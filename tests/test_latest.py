"""`latest`: the newest run in outputs/, wherever a run is given, and by default of eval and plot."""

import json
import os
import shutil
from pathlib import Path

import pytest

import maml_cli as maml
from maml_cli.config import Config
from maml_cli.errors import ConfigError, FileError
from maml_cli.runs import find_run, newest_runs
from tests.conftest import TINY_RUN, Cli

QUICK = [*TINY_RUN, "-q"]


@pytest.fixture
def two_runs(cli: Cli, trained: str) -> tuple[str, str]:
    """The newer and the older of two runs; the order of their names is the opposite."""
    older = shutil.copytree(Path(trained), Path("outputs/zzz"))
    for file in older.iterdir():
        os.utime(file, (1_000, 1_000))
    return trained, str(older)


def _taken(cli: Cli, *arguments: str) -> str:
    result = cli("eval", *arguments, "--tasks", "5", "--json")
    assert result.code == 0, result.err
    return str(Path(json.loads(result.out)["checkpoint"]).parent.parent)


def test_latest_is_the_run_that_training_changed_last(two_runs: tuple[str, str]) -> None:
    newer, older = two_runs
    assert [str(run) for run in newest_runs()] == [newer, older]
    (Path(older) / "eval.json").write_text("{}")  # an evaluation is no change by training
    assert (str(find_run("latest")), str(find_run("latest:1")), str(find_run("latest:2"))) == (newer, newer, older)
    os.utime(Path(older) / "metrics.jsonl", (2**32, 2**32))
    assert str(find_run("latest")) == older


def test_eval_and_plot_take_the_newest_run_by_default_and_say_so(cli: Cli, two_runs: tuple[str, str]) -> None:
    newer, _ = two_runs
    assert _taken(cli) == newer
    assert cli("eval", "--tasks", "5").err.splitlines()[0] == f"{newer}: the newest run, as no RUN is given"
    drawn = cli("plot", "--tasks", "5", "--kind", "fit")
    assert drawn.out.startswith(f"{newer}/plots/") and f"{newer}: the newest run" in drawn.err


def test_every_command_that_takes_a_run_takes_latest(cli: Cli, two_runs: tuple[str, str]) -> None:
    newer, older = two_runs
    Path("points.csv").write_text("x,y\n0,1\n1,2\n")
    assert (_taken(cli, "latest"), _taken(cli, "--checkpoint", "latest:2")) == (newer, older)
    assert json.loads(cli("adapt", "latest", "--data", "points.csv", "--json").out)["checkpoint"].startswith(newer)
    compared = json.loads(cli("compare", "latest", "latest:2", "--tasks", "5", "--json").out)
    assert [run["label"] for run in compared["results"][0]["runs"]] == [newer, older]
    assert cli("train", "--resume", "latest:2", "-q").out == f"{older}\n"
    assert str(maml.load("latest:2").checkpoint.run) == newer  # the resumed one is newer now


def test_a_new_training_from_latest_names_the_run_in_its_config(cli: Cli, two_runs: tuple[str, str]) -> None:
    newer, _ = two_runs
    result = cli("train", "-c", "smoke", *QUICK, "--init", "latest", "--out", "outputs/next")
    assert result.code == 0, result.err
    assert Config.from_yaml("outputs/next/config.yaml").run.init_from == newer


def test_an_existing_path_is_no_word_and_a_path_with_a_slash_never_is(cli: Cli, two_runs: tuple[str, str]) -> None:
    _, older = two_runs
    with pytest.raises(FileError, match="latest: no such run or checkpoint"):
        maml.load("./latest")
    assert cli("eval", "./latest").code == 3
    shutil.copytree(older, "latest")
    assert _taken(cli, "latest") == "latest" == _taken(cli, "./latest")


def test_fewer_runs_than_asked_for_are_one_line_and_exit_code_3(cli: Cli, trained: str) -> None:
    assert cli("eval", "latest:2").err == "latest:2: there is 1 run in outputs; maml runs lists them\n"
    assert cli("eval", "latest:2").code == 3
    shutil.rmtree("outputs")
    for command in (["eval", "latest"], ["eval"], ["plot"], ["train", "--resume", "latest"], ["check", "latest"]):
        result = cli(*command)
        assert (result.code, result.out) == (3, "")
        assert result.err == "latest: there is no run in outputs; train one with maml train, or give a run\n"


@pytest.mark.parametrize("word", ["latest:0", "latest:", "latest:-1", "latest:two", f"latest:{'9' * 5000}"])
def test_another_number_of_latest_is_refused(cli: Cli, trained: str, word: str) -> None:
    with pytest.raises(ConfigError, match="must be latest, or latest:N for the N-th newest run, with N from 1"):
        find_run(word)
