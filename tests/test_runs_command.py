"""`maml runs`: state, outer steps, errors and changes of run directories, sorted, filtered, and in three forms."""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maml_cli import __version__
from maml_cli.cli.conditions import parse_condition
from maml_cli.config import Config, load_quickly, presets
from maml_cli.config.load import load_config_file
from maml_cli.errors import ConfigError
from maml_cli.reporting.run_table import run_lines
from maml_cli.runs import EvaluationRecord, RunOverview, directory, read_overview, run_directories, write_config
from maml_cli.runs.metrics import write_evaluation
from maml_cli.runs.timing import write_divergence, write_start
from tests.conftest import ROOT, TINY_RUN, Cli

NAN = math.nan
NOW = 1_000_000.0


def _make_run(name: str, *overrides: str, preset: str = "smoke", step: int = 10, error: float = 1.0) -> Path:
    """A run directory of ten outer steps, or as `overrides` say, whose newest checkpoint is not one but has its digest:
    reading it at a glance does not look inside."""
    run = Path("outputs") / name
    (run / "checkpoints").mkdir(parents=True)
    write_config(run, Config.from_yaml(preset, "outer.steps=10", *overrides))
    write_evaluation(run, EvaluationRecord(step, 10, 100, *([[[9.0, error]]] * 4)))
    file, data = directory.checkpoint_file(run, step), name.encode()
    file.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    (run / "checkpoints" / "SHA256SUMS").write_text(f"{digest}  {file.name}\n")
    last = {"schema_version": 1, "checkpoint": f"checkpoints/{file.name}", "step": step, "sha256": digest}
    (run / "last.json").write_text(json.dumps(last))
    return run


def _set_age(run: Path, seconds: float) -> None:
    for file in run.iterdir():
        os.utime(file, (NOW - seconds, NOW - seconds))


def _listed(cli: Cli, *arguments: str) -> list[dict[str, Any]]:
    result = cli("runs", "--json", *arguments)
    assert result.code == 0, result.err
    runs: list[dict[str, Any]] = json.loads(result.out)["runs"]
    return runs


def _names(cli: Cli, *arguments: str) -> list[str]:
    return [run["name"] for run in _listed(cli, *arguments)]


def test_a_run_has_the_preset_of_its_name_and_the_keys_that_differ_from_it(cli: Cli) -> None:
    for name in ("smoke", "smoke-2", "smoke-seed1"):
        _make_run(name, "outer.lr=0.01", "tasks.phase=[0.5,1.0]")
    runs = {run["name"]: run for run in _listed(cli)}
    expected = {"tasks.phase": [0.5, 1.0], "outer.steps": 10, "outer.lr": 0.01}
    assert all(run["preset"] == "smoke" and run["changes"] == expected for run in runs.values())


def test_a_run_of_another_name_has_the_closest_preset_and_no_preset_if_the_defaults_are_as_close(cli: Cli) -> None:
    """finn-10shot differs from the defaults in the initial weights and the number of outer steps."""
    run = _make_run("mine", preset="finn-10shot")
    (row,) = _listed(cli)
    assert (row["preset"], row["changes"]) == ("finn-10shot", {"outer.steps": 10})
    assert Config.from_yaml("finn-10shot", "outer.steps=10") == Config.from_yaml(str(run / "config.yaml"))

    _make_run("other", "model.init=lecun_normal", preset="finn-10shot")
    (row,) = _listed(cli, "--where", "name=other")
    assert (row["preset"], row["changes"]) == (None, {"outer.steps": 10})


def test_a_value_that_training_writes_into_the_config_is_no_change(cli: Cli) -> None:
    _make_run("smoke", "run.init_from=outputs/first", f'run.init_sha256="{"0" * 64}"')
    (row,) = _listed(cli)
    assert row["changes"] == {"outer.steps": 10, "run.init_from": "outputs/first"}


def test_states_follow_from_the_files_of_a_run(cli: Cli) -> None:
    _make_run("done")
    _make_run("interrupted", step=4)
    write_divergence(_make_run("diverged", step=4), 7, "query_loss")
    running = _make_run("running", step=4)
    write_evaluation(running, EvaluationRecord(6, 10, 100, *([[[9.0, 1.0]]] * 4)))
    damaged = _make_run("damaged")
    directory.checkpoint_file(damaged, 10).write_bytes(b"other bytes")
    # A lock belongs to an open file: that of another process is one that is opened by itself.
    with directory.training_lock(running):
        runs = {run["name"]: (run["state"], run["step"]) for run in _listed(cli)}
    assert runs == {
        "done": ("done", 10),
        "interrupted": ("interrupted", 4),
        "diverged": ("diverged", 7),
        "running": ("training", 6),
        "damaged": ("damaged", 10),
    }


