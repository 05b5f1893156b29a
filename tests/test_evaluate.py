"""Evaluation: errors as a plain loop finds them, tasks that training never samples, and results on disk."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from maml_cli.adaptation import chunks
from maml_cli.config import Config
from maml_cli.core import MetaParams, Params, expand_to_tasks
from maml_cli.evaluation import (
    Evaluation,
    Protocol,
    TrainedRun,
    evaluate_learner,
    evaluate_run,
    held_out,
    open_run,
    sample_test_tasks,
    sample_validation_tasks,
    write_result,
)
from maml_cli.evaluation.evaluate import evaluate
from maml_cli.evaluation.task_errors import adapted_errors, learner_errors
from maml_cli.experiment import Experiment, build_experiment
from maml_cli.tasks import BaselinePredictors, SineFamily, make_generator

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
FAMILY = SineFamily.from_values(dict(CONFIG.tasks))
TASKS = sample_test_tasks(EXPERIMENT.family, Protocol(num_tasks=30), 5)


def _evaluate(experiment: Experiment = EXPERIMENT, **changes: int) -> Evaluation:
    options: dict[str, int] = {"num_shots": 5, "num_tasks": 30, "steps": 4} | changes
    num_shots, steps = options["num_shots"], options["steps"]
    tasks = sample_test_tasks(experiment.family, Protocol(num_tasks=options["num_tasks"]), num_shots)
    return evaluate(experiment, experiment.init_meta_params([0]), tasks, steps=steps, trained_steps=2)


def test_errors_are_those_of_a_plain_loop_over_tasks_and_steps() -> None:
    """Every task by itself, with torch.nn.functional and autograd; alphas made unequal to see that each is used."""
    meta_params = EXPERIMENT.init_meta_params([0])
    alphas = {}
    for i, key in enumerate(meta_params.rule_params):
        meta_params.rule_params[key].copy_(torch.tensor([0.01 + 0.003 * i, 0.02 - 0.002 * i]).reshape(1, 2, 1, 1))
        alphas[key] = meta_params.rule_params[key].flatten().tolist()
    tasks = sample_test_tasks(EXPERIMENT.family, Protocol(num_tasks=7, seed=3), 5)
    (block,) = tasks.iter_blocks()
    errors = adapted_errors(EXPERIMENT, tasks, lambda count: expand_to_tasks(meta_params, count), num_runs=1, steps=4)
    assert len(errors) == 5
    for task in range(7):
        weights = {key: value[0].clone() for key, value in meta_params.params.items()}
        for step in range(5):
            for name, points in block.points.items():
                x, y = points.x[0, task], points.y[0, task]
                h = torch.relu(
                    torch.relu(x @ weights["hidden0.w"] + weights["hidden0.b"]) @ weights["hidden1.w"]
                    + weights["hidden1.b"]
                )
                error = h @ weights["head.w"] + weights["head.b"] - y
                mse, mae = errors[step][name][0, task]
                assert mse.item() == pytest.approx((error**2).mean().item(), rel=1e-10)
                assert mae.item() == pytest.approx(error.abs().mean().item(), rel=1e-10)
            leaves = {key: value.clone().requires_grad_() for key, value in weights.items()}
            x, y = (tensor[0, task] for tensor in block.points["support"])
            h = torch.relu(
                torch.relu(x @ leaves["hidden0.w"] + leaves["hidden0.b"]) @ leaves["hidden1.w"] + leaves["hidden1.b"]
            )
            torch.nn.functional.mse_loss(h @ leaves["head.w"] + leaves["head.b"], y).backward()  # type: ignore[no-untyped-call]
            # Beyond the two trained steps the second alpha holds.
            weights = {key: leaf.detach() - alphas[key][min(step, 1)] * leaf.grad for key, leaf in leaves.items()}


def test_tasks_are_fixed_by_their_seed_and_are_not_those_of_training_or_validation() -> None:
    def functions(tasks: held_out.TestTasks) -> torch.Tensor:
        (block,) = tasks.iter_blocks()
        return torch.cat([block.functions.amplitude, block.functions.phase], dim=-1).flatten()

    def sampled_functions(seed: int, num_shots: int = 5) -> torch.Tensor:
        return functions(sample_test_tasks(FAMILY, Protocol(num_tasks=50, seed=seed), num_shots))

    assert torch.equal(sampled_functions(0), sampled_functions(0))
    assert torch.equal(sampled_functions(0), sampled_functions(0, num_shots=20))
    assert not torch.isin(sampled_functions(0), sampled_functions(1)).any()
    validation = functions(sample_validation_tasks(FAMILY, [0], num_tasks=50, num_shots=5))
    assert not torch.isin(sampled_functions(0), validation).any()
    trained = FAMILY.sampler.sample([make_generator(0, "tasks")], num_tasks=50, num_support=5, num_query=5).functions
    assert not torch.isin(sampled_functions(0), torch.cat([*trained])).any()


def test_the_grid_has_a_hundred_points_from_end_to_end_and_targets_have_no_noise() -> None:
    family = FAMILY._replace(noise=0.5)
    ((points, functions, _),) = sample_test_tasks(family, Protocol(num_tasks=4), 6).iter_blocks()
    assert points["grid"].x.shape == (1, 4, 100, 1) and points["query"].x.shape == (1, 4, 6, 1)
    assert points["grid"].x[0, 0, [0, -1], 0].tolist() == [-5.0, 5.0]
    for name in "grid", "query":
        assert torch.equal(points[name].y, functions(points[name].x))
    assert not torch.isclose(points["support"].y, functions(points["support"].x)).any()


@pytest.mark.parametrize("num_tasks", [399, 800, 1201])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_blocks_of_validation_tasks_are_the_tasks_of_a_single_sample(num_tasks: int, noise: float) -> None:
    family = FAMILY._replace(noise=noise)
    tasks = sample_validation_tasks(family, [3, 4], num_tasks=num_tasks, num_shots=3)
    batch, functions = family.sampler.sample(
        [make_generator(seed, "validation") for seed in (3, 4)],
        num_tasks=num_tasks,
        num_support=3,
        num_query=3,
        dtype=torch.float64,
    )
    blocks = [*tasks.iter_blocks()]
    assert sum(block.points["support"].x.shape[1] for block in blocks) == num_tasks
    assert max(block.points["support"].x.shape[1] for block in blocks) < 800
    for tensor in "x", "y":
        together = torch.cat([getattr(block.points["support"], tensor) for block in blocks], dim=1)
        assert torch.equal(together, getattr(batch.support, tensor))
    assert torch.equal(torch.cat([block.points["query"].x for block in blocks], dim=1), batch.query.x)
    for index, parameter in enumerate(functions):
        assert torch.equal(torch.cat([block.functions[index] for block in blocks], dim=1), parameter)


def test_errors_of_the_learner_do_not_depend_on_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _evaluate()
    monkeypatch.setattr(chunks, "CHUNK", 7)
    for errors, expected_errors in zip(_evaluate().steps, expected.steps, strict=True):
        assert errors.grid.mse[:3] == pytest.approx(expected_errors.grid.mse[:3], rel=1e-12)


def test_tasks_are_adapted_a_chunk_at_a_time_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 8)
    sizes = []
    unroll = EXPERIMENT.algorithm.unroll

    def counted(meta_params, support, steps):  # type: ignore[no-untyped-def]
        sizes.append(support.x.shape[1])
        assert not torch.is_grad_enabled()
        return unroll(meta_params, support, steps)

    _evaluate(EXPERIMENT._replace(algorithm=EXPERIMENT.algorithm._replace(unroll=counted)))
    assert sizes == [8, 8, 8, 6] * 2


def test_an_evaluation_has_an_entry_for_each_inner_step_and_baseline() -> None:
    evaluation = _evaluate(steps=4)
    assert evaluation[:4] == (5, 30, 0, 2)
    assert len(evaluation.steps) == len(evaluation.random_init) == 5
    assert [*evaluation.baselines] == ["zero", "best_unadapted", "least_squares", "least_squares_any_frequency"]
    assert len(_evaluate(steps=0).steps) == 1


def _zero_alphas(meta_params: MetaParams) -> MetaParams:
    return meta_params._replace(
        rule_params={key: torch.zeros_like(value) for key, value in meta_params.rule_params.items()}
    )


def test_random_initialisations_differ_from_task_to_task_and_use_the_same_rule() -> None:
    """With alpha zero nothing adapts: the errors of each step are those of step 0, and those are of many networks."""
    experiment = build_experiment(CONFIG.model_copy(update={"inner": CONFIG.inner.model_copy(update={"steps": 1})}))
    frozen = experiment._replace(
        algorithm=experiment.algorithm._replace(init=lambda *start: _zero_alphas(experiment.algorithm.init(*start)))
    )
    random = _evaluate(frozen, steps=2).random_init
    assert random[0] == random[1] == random[2]
    assert random[0].grid.mse != _evaluate(frozen, steps=0).steps[0].grid.mse


def test_baselines_have_their_exact_errors_on_finn() -> None:
    """Zero 4.25, best unadapted 3.01 (within four errors of 3,000 tasks), least squares 0 but for rounding."""
    baselines = _evaluate(num_tasks=3000, num_shots=10, steps=0).baselines
    for name, exact in {"zero": 4.251667, "best_unadapted": 3.005669}.items():
        errors = baselines[name]
        assert errors is not None
        for points in errors:
            assert abs(points.mse.mean - exact) < 4 * points.mse.ci95 / 1.96
    assert baselines["least_squares"] is not None and baselines["least_squares"].grid.mse.mean < 1e-20
    assert baselines["least_squares_any_frequency"] is None


def test_a_baseline_of_any_family_is_judged_by_its_predictor_for_each_measure() -> None:
    """A family whose baseline is 1 above the truth for MSE and 2 above it for MAE, everywhere."""

    class Family(NamedTuple):
        sampler: Any
        test_range: tuple[float, float] = (-5.0, 5.0)
        grid_name: str = "grid"
        kinds: tuple[str, ...] = ()

        def baselines(self) -> Any:
            return {"above": lambda support, f: BaselinePredictors(lambda x: f(x) + 1, lambda x: f(x) + 2)}

    tasks = TASKS._replace(family=Family(FAMILY.sampler))  # type: ignore[arg-type]
    baselines = evaluate(EXPERIMENT, EXPERIMENT.init_meta_params([0]), tasks, steps=0, trained_steps=2).baselines
    assert baselines.keys() == {"above"} and baselines["above"] is not None
    for points in baselines["above"]:
        assert (points.mse.mean, points.mae.mean) == pytest.approx((1.0, 2.0))


def test_several_seeds_have_an_interval_over_tasks_and_another_over_seeds() -> None:
    """Means of the seeds' errors and of each task's mean over seeds, from the errors of every seed and task."""
    meta_params = EXPERIMENT.init_meta_params([0, 1, 2, 3])
    index = {10: 0, 12: 2, 13: 3}
    evaluation = evaluate(EXPERIMENT, meta_params, TASKS, steps=1, trained_steps=1, run_index=index)
    errors = learner_errors(EXPERIMENT, meta_params, TASKS, steps=1)[1]["query"][[0, 2, 3], :, 1].double()
    value = evaluation.steps[1].query.mae
    assert value.mean == pytest.approx(errors.mean().item(), rel=1e-12)
    assert value.ci95 == pytest.approx(1.96 * errors.mean(dim=0).std().item() / math.sqrt(30), rel=1e-12)
    assert value.ci95_seeds == pytest.approx(4.302653 * errors.mean(dim=1).std().item() / math.sqrt(3), rel=1e-6)
    assert [evaluation.by_seed[seed][1].query.mae.mean for seed in index] == pytest.approx(errors.mean(dim=1).tolist())
    assert evaluation.by_seed[12][1].query.mae.ci95_seeds is None and evaluation.random_init[1].grid.mse[3] is None


PEAK = """
import resource
from maml_cli.config import Config
from maml_cli.evaluation import Protocol, sample_test_tasks
from maml_cli.evaluation.evaluate import evaluate
from maml_cli.experiment import build_experiment
experiment = build_experiment(Config.model_validate({"model": {"hidden": [4]}}))
for count in 2000, 42000:
    tasks = sample_test_tasks(experiment.family, Protocol(num_tasks=count), 10)
    evaluate(experiment, experiment.init_meta_params([0]), tasks, steps=1, trained_steps=1)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_peak_memory_grows_by_less_than_a_kilobyte_a_task() -> None:
    """The grid alone has 1.6 kB a task in float64, the errors of two steps 48 bytes: 40,000 more tasks."""
    if sys.platform != "linux":
        pytest.skip("ru_maxrss is in kilobytes on Linux")
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after - before < 20_000


