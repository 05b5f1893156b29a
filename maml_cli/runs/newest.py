"""Run directories in a directory, the time of their last change, and the newest ones by the word `latest`."""

import os
import re
from pathlib import Path

from maml_cli.errors import ConfigError, FileError
from maml_cli.reading import reason
from maml_cli.runs.files import OUTPUTS
from maml_cli.runs.listing import LAST, checkpoint_files
from maml_cli.runs.metrics import METRICS
from maml_cli.runs.suggestions import did_you_mean
from maml_cli.runs.timing import TIMING

LATEST = "latest"
"""The word for the newest run in outputs/; `latest:2` is the one before it."""
CONFIG = "config.yaml"


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory, perhaps a damaged one: it has a checkpoint, or last.json, or a config and
    another file that training writes."""
    if os.path.lexists(path / LAST) or checkpoint_files(path):
        return True
    others = (METRICS, ".lock", "checkpoints")
    return os.path.lexists(path / CONFIG) and any(os.path.lexists(path / name) for name in others)


def run_directories(parent: Path) -> list[Path]:
    """The run directories directly in `parent`, or `parent` itself if it is one; in the order of their names.

    Raises FileError if it is no directory or cannot be read.
    """
    if not parent.is_dir():
        problem = "not a directory" if os.path.lexists(parent) else "no such directory"
        advice = did_you_mean(parent) or "; give one with run directories in it, or train a run with maml train"
        raise FileError(f"{parent}: {problem}{advice}")
    if is_run(parent):
        return [parent]
    try:
        with os.scandir(parent) as entries:
            names = sorted(entry.name for entry in entries if _is_directory(entry))
    except OSError as error:
        raise FileError(f"{parent}: cannot be read: {reason(error)}") from None
    return [run for name in names if is_run(run := parent / name)]


def last_change(run: Path) -> float:
    """The time at which training last wrote to `run`, in seconds since the epoch: evaluations and figures do not count.

    0 if it has none of the files that training writes.
    """
    return max(map(_modified, (run / name for name in (CONFIG, METRICS, TIMING, LAST))))


def newest_runs(parent: Path = OUTPUTS) -> list[Path]:
    """The run directories in `parent`, that of the last change first; none if there is no such directory."""
    runs = run_directories(parent) if parent.is_dir() else []
    return sorted(runs, key=lambda run: (last_change(run), run), reverse=True)


def find_run(text: str | os.PathLike[str]) -> Path:
    """The path of a run as a user gives it: `latest` and `latest:N` are the newest and the N-th newest run in outputs/.

    Any other text is a path or the name of a published run, and so is an existing file or directory of that name.
    Raises FileError if there are fewer runs, ConfigError for another number.
    """
    word = os.fspath(text)
    match = re.fullmatch(rf"{LATEST}(:.*)?", word)
    if match is None or os.path.lexists(word):
        return Path(word)
    number = re.fullmatch(r":0*([1-9]\d{0,8})", match[1] or ":1")
    if number is None:
        raise ConfigError(f"{word}: must be {LATEST}, or {LATEST}:N for the N-th newest run, with N from 1")
    runs = newest_runs()
    if not runs:
        raise FileError(f"{word}: there is no run in {OUTPUTS}; train one with maml train, or give a run")
    if int(number[1]) > len(runs):
        count = f"there is 1 run in {OUTPUTS}" if len(runs) == 1 else f"there are {len(runs):,} runs in {OUTPUTS}"
        raise FileError(f"{word}: {count}; maml runs lists them")
    return runs[int(number[1]) - 1]


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _modified(file: Path) -> float:
    try:
        return os.stat(file).st_mtime
    except OSError:
        return 0.0