def test_the_error_is_the_last_evaluation_after_all_inner_steps_over_seeds_that_did_not_diverge(cli: Cli) -> None:
    """Two of three seeds with 2 and 4 at the last of two inner steps: 3."""
    run = _make_run("three", "run.seeds=3", "inner.steps=2")
    errors = [[9.0, 5.0, 2.0], [9.0, 6.0, 4.0], [NAN, NAN, NAN]]
    write_evaluation(run, EvaluationRecord(11, 10, 100, errors, *([[[7.0] * 3] * 3] * 3)))
    absolute = _make_run("absolute", "inner.loss=l1")
    write_evaluation(absolute, EvaluationRecord(11, 10, 100, [[1.0, 1.0]], [[1.0, 0.25]], *([[[1.0, 1.0]]] * 2)))
    assert {row["name"]: row["error"] for row in _listed(cli)} == {"three": 3.0, "absolute": 0.25}


def test_the_engine_is_that_of_the_last_process_or_else_of_the_config(cli: Cli) -> None:
    _make_run("never")
    run = _make_run("twice")
    write_start(run, 0, engine="eager", device="cpu", torch_version="2.10.0")
    write_start(run, 5, engine="native", device="cpu", torch_version="2.13.0+cpu")
    assert {row["name"]: row["engine"] for row in _listed(cli)} == {"never": "auto", "twice": "native"}
    assert read_overview(run).versions == f"maml {__version__}, PyTorch 2.13.0+cpu"


def test_a_training_records_its_engine_and_a_divergence_which_a_resumed_one_repeats(cli: Cli) -> None:
    settings = [*TINY_RUN, "-q", "-s", "run.engine=eager", "-s", "inner.alpha.init=1e30"]
    assert cli("train", "-c", "smoke", *settings).code == 5
    for _ in range(2):
        (row,) = _listed(cli)
        assert (row["state"], row["step"], row["num_steps"], row["engine"]) == ("diverged", 1, 12, "eager")
        lines = Path("outputs/smoke/timing.jsonl").read_text()
        assert lines.count("diverged") == 1
        assert cli("train", "--resume", "latest", "-q").code == 5


def test_runs_are_sorted_by_age_name_error_and_step(cli: Cli) -> None:
    for name, step, error, age in (("b", 3, 0.5, 20), ("a", 10, 2.0, 10), ("c", 7, 1.0, 30)):
        _set_age(_make_run(name, step=step, error=error), age)
    assert _names(cli) == ["a", "b", "c"]
    assert _names(cli, "--sort", "name") == ["a", "b", "c"]
    assert _names(cli, "--sort", "error") == ["b", "c", "a"]
    assert _names(cli, "--sort", "step") == ["a", "c", "b"]
    assert cli("runs", "--sort", "size").err == "--sort size: must be age, name, error or step\n"


