"""Every engine takes the outer steps of the reference, over the combinations that it supports."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import Config
from maml_cli.core import MetaParams, map_tensors, tensors
from maml_cli.engines import (
    OUTER_OPTIMIZERS,
    StepResult,
    TrainState,
    adjoint_meta_gradient,
    choose_engine,
    kernel_build,
    make_engine,
    make_outer_optimizer,
    optimizer_state,
    registry,
    unsupported,
)
from maml_cli.engines.adjoint import SavedStep, adjoint_gradient, mean_adjoint_gradient
from maml_cli.engines.derivatives import ForwardBackward
from maml_cli.engines.eager import adjoint_spec, adjoint_unsupported
from maml_cli.errors import ConfigError, DivergedError
from maml_cli.experiment import build_experiment
from maml_cli.runs import create_run, directory, open_checkpoint
from maml_cli.training import RunGroup, init_state, restore_state, train
from tests.conformance import (
    ADAPT,
    COMBINATIONS,
    FULL,
    GRADIENTS,
    PAIRWISE,
    PRODUCT,
    RULES,
    STEP,
    combined_config,
    names_to_test,
    perturbed,
    sample_batch,
    skip_tracing,
    value_pairs,
)
from tests.conftest import Cli

CPU = torch.device("cpu")


def _supported(engine: str) -> list[str]:
    return names_to_test(lambda config: unsupported(engine, config, CPU) is None)


ADJOINT_NAMES = names_to_test(lambda config: not any(adjoint_unsupported(config)))


def _after_one_step(engine: str, config: Config) -> tuple[TrainState, StepResult]:
    """State and result after outer step STEP of `engine`, from perturbed meta-parameters."""
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    state.step = STEP
    exact = perturbed(map_tensors(torch.Tensor.double, state.meta_params))
    for leaf, value in zip(tensors(state.meta_params), tensors(exact), strict=True):
        leaf.copy_(value.float())  # the same numbers in both precisions
    return state, make_engine(engine, config, experiment)(state, 1)


def _assert_close(actual: MetaParams, expected: MetaParams, *, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    for section, expected_section in zip(actual, expected, strict=True):
        assert section.keys() == expected_section.keys()
        for key, value in section.items():
            torch.testing.assert_close(value, expected_section[key], rtol=rtol, atol=atol)


def test_pairwise_combinations_have_every_pair_of_values_of_two_axes() -> None:
    """In as many rows as rules and gradients have pairs: no cover is smaller, and no supported subset needs more."""
    rows = {"-".join(row): row for row in PRODUCT}
    assert len(PRODUCT) == len(ADAPT) * len(RULES) * len(GRADIENTS) and set(PAIRWISE) <= set(COMBINATIONS)
    chosen = [rows[name] for name in PAIRWISE if name in rows]
    num_pairs = len(ADAPT) * len(RULES) + len(ADAPT) * len(GRADIENTS) + len(RULES) * len(GRADIENTS)
    assert len(set().union(*(value_pairs(row) for row in chosen))) == num_pairs
    assert len(chosen) == len(RULES) * len(GRADIENTS)
    assert FULL or len(ADJOINT_NAMES) <= len(PAIRWISE)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ADJOINT_NAMES)
def test_the_adjoint_gradient_is_that_of_the_unrolled_graph(name: str, recompute: bool) -> None:
    """Task by task, for two runs side by side; the arguments are unchanged."""
    config = combined_config(name)
    config = config.model_copy(update={"inner": config.inner.model_copy(update={"recompute_activations": recompute})})
    experiment = build_experiment(config)
    meta_params, batch = perturbed(experiment.init_meta_params([0, 1])), sample_batch(experiment, (0, 1), num_tasks=3)
    before = [value.clone() for value in tensors(meta_params)]
    losses, expected = experiment.algorithm.meta_gradient(meta_params, batch, STEP)
    actual_losses, actual = adjoint_meta_gradient(config, experiment)(meta_params, batch, STEP)
    assert losses.shape == (2, 3)
    torch.testing.assert_close(actual_losses, losses, rtol=1e-10, atol=1e-12)
    _assert_close(actual, expected)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(meta_params), strict=True))
    assert not any(value.requires_grad for value in tensors(actual))


@pytest.mark.parametrize(("num_runs", "num_tasks"), [(1, 1), (1, 3), (2, 1), (2, 3)])
@pytest.mark.parametrize("name", ADJOINT_NAMES[::4])
def test_the_mean_adjoint_gradient_is_the_mean_of_the_gradients_of_tasks(
    name: str, num_runs: int, num_tasks: int
) -> None:
    config = combined_config(name)
    experiment = build_experiment(config)
    seeds = tuple(range(num_runs))
    meta_params, batch = (
        perturbed(experiment.init_meta_params(seeds)),
        sample_batch(experiment, seeds, num_tasks=num_tasks),
    )
    spec = adjoint_spec(config, experiment)
    losses, per_task = adjoint_gradient(spec)(meta_params, batch, STEP)
    mean_loss, mean = mean_adjoint_gradient(spec)(meta_params, batch, STEP)
    assert losses.shape == (num_runs, num_tasks) and mean_loss.shape == (num_runs,)
    torch.testing.assert_close(mean_loss, losses.mean(dim=1), rtol=1e-10, atol=1e-12)
    _assert_close(mean, map_tensors(lambda value: value.mean(dim=1), per_task))


@pytest.mark.parametrize("num_tasks", [1, 2, 3])
def test_the_adjoint_gradient_confuses_no_axes_of_equal_length(num_tasks: int) -> None:
    """Two runs of a network with layers of two units: runs, units and, for one case, tasks have the same length."""
    config = combined_config(ADJOINT_NAMES[0])
    config = config.model_copy(update={"model": config.model.model_copy(update={"hidden": [2, 2]})})
    experiment = build_experiment(config)
    meta_params = perturbed(experiment.init_meta_params([0, 1]))
    batch = sample_batch(experiment, (0, 1), num_tasks=num_tasks)
    _, expected = experiment.algorithm.meta_gradient(meta_params, batch, STEP)
    _, actual = adjoint_meta_gradient(config, experiment)(meta_params, batch, STEP)
    _assert_close(actual, expected)


def test_recomputation_stores_no_intermediates() -> None:
    config = combined_config(ADJOINT_NAMES[0])
    config = config.model_copy(update={"inner": config.inner.model_copy(update={"recompute_activations": True})})
    saved = SavedStep([], {}, ForwardBackward([], [], [], [], [], 0.0, torch.zeros(1)), {}, {})
    assert adjoint_spec(config, build_experiment(config)).store(saved) == SavedStep([], {}, None, None, {})


@pytest.mark.parametrize("name", OUTER_OPTIMIZERS)
def test_the_state_of_an_outer_optimiser_is_that_of_torch(name: str) -> None:
    """After a step torch.optim has the tensors that `state_names` lists, and a step count where one is declared."""
    tensor = torch.ones(2, 3)
    outer = make_outer_optimizer(name, [tensor], 0.1)
    tensor.grad = torch.ones(2, 3)
    outer.step()
    kind, state = outer.kind, outer.optimizer.state[tensor]
    stored = {key for key, value in state.items() if isinstance(value, torch.Tensor)}
    assert stored == {*kind.state_names, *(["step"] if kind.has_step_count else [])}
    assert [id(value) for value in optimizer_state(outer, tensor)] == [id(state[key]) for key in kind.state_names]
    assert outer.steps_taken() == (1 if kind.has_step_count else 0)
    outer.add_steps(4)
    assert outer.steps_taken() == (5 if kind.has_step_count else 0)


def _assert_same_step(engine: str, config: Config) -> None:
    """The result of an outer step and the state after it are those of the reference."""
    (expected_state, expected), (state, actual) = (_after_one_step(each, config) for each in ("reference", engine))
    torch.testing.assert_close(actual.loss, expected.loss, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(actual.grad_norm, expected.grad_norm, rtol=1e-10, atol=1e-12)
    _assert_close(actual.gradients, expected.gradients)
    _assert_close(state.meta_params, expected_state.meta_params)
    torch.testing.assert_close(state.loss_sum, expected_state.loss_sum, rtol=1e-10, atol=1e-12)
    assert state.step == expected_state.step == STEP + 1


def _assert_close_in_single_precision(engine: str, config: Config) -> None:
    """The gradient of each run relative to its norm: single entries may be sums of terms that cancel."""
    expected, actual = (
        torch.cat([value.flatten(1) for value in tensors(_after_one_step(each, config)[1].gradients)], dim=1)
        for each in ("reference", engine)
    )
    assert actual.dtype == torch.float32
    assert ((actual - expected).norm(dim=1) <= 1e-5 * expected.norm(dim=1)).all()


@pytest.mark.parametrize("name", ADJOINT_NAMES)
def test_an_eager_step_has_the_mean_gradient_of_the_reference(name: str) -> None:
    """For two runs side by side."""
    _assert_same_step("eager", combined_config(name, seeds=2))
    _assert_close_in_single_precision("eager", combined_config(name, seeds=2, dtype="float32"))


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize(("index", "name"), [*enumerate(_supported("native"))])
def test_the_kernel_takes_the_outer_step_of_the_reference(index: int, name: str) -> None:
    """Unoptimised, as kernels of small networks take longer to compile than to run, and one in six in float32; with
    MAML_FULL_TESTS optimised, and all of them in both precisions."""
    _assert_same_step("native", combined_config(name))
    if FULL or index % 6 == 0:
        _assert_close_in_single_precision("native", combined_config(name, dtype="float32"))


@pytest.mark.parametrize(("index", "name"), [*enumerate(_supported("compiled"))])
def test_the_traced_step_is_the_outer_step_of_the_reference(
    index: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument of torch.compile, not compiled, for two runs side by side: for one combination in 26 the graph,
    which is slow to trace, and for the others the function that is traced."""
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    if index % 26:
        skip_tracing(monkeypatch)
    _assert_same_step("compiled", combined_config(name, seeds=2))
    skip_tracing(monkeypatch)
    _assert_close_in_single_precision("compiled", combined_config(name, seeds=2, dtype="float32"))


