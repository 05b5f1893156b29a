"""The storage of a sweep: an Optuna study in a journal file of the sweep's directory, or in a database.

Optuna prints nothing: neither its log nor its warnings about experimental functions reach the user.
"""

import contextlib
import fcntl
import logging
import os
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend

from maml_cli.errors import CheckpointError, ConfigError, FileError
from maml_cli.sweeps.record import Sweep, differences, without_password

JOURNAL = "journal.log"
DRIVERS = {
    "postgresql": "psycopg2-binary",
    "mysql": "mysqlclient",
    "redis": "redis",
    "sqlite": "",
    "psycopg": "psycopg",
}
"""Scheme of a URL, or the driver in it (postgresql+psycopg://), -> the package that it needs beside Optuna."""
LIBRARIES = ("sqlalchemy", "redis", "psycopg2", "MySQLdb", "pymysql", "alembic")
"""Packages whose exceptions are faults of the database or of its connection."""
ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS = 5, 0.5
"""Attempts to open a database: of several processes that create its tables at once, all but one fail at first."""
RECORD = "sweep"
"""Attribute of the study with the record of the sweep, for machines that do not share the directory."""
FRACTION_BEFORE_PRUNING = 0.3
"""Fraction of the outer steps in which no trial is pruned."""


class Store(NamedTuple):
    """An open storage.

    study: the study of the sweep, whose trials and attributes it holds.
    storage: the storage, for changes of a trial's state that one process alone can make.
    study_id: the number of the study there.
    is_shared_directory: whether every process of the sweep has the same directory.
    """

    study: optuna.Study
    storage: BaseStorage
    study_id: int
    is_shared_directory: bool

    def trial_id(self, number: int) -> int:
        """The identity of the trial with this number of Optuna's."""
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """A block in which Optuna prints neither messages nor warnings."""
    optuna.logging.set_verbosity(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)  # of its deprecated arguments, and its base class is that too
        yield


@contextlib.contextmanager
def storage_errors(sweep: Sweep) -> Iterator[None]:
    """Turn faults of the database, or of the journal, into one message."""
    try:
        yield
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        is_fault = library in LIBRARIES or isinstance(error, optuna.exceptions.StorageInternalError)
        if not is_fault:
            raise
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        first_line = str(cause or error).strip().splitlines()[:1]
        raise FileError(f"--storage {sweep.storage}: {''.join(first_line)}; correct that, and start again") from None


def check_storage_url(url: str) -> None:
    """Raises ConfigError for a URL of no database that sweeps know."""
    try:
        parts = urlsplit(url)
        scheme, _ = parts.scheme.partition("+")[0], parts.port
    except ValueError:  # its words may quote the password
        form = "SCHEME://USER:PASSWORD@HOST:PORT/NAME with special characters percent-encoded"
        raise ConfigError(f"--storage: must be a URL, {form}") from None
    if scheme not in ("postgresql", "mysql", "redis", "sqlite"):
        names = "postgresql://, mysql:// or redis://"
        raise ConfigError(f"--storage {without_password(url)}: must begin with {names}, or sqlite:/// on one machine")


def open_store(sweep: Sweep, url: str | None = None) -> Store:
    """The storage of `sweep`, with a new study unless there is one; raises ConfigError without the driver of its
    database, and FileError if it cannot be opened or has another sweep of this name."""
    with quiet_optuna(), storage_errors(sweep):
        storage = _open(sweep.directory, url or sweep.storage)
        study = optuna.create_study(storage=storage, study_name=sweep.study, load_if_exists=True)
        study.pruner = optuna.pruners.MedianPruner(
            n_warmup_steps=int(sweep.config.outer.steps * FRACTION_BEFORE_PRUNING)
        )
        ours = {key: value for key, value in sweep.document.items() if key in ("space", "config")}
        theirs = study.user_attrs.get(RECORD)
        if theirs is None:
            study.set_user_attr(RECORD, ours)
        elif changed := differences(theirs, ours):
            raise FileError(
                f"--storage {sweep.storage}: has another sweep named {sweep.study}: {changed[0]}; give another "
                f"directory with --out"
            )
        return Store(study, storage, storage.get_study_id_from_name(sweep.study), not sweep.storage)


def _open(directory: Path, url: str) -> BaseStorage:
    if not url:
        return _open_journal(os.path.abspath(directory / JOURNAL))
    check_storage_url(url)
    try:
        if url.startswith("redis"):
            return JournalStorage(JournalRedisBackend(url))
        return _open_database(re.sub("^postgresql:", "postgresql+psycopg2:", url))  # SQLAlchemy 2.1 prefers psycopg 3
    except ImportError:
        scheme, _, driver = urlsplit(url).scheme.partition("+")
        package = DRIVERS.get(driver) or driver or DRIVERS[scheme]
        raise ConfigError(
            f"--storage {without_password(url)}: needs {package}, which is not installed; install it with: pip install "
            f"{package}"
        ) from None


@dataclass
class _Lock:
    """A lock on the journal that ends with its process; Optuna's own stay for 30 seconds after a kill.

    file: the file that is locked.
    descriptor: of that file while it is locked, and -1 else.
    """

    file: str
    descriptor: int = -1

    def acquire(self) -> bool:
        """Wait for the lock and take it."""
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.descriptor = descriptor
        return True

    def release(self) -> None:
        """Release the lock."""
        os.close(self.descriptor)


def _open_journal(file: str) -> JournalStorage:
    """The journal `file`, without a last line that a full disk or a kill has cut short; raises CheckpointError if it is
    damaged."""
    lock = _Lock(os.path.join(os.path.dirname(file), ".journal.lock"))
    lock.acquire()
    try:
        with contextlib.suppress(FileNotFoundError), open(file, "rb+") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)
    finally:
        lock.release()
    try:
        return JournalStorage(JournalFileBackend(file, lock_obj=lock))  # type: ignore[arg-type]  # its two methods
    except (ValueError, KeyError, TypeError):
        advice = "restore it, or start a new sweep in another directory"
        raise CheckpointError(f"{file}: damaged; {advice}") from None


def _open_database(url: str) -> RDBStorage:
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(Exception):
            return RDBStorage(url)
        time.sleep(SECONDS_BETWEEN_ATTEMPTS)
    return RDBStorage(url)
