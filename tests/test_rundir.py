"""Run directories and checkpoints: written whole, verified before use, never overwritten."""

import hashlib
import io
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import Config, load_config, to_dict
from maml_cli.errors import CheckpointError, FileError
from maml_cli.experiment import build_experiment
from maml_cli.runs import checkpoint, directory, files
from maml_cli.training import init_state
from maml_cli.training.loop import snapshot

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


def test_the_newest_checkpoint_comes_back_as_it_was(run: Path) -> None:
    found = directory.open_checkpoint(run)
    assert found.step == 20 and found.config == CONFIG and found.run == run
    expected = _contents(20)
    assert torch.equal(found.contents["meta_params"]["params"]["head.w"], expected["meta_params"]["params"]["head.w"])
    assert torch.equal(found.contents["generators"][0], expected["generators"][0])
    assert directory.open_checkpoint(run / "checkpoints" / "step-00000010.pt").step == 10
    assert directory.open_checkpoint(run / "checkpoints").step == 20


def test_the_config_of_a_run_is_enough_to_repeat_it(run: Path) -> None:
    assert load_config(str(run / "config.yaml")).config == CONFIG


def test_sums_are_those_that_sha256sum_checks(run: Path) -> None:
    for line in (run / "checkpoints" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((run / "checkpoints" / name).read_bytes()).hexdigest() == digest


def test_equal_contents_have_equal_bytes_whatever_objects_they_share() -> None:
    text, other = "".join(["a", "b"]), "".join(["a", "b"])
    assert text is not other
    one = checkpoint.encode({"x": [text, text], "y": (1.5, {"k": torch.arange(6)[::2]})})
    assert one == checkpoint.encode({"x": [text, other], "y": (1.5, {"k": torch.tensor([0, 2, 4])})})


def test_only_plain_values_are_written() -> None:
    with pytest.raises(TypeError, match=r"cannot hold .*Path"):
        checkpoint.encode({"x": Path()})


def test_every_flipped_bit_is_noticed_by_the_digest(run: Path) -> None:
    file = run / "checkpoints" / "step-00000020.pt"
    good = file.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(good)), 200):
        _flip(file, bit)
        with pytest.raises(CheckpointError, match="damaged"):
            directory.open_checkpoint(file)
        file.write_bytes(good)
    assert directory.open_checkpoint(file).step == 20


def test_without_a_digest_no_flipped_bit_changes_what_is_loaded() -> None:
    """The zip's CRCs cover what is stored; what they do not cover is padding, or makes the file unreadable."""
    good = checkpoint.encode(_contents())
    intact = checkpoint.encode(checkpoint.decode(good))
    noticed = 0
    for bit in random.Random(1).sample(range(8 * len(good)), 300):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        try:
            found = checkpoint.decode(bytes(data))
        except CheckpointError:
            noticed += 1
            continue
        assert checkpoint.encode(found) == intact
    assert noticed > 150


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_cut_file_is_damaged_and_the_newest_good_one_is_named(run: Path, keep: int) -> None:
    file = run / "checkpoints" / "step-00000020.pt"
    file.write_bytes(file.read_bytes()[:keep])
    _flip(run / "checkpoints" / "step-00000010.pt", 4000)
    with pytest.raises(CheckpointError) as error:
        directory.open_checkpoint(run)
    assert str(error.value) == (
        f"{file}: damaged: its SHA-256 is not the one that was written down; "
        f"the newest good checkpoint is {run}/checkpoints/step-00000000.pt"
    )
    assert error.value.exit_code == 4


