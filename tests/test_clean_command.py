"""`maml clean`: old checkpoints are removed, never one that resuming or evaluating a run needs."""

import hashlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from maml_cli.errors import FileError
from maml_cli.runs import checkpoint_files, directory, plan_pruning, prune
from maml_cli.runs.listing import read_checksums
from tests.conftest import Cli


def _steps(run: str | Path) -> list[int]:
    return sorted(int(file.stem.removeprefix("step-")) for file in checkpoint_files(Path(run)))


def _spoil(run: str, step: int) -> None:
    file = directory.checkpoint_file(Path(run), step)
    file.write_bytes(file.read_bytes()[:-1])


def test_without_yes_the_files_and_their_sizes_are_shown_and_nothing_is_removed(cli: Cli, trained: str) -> None:
    size = sum(directory.checkpoint_file(Path(trained), step).stat().st_size for step in (0, 4))
    result = cli("clean", trained, "--keep-last", "2")
    assert result.code == 0
    assert result.out == f"{trained}  2 checkpoints, {size / 1e6:.2f} MB  2 stay  steps 0 to 4\n"
    assert result.err == "nothing removed; --yes removes them\n"
    assert _steps(trained) == [0, 4, 8, 12]


def test_json_lists_what_can_be_removed_and_what_was(cli: Cli, trained: str) -> None:
    files = [directory.checkpoint_file(Path(trained), step) for step in (0, 4)]
    size = sum(file.stat().st_size for file in files)
    planned = {"run": trained, "files": [*map(str, files)], "num_bytes": size, "num_left": 2, "problem": ""}
    document = json.loads(cli("clean", "outputs", "--keep-last", 2, "--json").out)
    assert document == {"schema_version": 1, "runs": [planned], "removed": []} and _steps(trained) == [0, 4, 8, 12]
    document = json.loads(cli("clean", trained, "--keep-last", 2, "--json", "--yes").out)
    assert document == {"schema_version": 1, "runs": [planned], "removed": [planned]} and _steps(trained) == [8, 12]
    result = cli("clean", trained, "--keep-last", 2, "--json")
    assert result.err == f"{trained}: no checkpoint to remove\n"
    nothing = planned | {"files": [], "num_bytes": 0}
    assert json.loads(result.out) == {"schema_version": 1, "runs": [nothing], "removed": []}


@pytest.mark.parametrize(("keep_last", "steps"), [(1, [12]), (2, [8, 12]), (3, [4, 8, 12]), (9, [0, 4, 8, 12])])
def test_the_last_n_checkpoints_stay_and_their_digests(
    cli: Cli, trained: str, keep_last: int, steps: list[int]
) -> None:
    assert cli("clean", trained, "--keep-last", keep_last, "--yes").code == 0
    assert _steps(trained) == steps
    assert [*read_checksums(Path(trained))] == [f"step-{step:08d}.pt" for step in steps]
    folder = Path(trained) / "checkpoints"
    for name, digest in read_checksums(Path(trained)).items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_a_cleaned_run_is_evaluated_and_resumed_with_the_same_bytes(cli: Cli, trained: str) -> None:
    bytes_before = directory.checkpoint_file(Path(trained), 12).read_bytes()
    for step in (8, 12):  # interrupted at outer step 4
        directory.remove_checkpoint(directory.checkpoint_file(Path(trained), step))
    (Path(trained) / "last.json").unlink()
    assert cli("clean", trained, "--keep-last", "1", "--yes").code == 0
    assert _steps(trained) == [4]
    assert cli("eval", trained, "--tasks", "5").code == 0
    assert cli("train", "--resume", trained, "-q").code == 0
    assert directory.checkpoint_file(Path(trained), 12).read_bytes() == bytes_before


def test_the_newest_good_checkpoint_stays_where_newer_ones_are_damaged(cli: Cli, trained: str) -> None:
    _spoil(trained, 12)
    _spoil(trained, 8)
    assert cli("clean", trained, "--keep-last", "1", "--yes").code == 0
    assert _steps(trained) == [4, 12]
    (Path(trained) / "config.yaml").unlink()
    assert cli("clean", trained, "--keep-last", "1", "--yes").err == f"{trained}: no checkpoint to remove\n"
    assert cli("train", "--resume", f"{trained}/checkpoints/step-00000004.pt", "-q").code == 0


def test_the_checkpoint_of_last_json_and_newer_ones_stay(cli: Cli, trained: str) -> None:
    named = directory.checkpoint_file(Path(trained), 8)
    last = Path(trained) / "last.json"
    digest = read_checksums(Path(trained))[named.name]
    last.write_text(
        f'{{"schema_version": 1, "checkpoint": "checkpoints/{named.name}", "step": 8, "sha256": "{digest}"}}'
    )
    assert cli("clean", trained, "--keep-last", "1", "--yes").code == 0
    assert _steps(trained) == [8, 12]


