"""The record of a sweep in its directory, sweep.json: config, space and storage, by which other processes join it."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from maml_cli.config import Config, from_dict, leaves, load_config, to_dict
from maml_cli.errors import CheckpointError, ConfigError, FileError, NewerVersionError, shorten
from maml_cli.reading import read_file, reason
from maml_cli.runs import OUTPUTS, make_folder, write_atomic
from maml_cli.sweeps.space import Dimension, Space, check_space, read_space

RECORD = "sweep.json"
RECORD_BYTES = 4_000_000
SCHEMA_VERSION = 1
JOURNAL_STUDY = "sweep"


class Sweep(NamedTuple):
    """A sweep.

    directory: its record, its journal and the run directories of its trials.
    name: the name of its config, or of the directory.
    config: the config that the values of a trial change.
    space: the keys that vary, and the number of trials.
    storage: URL of a database without its password; empty for a journal in the directory.
    study: the name of the sweep in its storage, which machines with other directories share.
    """

    directory: Path
    name: str
    config: Config
    space: Space
    storage: str = ""
    study: str = JOURNAL_STUDY

    def run(self, number: int) -> Path:
        """The run directory of trial `number`, from 1."""
        return self.directory / f"trial-{number:04d}"

    @property
    def document(self) -> dict[str, Any]:
        """The contents of sweep.json."""
        by_option: dict[str, dict[str, str]] = {}
        for at in self.space.dimensions:
            by_option.setdefault(at.option.removeprefix("--"), {})[at.key] = at.text
        sampled = {} if self.space.is_grid else {"trials": self.space.trials, "seed": self.space.seed}
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "storage": self.storage,
            "study": self.study,
            "space": {**sampled, **by_option},
            "config": to_dict(self.config),
        }


def plan_sweep(
    source: str | None, overrides: list[str], space: Space, *, out: Path | None, storage: str | None
) -> Sweep:
    """The sweep that the options of `maml sweep` ask for, each of its values checked; writes nothing."""
    loaded = load_config(source or "quickstart", overrides)
    check_space(loaded.config, space)
    directory = out or OUTPUTS / f"{loaded.name}-sweep"
    study = os.path.basename(os.path.realpath(directory)) if storage else JOURNAL_STUDY
    return Sweep(directory, loaded.name, loaded.config, space, without_password(storage or ""), study)


def read_sweep(directory: Path) -> Sweep:
    """The sweep in `directory`; raises FileError if there is none, CheckpointError if its record is damaged."""
    file = directory / RECORD
    if not os.path.lexists(file):
        raise FileError(f"{directory}: not a sweep: it has no {RECORD}")
    try:
        data = json.loads(read_file(file, limit=RECORD_BYTES))
        version, space = data["schema_version"], dict(data["space"])
        if version > SCHEMA_VERSION:
            raise NewerVersionError(f"{file}: written by a newer maml (schema {version}); upgrade")
        options = {
            option: [f"{key}={text}" for key, text in space.get(option, {}).items()]
            for option in ("grid", "range", "choose")
        }
        sampled = {} if options["grid"] else {"trials": int(space["trials"]), "seed": int(space["seed"])}
        read = read_space(grid=options["grid"], ranges=options["range"], choose=options["choose"], **sampled)
        config = from_dict(data["config"], label=str(file))
        words = [str(data[key]) for key in ("name", "storage", "study")]
        return Sweep(directory, words[0], config, _in_order(read, space), *words[1:])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError):
        raise CheckpointError(f"{file}: damaged; restore it, or start a new sweep in another directory") from None


def open_sweep(sweep: Sweep) -> tuple[Sweep, bool]:
    """Write the record of `sweep` into its directory, unless one is there.

    Returns the sweep as recorded, and whether it is new. Of several processes that begin the same sweep, one writes it.
    Raises FileError if the directory has other files, or the record of another sweep, with the first difference.
    """
    file = sweep.directory / RECORD
    try:
        make_folder(sweep.directory)
        if not os.path.lexists(file) and any(not name.startswith(".") for name in os.listdir(sweep.directory)):
            raise FileError(f"{sweep.directory}: not empty, and no sweep; give another directory with --out")
        is_new = not os.path.lexists(file) and _create(file, json.dumps(sweep.document, indent=2) + "\n")
    except OSError as error:
        raise FileError(
            f"{sweep.directory}: cannot be created: {reason(error)}; give another directory with --out"
        ) from None
    recorded = sweep if is_new else read_sweep(sweep.directory)
    _check_same(recorded, sweep)
    return recorded, is_new


def without_password(url: str) -> str:
    """`url` without its password, which is written to no file and in no message."""
    password = urlsplit(url).password
    return url.replace(f":{password}@", "@", 1) if password else url


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The keys whose values differ between two records, each with both values."""
    old, new = ({".".join(map(str, key)): value for key, value in leaves(data)} for data in (there, here))
    return [
        f"{_key_in_words(key)} is {_shown(old, key)} there and {_shown(new, key)} here"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def _check_same(there: Sweep, here: Sweep) -> None:
    changed = differences(*(sweep._replace(name="", study="").document for sweep in (there, here)))
    if changed:
        more = f", and {len(changed) - 1:,} more" if len(changed) > 1 else ""
        raise FileError(
            f"{here.directory}: another sweep: {changed[0]}{more}; give another directory with --out, or go on with "
            f"--resume {here.directory}"
        )


def _create(file: Path, text: str) -> bool:
    """Write a new file completely or not at all; False if another process has written it first."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    write_atomic(temporary, text.encode())
    try:
        os.link(temporary, file)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        os.replace(temporary, file)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return True


def _in_order(space: Space, recorded: dict[str, Any]) -> Space:
    """`space` with its keys in the order of the record."""
    order = [key for option in recorded.values() if isinstance(option, dict) for key in option]
    dimensions: list[Dimension] = sorted(space.dimensions, key=lambda dimension: order.index(dimension.key))
    return space._replace(dimensions=tuple(dimensions))


def _key_in_words(key: str) -> str:
    """`space.grid.inner.steps` as `--grid inner.steps`, and `config.run.seed` as `run.seed`."""
    section, _, name = key.partition(".")
    return f"--{name.replace('.', ' ', 1)}" if section == "space" else name or section


def _shown(values: dict[str, Any], key: str) -> str:
    return shorten(str(values[key]), 60) if key in values else "not set"