@pytest.fixture
def run(trained: str) -> TrainedRun:
    return open_run(Path(trained))


def test_eval_json_is_written_for_the_default_protocol_only(run: TrainedRun) -> None:
    """Equal values that are asked for are the default too: K = 10, at most ten inner steps."""
    file = Path("outputs/smoke/eval.json")
    for protocol in (
        Protocol(num_tasks=10),
        Protocol(shots=(5,)),
        Protocol(shots=(10, 5)),
        Protocol(steps=9),
        Protocol(seed=1),
    ):
        assert write_result(run, "{}", protocol) == (
            "not written to a file: eval.json is for the default protocol, without overrides"
        )
    assert "not written to a file" in write_result(run._replace(overrides=("tasks.phase=[0,1]",)), "{}", Protocol())
    assert not file.exists()
    for number, protocol in enumerate([Protocol(), Protocol(10_000, (10,), 10, 0)]):
        assert write_result(run, f"{number}", protocol) == f"written to {file}"
        assert file.read_text() == f"{number}\n"


def test_any_result_is_written_to_the_file_asked_for(run: TrainedRun) -> None:
    protocol = Protocol(num_tasks=3)
    assert write_result(run, "{}", protocol, Path("new/x.json")) == "written to new/x.json"
    assert Path("new/x.json").read_text() == "{}\n" and not Path("outputs/smoke/eval.json").exists()
    Path("taken").write_text("")
    with pytest.raises(OSError, match="taken"):
        write_result(run, "{}", protocol, Path("taken/x.json"))