def test_nothing_is_removed_from_a_run_without_a_good_checkpoint_or_in_training(cli: Cli, trained: str) -> None:
    with directory.training_lock(Path(trained)):
        result = cli("clean", trained, "--keep-last", "1", "--yes")
        assert (result.code, result.err) == (3, f"{trained}: another process is training this run\n")
    for step in (0, 4, 8, 12):
        _spoil(trained, step)
    result = cli("clean", trained, "--keep-last", "1", "--yes")
    assert (result.code, result.err) == (3, f"{trained}: no good checkpoint; none is removed\n")
    assert _steps(trained) == [0, 4, 8, 12]


def test_a_removal_is_of_planned_checkpoints_that_are_still_old_and_of_a_run_that_is_not_trained(trained: str) -> None:
    run = Path(trained)
    later = {file: file.read_bytes() for file in (directory.checkpoint_file(run, 12), run / "last.json")}
    for file in later:
        file.unlink()
    planned = plan_pruning(run, keep_last=1)
    assert [file.name for file in planned.files] == ["step-00000000.pt", "step-00000004.pt"]
    for file, data in later.items():  # a training went on after the plan
        file.write_bytes(data)
    directory.remove_checkpoint(planned.files[0])
    with directory.training_lock(run), pytest.raises(FileError, match="another process is training this run"):
        prune(planned, keep_last=1)
    assert [file.name for file in prune(planned, keep_last=1).files] == ["step-00000004.pt"]
    assert _steps(trained) == [8, 12]


def test_all_runs_of_a_directory_are_cleaned_and_those_with_a_problem_skipped(cli: Cli, trained: str) -> None:
    shutil.copytree(trained, "outputs/second")
    busy = shutil.copytree(Path(trained), Path("outputs/busy"))
    linked = shutil.copytree(Path(trained), Path("outputs/linked"))
    os.rename(linked / "checkpoints", "elsewhere")
    os.symlink(Path("elsewhere").resolve(), linked / "checkpoints")
    with directory.training_lock(busy):
        result = cli("clean", "--keep-last", "1", "--yes")
    assert result.code == 0
    assert (_steps(trained), _steps("outputs/second"), _steps(busy), len(list(Path("elsewhere").glob("*.pt")))) == (
        [12],
        [12],
        [0, 4, 8, 12],
        4,
    )
    assert "outputs/busy: another process is training this run" in result.err
    assert "outputs/linked/checkpoints: not a directory of this run" in result.err
    assert "removed 6 checkpoints, " in result.err
    assert cli("clean", "outputs/second", "--keep-last", "1").err == "outputs/second: no checkpoint to remove\n"


def test_digests_are_removed_before_files_so_that_a_crash_leaves_good_checkpoints(
    cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(file: Path, missing_ok: bool = False) -> None:
        raise OSError(5, "crash", str(file))

    planned = plan_pruning(Path(trained), keep_last=1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda file, missing_ok=False: crash(file) if file.suffix == ".pt" else None)
        with pytest.raises(OSError, match="crash"):
            prune(planned, keep_last=1)
    assert _steps(trained) == [0, 4, 8, 12] and [*read_checksums(Path(trained))] == ["step-00000012.pt"]
    assert cli("eval", f"{trained}/checkpoints/step-00000004.pt", "--tasks", "5").code == 0
    assert cli("clean", trained, "--keep-last", "1", "--yes").code == 0 and _steps(trained) == [12]


@pytest.mark.parametrize(("answer", "steps"), [("y\n", [12]), ("n\n", [0, 4, 8, 12]), ("", [0, 4, 8, 12])])
def test_a_terminal_is_asked(
    cli: Cli, trained: str, answer: str, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty text is the end of the input, Ctrl-D."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    result = cli("clean", trained, "--keep-last", "1")
    assert result.code == 0 and "remove 3 checkpoints, " in result.err and "? [y/N] " in result.err
    assert _steps(trained) == steps


def test_the_number_is_required_and_from_1(cli: Cli, trained: str) -> None:
    assert cli("clean", trained).err == "--keep-last: missing; see maml clean --help\n"
    result = cli("clean", trained, "--keep-last", "0")
    assert (result.code, result.err) == (2, "--keep-last 0: must be a whole number from 1 to 1,000,000\n")
    assert cli("clean", "nowhere", "--keep-last", "1").code == 3
