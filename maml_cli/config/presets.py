"""Presets: the configs that come with the project, by name."""

import difflib
import os
from pathlib import Path

from maml_cli.errors import ConfigError, FileError

SCHEMA = "schema.json"
"""The file beside the presets with the JSON schema of a config."""
MODELINE = "# yaml-language-server: $schema="
"""The beginning of the first line of a preset, which names the schema for editors."""


def directory() -> Path:
    """The directory of the presets: `presets` of an installed package, or `configs` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The names of all presets, sorted."""
    return sorted(path.stem for path in directory().glob("*.yaml"))


def path(name: str) -> Path:
    """The file of the preset `name`; raises ConfigError with the most similar name if there is none."""
    if name in names():
        return directory() / f"{name}.yaml"
    close = difflib.get_close_matches(name, names(), 1)
    hint = f"did you mean {close[0]}?" if close else "maml presets lists them"
    raise ConfigError(f"{name}: no such preset; {hint}")


def find(source: str) -> Path:
    """The file that `--config source` names: an existing file, else a preset.

    Raises FileError if `source` looks like a file and is none, ConfigError if it looks like the name of a preset.
    """
    if not source:
        raise ConfigError("--config: empty; give a YAML file or the name of a preset")
    candidate = Path(source)
    if candidate.exists() and not candidate.is_dir():  # also a pipe or /dev/stdin
        return candidate
    if source in names():
        return path(source)
    if candidate.is_dir():
        raise FileError(f"{source}: a directory; --config takes a YAML file or the name of a preset")
    if candidate.suffix in (".yaml", ".yml") and candidate.stem in names():
        raise FileError(f"{source}: no such file; did you mean the preset {candidate.stem}?")
    if os.sep in source or candidate.suffix in (".yaml", ".yml"):
        raise FileError(f"{source}: no such file; --config takes a YAML file or a name that `maml presets` lists")
    return path(source)


def copy(name: str, file: Path) -> None:
    """Copy the preset `name` to the new file `file`, with the schema's absolute path for editors; see `write_new`."""
    write_new(file, path(name).read_text(encoding="utf-8").replace(f"{MODELINE}{SCHEMA}", modeline(), 1))


def check_new(file: Path) -> None:
    """Raises FileError for a file that exists, or that cannot be created with the folders around it; writes nothing."""
    if os.path.lexists(file):
        raise FileError(f"{file}: exists already; give a new file")
    around = next(folder for folder in file.absolute().parents if os.path.lexists(folder))
    if not around.is_dir():
        raise FileError(f"{file}: cannot be written: {around} is not a directory")
    if not os.access(around, os.W_OK | os.X_OK):
        raise FileError(f"{file}: cannot be written: {around} is not writable")


def write_new(file: Path, text: str) -> None:
    """Write `text` to the new file `file`, and create the folders around it; raises FileError as `check_new`."""
    check_new(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise FileError(f"{file}: cannot be written: {error.strerror}") from None


def modeline() -> str:
    """The line by which an editor finds the schema from any directory."""
    return f"{MODELINE}{(directory() / SCHEMA).as_uri()}"


def summary(name: str) -> str:
    """The first comment line of a preset, after that for editors: what it trains."""
    lines = path(name).read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if not line.startswith(MODELINE))
    return first.removeprefix("#").strip()
