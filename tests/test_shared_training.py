"""Trainings that several processes share: the same bytes for any number of processes, and one process that speaks."""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore, Store  # type: ignore[attr-defined]

from maml_cli.cli.app import main
from maml_cli.config import Config
from maml_cli.core import MetaParams, Points, TaskBatch, flatten, tensors
from maml_cli.dev.soak.processes import Outcome, preload, start, wait
from maml_cli.engines import BlockShare, average_in_blocks, kernel_build, make_engine
from maml_cli.engines.eager import adjoint_average
from maml_cli.engines.state import BatchGradient
from maml_cli.errors import ConfigError
from maml_cli.experiment import build_experiment
from maml_cli.runs import checkpoint, open_checkpoint, read_lines
from maml_cli.training import init_state, snapshot, train
from maml_cli.training.processes import ONE_PROCESS
from maml_cli.training.rendezvous import store_of_this_start
from maml_cli.training.run_groups import concat_runs, select_run_contents
from tests.conftest import Cli

OPTIONS = (
    "--config=smoke",
    "--set=outer.steps=24",
    "--set=outer.tasks_per_step=7",
    "--set=run.eval_tasks=4",
    "--set=run.eval_every=10",
    "--set=run.log_every=3",
    "--set=run.checkpoint_every=8",
)
"""Seven tasks: blocks of one; log lines, evaluations and checkpoints out of phase."""


@pytest.fixture(scope="module", autouse=True)
def _preloaded() -> None:
    preload()