# Compilation takes some 15 seconds of CPU time for the linear network, and 70 for the two larger steps.
COMPILED: dict[str, dict[str, Any]] = {
    "linear": {"model": {"hidden": []}, "inner": {"steps": 1}, "outer": {"weight_noise": 0.01}},
}
if FULL:
    COMPILED |= {
        "adjoint": {
            "inner": {"steps": 2, "curvature": "kronecker"},
            "outer": {"clip_task_norm": 0.1, "weight_noise": 0.01},
        },
        "unrolled": {
            "model": {"num_context": 2},
            "inner": {"proximal": 0.3, "alpha": {"learned": True}},
            "outer": {"clip_norm": 0.1},
        },
    }


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("changes", COMPILED.values(), ids=COMPILED)
# torch imports what it deprecates.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_compiled_step_is_that_of_the_reference(changes: dict[str, Any]) -> None:
    (expected_state, expected), (state, actual) = (
        _after_one_step(engine, _config(changes)) for engine in ("reference", "compiled")
    )
    torch.testing.assert_close(actual.loss, expected.loss, rtol=1e-10, atol=1e-12)
    _assert_close(actual.gradients, expected.gradients)
    _assert_close(state.meta_params, expected_state.meta_params)


# Settings whose effects a single outer step does not show.
TRAINED: dict[str, dict[str, Any]] = {
    "everything": {
        "tasks": {"noise": 0.1, "query_sampling": "stratified"},
        "inner": {
            "steps": 3,
            "momentum": 0.5,
            "first_order_until": 4,
            "alpha": {"learned": True, "per": "tensor", "per_step": True, "lr": 1e-3, "sign": "positive"},
        },
        "outer": {"schedule": "cosine", "clip_norm": 0.5, "multi_step_loss_until": 8, "weight_noise": 0.01},
    },
    "each task clipped": {
        "model": {"activation": "relu"},
        "inner": {"steps": 2, "adapt": "body", "alpha": {"learned": True, "per": "parameter", "optimizer": "sgd"}},
        "outer": {"clip_task_norm": 0.1, "optimizer": "adamw", "schedule": "linear"},
    },
    "curvature of steps that are clipped, alpha fixed": {
        "inner": {"steps": 3, "curvature": "kronecker", "curvature_per_step": True, "clip_norm": 0.5},
        "outer": {"clip_task_norm": 0.1, "weight_noise": 0.01, "multi_step_loss_until": 8},
    },
    "curvature, three layers": {
        "model": {"hidden": [9, 17, 5], "activation": "relu"},
        "inner": {"steps": 2, "curvature": "kronecker", "alpha": {"learned": True, "per": "parameter", "lr": 1e-3}},
        "outer": {"optimizer": "adamw", "clip_norm": 0.5},
    },
    "curvature of a linear network": {
        "model": {"hidden": []},
        "inner": {"curvature": "kronecker", "clip_norm": 0.5},
        "outer": {"optimizer": "sgd"},
    },
    "head in closed form, fixed penalties": {
        "inner": {
            "steps": 2,
            "head": "ridge",
            "ridge": {"init": 0.3, "learned": False},
            "curvature": "kronecker",
            "alpha": {"init": 0.1, "learned": True, "lr": 1e-3},
        },
        "model": {"activation": "relu"},
        "outer": {"weight_noise": 0.01, "clip_task_norm": 0.1, "optimizer": "adamw"},
    },
    "head in closed form, alpha fixed": {
        "tasks": {"num_support": 9},
        "inner": {"head": "ridge", "ridge": {"init": 0.3, "per": "feature"}, "clip_value": 0.05},
        "model": {"hidden": [9, 17, 5]},
    },
    "context": {
        "model": {"num_context": 9, "activation": "relu"},
        "inner": {"adapt": "context", "steps": 3, "clip_norm": 0.5, "alpha": {"learned": True, "per": "parameter"}},
        "outer": {"weight_noise": 0.01, "clip_task_norm": 0.1},
    },
    "learned context, three layers": {
        "model": {"num_context": 2, "context_learned": True, "hidden": [9, 17, 5]},
        "inner": {"steps": 2, "momentum": 0.5, "alpha": {"learned": True, "per": "tensor", "per_step": True}},
        "outer": {"weight_noise": 0.01, "optimizer": "adamw", "multi_step_loss_until": 8},
    },
    "learned context of a linear network": {
        "model": {"num_context": 2, "context_learned": True, "hidden": []},
        "inner": {"steps": 2, "alpha": {"learned": True, "per": "parameter"}},
    },
    "Reptile": {
        "model": {"activation": "relu"},
        "inner": {"steps": 4, "momentum": 0.5, "alpha": {"init": 0.05}},
        "outer": {"meta_gradient": "reptile", "optimizer": "sgd", "weight_noise": 0.01, "clip_task_norm": 0.1},
    },
    "proximal term": {
        "model": {"num_context": 2, "activation": "relu"},
        "inner": {"steps": 3, "proximal": 0.5, "momentum": 0.5, "clip_norm": 0.5, "alpha": {"learned": True}},
        "outer": {"multi_step_loss_until": 8, "weight_noise": 0.01},
    },
    "Adam in the inner loop": {
        "model": {"activation": "relu"},
        "inner": {"steps": 3, "optimizer": "adam", "clip_norm": 0.5, "alpha": {"learned": True, "scale": 0.7}},
        "outer": {"clip_task_norm": 0.1},
    },
    "several inputs, curvature": {
        "model": {"oracle": True, "activation": "gelu"},
        "inner": {"steps": 2, "curvature": "kronecker", "curvature_per_step": True, "clip_norm": 0.5},
    },
    "several inputs of a linear network, curvature": {
        "model": {"oracle": True, "hidden": []},
        "inner": {"steps": 2, "curvature": "kronecker", "alpha": {"per": "parameter", "learned": True}},
    },
    "several inputs, head in closed form": {
        "model": {"oracle": True, "hidden": []},
        "inner": {"head": "ridge", "adapt": "head", "ridge": {"init": 0.3}},
    },
    "Reptile with several inputs": {
        "model": {"oracle": True},
        "inner": {"steps": 4, "optimizer": "adam"},
        "outer": {"meta_gradient": "reptile"},
    },
    "joint training": {
        "model": {"hidden": [9, 17, 5]},
        "outer": {"meta_gradient": "joint", "weight_noise": 0.01, "clip_norm": 0.5},
    },
    "l1": {"inner": {"loss": "l1", "steps": 2, "order": "first"}, "outer": {"optimizer": "sgd"}},
    "half MSE": {"inner": {"loss": "half_mse", "steps": 2}, "model": {"activation": "silu"}},
    "huber, wide": {"inner": {"loss": "huber"}, "model": {"hidden": [37], "activation": "silu"}},
    "linear": {"inner": {"steps": 2, "adapt": "head"}, "model": {"hidden": []}},
    "three layers": {"model": {"hidden": [9, 17, 5], "activation": "sin"}, "inner": {"steps": 2}},
    "softplus": {"model": {"activation": "softplus"}, "inner": {"steps": 2, "alpha": {"learned": True}}},
    "sigmoid": {"model": {"activation": "sigmoid"}, "inner": {"alpha": {"learned": True, "per": "layer"}}},
}
IN_BOTH_DTYPES = [*TRAINED] if FULL else ["everything", "each task clipped", "head in closed form, alpha fixed"]
STEPS = 12


