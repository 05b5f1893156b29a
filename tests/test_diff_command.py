"""`maml diff`: the keys at which two runs differ, and the paired difference of their errors."""

import json
from pathlib import Path

import pytest

from maml_cli.evaluation import Protocol, compare_runs, diff_runs, open_run
from tests.conftest import TINY_RUN, Cli

TASKS = ["--tasks", "20"]


@pytest.fixture
def other(cli: Cli, trained: str) -> str:
    changes = ["inner.steps=2", "run.checkpoint_every=4"]
    words = [word for change in changes for word in ("-s", change)]
    return cli("train", "-c", "smoke", *TINY_RUN, *words, "-q").out.strip()


def test_keys_are_those_that_the_two_configs_give_other_values(cli: Cli, trained: str, other: str) -> None:
    document = json.loads(cli("diff", trained, other, *TASKS, "--json").out)
    assert list(document) == ["schema_version", "left", "right", "keys", "note", "results"]
    assert (document["left"], document["right"], document["note"]) == (trained, other, None)
    assert document["keys"] == [{"key": "inner.steps", "left": 1, "right": 2}]


def test_the_difference_of_errors_is_that_of_compare(cli: Cli, trained: str, other: str) -> None:
    runs = [open_run(Path(run)) for run in (trained, other)]
    protocol = Protocol(num_tasks=20, steps=3)
    difference = diff_runs(runs[0], runs[1], protocol)
    assert difference.comparisons == compare_runs(runs, protocol)
    document = json.loads(cli("diff", trained, other, *TASKS, "--steps", "3", "--json").out)
    (first, second) = document["results"][0]["runs"]
    means = [run["steps"][3]["grid"]["mse"]["mean"] for run in (first, second)]
    assert second["difference"]["mean"] == pytest.approx(means[1] - means[0])


def test_other_tasks_or_another_k_leave_the_keys_and_a_note(cli: Cli, trained: str) -> None:
    def train(*changes: str) -> str:
        words = [word for change in changes for word in ("-s", change)]
        return cli("train", "-c", "smoke", *TINY_RUN, *words, "-q").out.strip()

    phase, five = train("tasks.phase=[0,1]"), train("tasks.num_support=5")
    for run, key, words, option in (
        (phase, "tasks.phase", "another family", ["--any-family"]),
        (five, "tasks.num_support", "the runs were trained with K = 5, 10", ["--shots", "5"]),
    ):
        document = json.loads(cli("diff", trained, run, *TASKS, "--json").out)
        assert words in document["note"] and document["results"] == []
        assert key in [row["key"] for row in document["keys"]]
        shown = cli("diff", trained, run, *TASKS)
        assert shown.code == 0 and key in shown.out and "no difference of errors: " in shown.out
        compared = json.loads(cli("diff", trained, run, *TASKS, *option, "--json").out)
        assert compared["note"] is None and len(compared["results"]) == 1


def test_runs_of_one_config_say_that_no_key_differs(cli: Cli, trained: str) -> None:
    result = cli("diff", trained, f"{trained}/checkpoints/step-00000004.pt", *TASKS)
    assert result.out.startswith("no key of the config differs\n") and "difference from first" in result.out


def test_the_table_has_the_values_as_set_takes_them(cli: Cli, trained: str, other: str) -> None:
    lines = cli("diff", trained, other, *TASKS).out.splitlines()
    assert lines[0].split() == ["key", trained, other]
    assert lines[1].split() == ["inner.steps", "1", "2"]


def test_a_missing_run_is_one_line(cli: Cli, trained: str) -> None:
    assert cli("diff", trained, "nowhere").err == "nowhere: no such run or checkpoint\n"
    assert cli("diff", trained).err == "OTHER: missing; see maml diff --help\n"