def test_a_lone_file_is_checked_by_its_crcs(run: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.pt"
    shutil.copy(run / "checkpoints" / "step-00000020.pt", lone)
    assert directory.open_checkpoint(lone).run is None
    weights = _contents()["meta_params"]["params"]["hidden0.w"].numpy().tobytes()
    _flip(lone, 8 * lone.read_bytes().index(weights))
    with pytest.raises(CheckpointError, match=r"damaged.*there is no other checkpoint beside it"):
        directory.open_checkpoint(lone)


def test_a_checkpoint_of_the_future_says_so(run: Path) -> None:
    buffer = io.BytesIO()
    torch.save(checkpoint._canonical(_contents() | {"schema_version": 99}), buffer)
    with pytest.raises(CheckpointError, match=r"written by a newer maml \(schema 99, this one reads 1\)"):
        checkpoint.decode(buffer.getvalue())


class Evil:
    def __reduce__(self) -> Any:
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize("kind", ["torch pickle", "other tensors", "other zip", "text"])
def test_foreign_files_are_refused_and_nothing_in_them_runs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.pt"
    if kind == "torch pickle":
        torch.save({"schema_version": 1, "x": Evil()}, file, pickle_module=pickle)
    elif kind == "other tensors":
        torch.save({"weight": torch.ones(3)}, file)
    elif kind == "other zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("hello.txt", "hello")
    else:
        file.write_text("not a checkpoint\n")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        directory.open_checkpoint(file)
    assert not (tmp_path / "pwned").exists()


def test_a_config_inside_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    data = checkpoint.encode(_contents() | {"config": to_dict(CONFIG) | {"inner": {"steps": -1}}})
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"its config cannot be used: its config: inner.steps must be at least 1"):
        directory.open_checkpoint(tmp_path / "x.pt")


def test_a_missing_run_and_an_empty_directory_say_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    with pytest.raises(FileError, match=r"mine: no such run or checkpoint; did you mean outputs/mine\?"):
        directory.open_checkpoint(Path("mine"))
    with pytest.raises(FileError, match="outputs/mine: not a run directory: it has no checkpoints"):
        directory.open_checkpoint(Path("outputs/mine"))


def test_a_lost_or_broken_last_json_is_no_loss(run: Path) -> None:
    for text in ("", "{", '{"checkpoint": 3}', '{"checkpoint": "checkpoints/step-00000099.pt"}'):
        (run / "last.json").write_text(text)
        assert directory.open_checkpoint(run).step == 20
    (run / "last.json").unlink()
    assert directory.open_checkpoint(run).step == 20


def test_a_new_run_never_overwrites_an_old_one(tmp_path: Path) -> None:
    made = [directory.create_run(None, name="x", config=CONFIG, parent=tmp_path).name for _ in range(3)]
    assert made == ["x", "x-2", "x-3"]
    with pytest.raises(FileError, match=r"not empty; give a new directory, or continue .* --resume"):
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


def test_a_second_trainer_of_the_same_run_is_turned_away(run: Path) -> None:
    with directory.training_lock(run):
        code = f"import pathlib, maml_cli.runs.directory as r\nwith r.training_lock(pathlib.Path({str(run)!r})): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process is training this run" in other.stderr
    with directory.training_lock(run):
        pass


def test_a_kill_at_any_moment_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    code = (
        "import itertools, sys; from pathlib import Path; from tests.test_rundir import *\n"
        "run = Path(sys.argv[1]); contents = snapshot(CONFIG, init_state(CONFIG, build_experiment(CONFIG)))\n"
        "print('ready', flush=True)\n"
        "for step in itertools.count(): directory.save_checkpoint(run, step % 7, contents | {'step': step % 7})"
    )
    for attempt in range(4):
        run = directory.create_run(tmp_path / str(attempt), name="x", config=CONFIG)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
        )
        assert process.stdout and process.stdout.readline()
        time.sleep(0.15 + 0.037 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        saved = list((run / "checkpoints").glob("step-*.pt"))
        assert saved
        for file in saved:
            checkpoint.decode(file.read_bytes())
        directory.truncate_to(directory.open_checkpoint(run), run)
        assert not [*run.glob(".*tmp*"), *(run / "checkpoints").glob(".*tmp*")]
