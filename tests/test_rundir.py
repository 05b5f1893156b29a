"""Run directories and checkpoints: written atomically, verified before use, never overwritten."""

import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import Config, load_config
from maml_cli.errors import CheckpointError, FileError
from maml_cli.experiment import build_experiment
from maml_cli.runs import checkpoint, directory, files, open_checkpoint
from maml_cli.training import init_state, snapshot
from tests.conftest import Cli

CONFIG = Config.model_validate({"model": {"hidden": [3]}, "inner": {"alpha": {"learned": True}}})


def _contents(step: int = 0) -> dict[str, Any]:
    return snapshot(CONFIG, init_state(CONFIG, build_experiment(CONFIG))) | {"step": step}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with checkpoints of steps 0, 10 and 20."""
    path = directory.create_run(tmp_path / "run", name="x", config=CONFIG)
    for step in 0, 10, 20:
        directory.save_checkpoint(path, step, _contents(step))
    return path


def _flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def test_the_newest_checkpoint_is_opened_with_the_contents_that_were_saved(run: Path) -> None:
    newest = open_checkpoint(run)
    assert newest.step == 20 and newest.config == CONFIG and newest.run == run
    expected = _contents(20)
    actual_params, expected_params = (contents["meta_params"]["params"] for contents in (newest.contents, expected))
    assert torch.equal(actual_params["head.w"], expected_params["head.w"])
    assert torch.equal(newest.contents["generators"][0], expected["generators"][0])
    assert open_checkpoint(run / "checkpoints" / "step-00000010.pt").step == 10
    assert open_checkpoint(run / "checkpoints").step == 20


def test_the_config_of_a_run_is_enough_to_repeat_it(run: Path) -> None:
    assert load_config(str(run / "config.yaml")).config == CONFIG


def test_sha256sums_has_the_digest_of_each_checkpoint(run: Path) -> None:
    for line in (run / "checkpoints" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((run / "checkpoints" / name).read_bytes()).hexdigest() == digest


def test_every_flipped_bit_is_reported_by_the_digest(run: Path) -> None:
    file = run / "checkpoints" / "step-00000020.pt"
    good = file.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(good)), 200):
        _flip(file, bit)
        with pytest.raises(CheckpointError, match="damaged"):
            open_checkpoint(file)
        file.write_bytes(good)
    assert open_checkpoint(file).step == 20


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_cut_file_is_damaged_and_the_newest_good_one_is_named(run: Path, keep: int) -> None:
    file = run / "checkpoints" / "step-00000020.pt"
    file.write_bytes(file.read_bytes()[:keep])
    _flip(run / "checkpoints" / "step-00000010.pt", 4000)
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(run)
    assert str(error.value) == (
        f"{file}: damaged: its SHA-256 differs from that in SHA256SUMS or last.json; "
        f"the newest good checkpoint is {run}/checkpoints/step-00000000.pt"
    )
    assert error.value.exit_code == 4


def test_a_checkpoint_outside_a_run_is_verified_by_the_digest_inside(run: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.pt"
    shutil.copy(run / "checkpoints" / "step-00000020.pt", lone)
    assert open_checkpoint(lone).run is None
    weights = _contents()["meta_params"]["params"]["hidden0.w"].numpy().tobytes()
    _flip(lone, 8 * lone.read_bytes().index(weights))
    with pytest.raises(CheckpointError, match=r"damaged.*there is no other checkpoint in its directory"):
        open_checkpoint(lone)


def test_missing_runs_and_empty_directories_are_distinguished_in_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    with pytest.raises(FileError, match=r"mine: no such run or checkpoint; did you mean outputs/mine\?"):
        open_checkpoint(Path("mine"))
    with pytest.raises(FileError, match="outputs/mine: not a run directory: it has no checkpoints"):
        open_checkpoint(Path("outputs/mine"))


def test_without_a_valid_last_json_the_newest_checkpoint_is_opened(run: Path) -> None:
    for text in ("", "{", '{"checkpoint": 3}', '{"checkpoint": "checkpoints/step-00000099.pt"}'):
        (run / "last.json").write_text(text)
        assert open_checkpoint(run).step == 20
    (run / "last.json").unlink()
    assert open_checkpoint(run).step == 20


def test_a_new_run_never_overwrites_an_old_one(tmp_path: Path) -> None:
    made = [directory.create_run(None, name="x", config=CONFIG, parent=tmp_path).name for _ in range(3)]
    assert made == ["x", "x-2", "x-3"]
    with pytest.raises(FileError, match=r"not empty; give a new directory, or resume .* --resume"):
        directory.create_run(tmp_path / "x", name="y", config=CONFIG)
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="a file; --out takes a directory"):
        directory.create_run(tmp_path / "file", name="y", config=CONFIG)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x"
    files.write_atomic(file, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(file, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and file.read_bytes() == b"old"


def test_a_second_process_cannot_train_the_same_run(run: Path) -> None:
    with directory.training_lock(run):
        code = f"import pathlib, maml_cli.runs.directory as r\nwith r.training_lock(pathlib.Path({str(run)!r})): pass"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process is training this run" in second.stderr
    with directory.training_lock(run):
        pass


KILLED = """
import itertools, os, signal, sys, time
from pathlib import Path
from tests.test_rundir import CONFIG, build_experiment, directory, init_state, snapshot
contents = snapshot(CONFIG, init_state(CONFIG, build_experiment(CONFIG)))
for attempt, run in enumerate(map(Path, sys.argv[1:])):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        for step in itertools.count():
            directory.save_checkpoint(run, step % 7, contents | {"step": step % 7})
    while not [*(run / "checkpoints").glob("step-*.pt")]:
        time.sleep(0.001)
    time.sleep(0.037 * attempt)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_a_kill_at_any_moment_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    """The killed processes are forks of one that has imported torch, each killed some time after its first save."""
    runs = [directory.create_run(tmp_path / str(attempt), name="x", config=CONFIG) for attempt in range(8)]
    arguments = [sys.executable, "-c", KILLED, *map(str, runs)]
    subprocess.run(arguments, cwd=Path(__file__).parent.parent, check=True)
    for run in runs:
        saved = list((run / "checkpoints").glob("step-*.pt"))
        assert saved
        for file in saved:
            checkpoint.decode(file.read_bytes())
        directory.truncate_to(open_checkpoint(run), run)
        assert not [*run.glob(".*tmp*"), *(run / "checkpoints").glob(".*tmp*")]


