"""The path of a config's table of curves: looked for where the config is read, or where its run is now."""

import os
from pathlib import Path

from maml_cli.config import presets
from maml_cli.errors import FileError
from maml_cli.reading import sha256_of


def find_table(file: Path, folder: Path, *, digest: str | None) -> Path | None:
    """The table `file` of a config or run in `folder`; None if there is none.

    The first that exists: from the current directory, from `folder`, or among the presets. A table whose SHA-256
    `digest` a training has kept is looked for in the directories above `folder` as well, and there also by its last
    name alone, since runs move and are read from other directories; only a table with this digest is taken.
    """
    in_presets = presets.directory() / file.name
    if digest is None:
        return next((path for path in (file, folder / file, in_presets) if os.path.exists(path)), None)
    above = [folder, *folder.resolve().parents]
    candidates = [file, *(parent / path for parent in above for path in (file, file.name)), in_presets]
    existing: dict[str, Path] = {}
    for path in candidates:
        if os.path.isfile(path):
            existing.setdefault(os.path.realpath(path), path)
    if [*existing.values()] == [file]:
        return file  # its digest is checked where it is read
    return next((path for path in existing.values() if has_digest(path, digest)), None)


def has_digest(file: Path, digest: str | None) -> bool:
    """Whether `file` can be read and has the SHA-256 `digest`."""
    try:
        return sha256_of(file) == digest
    except FileError:
        return False
