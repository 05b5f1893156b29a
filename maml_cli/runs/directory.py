"""A run directory: resolved config, metrics, checkpoints. Written atomically, verified when read.

config.yaml                      resolved, enough to repeat the run
metrics.jsonl                    one object a line, only what is the same whenever the run is repeated
timing.jsonl                     times and rates
checkpoints/step-00001000.pt     and SHA256SUMS beside them, as `sha256sum -c` reads it
last.json                        names the newest checkpoint and its SHA-256
plots/, eval.json                what `maml plot` and `maml eval` write
"""

import contextlib
import itertools
import json
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from maml_cli.config import Config, from_dict, load_config, to_dict
from maml_cli.errors import CheckpointError, ConfigError, FileError
from maml_cli.runs import checkpoint
from maml_cli.runs.files import exclusive_lock, fsync_file, remove_temporary_files, truncate_lines, write_atomic

CHECKSUMS = "SHA256SUMS"


class Checkpoint(NamedTuple):
    """A verified checkpoint: its file, the run directory around it if there is one, and what it holds.

    `note` says what is odd about the run, if anything is.
    """

    file: Path
    run: Path | None
    config: Config
    contents: dict[str, Any]
    warning: str = ""

    @property
    def step(self) -> int:
        """Outer steps done."""
        return int(self.contents["step"])

    @property
    def label(self) -> str:
        """What people call it: the run, or the file where it stands alone."""
        return str(self.run or self.file)


def create_run(path: Path | None, *, name: str, config: Config, parent: Path = Path("outputs")) -> Path:
    """Make a new run directory at `path`, or at `parent`/`name`, `name`-2, ...: never one that holds a run."""
    if path is not None:
        check_empty(path)
        path.mkdir(parents=True, exist_ok=True)
        run = path
    else:
        parent.mkdir(parents=True, exist_ok=True)
        run = _make_free_directory(parent, name)
    (run / "checkpoints").mkdir()
    write_config(run, config)
    return run


def free_directory(parent: Path, name: str) -> Path:
    """The first of `name`, `name`-2, ... that is not there yet."""
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(parent / candidate for candidate in candidates if not (parent / candidate).exists())


def check_empty(path: Path) -> None:
    """Raises FileError if something is in the directory `path`, or it is a file."""
    if path.is_file():
        raise FileError(f"{path}: a file; --out takes a directory")
    if path.is_dir() and any(path.iterdir()):
        raise FileError(f"{path}: not empty; give a new directory, or continue the run in it with --resume {path}")


def write_config(run: Path, config: Config) -> None:
    """Write `config.yaml` of a run."""
    write_atomic(run / "config.yaml", dump_yaml(to_dict(config)).encode())


def save_checkpoint(run: Path, step: int, contents: dict[str, Any]) -> Path:
    """Write a checkpoint, then its SHA-256, then the name of the newest: a crash between leaves a good state."""
    data = checkpoint.encode(contents)
    file = run / "checkpoints" / f"step-{step:08d}.pt"
    fsync_file(run / "metrics.jsonl")
    if file.exists():
        _write_sums(run, {name: digest for name, digest in _sums(run).items() if name != file.name})
    write_atomic(file, data)
    _write_sums(run, _sums(run) | {file.name: checkpoint.digest(data)})
    _name_newest(run, file, step, checkpoint.digest(data))
    return file


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, a file, or the newest of the run directory `path`.

    Raises FileError if there is none, CheckpointError if it is damaged: the message names the newest good one.
    """
    if not path.exists():
        raise FileError(f"{path}: no such run or checkpoint{_did_you_mean(path)}")
    file, note = _newest(path) if path.is_dir() else (path, "")
    run = _run_of(file)
    try:
        return _read(file, run)._replace(warning=note)
    except CheckpointError as error:
        good = (
            next((other for other in _checkpoints(run) if other != file and _is_good(other, run)), None)
            if run
            else None
        )
        advice = f"the newest good checkpoint is {good}" if good else "there is no other checkpoint beside it"
        raise CheckpointError(f"{file}: {error}; {advice}") from None


def read_config(run: Path) -> Config | None:
    """The config of a run, or None if it is gone or cannot be used."""
    try:
        return load_config(str(run / "config.yaml")).config
    except (ConfigError, FileError):
        return None


def truncate_to(found: Checkpoint | None, run: Path) -> None:
    """Make `found` the newest state of `run` again, or its beginning: what was logged later, or left half written,
    is dropped."""
    if found is not None:
        _name_newest(run, found.file, found.step, checkpoint.digest(found.file.read_bytes()))
    for name in ("metrics.jsonl", "timing.jsonl"):
        truncate_lines(run / name, up_to_step=found.step if found else -1)
    for directory in (run, run / "checkpoints"):
        remove_temporary_files(directory)


def training_lock(run: Path) -> AbstractContextManager[None]:
    """Keep a second process from training in `run`; raises FileError if one does."""
    return exclusive_lock(run / ".lock", busy=f"{run}: another process is training this run")


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain values as block YAML in the order given, with short lists on one line."""
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=100)


