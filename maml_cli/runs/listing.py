"""Checkpoints of a run directory by their names: their order, their digests and the newest one, without PyTorch."""

import contextlib
import os
import re
from pathlib import Path

from maml_cli.config import Config, load_config_file
from maml_cli.errors import ConfigError, FileError, NewerVersionError
from maml_cli.reading import read_file
from maml_cli.runs.files import parse_json
from maml_cli.runs.suggestions import did_you_mean

CHECKSUMS, LAST = "SHA256SUMS", "last.json"
LAST_SCHEMA_VERSION = 1
CHECKSUMS_BYTES, LAST_BYTES = 16_000_000, 65_536
"""Largest files that are read."""
MAX_NAME = 255
"""Bytes of the name of a file in every common file system."""


def read_config(run: Path) -> Config | None:
    """The config of a run, or None if it is missing or invalid."""
    try:
        return load_config_file(run / "config.yaml")
    except (ConfigError, FileError):
        return None


def checkpoint_files(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    files = {file: step_of(file) for file in run.glob("checkpoints/step-*.pt")}
    return sorted((file for file, step in files.items() if step is not None), key=lambda f: (files[f], f), reverse=True)


def read_checksums(run: Path) -> dict[str, str]:
    """SHA-256 of each checkpoint by file name, from SHA256SUMS, or that of the newest from last.json without it."""
    with contextlib.suppress(FileError, UnicodeDecodeError):
        text = read_file(run / "checkpoints" / CHECKSUMS, limit=CHECKSUMS_BYTES).decode("utf-8")
        lines = (line.partition("  ") for line in text.split("\n") if line[64:66] == "  ")
        return {name: digest for digest, _, name in lines if name and "/" not in name}
    with contextlib.suppress(FileError, ValueError):
        last = read_last(run)
        return {Path(last["checkpoint"]).name: last["sha256"]}
    return {}


def read_last(run: Path) -> dict[str, str]:
    """`checkpoint` and `sha256` of last.json; raises ValueError unless it names a .pt file in the run's checkpoints/,
    and NewerVersionError if a newer version of maml wrote it."""
    last = parse_json(read_file(run / LAST, limit=LAST_BYTES))
    if not isinstance(last, dict) or type(last.get("schema_version")) is not int:
        raise ValueError("without a schema_version")
    if (version := last["schema_version"]) > LAST_SCHEMA_VERSION:
        raise NewerVersionError(
            f"{run / LAST}: written by a newer maml (schema {version}, this one reads {LAST_SCHEMA_VERSION}); upgrade"
        )
    values = {key: last.get(key) for key in ("checkpoint", "sha256")}
    folder, _, name = str(values["checkpoint"]).partition("/")
    if not all(isinstance(value, str) for value in values.values()) or folder != "checkpoints":
        raise ValueError("without the newest checkpoint")
    if not name.endswith(".pt") or Path(name).name != name or not name.isprintable() or len(name.encode()) > MAX_NAME:
        raise ValueError("it names no checkpoint of the run")
    return {key: str(value) for key, value in values.items()}


def step_of(file: Path) -> int | None:
    """The outer step in the name of a checkpoint; None for a renamed one."""
    named = re.fullmatch(r"step-(\d+)", file.stem)
    return int(named[1]) if named else None


def newest_checkpoint(directory: Path) -> tuple[Path, list[str]]:
    """The file that last.json names, or else that of the last outer step, and a warning in that case."""
    run = directory.parent if directory.name == "checkpoints" else directory
    files = checkpoint_files(run)
    if not files:
        hint = did_you_mean(directory)
        raise FileError(f"{directory}: not a run directory: it has no checkpoints/step-*.pt{hint}")
    if not os.path.lexists(run / LAST):
        return files[0], []
    try:
        named = run / read_last(run)["checkpoint"]
    except (FileError, ValueError):
        return files[0], [f"{run / LAST}: damaged; using the newest checkpoint, {files[0].name}"]
    if named.exists():
        return named, []
    return files[0], [f"{named}: missing; using the newest checkpoint, {files[0].name}"]
