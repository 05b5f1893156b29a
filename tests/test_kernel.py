"""The kernel for the CPU: its cache, its constants, and the arrays of a call, all checked without a training."""

import ctypes
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import (
    KERNEL_ACTIVATIONS,
    KERNEL_CLIPS,
    KERNEL_LOSSES,
    KERNEL_OPTIMIZERS,
    Config,
    native_thread_bytes,
)
from maml_cli.core import Points, TaskBatch
from maml_cli.engines import kernel_build, kernel_call, kernel_evaluation
from maml_cli.engines.kernel_build import Kernel, load_kernel
from maml_cli.engines.kernel_call import CallArgs, CallOptions, KernelState, call_kernel, pack_call, run_kernel
from maml_cli.engines.kernel_evaluation import EvaluationArgs
from maml_cli.engines.kernel_spec import KernelSpec, kernel_spec
from maml_cli.errors import FileError

needs_compiler = pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")

SPEC = KernelSpec(
    dtype="float64",
    widths=[1, 4, 3, 1],
    num_support=6,
    num_query=5,
    inner_steps=2,
    activation="tanh",
    loss="mse",
    alpha_steps=2,
    per_parameter=False,
    learned=True,
    positive=False,
    groups=[0, 0, 1, 1, -1, -1],
)
STEPS, RUNS, TASKS = 3, 2, 4


