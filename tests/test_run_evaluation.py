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
from maml_cli.evaluation.evaluate import adapted_errors
from maml_cli.tasks import make_generator
from tests.conftest import TINY_RUN, Cli


def _trained_run(cli: Cli, *options: str) -> TrainedRun:
    return open_run(Path(cli("train", "-c", "smoke", *TINY_RUN, "-q", *options).out.strip()))


def test_a_learner_and_random_networks_adapt_to_the_test_tasks_with_the_learned_alpha(cli: Cli) -> None:
    run = _trained_run(cli, "-s", "inner.alpha.learned=true")
    run.meta_params.rule_params["alpha"].fill_(0.003)
    (evaluation,) = evaluate_run(run, Protocol(num_tasks=6, seed=5, steps=2))
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