def _make_free_directory(parent: Path, name: str) -> Path:
    while True:  # another process may be faster
        run = free_directory(parent, name)
        with contextlib.suppress(FileExistsError):
            run.mkdir()
            return run


def _read(file: Path, run: Path | None) -> Checkpoint:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror}") from None
    contents = checkpoint.decode(data, sha256=_sums(run).get(file.name) if run else None)
    if not {"step", "config", "meta_params"} <= contents.keys():
        raise CheckpointError("not a checkpoint of maml")
    try:
        config = from_dict(contents["config"], label="its config")
    except ConfigError as error:
        raise CheckpointError(f"its config cannot be used: {error}") from None
    return Checkpoint(file, run, config, contents)


def _is_good(file: Path, run: Path) -> bool:
    try:
        _read(file, run)
    except (CheckpointError, FileError):
        return False
    return True


def _newest(directory: Path) -> tuple[Path, str]:
    """The file that last.json names, or else the newest there is, and a note where the two differ."""
    run = directory.parent if directory.name == "checkpoints" else directory
    files = _checkpoints(run)
    if not files:
        raise FileError(f"{directory}: not a run directory: it has no checkpoints/step-*.pt")
    try:
        named = run / json.loads((run / "last.json").read_text(encoding="utf-8"))["checkpoint"]
    except FileNotFoundError:
        return files[0], ""
    except (OSError, ValueError, KeyError, TypeError):
        return files[0], f"{run / 'last.json'} cannot be read: taking {files[0].name}, the newest there is"
    if named.exists():
        return named, ""
    return files[0], f"{named} is missing: taking {files[0].name}, the newest there is"


def _checkpoints(run: Path) -> list[Path]:
    """Newest first."""
    return sorted((f for f in run.glob("checkpoints/step-*.pt") if re.fullmatch(r"step-\d+", f.stem)), reverse=True)


def _run_of(file: Path) -> Path | None:
    return file.parent.parent if file.absolute().parent.name == "checkpoints" else None


def _sums(run: Path) -> dict[str, str]:
    """SHA-256 by file name; where the list is lost, that of the newest, which stands in last.json too."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = (run / "checkpoints" / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        last = json.loads((run / "last.json").read_text(encoding="utf-8"))
        return {Path(last["checkpoint"]).name: str(last["sha256"])}
    return {}


def _write_sums(run: Path, sums: dict[str, str]) -> None:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    write_atomic(run / "checkpoints" / CHECKSUMS, lines.encode())


def _name_newest(run: Path, file: Path, step: int, digest: str) -> None:
    last = {"schema_version": 1, "checkpoint": f"checkpoints/{file.name}", "step": step, "sha256": digest}
    write_atomic(run / "last.json", (json.dumps(last) + "\n").encode())


def _did_you_mean(path: Path) -> str:
    inside = Path("outputs") / path
    return f"; did you mean {inside}?" if inside.exists() else ""