def _config(changes: dict[str, Any], **run: Any) -> Config:
    base: dict[str, Any] = {
        "tasks": {"num_support": 7, "num_query": 4},
        "model": {"hidden": [6, 5], "activation": "tanh"},
        "outer": {"steps": STEPS, "tasks_per_step": 3, "lr": 1e-2},
        "run": {"dtype": "float64", "device": "cpu", "log_every": 5, "eval_every": 0} | run,
    }
    return Config.model_validate({key: base.get(key, {}) | changes.get(key, {}) for key in (*base, "inner")})


def _trained(engine: str, config: Config, run: Path) -> dict[str, Any]:
    """The last checkpoint of a training with `engine` in the new directory `run`."""
    create_run(run, name="x", config=config)
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    result = train(config, [RunGroup(config, experiment, state, make_engine(engine, config, experiment))], run)
    return open_checkpoint(result.checkpoint).contents


def _resumed(engine: str, config: Config, run: Path) -> dict[str, Any]:
    """The last checkpoint of `run` when it is trained from its checkpoint at step 5 with `engine`."""
    checkpoint = open_checkpoint(run / "checkpoints" / "step-00000005.pt")
    directory.truncate_to(checkpoint, run)
    experiment = build_experiment(config)
    state = restore_state(config, experiment, checkpoint.contents)
    result = train(config, [RunGroup(config, experiment, state, make_engine(engine, config, experiment))], run)
    return open_checkpoint(result.checkpoint).contents


