"""Updates that overflow: the run is frozen before the outer step at fault, in every engine and however calls divide."""

from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import KERNEL_OPTIMIZERS, Config
from maml_cli.core import tensors
from maml_cli.engines import OUTER_OPTIMIZERS, TrainState, finite_runs, kernel_build, make_engine, optimizer_state
from maml_cli.errors import DivergedError
from maml_cli.experiment import build_experiment
from maml_cli.runs import create_run
from maml_cli.training import RunGroup, init_state, train
from maml_cli.training.saving import save_finite
from maml_cli.training.snapshot import snapshot
from tests.conformance import skip_tracing

ENGINES = ["eager", "reference", "compiled", *(["native"] if kernel_build.compiler() else [])]
LARGEST = torch.finfo(torch.float32).max
STEPS, FAULT = 7, 3


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    skip_tracing(monkeypatch)


def _config(seeds: list[int], **outer: Any) -> Config:
    return Config.model_validate(
        {
            "tasks": {"num_support": 4, "num_query": 3},
            "model": {"hidden": [5]},
            "inner": {"alpha": {"learned": True}},
            "outer": {"steps": STEPS, "tasks_per_step": 2, "clip_task_norm": 10.0} | outer,
            "run": {"device": "cpu", "seeds": seeds, "eval_every": 0, "log_every": 7},
        }
    )


def _contents(config: Config, state: TrainState) -> list[torch.Tensor]:
    contents = snapshot(config, state)
    moments = [
        value for outer in state.optimizers.values() for t in outer.tensors() for value in optimizer_state(outer, t)
    ]
    return [*tensors(state.meta_params), *moments, *(contents[n] for n in ("loss_sum", "skipped_tasks", "diverged"))]


def _steps(engine: str, config: Config, calls: list[int], *, fault: int | None = None) -> TrainState:
    """The state after `calls`; before outer step FAULT + 1 the first moments of run `fault` are nearly the largest."""
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    take_steps = make_engine(engine, config, experiment)
    for count in calls:
        if state.step == FAULT and fault is not None:
            outer = state.optimizers["params"]
            for tensor in outer.tensors():
                first, second = optimizer_state(outer, tensor)
                first[fault], second[fault] = LARGEST, 0
        take_steps(state, count)
    return state


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("remaining_calls", [[4], [1, 3], [1, 1, 2]])
def test_a_run_whose_update_overflows_is_frozen_before_it_and_the_others_are_unchanged(
    engine: str, remaining_calls: list[int]
) -> None:
    """Adam's first moment is the largest number and gradients are at most 1e-3, so that the quotient overflows."""
    config = _config([3, 8], clip_norm=1e-3)
    state = _steps(engine, config, [FAULT, *remaining_calls], fault=1)
    undisturbed = _contents(config, _steps(engine, config, [FAULT, STEPS - FAULT]))
    before = _contents(config, _steps(engine, config, [FAULT]))
    assert state.diverged.tolist() == [0, FAULT + 1] and state.step == STEPS
    assert finite_runs(state).all()
    num_values, num_params = len(tensors(state.meta_params)), len(state.meta_params.params)
    set_here = range(num_values, num_values + 2 * num_params)  # first and second moments of each tensor in turn
    for index, value in enumerate(_contents(config, state)[:-1]):
        assert torch.equal(value[0], undisturbed[index][0])
        was_set = index in set_here and (value[1] == (LARGEST if index in set_here[::2] else 0)).all()
        assert torch.equal(value[1], before[index][1]) or was_set


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("calls", [[1] * STEPS, [STEPS]])
@pytest.mark.parametrize("optimizer", OUTER_OPTIMIZERS)
def test_an_update_that_overflows_in_the_last_active_run_raises_and_leaves_the_state_before_it(
    engine: str, calls: list[int], optimizer: str
) -> None:
    """A rate of 1e38 on values and gradients of the default family; in float32 the largest is 3.4e38."""
    if engine == "native" and optimizer not in KERNEL_OPTIMIZERS:
        pytest.skip("the kernel lacks it")
    config = _config([3], optimizer=optimizer, lr=3e38)
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    initial = [value.clone() for value in tensors(state.meta_params)]
    streams = [stream.get_state() for stream in state.generators]
    with pytest.raises(DivergedError, match="diverged at outer step 1: the update of the outer step overflows") as stop:
        for count in calls:
            make_engine(engine, config, experiment)(state, count)
    assert stop.value.cause == "update" and stop.value.outer_step == 1
    assert state.step == 0 and state.loss_sum.item() == 0
    assert all(torch.equal(a, b) for a, b in zip(initial, tensors(state.meta_params), strict=True))
    assert all(torch.equal(a, stream.get_state()) for a, stream in zip(streams, state.generators, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_moments_and_sums_of_a_run_whose_loss_is_not_finite_are_those_before_the_outer_step(engine: str) -> None:
    config = _config([3, 8], clip_task_norm=None)
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    state.meta_params.params["head.b"][1] = 1e30
    make_engine(engine, config, experiment)(state, STEPS)
    assert state.diverged.tolist() == [0, 1]
    assert all(value.isfinite().all() for value in _contents(config, state))
    assert state.loss_sum[1] == 0 and state.loss_sum[0] > 0
    for outer in state.optimizers.values():
        assert not any(optimizer_state(outer, tensor)[0][1].any() for tensor in outer.tensors())


def test_initial_values_that_are_not_finite_are_refused_and_nothing_is_saved(tmp_path: Path) -> None:
    config = _config([3, 8])
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    state.meta_params.params["head.w"][1, 0, 0] = torch.inf
    create_run(tmp_path / "run", name="x", config=config)
    with pytest.raises(DivergedError, match="the initial values of seed 8 are not finite in float32") as stop:
        train(config, [RunGroup(config, experiment, state, make_engine("eager", config, experiment))], tmp_path / "run")
    assert stop.value.outer_step == 0 and not [*(tmp_path / "run" / "checkpoints").glob("*.pt")]


@pytest.mark.parametrize("name", ["head.b", "moment", "loss_sum"])
def test_a_state_that_is_not_finite_is_never_saved(name: str, tmp_path: Path) -> None:
    config = _config([3, 8])
    state = init_state(config, build_experiment(config))
    outer = state.optimizers["params"]
    moment = optimizer_state(outer, outer.tensors()[0])[1]
    {"head.b": state.meta_params.params["head.b"], "moment": moment, "loss_sum": state.loss_sum}[name][0] = torch.nan
    with pytest.raises(DivergedError, match="is not saved\nthe last good checkpoint is here"):
        save_finite(snapshot(config, state), tmp_path, last=Path("here"))
    assert not [*tmp_path.iterdir()]