def _processes(folder: Path, size: int, *arguments: str, **settings: str) -> list[Outcome]:
    """The outcomes of `maml` in `size` processes that see the environment of torchrun."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    common |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)} | settings

    def body(rank: int) -> Callable[[], None]:
        def run() -> None:
            os.environ.update(common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            main(["train", *arguments])

        return run

    children = [start(body(rank), folder) for rank in range(size)]
    return [wait(child, seconds=60) for child in children]


def _bytes(run: Path) -> dict[str, bytes]:
    """metrics.jsonl, the config and all checkpoints."""
    files = [run / "metrics.jsonl", run / "config.yaml", *sorted(run.glob("checkpoints/*"))]
    return {file.name: file.read_bytes() for file in files}


EVERYTHING = (
    "--set=outer.weight_noise=0.01",
    "--set=outer.clip_task_norm=5",
    "--set=outer.clip_norm=1",
    "--set=inner.alpha.learned=true",
    "--set=inner.alpha.per=layer",
)


@pytest.mark.parametrize(
    ("options", "alone"),
    [
        pytest.param(["--set=run.engine=eager"], "outer.task_blocks=7", id="one seed"),
        pytest.param(["--set=run.engine=reference", *EVERYTHING], "outer.task_blocks=7", id="one seed, every option"),
        pytest.param(["--set=run.engine=eager", "--set=run.seeds=[5,3,8]"], "run.side_by_side=false", id="seeds"),
        pytest.param(
            ["--set=run.engine=native", "--set=run.seeds=[5,3,8]", *EVERYTHING],
            "run.side_by_side=false",
            id="seeds, native",
            marks=pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine"),
        ),
    ],
)
def test_one_to_four_processes_write_the_bytes_of_one_without_torchrun(
    options: list[str], alone: str, tmp_path: Path
) -> None:
    """For three seeds, the fourth process is idle; for seven blocks, the shares differ."""
    arguments = [*OPTIONS, *options, "-q"]
    outcome = wait(start(lambda: main(["train", *arguments, f"--set={alone}", "--out=alone"]), tmp_path))
    assert outcome.code == 0, outcome.err
    expected = _bytes(tmp_path / "alone")
    assert len(expected) == 3 + 4
    for size in range(1, 5):
        outcomes = _processes(tmp_path, size, *arguments, f"--out=shared-{size}")
        assert [outcome.code for outcome in outcomes] == [0] * size, outcomes
        assert [outcome.out for outcome in outcomes] == [f"shared-{size}\n"] + [""] * (size - 1)
        assert _bytes(tmp_path / f"shared-{size}") == expected, size


@pytest.mark.parametrize("size", [1, 2])
def test_the_leader_alone_prints(size: int, tmp_path: Path) -> None:
    first, *others = _processes(tmp_path, size, *OPTIONS, "--json")
    assert json.loads(first.out)["run"] == "outputs/smoke" and "outputs/smoke: new run" in first.err
    assert ("  shared   7 blocks of tasks among 2 processes" in first.err) == (size == 2)
    assert all(outcome.out == outcome.err == "" for outcome in others)
    (refused, *others) = _processes(tmp_path, size, *OPTIONS, "--set=outer.lr=0", "--dry-run")
    assert refused.code == 2 and refused.err.startswith("--set outer.lr=0:")
    assert all((outcome.code, outcome.out + outcome.err) == (2, "") for outcome in others)
    (planned, *others) = _processes(tmp_path, size, *OPTIONS, "--dry-run")
    assert planned.code == 0 and planned.out.startswith("outputs/smoke-2: nothing written")
    assert all((outcome.code, outcome.out + outcome.err) == (0, "") for outcome in others)


def test_each_seed_on_its_own_is_the_training_of_that_seed_alone(cli: Cli) -> None:
    """Also its random streams: the checkpoint of one run is that of a training with its seed."""
    options = [*OPTIONS, "-s", "run.engine=eager", "-q"]
    cli("train", *options, "-s", "run.seeds=[4,9]", "-s", "run.side_by_side=false", "--out", "both")
    both = open_checkpoint(Path("both")).contents
    lines = read_lines(Path("both/metrics.jsonl"))
    for index, seed in enumerate([4, 9]):
        cli("train", *options, "-s", f"run.seed={seed}", "--out", f"{seed}")
        alone = open_checkpoint(Path(f"{seed}")).contents
        selected = select_run_contents(both, index) | {"config": alone["config"]}
        assert checkpoint.encode(selected) == checkpoint.encode(alone)
        for line, single in zip(lines, read_lines(Path(f"{seed}/metrics.jsonl")), strict=True):
            assert line.get("loss", [None, None])[index] == single.get("loss")


@pytest.mark.parametrize("engine", ["eager", *(["native"] if kernel_build.compiler() else [])])
def test_seeds_on_their_own_resume_with_the_same_bytes(engine: str, cli: Cli) -> None:
    """In one process, where the groups of all runs are restored from the same contents."""
    options = [*OPTIONS, f"--set=run.engine={engine}", "--set=run.seeds=3", "--set=run.side_by_side=false", "-q"]
    assert cli("train", *options, "--out", "run").code == 0
    expected = _bytes(Path("run"))
    assert cli("train", "--resume", Path("run/checkpoints/step-00000008.pt"), "-q").code == 0
    assert _bytes(Path("run")) == expected


def test_plain_training_has_no_process_group(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *args, **kwargs: pytest.fail("a group"))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert cli("train", *OPTIONS, "-q").code == 0


def _gradients(config: Config, num_blocks: int | None, *, spoiled: bool) -> BatchGradient:
    """The averaged meta-gradient of a batch of two runs; with `spoiled`, of one whose third task is not finite."""
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    batch: TaskBatch = experiment.sample(state.generators)
    if spoiled:
        batch.query.y[:, 2] = torch.inf
    average = adjoint_average(config, experiment)
    return (average_in_blocks(average, num_blocks) if num_blocks else average)(state.meta_params, batch, 0)


@pytest.mark.parametrize("clip_task_norm", [None, 0.5])
@pytest.mark.parametrize("num_blocks", [1, 2, 3, 5, 8])
def test_sums_over_blocks_are_the_mean_over_tasks(num_blocks: int, clip_task_norm: float | None) -> None:
    """To 1e-12 in float64, blocks of unequal sizes included, and skipped tasks, which leave a block of one empty."""
    data: dict[str, Any] = {
        "inner": {"steps": 2, "alpha": {"learned": True, "per": "parameter"}},
        "outer": {"tasks_per_step": 8, "clip_task_norm": clip_task_norm},
        "run": {"dtype": "float64", "seeds": [0, 1]},
    }
    config, spoiled = Config.model_validate(data), clip_task_norm is not None
    whole, summed = _gradients(config, None, spoiled=spoiled), _gradients(config, num_blocks, spoiled=spoiled)
    for actual, expected in zip(tensors(summed.gradients), tensors(whole.gradients), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))
    torch.testing.assert_close(summed.loss, whole.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(summed.norm, whole.norm, rtol=1e-12, atol=0)
    if spoiled:
        assert whole.skipped_tasks is not None and whole.skipped_tasks.tolist() == [1, 1]
        assert summed.skipped_tasks is not None and summed.skipped_tasks.tolist() == [1, 1]
    else:
        assert summed.skipped_tasks is None


def test_the_tasks_that_are_not_finite_are_counted_in_blocks_too(cli: Cli) -> None:
    """The same message with and without blocks: alpha is so large that inner steps overflow."""
    options = [*OPTIONS, "-q", "--set=run.engine=eager", "--set=inner.alpha.init=1e30"]
    errors = [
        cli("train", *options, *blocks, "--out", f"run-{len(blocks)}").err.splitlines()[0]
        for blocks in ([], ["--set=outer.task_blocks=3"])
    ]
    assert errors[0] == errors[1] and " of 7 tasks is not finite" in errors[0]


def test_a_block_alone_has_the_gradient_of_its_tasks() -> None:
    """Process 1 of 2 computes blocks 1 and 3 of four, which hold tasks 2, 3 and 6, 7 of eight."""
    seen: list[list[float]] = []

    def average(meta_params: MetaParams, batch: TaskBatch, step: int) -> BatchGradient:
        values = batch.query.y[:, :, 0, 0]
        seen.append(values[0].tolist())
        return BatchGradient(
            values.mean(dim=1), values.mean(dim=1), MetaParams({"a": values.mean(dim=1, keepdim=True)}, {}), None
        )

    points = Points(*(torch.arange(8.0).view(1, 8, 1, 1) for _ in range(2)))
    share = BlockShare(1, 2, lambda rows: torch.stack([torch.zeros_like(rows), rows]))
    result = average_in_blocks(average, 4, share)(MetaParams({}, {}), TaskBatch(points, points), 0)
    assert seen == [[2.0, 3.0], [6.0, 7.0]]
    assert flatten(tensors(result.gradients)).item() == (2 + 3 + 6 + 7) / 8


def _diverging(folder: Path, size: int, out: str, seeds: str) -> list[Outcome]:
    """The outcomes of a training in which seed 1 diverges; see the fixture below."""
    return _processes(
        folder, size, *OPTIONS, "--set=run.engine=eager", f"--set=run.seeds={seeds}", f"--out={out}", "-q"
    )


@pytest.fixture
def _seed_1_diverges(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of seed 1 have tasks that are not finite from outer step 11 on."""

    def engine_of(name: str, config: Config, *args: Any, **kwargs: Any) -> Any:
        experiment = args[0]

        def sample(generators: Any, *, num_steps: int | None = None) -> TaskBatch:
            batch: TaskBatch = experiment.sample(generators, num_steps=num_steps)
            if num_steps is not None and config.seeds == [1]:
                taken.append(num_steps)
                first = 11 - (sum(taken) - num_steps)
                batch.query.y[max(0, first) :] = torch.inf
            return batch

        taken: list[int] = []
        return make_engine(name, config, experiment._replace(sample=sample), **kwargs)

    monkeypatch.setattr("maml_cli.training.session.make_engine", engine_of)


