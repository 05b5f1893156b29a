"""Sweeps on a PostgreSQL server that this test starts; with MAML_FULL_TESTS in the environment alone."""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from maml_cli.sweeps import liveness, open_store, open_sweep, plan_sweep, read_rows, read_space, work
from tests.conformance import FULL
from tests.test_sweep import TINY, fork, last_error, wait_until

pytestmark = pytest.mark.skipif(not FULL, reason="a database server; with MAML_FULL_TESTS=1")
GRID = ["inner.steps=1,2,3", "inner.alpha.init=0.003,0.01,0.02"]


def _binaries() -> Path | None:
    """The directory of initdb and postgres: on the PATH, or Debian's."""
    found = [
        *Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        *([Path(path)] if (path := shutil.which("initdb")) else []),
    ]
    return found[-1].parent if found else None


def _as_other_user(folder: str) -> list[str]:
    """The words that start a program as a user that is not root, who owns `folder`: PostgreSQL refuses to be root."""
    if os.getuid() != 0:
        return []
    user = next(pwd.getpwnam(name) for name in ("postgres", "nobody") if name in {u.pw_name for u in pwd.getpwall()})
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of an empty database on a loopback port, in a temporary directory."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL: apt install postgresql")
    if importlib.util.find_spec("psycopg2") is None:
        pytest.skip("no driver of PostgreSQL: pip install psycopg2-binary")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        user, data = _as_other_user(folder), f"{folder}/data"
        options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*user, binaries / "initdb", "-D", data, "-A", "trust", "-U", "maml"], check=True, **options)  # type: ignore[call-overload]
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", folder, "-p", str(port)]
        process = subprocess.Popen([*user, binaries / "postgres", "-D", data, *settings], **options)  # type: ignore[call-overload]
        try:
            _wait_for_port(port)
            yield f"postgresql://maml@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(timeout=30)


def _wait_for_port(port: int) -> None:
    import psycopg2  # type: ignore[import-untyped, import-not-found, unused-ignore]

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg2.connect(host="127.0.0.1", port=port, user="maml", dbname="postgres").close()
            return
        except psycopg2.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("machines", [1, 3])
def test_three_workers_of_which_one_is_killed_lose_no_trial_and_end_none_twice(
    machines: int, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one directory, where the lock of the killed worker tells the others, and in three of the same name, as on
    machines that share the database alone, where its heartbeat does."""
    monkeypatch.setattr(liveness, "SECONDS_BETWEEN_BEATS", 0.5)
    monkeypatch.setattr(liveness, "SECONDS_UNTIL_DEAD", 6.0)
    settings = [*TINY, "outer.steps=200", "run.checkpoint_every=10", "run.eval_every=100", "run.log_every=50"]
    sweeps = [
        plan_sweep(
            "smoke", settings, read_space(grid=GRID), out=tmp_path / str(index % machines) / "shared", storage=server
        )
        for index in range(3)
    ]

    def worker(index: int) -> int:
        sweep, _ = open_sweep(sweeps[index])
        return work(sweep, open_store(sweep))

    processes = [fork(lambda index=index: worker(index)) for index in range(3)]
    wait_until(lambda: any(sweeps[0].directory.glob("*/checkpoints/step-00000030.pt")))
    os.kill(processes[0], signal.SIGKILL)
    assert [os.waitpid(process, 0)[1] for process in processes] == [signal.SIGKILL, 0, 0]
    store = open_store(sweeps[1])
    ended = [trial for trial in store.study.get_trials() if trial.state == TrialState.COMPLETE]
    assert sorted(trial.user_attrs["slot"] for trial in ended) == [*range(1, 10)]
    for row in read_rows(sweeps[1], store):
        runs = {sweep.run(row.number) for sweep in sweeps if sweep.run(row.number).exists()}
        assert row.error in [pytest.approx(last_error(run)) for run in runs if (run / "metrics.jsonl").exists()]