def test_the_suite_writes_neither_to_the_users_home_nor_to_their_cache(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    pwd = pytest.importorskip("pwd")
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    temporary = tmp_path_factory.getbasetemp()
    root = temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary
    caches = [kernel_build.cache_directory(), Path(os.environ["XDG_CACHE_HOME"]), Path.home()]
    assert all(path.is_relative_to(root) for path in caches)
    assert home not in caches and home / ".cache" / "maml" not in caches


@pytest.mark.parametrize(
    ("maml_cache", "xdg_cache", "expected"),
    [("/a", "/b", "/a"), (None, "/b", "/b/maml"), (None, None, "/home/someone/.cache/maml")],
)
def test_kernels_are_cached_in_maml_cache_or_else_in_the_users_cache(
    maml_cache: str | None, xdg_cache: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("MAML_CACHE", maml_cache), ("XDG_CACHE_HOME", xdg_cache), ("HOME", "/home/someone")):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    assert kernel_build.cache_directory() == Path(expected)


# ---- the cache


def _script(file: Path, text: str) -> str:
    """An executable shell script."""
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def compiled_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A stand-in for the compiler, an empty cache, and the number of compilations so far."""
    log = tmp_path / "compilations"
    script = 'case $1 in --version) echo 12;; *) echo x >> "$LOG"; shift $(($# - 1)); echo x > "$1";; esac'
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.setenv("CXX", _script(tmp_path / "cxx", script))
    monkeypatch.setenv("MAML_CACHE", str(tmp_path / "kernels"))
    monkeypatch.setattr("ctypes.CDLL", str)
    return lambda: len(log.read_text().splitlines())


def test_a_kernel_is_compiled_once_and_then_taken_from_the_cache(compiled_commands: Callable[[], int]) -> None:
    notices: list[str] = []
    first, second = (load_kernel(SPEC, notify=notices.append) for _ in range(2))
    assert first == second and compiled_commands() == 1
    assert notices == ["compiling a kernel for this config, once; some seconds ..."]


def _new_compiler_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "cxx"
    script.write_text(script.read_text().replace("echo 12", "echo 13"))


def _new_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel_build, "_processor", lambda: b"flags: avx512f")


def _new_optimisation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel_build, "OPTIMISATION", "-O1")


def _new_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / kernel_build.SOURCE.name
    copy.write_text(kernel_build.SOURCE.read_text() + "\n")
    monkeypatch.setattr(kernel_build, "SOURCE", copy)


def _new_header(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    *others, last = kernel_build.HEADERS
    copy = tmp_path / last.name
    copy.write_text(last.read_text() + "\n")
    monkeypatch.setattr(kernel_build, "HEADERS", (*others, copy))


@pytest.mark.parametrize("change", [_new_compiler_version, _new_processor, _new_optimisation, _new_source, _new_header])
def test_a_kernel_is_compiled_anew_for_another_compiler_processor_flag_or_source(
    change: Callable[[pytest.MonkeyPatch, Path], None],
    compiled_commands: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A library for another processor may stop with SIGILL."""
    before = load_kernel(SPEC)
    change(monkeypatch, tmp_path)
    after = load_kernel(SPEC)
    assert before.library != after.library and compiled_commands() == 2


def test_the_processor_is_known_by_its_model_and_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = "model name : Z80\ncpu MHz : {}\nflags : {}\n"
    texts = [cpuinfo.format(4, "avx2"), cpuinfo.format(5, "avx2"), cpuinfo.format(4, "sse2")]
    keys = []
    for text in texts:
        monkeypatch.setattr(Path, "read_text", lambda path, encoding, text=text: text)
        keys.append(kernel_build._processor())
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("output", "line"),
    [("kernel.cpp:1: error: first\nkernel.cpp:2: error: second", "kernel.cpp:1: error: first"), ("odd\nlast", "last")],
)
def test_the_first_error_of_the_compiler_or_its_last_line_is_reported(
    output: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "compiler"
    failing.write_text(f"#!/bin/sh\nprintf '{output}' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CXX", str(failing))
    monkeypatch.setenv("MAML_CACHE", str(tmp_path / "cache"))
    with pytest.raises(OSError, match=f"could not compile the kernel: {line}$"):
        load_kernel(SPEC)


def test_every_header_that_the_sources_include_is_part_of_the_cache_key() -> None:
    sources = [kernel_build.SOURCE, kernel_build.EVALUATION_SOURCE, *kernel_build.HEADERS]
    included = {name for file in sources for name in re.findall(r'#include "(.*)"', file.read_text())}
    assert included == {header.name for header in kernel_build.HEADERS}


# ---- Python and C++ agree


def _without_comments(file: Path) -> str:
    return re.sub(r"//.*", "", file.read_text())


@pytest.mark.parametrize(
    ("struct", "source", "arrays"),
    [
        (CallArgs, kernel_build.SOURCE, kernel_call.ARRAYS),
        (EvaluationArgs, kernel_build.EVALUATION_SOURCE, kernel_evaluation.ARRAYS),
    ],
)
def test_the_arguments_of_a_call_are_the_same_struct_in_python_and_in_c(
    struct: type[ctypes.Structure], source: Path, arrays: Sequence[str]
) -> None:
    text = _without_comments(source)
    (body,) = re.findall(rf"struct {struct.__name__} \{{(.*?)\}};", text, flags=re.DOTALL)
    types = {"c_long": "int64_t", "c_longlong": "int64_t", "c_int": "int32_t", "c_double": "double"}
    fields = []
    for name, kind in (field[:2] for field in struct._fields_):
        array = re.fullmatch(r"(\w+)_Array_(\d+)", kind.__name__)
        item, length = (array[1], f"[{array[2]}]") if array else (kind.__name__, "")
        fields.append((types.get(item, "*"), f"{name}{length}"))
    declared = [line.strip() for line in body.split(";") if line.strip()]
    assert [("*" if "*" in line else line.split()[0], line.split()[-1].lstrip("*")) for line in declared] == fields
    assert f"NUM_ARRAYS = {len(arrays)};" in text and fields[-1] == ("int64_t", f"lengths[{len(arrays)}]")


def test_names_have_the_same_numbers_in_python_and_in_c() -> None:
    sources = "".join(map(_without_comments, (*kernel_build.HEADERS, kernel_build.SOURCE)))
    enums = [tuple(text.lower().split(", ")) for text in re.findall(r"enum \{ (.*) \};", sources)]
    modes = ("set", "neg", "add", "sub")  # of products within the kernel
    assert enums == [KERNEL_ACTIVATIONS, KERNEL_LOSSES, KERNEL_CLIPS, modes, KERNEL_OPTIMIZERS]


def test_lengths_of_rows_follow_from_the_network_its_alphas_and_its_curvatures() -> None:
    """Weights 4, 12, 3 and biases 4, 3, 1 are 27 parameters, 23 of them adapted; a curvature of these has factors of
    1 + 16, 16, 16 + 9 and 9 numbers."""
    assert (SPEC.num_params, SPEC.num_values, SPEC.num_learned) == (27, 27 + 2 * 2, 27 + 2 * 2)
    assert SPEC._replace(learned=False).num_learned == 27
    by_parameter = SPEC._replace(per_parameter=True, groups=[0, 1, 2, 3, -1, -1])
    assert by_parameter.num_values == by_parameter.num_learned == 27 + 2 * 23
    curved = SPEC._replace(curvatures=2, learned=False)
    assert (curved.num_values, curved.num_learned) == (27 + 2 * 67 + 2 * 2, 27 + 2 * 67)
    solved = SPEC._replace(penalties=4, penalties_learned=True)  # of the head and of the losses of both inner steps
    assert solved.num_values == solved.num_learned == 27 + 2 * 2 + 3 * 4
    assert solved._replace(penalties_learned=False).num_learned == 27 + 2 * 2


BY_TENSOR = {"learned": True, "per": "tensor", "per_step": True}
FIXED: dict[str, Any] = {"learned": False}


@needs_compiler
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"activation": "relu"}, "inner": {"alpha": FIXED}},
        {"inner": {"curvature": "kronecker", "curvature_per_step": True}},
        {"inner": {"curvature": "kronecker", "clip_norm": 1.0}},
        {"inner": {"clip_value": 1.0}},
        {"inner": {"momentum": 0.5}},
        {"inner": {"optimizer": "adam", "curvature": "kronecker"}},
        {"model": {"oracle": True}, "inner": {"proximal": 0.5}},
        {"inner": {"alpha": FIXED, "steps": 32}, "outer": {"meta_gradient": "reptile"}},
        {"inner": {"alpha": FIXED}, "outer": {"meta_gradient": "joint"}, "tasks": {"num_query": 14}},
        {"model": {"num_context": 24}},
        {"model": {"num_context": 24, "context_learned": True}, "inner": {"adapt": "context", "clip_norm": 1.0}},
        {"inner": {"momentum": 0.5, "curvature": "kronecker", "clip_norm": 1.0}},
        {"inner": {"adapt": "body", "curvature": "kronecker", "alpha": {"learned": True, "per": "parameter"}}},
        {"inner": {"head": "ridge"}},
        {"inner": {"head": "ridge", "adapt": "head", "steps": 1, "alpha": FIXED, "ridge": {"per": "feature"}}},
        {"model": {"hidden": [64, 128, 64]}, "inner": {"steps": 1}, "tasks": {"num_support": 32}},
    ],
)
def test_the_memory_of_a_thread_is_that_of_the_arrays_of_the_kernel(changes: dict[str, Any], tmp_path: Path) -> None:
    """Compiled with vectors of one number, so that no row is padded; each array is aligned to 64 bytes."""
    defaults: dict[str, dict[str, Any]] = {
        "tasks": {"num_support": 6, "num_query": 5},
        "model": {"hidden": [64, 128], "activation": "tanh"},
        "inner": {"steps": 2, "alpha": BY_TENSOR},
        "run": {"dtype": "float64"},
    }
    names = [*defaults, "outer"]
    config = Config.model_validate({name: defaults.get(name, {}) | changes.get(name, {}) for name in names})
    expected, spec = native_thread_bytes(config), kernel_spec(config)
    num_arrays = 16 * (spec.inner_steps + 2 + (spec.num_support == 0))  # of each inner step, others, and empty ones
    alignment = 64 * num_arrays
    test = tmp_path / "size.cpp"
    test.write_text(
        f'#include "{kernel_build.SOURCE}"\n'
        "constexpr long size = sizeof(InnerStart) + sizeof(TaskWorkspace);\n"
        f"static_assert(size >= {expected}); static_assert(size <= {expected + alignment});\n"
    )
    flags = ["-std=c++17", "-fsyntax-only", "-DVECTOR_BYTES=8", *spec.definitions()]
    result = subprocess.run([str(kernel_build.compiler()), *flags, str(test)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert alignment < 0.05 * expected


# ---- the arrays of a call


def _call() -> tuple[TaskBatch, CallOptions, KernelState]:
    """Three outer steps of two runs with four tasks."""
    support, query = (
        Points(*(torch.rand(STEPS, RUNS, TASKS, count, 1, dtype=torch.float64) for _ in "xy"))
        for count in (SPEC.num_support, SPEC.num_query)
    )
    options = CallOptions(
        step_weights=torch.tensor([[0.0, 0.0, 1.0]] * STEPS, dtype=torch.float64),
        second_order=torch.ones(STEPS, dtype=torch.int32),
        learning_rates=torch.full((STEPS, 2), 0.01, dtype=torch.float64),
        noise=torch.zeros(STEPS, RUNS, SPEC.num_params, dtype=torch.float64),
        clip_norm=None,
        clip_task_norm=None,
        inner_clip=math.inf,
        inner_momentum=0.0,
        inner_proximal=0.0,
        alpha_scale=1.0,
        optimizers=("adam", "sgd"),
        num_threads=1,
    )
    state = KernelState(
        values=torch.zeros(RUNS, SPEC.num_values, dtype=torch.float64),
        first_moments=torch.zeros(RUNS, SPEC.num_learned, dtype=torch.float64),
        second_moments=torch.zeros(RUNS, SPEC.num_learned, dtype=torch.float64),
        loss_sum=torch.zeros(RUNS, dtype=torch.float64),
        skipped_tasks=torch.zeros(RUNS, dtype=torch.int64),
        active=torch.ones(RUNS, dtype=torch.int32),
        adam_steps=0,
    )
    return TaskBatch(support, query), options, state


@needs_compiler
def test_a_call_completes_its_steps_and_leaves_frozen_runs_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all parameters zero the prediction is zero: the loss of the first step is the mean of y squared."""
    monkeypatch.setattr(kernel_build, "OPTIMISATION", "-O0")
    batch, options, state = _call()
    state.active[1] = 0
    result = run_kernel(load_kernel(SPEC), batch, options, state)
    assert result.completed.tolist() == [STEPS, 0]
    assert state.values[0].any() and not state.values[1].any() and not result.gradients[1].any()
    batch, options, state = _call()
    options.learning_rates.zero_()
    result = run_kernel(load_kernel(SPEC), batch, options, state)
    torch.testing.assert_close(state.loss_sum, batch.query.y.square().mean(dim=(2, 3, 4)).sum(dim=0))


ARRAYS = [
    *((0, f"{split}.{axis}") for split in ("support", "query") for axis in ("x", "y")),
    *((1, name) for name in ("step_weights", "second_order", "learning_rates", "noise")),
    *((2, name) for name in KernelState._fields if name != "adam_steps"),
]
FAULTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "one element short along the last axis": lambda tensor: tensor[..., :-1].contiguous(),
    "one row more": lambda tensor: torch.cat([tensor, tensor[:1]]),
    "flattened": lambda tensor: tensor.flatten() if tensor.dim() > 1 else tensor[None],
    "of another dtype": lambda tensor: tensor.to(torch.float16),
    "on another device": lambda tensor: tensor.to("meta"),
    "sparse": lambda tensor: tensor.to_sparse(),
}


@pytest.mark.parametrize(("argument", "name"), ARRAYS)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_an_array_that_does_not_fit_is_refused_before_the_call(
    argument: int, name: str, fault: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """No library is loaded: a call would raise AttributeError."""
    call: list[Any] = list(_call())
    split, _, axis = name.partition(".")
    if axis:
        points = getattr(call[0], split)
        call[0] = call[0]._replace(**{split: points._replace(**{axis: fault(getattr(points, axis))})})
    else:
        call[argument] = call[argument]._replace(**{name: fault(getattr(call[argument], name))})
    with pytest.raises(ValueError, match="; the kernel takes "):
        run_kernel(Kernel(SPEC, None), *call)  # type: ignore[arg-type]


@pytest.mark.parametrize(("argument", "name"), [item for item in ARRAYS if item[0]])
def test_an_array_with_gaps_is_refused_before_the_call(argument: int, name: str) -> None:
    call: list[Any] = list(_call())
    tensor = getattr(call[argument], name)
    gaps = torch.stack([tensor, tensor], dim=-1)[..., 0]
    call[argument] = call[argument]._replace(**{name: gaps})
    with pytest.raises(ValueError, match=f"{name} is not contiguous"):
        run_kernel(Kernel(SPEC, None), *call)  # type: ignore[arg-type]


def test_a_batch_without_runs_and_an_optimiser_that_the_kernel_lacks_are_refused_before_the_call() -> None:
    batch, options, state = _call()
    empty = TaskBatch(*(Points(*(tensor[:, :0] for tensor in points)) for points in batch))
    with pytest.raises(ValueError, match=re.escape("support.x is (3, 0, 4, 6, 1); the kernel takes")):
        run_kernel(Kernel(SPEC, None), empty, options, state)  # type: ignore[arg-type]
    by_rmsprop = options._replace(optimizers=("adam", "rmsprop"))
    with pytest.raises(ValueError, match="the kernel lacks the outer optimiser rmsprop"):
        run_kernel(Kernel(SPEC, None), batch, by_rmsprop, state)  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["steps", "runs", "tasks"])
def test_a_batch_without_steps_runs_or_tasks_is_refused_before_the_call(axis: int) -> None:
    batch, options, state = _call()
    empty = TaskBatch(*(Points(*(tensor.narrow(axis, 0, 0) for tensor in points)) for points in batch))
    with pytest.raises(ValueError, match="all positive"):
        run_kernel(Kernel(SPEC, None), empty, options, state)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -1, 1025, 10**9])
def test_a_number_of_threads_out_of_range_is_refused_before_the_call(threads: int) -> None:
    batch, options, state = _call()
    with pytest.raises(ValueError, match=f"num_threads is {threads}; the kernel takes 1 to 1024"):
        run_kernel(Kernel(SPEC, None), batch, options._replace(num_threads=threads), state)  # type: ignore[arg-type]


def test_a_negative_count_of_adam_steps_is_refused_before_the_call() -> None:
    batch, options, state = _call()
    with pytest.raises(ValueError, match="adam_steps is -1"):
        run_kernel(Kernel(SPEC, None), batch, options, state._replace(adam_steps=-1))  # type: ignore[arg-type]


COUNTS = ["num_steps", "num_runs", "num_tasks", "num_threads", "adam_steps"]


def _refused(kernel: Kernel, change: Callable[[CallArgs], None]) -> str:
    """The message of the kernel's own refusal of the arguments of `_call` after `change`; nothing is written."""
    packed = pack_call(kernel.spec, *_call())
    arrays = [array for array in packed.arrays.values() if array is not None]
    before = [array.clone() for array in arrays]
    change(packed.args)
    with pytest.raises(ValueError) as refusal:
        call_kernel(kernel, packed.args)
    assert all(torch.equal(a, b) for a, b in zip(before, arrays, strict=True))
    return str(refusal.value)


@needs_compiler
def test_the_kernel_itself_refuses_counts_and_lengths_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of 0, below, and so large that products or sums of them overflow int64; each length one too short and too
    long; and an array without an address."""
    monkeypatch.setattr(kernel_build, "OPTIMISATION", "-O0")
    kernel = load_kernel(SPEC)
    for name in COUNTS:
        for value in (0, -1, 2**62, -(2**63), 2**63 - 1):
            if name == "adam_steps" and 0 <= value <= 2**63 - 1 - STEPS:
                continue
            message = _refused(kernel, lambda args, n=name, v=value: setattr(args, n, v))  # type: ignore[misc]
            assert message.startswith("the kernel refused")
    for index, name in enumerate(kernel_call.ARRAYS):
        for change in (-1, 1):

            def change_length(args: CallArgs, index: int = index, change: int = change) -> None:
                args.lengths[index] += change

            assert f"{name} has not the length" in _refused(kernel, change_length)
        if name != "noise":
            message = _refused(kernel, lambda args, n=name: setattr(args, n, None))  # type: ignore[misc]
            assert f"{name} has not the length" in message


# ---- a cache that is damaged, and compilers that fail


def _cached_file() -> Path:
    (file,) = kernel_build.cache_directory().glob("*.so")
    return file


@pytest.mark.parametrize("contents", [b"", b"ELF of another kernel", None], ids=["empty", "foreign", "directory"])
def test_a_damaged_library_in_the_cache_is_not_loaded_but_compiled_anew(
    contents: bytes | None, compiled_commands: Callable[[], int]
) -> None:
    """The digest of its contents is part of its name."""
    load_kernel(SPEC)
    file = _cached_file()
    good = file.read_bytes()
    if contents is None:
        file.rename(file.with_suffix(".moved"))
        (file.parent / f"{file.stem[:-1]}x.so").mkdir()
    else:
        file.write_bytes(contents)
    load_kernel(SPEC)
    assert compiled_commands() == 2 and file.read_bytes() == good


def test_a_cache_directory_that_is_a_file_is_one_message(compiled_commands: Callable[[], int], tmp_path: Path) -> None:
    (tmp_path / "kernels").write_text("x")
    with pytest.raises(FileError, match=r"kernels: kernel cache cannot be written: .*; set MAML_CACHE"):
        load_kernel(SPEC)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("kill -9 $$", "could not compile the kernel: stopped by signal 9"),
        ("exit 0", "could not compile the kernel: it wrote no library"),
        ("printf '\\377\\376 error' >&2; exit 1", "could not compile the kernel: .* error"),
        ("sleep 60 & wait", "did not end within 0.5 seconds"),
        ("", "No such file or directory: .*cxx"),
    ],
    ids=["killed", "no library", "not text", "hangs", "removed after --version"],
)
def test_a_compiler_that_fails_hangs_or_is_killed_is_one_message_and_leaves_no_file(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removal = "" if script else "; rm $0"
    compiler = _script(tmp_path / "cxx", f"case $1 in --version) echo 12{removal};; *) {script};; esac")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("MAML_CACHE", str(tmp_path / "kernels"))
    monkeypatch.setattr(kernel_build, "COMPILE_SECONDS", 0.5)
    with pytest.raises(OSError, match=message):
        load_kernel(SPEC)
    assert not [*(tmp_path / "temporary").iterdir()]