@pytest.mark.usefixtures("_seed_1_diverges")
def test_a_seed_that_diverges_in_one_process_is_frozen_and_the_others_continue(tmp_path: Path) -> None:
    outcomes = [_diverging(tmp_path, size, f"run-{size}", "[0,1,2]") for size in (1, 3)]
    assert [[outcome.code for outcome in each] for each in outcomes] == [[0], [0, 0, 0]], outcomes
    for first in (outcomes[0][0], outcomes[1][0]):
        assert first.err == "seed 1 diverged at outer step 12 and is frozen; the others continued\n"
    assert _bytes(tmp_path / "run-1") == _bytes(tmp_path / "run-3")
    assert open_checkpoint(tmp_path / "run-3").contents["diverged"].tolist() == [0, 12, 0]
    for line in read_lines(tmp_path / "run-3" / "metrics.jsonl"):
        if "loss" in line:
            assert (line["loss"][1] is None) == (line["step"] >= 12) and None not in (line["loss"][0], line["loss"][2])


@pytest.mark.usefixtures("_seed_1_diverges")
def test_a_frozen_seed_resumes_frozen_with_the_same_bytes(tmp_path: Path) -> None:
    """From the checkpoint of step 16 of a complete run, in two processes."""
    _diverging(tmp_path, 2, "run", "[0,1]")
    expected = _bytes(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-00000024.pt").unlink()
    file = tmp_path / "run" / "checkpoints" / "step-00000016.pt"
    outcomes = _processes(tmp_path, 2, "--resume", str(file), "-q")
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert _bytes(tmp_path / "run") == expected


@pytest.mark.usefixtures("_seed_1_diverges")
def test_training_ends_where_the_last_seed_of_all_processes_diverges(tmp_path: Path) -> None:
    first, second = _diverging(tmp_path, 2, "run", "[1]")
    assert (first.code, second.code) == (5, 5) and second.err == ""
    lines = first.err.splitlines()
    assert lines[0] == "diverged at outer step 12: the query loss of 7 of 7 tasks is not finite" and len(lines) == 3
    assert lines[2] == "the last good checkpoint is run/checkpoints/step-00000008.pt"


def test_a_signal_to_any_process_stops_all_and_the_run_resumes_with_the_same_bytes(tmp_path: Path) -> None:
    """The process that gets SIGTERM is not the leader, which saves; without torchrun, the rest is trained by one."""
    arguments = [*OPTIONS, "--set=outer.steps=400", "--set=run.engine=eager", "-q"]
    wait(start(lambda: main(["train", *arguments, "--set=outer.task_blocks=7", "--out=alone"]), tmp_path))
    pids = tmp_path / "pids"
    pids.mkdir()

    def end_one() -> None:
        while not (tmp_path / "run" / "checkpoints" / "step-00000016.pt").exists():
            time.sleep(0.01)
        os.kill(int((pids / "1").read_text()), signal.SIGTERM)

    def record(*args: Any, **kwargs: Any) -> Any:
        (pids / os.environ["RANK"]).write_text(str(os.getpid()))
        return train(*args, **kwargs)

    thread = threading.Thread(target=end_one)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maml_cli.training.session.train", record)
        first, second = _processes(tmp_path, 2, *arguments, "--out=run")
    thread.join()
    assert (first.code, second.code) == (143, 143) and second.err == ""
    assert first.err == "stopped by SIGTERM; checkpoint saved. Resume with: maml train --resume run\n"
    resumed = wait(start(lambda: main(["train", "--resume", "run", "-q"]), tmp_path))
    alone, run = (tmp_path / name / "metrics.jsonl" for name in ("alone", "run"))
    assert resumed.code == 0 and run.read_bytes() == alone.read_bytes()


def test_a_single_run_on_the_kernel_and_runs_not_made_for_it_are_refused(tmp_path: Path, cli: Cli) -> None:
    first, second = _processes(tmp_path, 2, *OPTIONS, "--set=run.engine=native")
    assert (first.code, second.code) == (2, 2) and second.err == ""
    assert first.err.startswith("run.engine: native cannot share the tasks of a single run among processes; use eager")
    for key, options in {"outer.task_blocks null": (), "run.side_by_side true": ("--set=run.seeds=2",)}.items():
        out = f"alone-{len(options)}"
        assert cli("train", *OPTIONS, *options, "-q", "--out", out).code == 0
        last = Path(out, "checkpoints", "step-00000008.pt")
        first, second = _processes(tmp_path, 2, "--resume", str(last))
        assert (first.code, second.code) == (2, 2) and second.err == ""
        assert first.err.startswith(f"the run has {key}: ") and "without torchrun" in first.err


def test_a_process_that_ends_is_one_message_of_the_leader(tmp_path: Path) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        if os.environ["RANK"] == "1":
            os._exit(9)
        return train(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maml_cli.training.session.train", fail)
        outcomes = _processes(tmp_path, 3, *OPTIONS, "--out=run", "-q")
    assert [outcome.code for outcome in outcomes] == [143, 9, 143]
    assert outcomes[0].err.startswith("another process of this training ended") and outcomes[0].err.count("\n") == 1
    assert outcomes[2].err == ""


def test_a_start_answers_processes_that_come_late_and_not_those_that_ended() -> None:
    """Names of three earlier processes are in the store; process 1 replaces its own late."""
    store: Store = HashStore()
    for rank in range(3):
        store.set(f"maml/name/{rank}", f"ended-{rank}")
    starts: dict[int, Store] = {}

    def join(rank: int, delay: float) -> None:
        time.sleep(delay)
        starts[rank] = store_of_this_start(store, rank, 3)

    threads = [threading.Thread(target=join, args=(rank, delay)) for rank, delay in enumerate((0, 0.3, 0.1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    starts[2].set("key", "value")
    assert starts[0].get("key") == starts[1].get("key") == b"value"
    assert store.get("maml/start/ended-1") == store.get("maml/name/0")  # answered, in vain


def test_a_run_that_processes_began_is_resumed_when_torchrun_starts_them_again(tmp_path: Path) -> None:
    """By two agents on loopback addresses, each with one process; the second process kills itself once."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, sys\n"
        "from maml_cli.cli.app import main\n"
        "from maml_cli.training import session\n"
        "train = session.train\n"
        "def once(*args, **kwargs):\n"
        "    if os.environ['RANK'] == '1' and not os.path.exists('killed'):\n"
        "        open('killed', 'w').close()\n"
        "        hooks = kwargs['hooks']\n"
        "        kill = lambda step, loss: os.kill(os.getpid(), signal.SIGKILL) if step >= 10 else None\n"
        "        kwargs['hooks'] = hooks._replace(on_step=kill)\n"
        "    return train(*args, **kwargs)\n"
        "session.train = once\n"
        "main(sys.argv[1:])\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [*OPTIONS, "--set=run.engine=eager", "--out=run"]

    def node(index: int) -> Callable[[], None]:
        words = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=2"]
        words += ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test"]
        words += [f"--local-addr=127.0.0.{index + 1}", str(program), "train", *options]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
        return lambda: os.execve(sys.executable, words, environment)

    children = [start(node(index), tmp_path) for index in range(2)]
    outcomes = [wait(child, seconds=120) for child in children]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert (tmp_path / "killed").exists()
    resumed = [step for outcome in outcomes for step in re.findall(r"run: resumed at outer step (\d+)", outcome.err)]
    assert resumed == ["8"]
    alone = wait(
        start(lambda: main(["train", *options[:-1], "--set=outer.task_blocks=7", "--out=alone", "-q"]), tmp_path)
    )
    assert alone.code == 0 and _bytes(tmp_path / "run") == _bytes(tmp_path / "alone")


def test_contents_of_runs_are_joined_as_they_were_selected() -> None:
    config = Config.model_validate({"run": {"seeds": 3}})
    contents = snapshot(config, init_state(config, build_experiment(config)))
    joined = concat_runs([select_run_contents(contents, index) for index in range(3)])
    assert checkpoint.encode(joined) == checkpoint.encode(contents)


def test_one_process_computes_and_raises_by_itself() -> None:
    assert ONE_PROCESS.lead(lambda: 3) == 3 and ONE_PROCESS.together(lambda: 4) == [4]

    def refuse() -> None:
        raise ConfigError("a", "b")

    with pytest.raises(ConfigError, match="a\nb"):
        ONE_PROCESS.together(refuse)


def test_blocks_are_at_most_the_tasks_and_seeds_on_their_own_are_several(cli: Cli) -> None:
    refused = cli("train", *OPTIONS, "-s", "outer.task_blocks=8", "--dry-run")
    assert refused.code == 2 and "outer.task_blocks must be at most outer.tasks_per_step, which is 7" in refused.err
    refused = cli("train", *OPTIONS, "-s", "run.side_by_side=false", "--dry-run")
    assert refused.code == 2 and "has no effect: there is one seed" in refused.err
    for engine in ("native", "compiled"):
        refused = cli("train", *OPTIONS, "-s", "outer.task_blocks=2", "-s", f"run.engine={engine}", "--dry-run")
        assert refused.code == 2 and f"{engine} does not support outer.task_blocks = 2" in refused.err