def test_without_sha256sums_the_newest_checkpoint_is_verified_by_last_json(cli: Cli, trained: str) -> None:
    saved = Path(trained) / "checkpoints"
    (saved / "SHA256SUMS").unlink()
    contents = checkpoint.decode((saved / "step-00000012.pt").read_bytes())
    (saved / "step-00000012.pt").write_bytes(checkpoint.encode(contents | {"loss_sum": torch.ones(1).double()}))
    result = cli("eval", "--checkpoint", trained)
    assert result.code == 4 and "its SHA-256 differs from that in SHA256SUMS or last.json" in result.err


def test_files_are_synced_before_they_are_renamed_and_their_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor: int) -> None:
        calls.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def recording_replace(source: Path, target: Path) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    files.write_atomic(tmp_path / "x", b"new")
    assert calls == ["sync file", "replace", "sync directory"]

    def failing(source: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output"):
        files.write_atomic(tmp_path / "x", b"newer")
    assert (tmp_path / "x").read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 1


def test_log_lines_are_synced_before_the_checkpoint_that_follows_them(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = run / "metrics.jsonl"
    log.write_text('{"step": 30}\n')
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == log.stat().st_ino:
            events.append("sync log")
        fsync(descriptor)

    def recording_replace(source: Path, target: Path) -> None:
        events.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    directory.save_checkpoint(run, 30, _contents(30))
    assert events == ["sync log", "step-00000030.pt", "SHA256SUMS", "last.json"]


@pytest.mark.parametrize("num_replaced", range(4))
def test_a_crash_while_a_checkpoint_is_written_again_leaves_one_that_is_verified(
    run: Path, num_replaced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before the first, second, third or fourth of the files that saving replaces."""
    replace, count = os.replace, iter(range(4))

    def interrupted_replace(source: Path, target: Path) -> None:
        if next(count) == num_replaced:
            raise OSError(5, "Input/output error")
        replace(source, target)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output"):
        patched.setattr(os, "replace", interrupted_replace)
        directory.save_checkpoint(run, 20, _contents(20) | {"loss_sum": torch.ones(1).double()})
    loss_sum = open_checkpoint(run).contents["loss_sum"].item()
    assert loss_sum == (0 if num_replaced < 2 else 1)