def test_an_evaluation_of_the_learner_alone_has_its_errors_and_tails(run: TrainedRun) -> None:
    protocol = Protocol(num_tasks=9, shots=(5, 10), steps=2, seed=3)
    assert evaluate_learner(run, protocol) == [evaluation.steps for evaluation in evaluate_run(run, protocol).results]


def test_an_oracle_gets_the_parameters_of_each_task_on_all_points() -> None:
    """A network that computes amplitude * sin(frequency * x - phase) of its inputs makes no error."""
    config = {"model": {"oracle": True}, "tasks": {"frequency": [0.5, 2.0]}, "run": {"dtype": "float64"}}
    experiment = build_experiment(Config.model_validate(config))

    def exact(params: Params, inputs: torch.Tensor) -> torch.Tensor:
        x, amplitude, frequency, phase = inputs.split(1, dim=-1)  # type: ignore[no-untyped-call]
        return amplitude * torch.sin(frequency * x - phase)  # type: ignore[no-any-return]

    tasks = sample_test_tasks(experiment.family, Protocol(num_tasks=150), 5)
    oracle = experiment._replace(predict=exact)
    for points in evaluate(oracle, experiment.init_meta_params([0]), tasks, steps=0, trained_steps=0).steps[0]:
        assert points.mse.mean < 1e-28
