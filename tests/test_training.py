"""Training: against a plain loop, with equal bytes for equal seeds and after any stop."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_cli.config import Config
from maml_cli.core import InnerLoop, MetaParams, Points, TaskBatch, TaskLoss, last_step_weights, query_gradient
from maml_cli.core.update_rules import AlphaStart, init_alphas, scale_by_alpha
from maml_cli.engines import TrainState, make_engine, make_outer_optimizer, take_outer_step
from maml_cli.errors import CheckpointError, DivergedError
from maml_cli.experiment import build_experiment
from maml_cli.runs import create_run, directory, open_checkpoint, read_lines
from maml_cli.tasks import make_generator
from maml_cli.training import Hooks, RunGroup, TrainResult, init_state, restore_state, train

STEPS = 12


def _config(**changes: Any) -> Config:
    base: dict[str, Any] = {
        "tasks": {"num_support": 5, "num_query": 4},
        "model": {"hidden": [6, 5], "activation": "tanh"},
        "outer": {"steps": STEPS, "tasks_per_step": 3, "lr": 1e-2},
        "run": {
            "dtype": "float64",
            "device": "cpu",
            "log_every": 5,
            "eval_every": 4,
            "eval_tasks": 3,
            "checkpoint_every": 1,
        },
    }
    return Config.model_validate({key: base.get(key, {}) | changes.get(key, {}) for key in (*base, "inner")})


EVERYTHING = {
    "tasks": {"noise": 0.1},
    "inner": {
        "steps": 3,
        "alpha": {"learned": True, "per": "tensor", "per_step": True, "optimizer": "rmsprop", "lr": 1e-3},
    },
    "outer": {"schedule": "cosine", "clip_norm": 0.5},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": EVERYTHING,
    "float32": {
        "run": {"dtype": "float32"},
        "inner": {"steps": 2},
        "outer": {"clip_task_norm": 0.1, "multi_step_loss_until": 8},
    },
    "context and implicit": {
        "model": {"num_context": 2},
        "inner": {"adapt": "context", "order": "implicit", "proximal": 1.0, "steps": 2},
        "outer": {"schedule": "linear", "weight_noise": 0.01},
    },
    "a curvature and a positive alpha": {
        "model": {"oracle": True},
        "inner": {"curvature": "kronecker", "optimizer": "adam", "alpha": {"learned": True, "sign": "positive"}},
    },
    "momentum and adamw": {
        "outer": {"optimizer": "momentum"},
        "inner": {"order": "first", "alpha": {"learned": True, "optimizer": "adamw"}},
    },
}


def _train(config: Config, run: Path, **hooks: Any) -> TrainResult:
    create_run(run, name="x", config=config)
    experiment = build_experiment(config)
    engine = make_engine("eager", config, experiment)
    return train(config, [RunGroup(config, experiment, init_state(config, experiment), engine)], run, **hooks)


def _resume(run: Path, step: int, **hooks: Any) -> TrainResult:
    checkpoint = open_checkpoint(run / "checkpoints" / f"step-{step:08d}.pt")
    experiment = build_experiment(checkpoint.config)
    state = restore_state(checkpoint.config, experiment, checkpoint.contents)
    directory.truncate_to(checkpoint, run)
    engine = make_engine("eager", checkpoint.config, experiment)
    return train(checkpoint.config, [RunGroup(checkpoint.config, experiment, state, engine)], run, **hooks)


def _bytes(run: Path) -> dict[str, bytes]:
    files = [file for file in run.rglob("*") if file.is_file() and file.name not in ("timing.jsonl", ".lock")]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def test_training_is_maml_written_as_a_loop_with_torch_optim(tmp_path: Path) -> None:
    """Against a loop over tasks and inner steps with torch.nn.functional and torch.optim, for all twelve steps."""
    config = _config(inner={"steps": 2, "alpha": {"init": 0.05, "learned": True}})
    trained = _train(config, tmp_path / "run")
    experiment = build_experiment(config)
    meta_params = experiment.init_meta_params([0])
    theta = [value[0].T.clone().requires_grad_() for value in meta_params.params.values()]
    alpha = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([*theta, alpha], lr=1e-2)
    stream = make_generator(0, "tasks")

    def net(x: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
        for layer in range(3):
            x = torch.nn.functional.linear(x, weights[2 * layer], weights[2 * layer + 1][:, 0])
            x = torch.tanh(x) if layer < 2 else x
        return x

    mean_losses = []
    for _ in range(STEPS):
        batch = experiment.sample([stream])
        losses = []
        for task in range(3):
            weights = list(theta)
            for _ in range(2):
                loss = torch.nn.functional.mse_loss(net(batch.support.x[0, task], weights), batch.support.y[0, task])
                gradients = torch.autograd.grad(loss, weights, create_graph=True)
                weights = [w - alpha * g for w, g in zip(weights, gradients, strict=True)]
            losses.append(torch.nn.functional.mse_loss(net(batch.query.x[0, task], weights), batch.query.y[0, task]))
        optimizer.zero_grad()
        mean = torch.stack(losses).mean()
        mean.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        mean_losses.append(mean.item())
    trained_params = open_checkpoint(trained.checkpoint).contents["meta_params"]
    for actual, expected in zip(trained_params["params"].values(), theta, strict=True):
        torch.testing.assert_close(actual[0], expected.detach().T, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(trained_params["rule_params"]["alpha"].squeeze(), alpha.detach(), rtol=1e-9, atol=1e-12)
    logged = [record["loss"] for record in read_lines(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    assert logged == pytest.approx(
        [sum(losses) / len(losses) for losses in (mean_losses[:5], mean_losses[5:10], mean_losses[10:])]
    )


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(changes: dict[str, Any], tmp_path: Path) -> None:
    for name in "a", "b":
        _train(_config(**changes), tmp_path / name)
    first, second = _bytes(tmp_path / "a"), _bytes(tmp_path / "b")
    assert len(first) == 2 + 1 + STEPS + 1 + 1 and first == second
    _train(_config(**changes | {"run": changes.get("run", {}) | {"seed": 1}}), tmp_path / "c")
    third = _bytes(tmp_path / "c")
    assert all(third[name] != data for name, data in first.items())


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_resuming_from_any_step_gives_the_bytes_of_never_having_stopped(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    _train(_config(**changes), tmp_path / "uninterrupted")
    expected = _bytes(tmp_path / "uninterrupted")
    for step in range(STEPS + 1):
        run = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "uninterrupted", run)
        for later in range(step + 1, STEPS + 1):
            (run / "checkpoints" / f"step-{later:08d}.pt").unlink()
        trained = _resume(run, step)
        assert trained.steps_done == STEPS - step
        assert _bytes(run) == expected, step


def test_a_training_stopped_at_any_step_is_saved_and_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maml_cli.training.loop.MAX_STEPS_PER_CALL", 1)
    config = _config(**EVERYTHING, run={"checkpoint_every": 100})
    _train(config, tmp_path / "uninterrupted")
    expected = _bytes(tmp_path / "uninterrupted")
    for stop in range(STEPS):
        run, count = tmp_path / f"at-{stop}", iter(range(100))
        hooks = Hooks(interrupted=lambda count=count, stop=stop: next(count) >= stop)  # type: ignore[misc]
        stopped = _train(config, run, hooks=hooks)
        assert stopped.interrupted and stopped.step == stop
        assert open_checkpoint(run).step == stop
        _resume(run, stop)
        actual = _bytes(run)
        for name in "metrics.jsonl", "last.json", f"checkpoints/step-{STEPS:08d}.pt":
            assert actual[name] == expected[name], (stop, name)


@settings(max_examples=12)
@given(
    log_every=st.integers(1, 8),
    eval_every=st.integers(0, 8),
    checkpoint_every=st.integers(1, 8),
    stop=st.integers(0, 7),
    steps_per_call=st.integers(1, 8),
)
def test_resuming_after_any_stop_gives_the_same_bytes_for_any_periods(
    log_every: int, eval_every: int, checkpoint_every: int, stop: int, steps_per_call: int
) -> None:
    """Interrupted at the first return of the engine from outer step `stop` on, and resumed."""
    periods = {"log_every": log_every, "eval_every": eval_every, "checkpoint_every": checkpoint_every}
    config = _config(model={"hidden": [3]}, outer={"steps": 8, "weight_noise": 0.01}, run=periods | {"eval_tasks": 2})
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("maml_cli.training.loop.MAX_STEPS_PER_CALL", steps_per_call)
        patch.setattr("maml_cli.training.loop.TARGET_SECONDS_PER_CALL", 1e9)
        uninterrupted, stopped = Path(folder) / "uninterrupted", Path(folder) / "stopped"
        _train(config, uninterrupted)
        steps = [0]
        result = _train(
            config,
            stopped,
            hooks=Hooks(lambda step, loss: steps.append(step), interrupted=lambda: steps[-1] >= stop),
        )
        assert result.step >= stop
        _resume(stopped, result.step)
        expected, actual = _bytes(uninterrupted), _bytes(stopped)
        assert all(actual[name] == data for name, data in expected.items() if "SHA256SUMS" not in name)


def test_resuming_after_a_crash_removes_later_log_lines_and_temporary_files(tmp_path: Path) -> None:
    _train(_config(), tmp_path / "uninterrupted")
    run = tmp_path / "crashed"
    shutil.copytree(tmp_path / "uninterrupted", run)
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(text[: len(text) - 20])
    (run / "checkpoints" / ".step-00000009.pt.tmp-99999").write_bytes(b"half")
    _resume(run, 6)
    assert _bytes(run) == _bytes(tmp_path / "uninterrupted")


def test_losses_evaluations_and_times_are_logged_at_their_periods(tmp_path: Path) -> None:
    _train(_config(**EVERYTHING), tmp_path / "run")
    records = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [(record["step"], "eval" in record) for record in records] == [
        (0, True), (4, True), (5, False), (8, True), (10, False), (12, False), (12, True),
    ]  # fmt: skip
    assert records[2].keys() == {"step", "loss", "grad_norm", "alpha", "alpha_grad"}
    assert records[2]["alpha"].keys() == {"hidden0.w", "hidden0.b", "hidden1.w", "hidden1.b", "head.w", "head.b"}
    assert all(len(values) == 3 for values in records[2]["alpha_grad"].values())
    assert records[0]["eval"].keys() == {"shots", "num_tasks", "grid_mse", "grid_mae", "query_mse", "query_mae"}
    assert len(records[0]["eval"]["grid_mse"]) == 4
    times = read_lines(tmp_path / "run" / "timing.jsonl")
    assert [record["step"] for record in times] == [5, 10, 12]


def test_the_periods_of_evaluations_and_logs_change_no_parameter(tmp_path: Path) -> None:
    _train(_config(), tmp_path / "a")
    _train(_config(run={"eval_every": 0, "log_every": 1, "checkpoint_every": 12}), tmp_path / "b")
    first, second = (open_checkpoint(tmp_path / name).contents for name in ("a", "b"))
    for name in "params", "rule_params":
        assert all(
            torch.equal(value, second["meta_params"][name][key]) for key, value in first["meta_params"][name].items()
        )
    assert all(torch.equal(a, b) for a, b in zip(first["generators"], second["generators"], strict=True))


def test_divergence_stops_before_the_update_and_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = _config(inner={"steps": 5, "alpha": {"init": 1e80}}, model={"activation": "relu"})
    with pytest.raises(DivergedError) as stop:
        _train(config, run)
    message = str(stop.value)
    assert message.startswith("diverged at outer step 1: the query loss of 3 of 3 tasks is not finite")
    assert "try a lower alpha (--set inner.alpha.init=0.01), fewer inner steps (--set inner.steps=2)" in message
    assert stop.value.outer_step == 1 and stop.value.cause == "query_loss"
    assert message.endswith(f"the last good checkpoint is {run}/checkpoints/step-00000000.pt")
    contents = open_checkpoint(run).contents
    assert all(value.isfinite().all() for value in contents["meta_params"]["params"].values())


def test_the_single_neuron_diverges_by_construction_and_is_stopped() -> None:
    """f(x) = theta x of the worked examples, outer rate 0.5 on the sum over its two tasks.

    Its meta_params-gradient is affine in theta: each outer step multiplies the distance to the fixed point by
    1 - 0.5 (2 * 1.6^2 + 32 * 11.2^2) = -2008.6, so that the squared errors overflow (1.8e308) near step 46.
    """
    loss: TaskLoss = lambda params, points: ((points.x @ params["theta"] - points.y) ** 2).sum(dim=(-2, -1))  # noqa: E731
    points = torch.tensor([[[2, 3], [5, 6]], [[4, 1], [3, 0]]], dtype=torch.float64).reshape(2, 1, 2, 2, 1)
    query = torch.tensor([[1, 4], [2, 1]], dtype=torch.float64).reshape(2, 1, 2, 1, 1)
    groups = {"theta": "alpha"}
    theta = {"theta": torch.ones(1, 1, 1, dtype=torch.float64)}
    meta_params = MetaParams(theta, init_alphas(theta, groups, AlphaStart(0.1, 0.1)))
    adapt = InnerLoop(loss, scale_by_alpha(groups), ["theta"]).with_annealed_order(1)
    meta_grad = query_gradient(adapt, loss, learned=[], weights=last_step_weights(1))
    optimizer = make_outer_optimizer("sgd", [meta_params.params["theta"]], 1.0)
    state = TrainState(meta_params, {"params": optimizer}, [], 0, torch.zeros(1), torch.zeros(1), torch.zeros(1))
    batch = TaskBatch(Points(*points), Points(*query))
    with pytest.raises(DivergedError, match="diverged at outer step"):
        for _ in range(100):
            take_outer_step(state, batch, meta_grad)
    assert 40 <= state.step <= 50
    assert meta_params.params["theta"].isfinite().all() and meta_params.params["theta"].abs().item() > 1e140


def test_a_checkpoint_that_does_not_fit_its_config_is_refused(tmp_path: Path) -> None:
    _train(_config(), tmp_path / "run")
    contents = open_checkpoint(tmp_path / "run").contents
    wide = _config(model={"hidden": [7, 5]})
    with pytest.raises(
        CheckpointError,
        match=r"meta_params.params.hidden0.w is float64 \(1, 1, 6\), its config needs float64 \(1, 1, 7\)",
    ):
        restore_state(wide, build_experiment(wide), contents)
    learned = _config(inner={"alpha": {"learned": True}})
    with pytest.raises(CheckpointError, match="the optimiser state is not of the tensors that its config learns"):
        restore_state(learned, build_experiment(learned), contents)


def test_metrics_are_strict_json_even_where_an_evaluation_overflows(tmp_path: Path) -> None:
    config = _config(inner={"alpha": {"init": 1e200}}, model={"activation": "relu"}, run={"dtype": "float64"})
    with pytest.raises(DivergedError):
        _train(config, tmp_path / "run")
    line = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0]
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert record["eval"]["grid_mse"][1] is None
