"""The configs that come with the project: where they are, and how a name becomes a file."""

import difflib
import os
from pathlib import Path

from maml_cli.errors import ConfigError, FileError


def directory() -> Path:
    """Where the presets are: inside an installed package, or `configs/` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The names of all presets, sorted."""
    return sorted(path.stem for path in directory().glob("*.yaml"))


def path(name: str) -> Path:
    """The file of the preset `name`; raises ConfigError with the nearest names if there is none."""
    if name in names():
        return directory() / f"{name}.yaml"
    close = difflib.get_close_matches(name, names(), 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names())}"
    raise ConfigError(f"{name}: no such preset; {hint}")


def find(source: str) -> Path:
    """The file that `--config source` means: a file if there is one, else a preset."""
    candidate = Path(source)
    if candidate.exists() and not candidate.is_dir():  # a pipe or /dev/stdin serves as well
        return candidate
    if source in names():
        return path(source)
    if candidate.is_dir():
        raise FileError(f"{source}: a directory; --config takes a YAML file or the name of a preset")
    if os.sep in source or candidate.suffix in (".yaml", ".yml"):
        raise FileError(f"{source}: no such file; `maml presets` lists what --config takes by name")
    return path(source)


def copy(name: str, file: Path) -> None:
    """Copy the preset `name` to `file`, which must not exist yet."""
    text = path(name).read_text(encoding="utf-8")
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise FileError(f"{file}: exists already; a preset is only copied to a new file") from None


def summary(name: str) -> str:
    """What a preset is, in the words of its first comment line."""
    first = path(name).read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()
