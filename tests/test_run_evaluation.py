"""Evaluations of a trained run: the test tasks, baselines of random networks, and fits of single tasks."""

from pathlib import Path

import pytest
import torch

from maml_cli.core import MetaParams, expand_to_tasks
from maml_cli.evaluation import (
    Protocol,
    TrainedRun,
    evaluate_run,
    fit_tasks,
    open_run,
    sample_test_tasks,
    summarise_tasks,
)
from maml_cli.evaluation.task_errors import adapted_errors
from maml_cli.tasks import make_generator
from tests.conftest import TINY_RUN, Cli


def _trained_run(cli: Cli, *options: str) -> TrainedRun:
    return open_run(Path(cli("train", "-c", "smoke", *TINY_RUN, "-q", *options).out.strip()))


def test_a_learner_and_random_networks_adapt_to_the_test_tasks_with_the_learned_alpha(cli: Cli) -> None:
    run = _trained_run(cli, "-s", "inner.alpha.learned=true")
    run.meta_params.rule_params["alpha"].fill_(0.003)
    (evaluation,) = evaluate_run(run, Protocol(num_tasks=6, seed=5, steps=2)).results
    experiment = run.experiment
    tasks = sample_test_tasks(experiment.family, Protocol(num_tasks=6, seed=5), 10)
    stream = make_generator(5, "random-init")
    untrained = MetaParams(
        {key: value[None] for key, value in experiment.init_params(stream, 6).items()},
        {"alpha": torch.full((1, 6, 1, 1, 1), 0.003)},
    )
    for results, initial in (
        (evaluation.steps, expand_to_tasks(run.meta_params, 6)),
        (evaluation.random_init, untrained),
    ):
        expected = adapted_errors(experiment, tasks, lambda count, m=initial: m, num_runs=1, steps=2)  # type: ignore[misc]
        for result, errors in zip(results, expected, strict=True):
            assert result.grid.mse.mean == pytest.approx(summarise_tasks(errors).grid.mse.mean, rel=1e-6)


def test_fits_are_predictions_of_the_params_adapted_to_the_support_points_shown(cli: Cli) -> None:
    run = _trained_run(cli)
    for index, fit in enumerate(fit_tasks(run, Protocol(num_tasks=3, shots=(4,), steps=2))):
        params = {key: value[0].clone() for key, value in run.meta_params.params.items()}
        x, y = (points.float().reshape(4, 1) for points in (fit.support_x, fit.support_y))
        for step in range(3):
            predicted = run.experiment.predict(params, fit.x.float().reshape(-1, 1)).flatten()
            torch.testing.assert_close(fit.predictions[step].float(), predicted, rtol=1e-4, atol=1e-4)
            gradients = torch.func.grad(lambda p, x=x, y=y: (run.experiment.predict(p, x) - y).square().mean())(params)
            params = {key: value - 0.01 * gradients[key] for key, value in params.items()}
        tasks = sample_test_tasks(run.experiment.family, Protocol(num_tasks=3), 4)
        (block,) = tasks.iter_blocks()
        truth = block.functions(fit.x.reshape(-1, 1))[0, index, :, 0]
        assert torch.equal(fit.truth, truth)
        assert torch.equal(fit.support_y, block.functions(block.points["support"].x)[0, index, :, 0])


@pytest.mark.parametrize(
    "alpha", [{}, {"learned": "true", "per": "parameter", "sign": "positive"}, {"learned": "true", "per": "layer"}]
)
def test_half_of_every_alpha_moves_a_trained_linear_network_half_as_far(cli: Cli, alpha: dict[str, str]) -> None:
    """One inner step of gradient descent is linear in alpha: theta - phi is halved; engine and device do not matter."""
    settings = {"model.hidden": "[]", "run.dtype": "float64", "run.engine": "native"}
    settings |= {f"inner.alpha.{key}": value for key, value in alpha.items()}
    run = _trained_run(cli, *(word for item in settings.items() for word in ("-s", "=".join(item))))
    halved = open_run(Path("outputs/smoke"), overrides=["inner.alpha.scale=0.5"])
    assert halved.config.run.engine == "auto" and halved.overrides == ("inner.alpha.scale=0.5",)
    (block,) = sample_test_tasks(run.experiment.family, Protocol(num_tasks=5), 4).iter_blocks()
    moves = []
    for opened in (run, halved):
        start, adapted = opened.experiment.algorithm.unroll(
            expand_to_tasks(opened.meta_params, 5), block.points["support"], 1
        )
        moves.append({key: start[key] - adapted[key] for key in start})
    for key, move in moves[0].items():
        assert move.abs().min() > 0
        torch.testing.assert_close(moves[1][key], move / 2, rtol=1e-9, atol=1e-15)


def test_a_trained_run_takes_no_other_alpha_than_a_multiple_of_its_own(cli: Cli) -> None:
    run = cli("train", "-c", "smoke", *TINY_RUN, "-q").out.strip()
    refused = cli("eval", run, "--set", "inner.alpha.init=0.5")
    assert refused.code == 2 and refused.err == (
        "--set inner.alpha.init=0.5: a trained run takes other tasks, such as tasks.phase=[0,1], and another "
        "inner.alpha.after_last_step, inner.alpha.scale, inner.momentum, inner.clip_norm or inner.clip_value, but "
        "nothing else\n"
    )
    assert "inner.alpha.scale must be greater than 0" in cli("eval", run, "--set", "inner.alpha.scale=0").err


@pytest.mark.parametrize(
    ("diverged", "index_by_seed", "first_index"),
    [([0, 0, 0], {5: 0, 6: 1, 7: 2}, 0), ([3, 0, 0], {6: 1, 7: 2}, 1), ([3, 4, 3], {5: 0, 6: 1, 7: 2}, 0)],
)
def test_diverged_seeds_are_left_out_unless_all_seeds_diverged(
    cli: Cli, diverged: list[int], index_by_seed: dict[int, int], first_index: int
) -> None:
    run = _trained_run(cli, "-s", "run.seeds=[5,6,7]")
    run.checkpoint.contents["diverged"] = torch.tensor(diverged)
    assert run.run_index == index_by_seed and run.first_index == first_index


@pytest.mark.parametrize(("trained_steps", "protocol", "expected"), [(2, None, 10), (12, None, 12), (12, 3, 3)])
def test_a_run_is_evaluated_to_ten_inner_steps_or_those_of_training_or_of_the_protocol(
    cli: Cli, trained_steps: int, protocol: int | None, expected: int
) -> None:
    run = _trained_run(cli, "-s", f"inner.steps={trained_steps}")
    (evaluation,) = evaluate_run(run, Protocol(num_tasks=2, steps=protocol)).results
    assert len(evaluation.steps) == expected + 1