def _assert_same_contents(actual: Any, expected: Any, *, rtol: float) -> None:
    """Of two checkpoints: nested dictionaries and lists of tensors and plain values."""
    if isinstance(actual, torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=rtol / 100)
    elif isinstance(actual, dict):
        assert actual.keys() == expected.keys()
        for key in actual:
            _assert_same_contents(actual[key], expected[key], rtol=rtol)
    elif isinstance(actual, list):
        for value, expected_value in zip(actual, expected, strict=True):
            _assert_same_contents(value, expected_value, rtol=rtol)
    else:
        assert actual == expected


@pytest.mark.parametrize("optimizer", OUTER_OPTIMIZERS)
def test_the_optimiser_formulas_take_the_steps_of_torch_optim(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve outer steps, with another optimiser for alpha; and steps 6 to 12 by eager from its checkpoint."""
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    skip_tracing(monkeypatch)
    alpha = {"learned": True, "optimizer": "adam" if optimizer == "sgd" else "sgd", "lr": 1e-3}
    config = _config({"inner": {"alpha": alpha}, "outer": {"optimizer": optimizer}}, checkpoint_every=5)
    expected, compiled = (_trained(engine, config, tmp_path / engine) for engine in ("reference", "compiled"))
    _assert_same_contents(compiled, expected, rtol=1e-9)
    _assert_same_contents(_resumed("eager", config, tmp_path / "compiled"), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "dtype", "rtol"),
    [*((name, "float64", 1e-9) for name in TRAINED), *((name, "float32", 1e-3) for name in IN_BOTH_DTYPES)],
)
@pytest.mark.parametrize("engine", ["eager", "native"])
def test_a_training_has_the_same_last_checkpoint_with_every_engine(
    name: str, dtype: str, rtol: float, engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Meta-parameters, optimiser states, sums for the log and states of the random generators, where those of
    IN_BOTH_DTYPES are by optimised kernels."""
    if name in IN_BOTH_DTYPES:
        request.getfixturevalue("optimised_kernels")
    if engine == "native" and kernel_build.compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    config = _config(TRAINED[name], dtype=dtype)
    expected, actual = (_trained(choice, config, tmp_path / choice) for choice in ("reference", engine))
    _assert_same_contents(actual, expected, rtol=rtol)


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("engine", ["eager", "native"])
def test_the_number_of_steps_per_call_changes_no_byte(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for steps_per_call in (1, 4, 1000):
        run = tmp_path / str(steps_per_call)
        monkeypatch.setattr("maml_cli.training.loop.MAX_STEPS_PER_CALL", steps_per_call)
        monkeypatch.setattr("maml_cli.training.loop.TARGET_SECONDS_PER_CALL", 1e9)
        _trained(engine, _config(TRAINED["everything"]), run)
        files = [file for file in run.rglob("*") if file.is_file() and file.name not in ("timing.jsonl", ".lock")]
        runs.append({file.relative_to(run): file.read_bytes() for file in files})
    assert runs[0] == runs[1] == runs[2] and len(runs[0]) == 6


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("changes", [TRAINED["everything"], TRAINED["each task clipped"]], ids=["mean", "clipped"])
def test_the_number_of_threads_changes_no_byte(changes: dict[str, Any], seeds: int, tmp_path: Path) -> None:
    """Fewer threads than runs, as many, and several for each run, some of them without a task."""
    expected, *checkpoints = [
        _trained("native", _config(changes, seeds=seeds, threads=threads), tmp_path / str(threads)) | {"config": None}
        for threads in (1, 2, 3, 5, 12)
    ]
    for checkpoint in checkpoints:
        _assert_same_contents(checkpoint, expected, rtol=0)


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_all_threads_stop_at_the_outer_step_that_diverges(threads: int, tmp_path: Path) -> None:
    """As the reference does, whether that step is the first, an inner or the last one of a call."""
    config = _config({"outer": {"optimizer": "sgd", "lr": 1e3}, "model": {"activation": "relu"}}, threads=threads)
    with pytest.raises(DivergedError) as expected:
        _trained("reference", config, tmp_path / "reference")
    for steps_per_call in (1, 3, 1000):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(DivergedError) as actual:
            patch.setattr("maml_cli.training.loop.MAX_STEPS_PER_CALL", steps_per_call)
            patch.setattr("maml_cli.training.loop.TARGET_SECONDS_PER_CALL", 1e9)
            _trained("native", config, tmp_path / str(steps_per_call))
        assert str(actual.value).splitlines()[0] == str(expected.value).splitlines()[0]


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
def test_a_run_may_change_engines_at_any_step(tmp_path: Path) -> None:
    config = _config(TRAINED["everything"], checkpoint_every=5)
    expected = _trained("eager", config, tmp_path / "eager")
    _trained("native", config, tmp_path / "native")
    _assert_same_contents(_resumed("eager", config, tmp_path / "native"), expected, rtol=1e-9)


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_the_kernel_diverges_at_the_step_of_the_reference_with_the_same_message(noise: float, tmp_path: Path) -> None:
    changes = {
        "inner": {"alpha": {"init": 3.0}, "steps": 2},
        "outer": {"optimizer": "sgd", "lr": 1e3, "weight_noise": noise},
    }
    messages = []
    for engine in "reference", "native":
        config = _config(changes | {"model": {"activation": "relu"}}, dtype="float32")
        with pytest.raises(DivergedError) as error:
            _trained(engine, config, tmp_path / engine)
        messages.append(str(error.value).replace(engine, "RUN"))
    assert messages[0] == messages[1] and "diverged at outer step" in messages[0]


def test_auto_is_the_fastest_engine_that_supports_the_config_and_repays_its_compile_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_build, "compiler", lambda: "c++")
    long: dict[str, Any] = {"outer": {"steps": 70_000, "tasks_per_step": 25}}
    chosen: list[tuple[dict[str, Any], str, str]] = [
        (long, "native", "the fastest that supports this config"),
        ({}, "eager", "not native: too short a training to repay compiling"),
        (
            {"inner": {"steps": 5}, "outer": {"steps": 999_999, "optimizer": "rmsprop"}},
            "eager",
            "not native: outer optimiser rmsprop; the fastest that supports this config",
        ),
    ]
    for changes, name, reason in chosen:
        choice = choose_engine(_config(changes), CPU)
        assert choice.name == name and choice.reason.startswith(reason)
    assert choose_engine(_config({}, engine="reference"), CPU) == ("reference", "as asked")


def test_the_estimate_of_eager_is_the_overhead_of_its_passes_and_the_arithmetic() -> None:
    """1,000 outer steps of 25 tasks with 2 inner steps on 10 + 10 points; 1-40-40-1 has 40 + 1,600 + 40 weights.

    2e-4 s for each of 1 + 2 * 2 passes; 9 multiply-adds per weight and support point in each inner step, 3 per query
    point, at 2e10 a second.
    """
    arithmetic = 25 * (10 * 2 * 9 + 10 * 3) * 1680 / 2e10
    config = Config.model_validate({"inner": {"steps": 2}, "outer": {"steps": 1000}})
    assert registry.eager_seconds(config) == pytest.approx(1000 * (2e-4 * 5 + arithmetic), rel=1e-12)


@pytest.mark.parametrize(
    ("seconds", "device", "name"),
    [
        (4.999, "cpu", "eager"),
        (5.0, "cpu", "native"),
        (119.9, "cuda", "eager"),
        (120.0, "cuda", "compiled"),
        (1e9, "mps", "eager"),
    ],
)
def test_compiling_pays_from_5_seconds_of_eager_for_a_kernel_and_from_2_minutes_for_a_graph_on_a_gpu(
    seconds: float, device: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_build, "compiler", lambda: "c++")
    missing_nothing = registry.ENGINES["compiled"]._replace(missing=lambda device: iter(()))
    monkeypatch.setitem(registry.ENGINES, "compiled", missing_nothing)
    monkeypatch.setattr(registry, "eager_seconds", lambda config: seconds)
    assert choose_engine(_config({}), torch.device(device)).name == name


def test_without_a_compiler_auto_is_eager_and_native_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    choice = choose_engine(_config({"outer": {"steps": 70_000}}), CPU)
    missing = "systems without a C++ compiler"
    reason = f"not native: {missing}; the fastest that supports this config"
    assert choice == ("eager", reason)
    with pytest.raises(ConfigError, match=re.escape(f"engine native does not support {missing}")):
        choose_engine(_config({}, engine="native"), CPU)


def test_if_the_compiler_fails_auto_reports_it_and_trains_with_eager(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("MAML_CACHE", str(tmp_path / "kernels"))
    monkeypatch.setattr(registry, "eager_seconds", lambda config: 6.0)
    changes = ["-s", "outer.steps=2", "-s", "run.eval_tasks=2", "--json"]
    result = cli("train", "-c", "smoke", *changes)
    assert result.code == 0 and json.loads(result.out)["engine"] == "eager"
    assert "could not compile the kernel: exit code 1; run.engine: eager needs no compiler" in result.err
    refused = cli("train", "-c", "smoke", *changes, "-s", "run.engine=native", "--out", "other")
    assert refused.code == 2 and "could not compile the kernel" in refused.err and not Path("other").exists()
    checked = cli("check", "-c", "smoke")
    assert checked.code == 0 and "engine native" not in checked.out and "could not compile the kernel" in checked.err
    assert cli("check", "-c", "smoke", "-s", "run.engine=native").code == 2
