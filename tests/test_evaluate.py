"""Evaluation: errors as a plain loop would find them, sound statistics, and tasks that training never sees."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import Config
from maml_cli.core import MetaParams, Params, expand_to_tasks
from maml_cli.evaluation import Evaluation, PointErrors, sample_test_tasks, statistic
from maml_cli.evaluation import evaluate as evaluation
from maml_cli.evaluation.evaluate import adapted_errors, evaluate
from maml_cli.experiment import Experiment, build_experiment

CONFIG = Config.model_validate(
    {
        "model": {"hidden": [6, 5]},
        "inner": {
            "steps": 2,
            "alpha": {"init": 0.02, "per": "tensor", "per_step": True, "learned": True, "after_last_step": "hold"},
        },
        "run": {"dtype": "float64"},
    }
)
EXPERIMENT = build_experiment(CONFIG)


def _evaluate(experiment: Experiment = EXPERIMENT, **changes: int) -> Evaluation:
    options: dict[str, Any] = {"num_shots": 5, "num_tasks": 30, "seed": 0, "steps": 4, "trained_steps": 2} | changes
    meta = experiment.init_meta_params([0])
    return evaluate(experiment, meta, **options)


def test_errors_are_those_of_a_plain_loop_over_tasks_and_steps() -> None:
    """Every task by itself, with torch.nn.functional and autograd; alphas made unequal to see that each is used."""
    meta = EXPERIMENT.init_meta_params([0])
    alphas = {}
    for i, key in enumerate(meta.rule_params):
        meta.rule_params[key].copy_(torch.tensor([0.01 + 0.003 * i, 0.02 - 0.002 * i]).reshape(1, 2, 1, 1))
        alphas[key] = meta.rule_params[key].flatten().tolist()
    bank = sample_test_tasks(EXPERIMENT.family, seed=3, purpose="test", num_tasks=7, num_shots=5)
    found = adapted_errors(
        EXPERIMENT.algorithm,
        EXPERIMENT.predict,
        bank,
        lambda count: expand_to_tasks(meta, count),
        steps=4,
        like=meta.params["head.w"],
    )
    assert len(found) == 5
    for task in range(7):
        weights = {key: value[0].clone() for key, value in meta.params.items()}
        for step in range(5):
            for name, points in bank.points.items():
                x, y = points.x[0, task], points.y[0, task]
                h = torch.relu(
                    torch.relu(x @ weights["hidden0.w"] + weights["hidden0.b"]) @ weights["hidden1.w"]
                    + weights["hidden1.b"]
                )
                error = h @ weights["head.w"] + weights["head.b"] - y
                mse, mae = found[step][name][0, task]
                assert mse.item() == pytest.approx((error**2).mean().item(), rel=1e-10)
                assert mae.item() == pytest.approx(error.abs().mean().item(), rel=1e-10)
            leaves = {key: value.clone().requires_grad_() for key, value in weights.items()}
            x, y = bank.support.x[0, task], bank.support.y[0, task]
            h = torch.relu(
                torch.relu(x @ leaves["hidden0.w"] + leaves["hidden0.b"]) @ leaves["hidden1.w"] + leaves["hidden1.b"]
            )
            torch.nn.functional.mse_loss(h @ leaves["head.w"] + leaves["head.b"], y).backward()  # type: ignore[no-untyped-call]
            # Beyond the two trained steps the second alpha holds.
            weights = {key: leaf.detach() - alphas[key][min(step, 1)] * leaf.grad for key, leaf in leaves.items()}


def test_the_bank_is_fixed_by_its_seed_and_is_not_that_of_training_or_validation() -> None:
    def functions(purpose: str, seed: int, shots: int = 5, tasks: int = 50) -> torch.Tensor:
        bank = sample_test_tasks(EXPERIMENT.family, seed=seed, purpose=purpose, num_tasks=tasks, num_shots=shots)
        return torch.cat([bank.functions.amplitude, bank.functions.phase], dim=-1).flatten()

    assert torch.equal(functions("test", 0), functions("test", 0))
    assert torch.equal(functions("test", 0), functions("test", 0, shots=20))
    others = [functions("test", 1), functions("validation", 0)]
    assert not any(torch.isin(functions("test", 0), other).any() for other in others)
    from maml_cli.tasks import make_generator

    trained = EXPERIMENT.family.sample([make_generator(0, "tasks")], num_tasks=50, num_support=5, num_query=5).functions
    assert not torch.isin(functions("test", 0), torch.cat([*trained])).any()


def test_the_grid_has_a_hundred_points_from_end_to_end_and_targets_have_no_noise() -> None:
    family = EXPERIMENT.family._replace(noise=0.5)
    bank = sample_test_tasks(family, seed=0, purpose="test", num_tasks=4, num_shots=6)
    assert bank.points["grid"].x.shape == (1, 4, 100, 1) and bank.points["query"].x.shape == (1, 4, 6, 1)
    assert bank.points["grid"].x[0, 0, [0, -1], 0].tolist() == [-5.0, 5.0]
    for name in "grid", "query":
        assert torch.equal(bank.points[name].y, bank.functions(bank.points[name].x))
    assert not torch.isclose(bank.support.y, bank.functions(bank.support.x)).any()


def test_statistics() -> None:
    """Of 1, 2, 3, 10: mean 4, deviation sqrt(50 / 3), median 2.5."""
    found = statistic(torch.tensor([3.0, 1.0, 10.0, 2.0]))
    assert found == pytest.approx((4.0, 1.96 * math.sqrt(50 / 3) / 2, 2.5))
    assert statistic(torch.tensor([5.0, 1.0, 2.0])).median == 2.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_overflows_counts_as_infinite_and_leaves_the_median(bad: float) -> None:
    found = statistic(torch.tensor([1.0, bad, 2.0, 3.0]))
    assert found.mean == math.inf and math.isnan(found.ci95) and found.median == 2.5


def test_results_do_not_depend_on_how_tasks_are_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _evaluate()
    monkeypatch.setattr(evaluation, "CHUNK", 7)
    for one, other in zip(_evaluate().steps, whole.steps, strict=True):
        assert one.grid.mse == pytest.approx(other.grid.mse, rel=1e-12)


def test_no_more_tasks_are_in_memory_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "CHUNK", 8)
    sizes = []
    unroll = EXPERIMENT.algorithm.unroll

    def counted(meta, support, steps):  # type: ignore[no-untyped-def]
        sizes.append(support.x.shape[1])
        assert not torch.is_grad_enabled()
        return unroll(meta, support, steps)

    _evaluate(EXPERIMENT._replace(algorithm=EXPERIMENT.algorithm._replace(unroll=counted)))
    assert sizes == [8, 8, 8, 6] * 2


def test_shapes_of_the_result() -> None:
    found = _evaluate(steps=4)
    assert found[:4] == (5, 30, 0, 2)
    assert len(found.steps) == len(found.baselines.random_init) == 5
    assert len(_evaluate(steps=0).steps) == 1


def _zero_alphas(meta: MetaParams) -> MetaParams:
    return meta._replace(rule_params={key: torch.zeros_like(value) for key, value in meta.rule_params.items()})


def test_random_initialisations_differ_from_task_to_task_and_use_the_same_rule() -> None:
    """With alpha zero nothing adapts: the errors of each step are those of step 0, and those are of many networks."""
    experiment = build_experiment(CONFIG.model_copy(update={"inner": CONFIG.inner.model_copy(update={"steps": 1})}))
    frozen = experiment._replace(
        algorithm=experiment.algorithm._replace(init=lambda params: _zero_alphas(experiment.algorithm.init(params)))
    )
    random = _evaluate(frozen, steps=2).baselines.random_init
    assert random[0] == random[1] == random[2]
    assert random[0].grid.mse != _evaluate(frozen, steps=0).steps[0].grid.mse


def test_baselines_stand_in_order_on_finn() -> None:
    """Zero 4.25, best unadapted 3.01 (within four errors of 3,000 tasks), least squares 0 but for rounding."""
    found = _evaluate(num_tasks=3000, num_shots=10, steps=0).baselines
    for name, exact in {"zero": 4.251667, "best_unadapted": 3.005669}.items():
        errors: PointErrors = getattr(found, name)
        for points in errors:
            assert abs(points.mse.mean - exact) < 4 * points.mse.ci95 / 1.96
    assert found.least_squares.grid.mse.mean < 1e-20


def test_ten_thousand_tasks_take_seconds_and_no_graph(tmp_path: Path) -> None:
    found = _evaluate(build_experiment(Config.model_validate({"model": {"hidden": [6]}})), num_tasks=10_000, steps=2)
    assert found.num_tasks == 10_000 and found.steps[2].grid.mse.ci95 < 0.1 * found.steps[2].grid.mse.mean


def test_an_oracle_is_told_the_truth_of_each_task_on_all_points() -> None:
    """A network put in its place that computes amplitude * sin(frequency * x - phase) of its inputs makes no error."""
    config = {"model": {"oracle": True}, "tasks": {"frequency": [0.5, 2.0]}, "run": {"dtype": "float64"}}
    experiment = build_experiment(Config.model_validate(config))

    def exact(params: Params, inputs: torch.Tensor) -> torch.Tensor:
        x, amplitude, frequency, phase = inputs.split(1, dim=-1)  # type: ignore[no-untyped-call]
        return amplitude * torch.sin(frequency * x - phase)  # type: ignore[no-any-return]

    found = evaluate(
        experiment._replace(predict=exact),
        experiment.init_meta_params([0]),
        num_shots=5,
        num_tasks=150,
        seed=0,
        steps=0,
        trained_steps=0,
    )
    for points in found.steps[0]:
        assert points.mse.mean < 1e-28
