"""Full file systems, and directories and file systems that cannot be written."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from maml_cli.dev.soak.limits import READERS, TRAIN, limited_training, resume_to_the_end
from maml_cli.dev.soak.processes import maml
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally
from maml_cli.dev.soak.trained import SHORT, fingerprint, fresh_copy, remove, train_undisturbed, tree_digests

NOBODY = 65534
PAGE = 4096
"""Bytes of a page of memory: the unit in which a file system in memory grows."""
NEEDS_ROOT = "(skipped: mounting needs root)"
Prepare = Callable[[], object]


def attack_full(scratch: Path, *, scale: float) -> SoakRow:
    """Train on file systems in memory that are too small by every number of pages, or of files, and then enlarged."""
    tally = Tally("full file systems, by every page and every file")
    options = [*SHORT, "--set=run.engine=eager"]
    run, _ = train_undisturbed(scratch, options)
    expected = fingerprint(run)
    files = [file for file in run.rglob("*")]
    pages = sum(file.stat().st_size // PAGE + 1 for file in files)
    stride = round(1 / min(1, 2 * scale))
    limits = [f"size={count * PAGE}" for count in range(2, pages + 4, stride)]
    limits += [f"nr_inodes={count}" for count in range(2, len(files) + 4, stride)]
    disk = scratch / "disk"
    disk.mkdir()
    for limit in limits:
        with _mounted(disk, limit) as is_mounted:
            if not is_mounted:
                return tally.row()._replace(attack=f"{tally.attack} {NEEDS_ROOT}")
            limited_training(tally, disk, expected, limit, prepare=lambda: None)
            _mount("-o", "remount,size=1g,nr_inodes=1000", disk)
            resume_to_the_end(tally, disk, expected, limit)
    return tally.row()


def attack_read_only(scratch: Path, *, scale: float) -> SoakRow:
    """Every command where it may read a run but write nothing: numbers or one error, and no file changes."""
    tally = Tally("read-only directories and file systems")
    run, _ = train_undisturbed(scratch, SHORT)
    commands = [
        *READERS.values(),
        TRAIN,
        ["train", "--resume", "run"],
        ["train", *SHORT],
        ["presets", "copy", "smoke", "m"],
    ]
    commands += [[*READERS["eval"], "--out", "new.json"], [*READERS["plot"], "--out", "figures"]]
    commands += [
        ["train", *SHORT, "--out", "new"],
        ["train", *SHORT, "--dry-run"],
        ["eval", "run", "--tasks=9", "--json"],
    ]
    for command in commands[:: 1 if scale >= 1 else 5]:
        for kind, read_only in {"mode": _read_only_by_mode, "mount": _read_only_by_mount}.items():
            folder = scratch / kind
            folder.mkdir()
            fresh_copy(run, folder / "run")
            before = tree_digests(folder)
            with read_only(folder) as prepare:
                if prepare is None:
                    continue
                tally.tries += 1
                outcome = maml(command, folder, prepare=prepare)
            line = f"{' '.join(command[:4])} in a directory that is read-only by its {kind}"
            tally.check_end(outcome, {0, 3}, line)
            if tree_digests(folder) != before:
                tally.fail("changed", f"{line}: files changed")
            remove(folder)
    return tally.row()


@contextlib.contextmanager
def _read_only_by_mode(folder: Path) -> Iterator[Prepare | None]:
    """A directory that nobody may write: for root, processes become another user."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield (lambda: os.setuid(NOBODY)) if os.getuid() == 0 else (lambda: None)
    finally:
        for path in folders:
            path.chmod(0o755)


@contextlib.contextmanager
def _read_only_by_mount(folder: Path) -> Iterator[Prepare | None]:
    """A directory on a file system that is mounted read-only; None where mounting is not allowed."""
    if not _mount("--bind", folder, folder):
        yield None
        return
    try:
        yield (lambda: os.chdir(folder)) if _mount("-o", "remount,bind,ro", folder) else None
    finally:
        _unmount(folder)


@contextlib.contextmanager
def _mounted(folder: Path, limit: str) -> Iterator[bool]:
    """A file system in memory at `folder`, or False where mounting is not allowed."""
    is_mounted = _mount("-t", "tmpfs", "-o", limit, "tmpfs", folder)
    try:
        yield is_mounted
    finally:
        if is_mounted:
            _unmount(folder)


def _mount(*arguments: object) -> bool:
    try:
        return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0
    except OSError:
        return False


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
