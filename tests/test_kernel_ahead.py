"""The kernel of a training is compiled while PyTorch is imported, where it is sure to be used; once, or stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from maml_cli.config import Config, load_config
from maml_cli.engines import choose_engine, evaluation_kernel, kernel_ahead, kernel_build
from maml_cli.engines.evaluation_spec import evaluation_spec
from maml_cli.engines.kernel_build import load_kernel, start_compiling
from maml_cli.engines.kernel_spec import KernelSpec, kernel_spec
from maml_cli.experiment import build_experiment, param_keys
from tests.conformance import COMBINATIONS, combined_config

CPU = torch.device("cpu")
AHEAD = "from maml_cli.engines import compile_ahead; compile_ahead('smoke', ['run.engine=native'], device='cpu')"
needs_compiler = pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
needs_shell = pytest.mark.skipif(os.name != "posix", reason="compilers of these tests are shell scripts")


def test_the_constants_of_a_kernel_need_no_pytorch() -> None:
    """Its import takes as long as the compilation."""
    code = f"import sys; {AHEAD}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"CXX": "no-such-compiler", "PATH": ""})


def test_groups_of_alphas_are_those_of_the_experiment() -> None:
    for config in map(combined_config, COMBINATIONS):
        groups = build_experiment(config).alpha_groups
        names = [*dict.fromkeys(groups.values())]
        expected = [names.index(groups[key]) if key in groups else -1 for key in param_keys(config)]
        assert kernel_spec(config).groups == expected


def _presets() -> list[Config]:
    return [
        load_config(file.stem).config for file in sorted(Path("configs").glob("*.yaml")) if file.stem != "own-curves"
    ]


@needs_compiler
def test_a_kernel_that_is_compiled_ahead_is_that_of_the_chosen_engine() -> None:
    ahead = [config for config in _presets() if kernel_ahead._needs_kernel(config)]
    assert len(ahead) > 20
    for config in ahead:
        assert choose_engine(config, CPU).name == "native"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["run.engine=native"], True),
        ([], False),  # smoke is too short
        (["outer.steps=100000"], True),
        (["outer.steps=100000", "run.engine=eager"], False),
        (["outer.steps=100000", "outer.optimizer=rmsprop"], False),
        (["outer.steps=100000", "run.device=cuda"], False),
    ],
)
def test_a_kernel_is_compiled_ahead_where_it_is_sure_to_be_used(overrides: list[str], expected: bool) -> None:
    assert kernel_ahead._needs_kernel(load_config("smoke", overrides).config) is expected


@needs_compiler
def test_the_kernel_of_the_evaluations_of_a_training_is_compiled_ahead_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """70 of 500 tasks in finn-10shot; without evaluations there is none."""
    started = list[tuple[KernelSpec, Path | None]]()
    monkeypatch.setattr(kernel_ahead, "start_compiling", lambda spec, source=None: started.append((spec, source)))
    config = load_config("finn-10shot").config
    kernel_ahead.compile_ahead("finn-10shot", [], device="cpu")
    training = (kernel_spec(config), None)
    assert started == [training, (evaluation_spec(config, 10), kernel_build.EVALUATION_SOURCE)]
    kernel = evaluation_kernel(config, num_shots=10, steps=config.inner.steps)
    assert kernel and kernel.kernel.spec == started[1][0]
    started.clear()
    kernel_ahead.compile_ahead("finn-10shot", ["run.eval_every=0"], device="cpu")
    assert started == [training]


def test_what_is_wrong_with_a_config_is_left_to_the_training() -> None:
    kernel_ahead.compile_ahead("no such preset", [], device=None)
    kernel_ahead.compile_ahead("smoke", ["outer.steps=many"], device=None)
    kernel_ahead.compile_ahead("smoke", [], device="abacus")


@needs_shell
@needs_compiler
def test_a_kernel_that_is_being_compiled_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for twice, and loaded twice: one run of the compiler."""
    spec = kernel_spec(load_config("smoke", []).config)
    log = tmp_path / "log"
    _compiler(tmp_path, monkeypatch, f'echo "$@" >> {log}; exec {kernel_build.compiler()} "$@"')
    start_compiling(spec)
    start_compiling(spec)
    assert load_kernel(spec).spec == load_kernel(spec).spec == spec
    start_compiling(spec)  # in the cache now
    compilations = [line for line in log.read_text().splitlines() if "kernel.cpp" in line]
    assert len(compilations) == 1 and not kernel_build._started


@needs_shell
def test_a_compiler_that_fails_ahead_is_one_message_when_its_kernel_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = kernel_spec(load_config("smoke", []).config)
    _compiler(tmp_path, monkeypatch, "echo 'kernel.cpp:1: error: no' >&2; [ $1 = --version ]")
    start_compiling(spec)
    with pytest.raises(OSError, match=r"could not compile the kernel: kernel.cpp:1: error: no$"):
        load_kernel(spec)
    assert not kernel_build._started


@needs_shell
def test_a_process_that_ends_before_stops_its_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that would take a minute: the process ends at once, and leaves neither it nor a folder."""
    log, temporary = tmp_path / "pid", tmp_path / "tmp"
    temporary.mkdir()
    _compiler(tmp_path, monkeypatch, f"[ $1 = --version ] || {{ echo $$ > {log}; sleep 60; }}")
    wait = f"import os, time\nwhile not os.path.exists({str(log)!r}): time.sleep(0.01)"
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"{AHEAD}\n{wait}"], check=True, env=os.environ | {"TMPDIR": str(temporary)})
    assert time.perf_counter() - before < 30
    assert not [*temporary.iterdir()]
    _assert_ends(int(log.read_text()))


@needs_shell
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_while_a_training_is_prepared_stops_its_compiler(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As soon as the compiler runs, which is before PyTorch is imported."""
    log, temporary = tmp_path / "pid", tmp_path / "tmp"
    temporary.mkdir()
    _compiler(tmp_path, monkeypatch, f"[ $1 = --version ] || {{ echo $$ > {log}; sleep 60; }}")
    heed_interrupts = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # also under nohup
    main = "import sys; sys.argv[0] = 'maml'; from maml_cli.cli.app import main; main()"
    arguments = ["train", "-c", "smoke", "-s", "run.engine=native", "--out", "run"]
    command = [sys.executable, "-c", f"{heed_interrupts}\n{main}", *arguments]
    environment = os.environ | {"TMPDIR": str(temporary)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as process:
        while not (log.exists() and log.read_text()):
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(timeout=30) == code
    assert not [*temporary.iterdir()] and not (tmp_path / "run").exists()
    _assert_ends(int(log.read_text()))


def _assert_ends(process: int) -> None:
    """Within seconds; one that has ended may wait for its new parent to notice."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
        if state.strip()[:1] in ("", "Z"):
            return
        time.sleep(0.05)
    raise AssertionError(f"process {process} runs still")


def _compiler(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    file = folder / "cxx"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("CXX", str(file))
    monkeypatch.setenv("MAML_CACHE", str(folder / "kernels"))