def test_conditions_hold_by_keys_of_the_config_and_by_columns(cli: Cli) -> None:
    _make_run("smoke", "outer.lr=0.01", error=0.3)
    _make_run("smoke-2", "outer.lr=0.002", "inner.loss=l1", step=5, error=0.6)
    _make_run("mine", "outer.lr=0.002", "tasks.phase=[0,1]", error=0.9)
    (Path("outputs/mine/config.yaml")).unlink()
    cases = {
        "outer.lr<0.01": ["smoke-2"],
        "outer.lr <= 0.01": ["smoke", "smoke-2"],
        "outer.lr!=0.002": ["smoke"],
        "inner.loss=l1": ["smoke-2"],
        "run.seeds=null": ["smoke", "smoke-2"],
        "run.seeds>1": [],
        "error<0.5": ["smoke"],
        "step>=10": ["mine", "smoke"],
        "state=done": ["smoke"],
        "state==interrupted": ["smoke-2"],
        "name!=smoke": ["mine", "smoke-2"],
        "preset=": ["mine"],
        "engine=auto": ["smoke", "smoke-2"],
        "model.oracle=0": [],
    }
    for text, names in cases.items():
        assert _names(cli, "--sort", "name", "--where", text) == names, text
    assert _names(cli, "--where", "outer.lr<0.01", "--where", "state=done") == []
    result = cli("runs", "--where", "outer.lr>1")
    assert (result.code, result.out, result.err) == (0, "", "outputs: none of 3 runs is such a run\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("outer.lrr<1", "outer.lrr is neither a column nor a key of the config; did you mean outer.lr?"),
        ("stat=done", "stat is neither a column nor a key of the config; did you mean state?"),
        ("outer=1", "outer is a section of the config; give one of its keys"),
        ("outer.lr", "must be KEY, one of = != < <= > >=, and a value, such as outer.lr<0.01"),
        ("outer.lr<small", "outer.lr < takes a number"),
        ("error=good", "error = takes a number"),
        ("outer.lr=<0.01", "=< is none of = != < <= > >=; did you mean <=?"),
        ("outer.lr =>0.01", "=> is none of = != < <= > >=; did you mean >=?"),
        ("state=~done", "=~ is none of = != < <= > >="),
        ("step===3", "=== is none of = != < <= > >="),
        ("outer.lr=small", "outer.lr is a number above 0"),
        ("outer.steps!=1k", "outer.steps is a whole number from 1 to 99,999,999"),
        ("name<3", "name is a text, compared by = or !="),
        ("state=donne", "state is done, training, interrupted, diverged or damaged; did you mean done?"),
        ("inner.loss=mae", "inner.loss is mse, half_mse, l1 or huber; did you mean l1?"),
        ("tasks.x=[1", "not valid YAML: expected ',' or ']', but got '<stream end>'"),
    ],
)
def test_a_condition_that_cannot_be_meant_is_one_line_with_a_hint(cli: Cli, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_condition(text)
    assert str(error.value) == f"--where {text}: {problem}"
    assert cli("runs", "--where", text).code == 2


def test_csv_and_json_have_a_row_for_each_run(cli: Cli) -> None:
    _make_run("smoke", "tasks.phase=[0.0,1.5]", error=0.25)
    (row,) = csv.DictReader(io.StringIO(cli("runs", "--csv").out))
    age = row.pop("age_seconds")
    assert age.isdecimal() and row == {
        "name": "smoke",
        "path": "outputs/smoke",
        "preset": "smoke",
        "state": "done",
        "step": "10",
        "num_steps": "10",
        "error": "0.25",
        "engine": "auto",
        "changes": "tasks.phase=[0.0,1.5] outer.steps=10",
        "problem": "",
    }
    document = json.loads(cli("runs", "--json").out)
    assert list(document) == ["schema_version", "runs"] and list(document["runs"][0]) == [
        "name", "path", "preset", "changes", "state", "step", "num_steps", "error", "engine", "age_seconds", "problem",
    ]  # fmt: skip
    assert cli("runs", "--csv", "--json").err == "--json, --csv: give one of the two\n"


def _overview(name: str, **values: Any) -> RunOverview:
    changes = {"outer.lr": 0.25, "tasks.phase": [0.0, math.pi]}
    run = RunOverview(
        Path(name), name, "smoke", changes, None, "interrupted", 400, 1000, 0.123456, "native", "", NOW - 7300, ""
    )
    return run._replace(**values)


def test_a_table_is_as_wide_as_its_cells_and_no_wider_than_the_terminal() -> None:
    runs = [_overview("smoke"), _overview("a-name-of-more-than-sixty-characters-for-a-run-of-a-large-sweep-0001")]
    assert run_lines(runs[:1], now=NOW, width=None) == [
        "run    preset  state            step  error  engine  age  changes",
        "smoke  smoke   interrupted  400/1000  0.123  native  2 h  outer.lr=0.25 tasks.phase=[0.0,3.142]",
    ]
    for width in (60, 72, 80, 100, 120):
        lines = run_lines(runs, now=NOW, width=width)
        assert max(map(len, lines)) <= width
        assert "interrupted" in lines[1] and ("outer" in lines[1]) == (width >= 120)


def test_the_name_of_a_run_is_cut_only_where_no_other_column_can_give_way() -> None:
    run = _overview("lab-learned-alpha-with-a-name-of-47-characters!")
    for width in (80, 85, 100, 120):
        lines = run_lines([run], now=NOW, width=width)
        assert lines[1].split()[0] == run.name and max(map(len, lines)) <= width
    (_, shown) = run_lines([run], now=NOW, width=60)
    assert len(shown) <= 60 and shown.startswith("lab-learned-alpha-wi") and "..." in shown


def test_changes_that_few_runs_share_come_first() -> None:
    runs = [_overview(name, changes={"outer.lr": 0.1, "run.seed": seed}) for seed, name in enumerate("abc")]
    lines = run_lines(runs, now=NOW, width=None)
    assert [line.split("h  ")[1] for line in lines[1:]] == [f"run.seed={seed} outer.lr=0.1" for seed in range(3)]


def test_a_directory_may_be_a_run_or_lack_runs_and_must_exist(cli: Cli) -> None:
    run = _make_run("smoke")
    assert _names(cli, str(run)) == ["smoke"]
    Path("other/folder").mkdir(parents=True)
    Path("other/config.yaml").write_text("lr: 3\n")
    result = cli("runs", "other")
    assert (result.code, result.out, result.err) == (0, "", "other: no run directories\n")
    for folder, problem in (("nowhere", "no such directory"), (str(run / "config.yaml"), "not a directory")):
        result = cli("runs", folder)
        assert result.code == 3 and result.err.startswith(f"{folder}: {problem}; give one")


def _damage(run: Path, kind: str) -> None:
    if kind == "fifo":
        (run / "config.yaml").unlink()
        os.mkfifo(run / "config.yaml")
    elif kind == "deep":
        (run / "last.json").write_text("[" * 60_000)
    elif kind == "newer":
        (run / "last.json").write_text('{"schema_version": 99}')
    elif kind == "folder":
        (run / "metrics.jsonl").unlink()
        (run / "metrics.jsonl").mkdir()
    elif kind == "empty":
        directory.checkpoint_file(run, 10).write_bytes(b"")
    elif kind == "missing":
        directory.checkpoint_file(run, 10).unlink()
    elif kind == "config":
        (run / "config.yaml").write_bytes(b"\xff\x00: [")


@pytest.mark.parametrize("kind", ["fifo", "deep", "newer", "folder", "empty", "missing", "config"])
def test_a_damaged_run_is_a_row_with_its_problem_beside_good_ones(cli: Cli, kind: str) -> None:
    _make_run("good")
    _damage(_make_run("bad\x1b[31m"), kind)
    rows = {row["name"]: row for row in _listed(cli)}
    assert rows["good"]["state"] == "done"
    bad = rows["bad\x1b[31m"]
    assert bad["state"] == "damaged" and bad["problem"]
    result = cli("runs")
    assert result.code == 0 and "\x1b" not in result.out and "bad\\x1b[31m" in result.out


def test_the_quick_reader_of_configs_reads_the_values_of_the_strict_one() -> None:
    files = [presets.path(name) for name in presets.names()]
    files += sorted((ROOT / "outputs" / "published").glob("*/config.yaml"))
    assert len(files) > 50
    for file in files:
        assert load_quickly(file) == load_config_file(file), file


def test_published_runs_are_done_and_listed_without_torch(tmp_path: Path) -> None:
    published = ROOT / "outputs" / "published"
    code = (
        "import sys; from maml_cli.cli.app import main\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'scipy'}\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    arguments = ["runs", str(published), "--csv", "--where", "outer.steps>1000", "--sort", "error"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert done.stderr.strip() == "[]"
    assert len(rows) == len(run_directories(published)) and {row["state"] for row in rows} == {"done"}
    errors = [float(row["error"]) for row in rows]
    assert errors == sorted(errors)


def test_a_terminal_of_80_columns_gets_80_columns_and_a_pipe_all() -> None:
    command = [sys.executable, "-m", "maml_cli", "runs", "outputs/published"]
    ours, theirs = os.openpty()
    with subprocess.Popen(command, stdout=theirs, cwd=ROOT, env=os.environ | {"COLUMNS": "80"}) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(ours, 65_536):
                shown += data
        assert process.wait(timeout=60) == 0
    os.close(ours)
    lines = shown.decode().replace("\r", "").splitlines()
    titles = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.split("\n")[0].split()
    assert titles == ["run", "preset", "state", "step", "error", "engine", "age", "changes"]
    shown_titles = lines[0].split()  # the longer the ages are in words, the fewer
    assert max(map(len, lines)) <= 80 and shown_titles[:4] == ["run", "state", "step", "error"]
    assert shown_titles == [title for title in titles if title in shown_titles]


def test_an_overview_changes_no_file(cli: Cli) -> None:
    run = _make_run("smoke")
    before = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in run.rglob("*")}
    read_overview(run)
    assert {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in run.rglob("*")} == before
