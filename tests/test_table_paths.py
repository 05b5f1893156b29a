"""The table of a run on curves of the user's own: found where it is now, by its digest, and never another one."""

import json
import os
import shutil
from pathlib import Path

import pytest

import maml_cli as maml
from maml_cli.config import presets
from maml_cli.errors import ConfigError, DataError, FileError
from maml_cli.tasks import curves
from tests.conftest import Cli

SMALL = ["model.hidden=[8]", "outer.tasks_per_step=2", "run.eval_every=2", "run.eval_tasks=3", "run.engine=eager"]
TABLE = "data/t.csv"


def _table(factor: float = 1.0) -> str:
    rows = [f"c{task},{x},{factor * (task + x * x)}" for task in range(20) for x in range(9)]
    return "\n".join(["task,x,y", *rows]) + "\n"


@pytest.fixture
def project(cli: Cli) -> Path:
    """A directory with a table and a run on it that was trained there; the current directory is another, beside it."""
    Path("project/data").mkdir(parents=True)
    Path("elsewhere").mkdir()
    os.chdir("project")
    Path(TABLE).write_text(_table())
    points = ["tasks.family=data", f"tasks.file={TABLE}", "tasks.num_support=4", "tasks.num_query=4"]
    maml.train("smoke", *points, *SMALL, "outer.steps=4", "run.checkpoint_every=2", out="outputs/run")
    os.chdir("../elsewhere")
    curves._read.cache_clear()
    return Path("../project")


def _error(run: Path | str, *overrides: str) -> float:
    curves._read.cache_clear()  # as in another process
    return maml.evaluate(maml.load(run, *overrides)).results[0].steps[1].grid.mse.mean


def test_a_run_is_evaluated_from_any_directory_and_under_any_name(project: Path, cli: Cli) -> None:
    os.chdir(project)
    expected = _error("outputs/run")
    os.chdir("../elsewhere")
    assert _error("../project/outputs/run") == expected
    for command in (["eval"], ["report"], ["plot", "--kind", "steps"], ["compare", "../project/outputs/run"]):
        curves._read.cache_clear()
        assert cli(*command, "../project/outputs/run", "--tasks", 9).code == 0
    Path("runs").symlink_to("../project/outputs")
    assert _error("runs/run") == expected
    for place in ("deep/moved", "moved"):
        Path(place).parent.mkdir(exist_ok=True)
        shutil.copytree("../project/outputs/run", place)
        shutil.copy(f"../project/{TABLE}", Path(place).parent)
        assert _error(place) == expected  # by the last name of its path, beside the run


def test_a_table_of_another_digest_is_never_taken(project: Path) -> None:
    expected = _error(project / "outputs/run")
    Path("data").mkdir()
    Path(TABLE).write_text(_table(2))  # in the current directory, under the same path
    assert _error(project / "outputs/run") == expected
    (project / TABLE).write_text(_table(3))
    with pytest.raises(DataError, match=r"data/t\.csv: has changed since the training"):
        _error(project / "outputs/run")
    Path(TABLE).unlink()
    with pytest.raises(FileError, match=r"^data/t\.csv: cannot be read.* give its path with --set tasks\.file=PATH$"):
        _error(project / "outputs/run")


def test_the_table_of_the_training_at_another_path_has_the_same_test_curves(project: Path, cli: Cli) -> None:
    expected = _error(project / "outputs/run")
    (project / TABLE).rename("later.csv")
    message = cli("eval", project / "outputs/run").err
    assert message.startswith("data/t.csv: cannot be read: ") and message.endswith("--set tasks.file=PATH\n")
    resumed = cli("train", "--resume", project / "outputs/run")
    assert resumed.code == 3 and "; put it there, or, to evaluate the run, give its path with --set" in resumed.err
    assert _error(project / "outputs/run", "tasks.file=later.csv") == expected
    with pytest.raises(ConfigError, match="the test curves are those of the training; give another"):
        maml.load(project / "outputs/run", "tasks.file=later.csv", "tasks.data.test=1", "tasks.data.validation=0")
    run = maml.load(project / "outputs/run", "tasks.file=later.csv")
    assert run.config.tasks.data.measured == run.checkpoint.config.tasks.data.measured and run.overrides == ()
    with pytest.raises(FileError, match=r"^none\.csv: cannot be read"):
        _error(project / "outputs/run", "tasks.file=none.csv")


def test_the_example_table_is_that_of_the_package(cli: Cli) -> None:
    copied = cli("presets", "copy", "own-curves", "mine.yaml")
    assert copied.code == 0 and "beside this file" not in Path("mine.yaml").read_text()
    settings = [f"--set={text}" for text in [*SMALL, "outer.steps=2"]]
    shutil.copy(presets.directory() / "own-curves.csv", "own-curves.csv")  # of another installation
    assert cli("train", "--config", "mine.yaml", *settings, "--out", "run").code == 0
    Path("own-curves.csv").unlink()
    curves._read.cache_clear()
    assert cli("eval", "run", "--steps", 1).code == 0
    located = maml.load("run").config.tasks.file
    assert located and Path(located).resolve() == presets.directory() / "own-curves.csv"


def test_a_resumed_run_keeps_the_path_in_its_config(project: Path, cli: Cli) -> None:
    """From another directory, and after its table was moved into it, with the bytes of a run that was planned so."""
    os.chdir(project)
    config = "outputs/run/config.yaml"
    assert cli("train", "--config", config, "--set", "outer.steps=8", "--out", "outputs/planned").code == 0
    shutil.move(TABLE, "outputs/run/t.csv")
    os.chdir("../elsewhere")
    curves._read.cache_clear()
    resumed = cli("train", "--resume", project / "outputs/run", "--set", "outer.steps=8")
    assert resumed.code == 0 and "14 for training" in resumed.err
    name = "checkpoints/step-00000008.pt"
    runs = project / "outputs"
    assert (runs / "run" / name).read_bytes() == (runs / "planned" / name).read_bytes()
    assert json.loads((runs / "run/last.json").read_text())["step"] == 8
    again = cli("train", "--config", runs / "run/config.yaml", "--out", "again")
    assert again.code == 0 and maml.load("again").config.tasks.file == "../project/outputs/run/t.csv"
