"""New run directories: where one can be created, and its creation, which a kill at any moment leaves to the next.

A directory belongs to the process that has locked it. One that is empty, or has only the files of a creation that was
killed before config.yaml, is blank: the next training of that name takes it.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from maml_cli.config import Config
from maml_cli.errors import FileError
from maml_cli.reading import reason
from maml_cli.runs import directory
from maml_cli.runs.files import OUTPUTS, is_locked, remove_temporary_files


def create_run(path: Path | None, *, name: str, config: Config, parent: Path = OUTPUTS) -> Path:
    """Create a run directory as `new_run`, without holding its lock afterwards."""
    with new_run(path, name=name, config=config, parent=parent) as run:
        return run


@contextlib.contextmanager
def new_run(path: Path | None, *, name: str, config: Config, parent: Path = OUTPUTS) -> Iterator[Path]:
    """Create and lock a run directory at `path`, or the first free one of `parent`/`name`, `name`-2, ...

    Raises FileError if `path` is not blank, or the directory cannot be created.
    """
    with contextlib.ExitStack() as stack:
        run = check_new_run(path, name=name, parent=parent)
        try:
            while not _take(run, stack):
                if path is not None:
                    raise FileError(f"{run}: another process is training this run")
                run = _free_directory(parent, name, after=run)
            directory.write_config(run, config)
            (run / "checkpoints").mkdir(exist_ok=True)
            remove_temporary_files(run)
        except OSError as error:
            advice = "give another directory with --out"
            raise FileError(f"{run}: cannot be created: {reason(error)} ({error.filename}); {advice}") from None
        yield run


def check_new_run(path: Path | None, *, name: str, parent: Path = OUTPUTS) -> Path:
    """The run directory that `new_run` would create; raises FileError if it could not, and writes nothing."""
    try:
        run = path if path is not None else _free_directory(parent, name)
        if os.path.lexists(run) and not run.is_dir():
            raise FileError(f"{run}: a file; --out takes a directory")
        if run.is_dir() and not _is_blank(run):
            raise FileError(f"{run}: not empty; give a new directory, or resume the run in it with --resume {run}")
        if run.is_dir() and is_locked(run / ".lock"):
            raise FileError(f"{run}: another process is training this run")
        around = next(folder for folder in (run, *run.absolute().parents) if os.path.lexists(folder))
    except OSError as error:
        raise FileError(f"{path or parent / name}: cannot be created: {reason(error)}") from None
    if not around.is_dir():
        raise FileError(f"{run}: cannot be created: {around} is not a directory; give another directory with --out")
    if not os.access(around, os.W_OK | os.X_OK):
        raise FileError(f"{run}: cannot be created: {around} is not writable; give another directory with --out")
    return run


def _free_directory(parent: Path, name: str, after: Path | None = None) -> Path:
    """The first of `name`, `name`-2, ... in `parent`, beyond `after`, that does not exist, or is blank and free."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    candidates: Iterator[Path] = (parent / candidate for candidate in names)
    if after is not None:
        candidates = itertools.islice(itertools.dropwhile(lambda run: run != after, candidates), 1, None)
    return next(run for run in candidates if not os.path.lexists(run) or _is_free(run))


def _is_free(run: Path) -> bool:
    return run.is_dir() and not run.is_symlink() and _is_blank(run) and not is_locked(run / ".lock")


def _is_blank(run: Path) -> bool:
    """Whether a directory is empty, or was left by a creation that was killed before config.yaml."""
    names = {entry.name for entry in os.scandir(run)}
    return all(name == ".lock" or name.startswith(".config.yaml.tmp-") for name in names)


def _take(run: Path, stack: contextlib.ExitStack) -> bool:
    """Create `run` unless it exists, and lock it; False if another process has taken it."""
    run.mkdir(parents=True, exist_ok=True)
    if not _is_blank(run):
        return False
    try:
        lock = contextlib.ExitStack()
        lock.enter_context(directory.training_lock(run))
    except FileError:
        return False
    stack.push(lock)
    return _is_blank(run)
