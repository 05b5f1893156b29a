"""Errors against targets with noise: tasks and supports stay as they are, and a perfect learner errs by the noise."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import maml_cli as maml
from maml_cli.config import Config
from maml_cli.errors import ConfigError
from maml_cli.evaluation import Protocol, sample_test_tasks
from maml_cli.evaluation.evaluate import evaluate
from maml_cli.experiment import build_experiment
from maml_cli.tasks import make_family, make_generator
from tests.conftest import TINY_RUN, Cli


def _family(**tasks: Any) -> Any:
    return make_family(dict(Config.model_validate({"tasks": tasks}).tasks))


NOISY = Protocol(num_tasks=900, noisy_targets=True)


@pytest.mark.parametrize("tasks", [{"noise": 0.3}, {"noise": 0.3, "family": "tanh"}, {"relative_noise": 0.2}])
def test_the_noise_is_that_of_the_family_and_everything_else_stays(tasks: dict[str, Any]) -> None:
    """Blocks of 400 and 500 tasks: inputs, supports and functions equal, noise of the right size and independent."""
    family = _family(**tasks)
    clean = [*sample_test_tasks(family, Protocol(num_tasks=900), 10).iter_blocks()]
    noisy = [*sample_test_tasks(family, NOISY, 10).iter_blocks()]
    of_points = {}
    for name in "grid", "query":
        pairs = [(b.points[name], a.points[name], a.functions) for a, b in zip(clean, noisy, strict=True)]
        assert all(torch.equal(with_noise.x, without.x) for with_noise, without, _ in pairs)
        differences = [
            (with_noise.y - without.y) / (functions.amplitudes() if "relative_noise" in tasks else 1)
            for with_noise, without, functions in pairs
        ]
        of_points[name] = torch.cat(differences, dim=1)
    scale = tasks.get("noise") or tasks["relative_noise"]
    of_task_stream = torch.randn(400 * 100, generator=make_generator(0, "test"), dtype=torch.float64)
    assert (of_points["grid"].flatten()[: 400 * 100] / scale - of_task_stream).abs().min() > 1e-9
    for noise in of_points.values():  # the relative error of a standard deviation of n numbers is 1 / sqrt(2 n)
        assert abs(noise.std().item() / scale - 1) < 4 / (2 * noise.numel()) ** 0.5
    on_query = of_points["query"][0, :, :, 0]
    correlation = (of_points["grid"][0, :, :10, 0] * on_query).mean() / scale**2
    assert abs(correlation.item()) < 4 / on_query.numel() ** 0.5
    for before, after in zip(clean, noisy, strict=True):
        assert all(map(torch.equal, before.points["support"], after.points["support"]))
        assert before.functions.columns() == after.functions.columns()


def test_a_perfect_learner_errs_by_the_variance_and_zero_by_as_much_more() -> None:
    """An oracle that computes amplitude * sin(frequency * x - phase): sigma^2 = 0.09, on grid and fresh points."""
    config = {"model": {"oracle": True}, "tasks": {"noise": 0.3}, "run": {"dtype": "float64"}}
    experiment = build_experiment(Config.model_validate(config))

    def exact(params: Any, inputs: torch.Tensor) -> torch.Tensor:
        x, amplitude, frequency, phase = inputs.split(1, dim=-1)  # type: ignore[no-untyped-call]
        return amplitude * torch.sin(frequency * x - phase)  # type: ignore[no-any-return]

    oracle = experiment._replace(predict=exact)
    start = experiment.init_meta_params([0])
    noisy, clean = (
        evaluate(
            oracle,
            start,
            sample_test_tasks(experiment.family, NOISY._replace(noisy_targets=is_noisy), 10),
            steps=0,
            trained_steps=0,
        )
        for is_noisy in (True, False)
    )
    for name, size in (("grid", 90_000), ("query", 9_000)):
        error = getattr(noisy.steps[0], name).mse.mean
        assert abs(error / 0.09 - 1) < 4 * (2 / size) ** 0.5
        assert getattr(clean.steps[0], name).mse.mean < 1e-25
    zero = [evaluation.baselines["zero"] for evaluation in (noisy, clean)]
    assert zero[0] and zero[1]
    # f e has standard deviation sqrt(4.25) * 0.3, over 90,000 points
    assert abs(zero[0].grid.mse.mean - zero[1].grid.mse.mean - 0.09) < 4 * 2 * 2.07 * 0.3 / 300
    assert zero[0].support == zero[1].support


def test_noisy_targets_of_a_family_without_noise_are_refused(cli: Cli, trained: str) -> None:
    message = (
        "--noisy-targets: the tasks have no noise; leave it out, or give functions some with --set tasks.noise=0.1"
    )
    result = cli("eval", trained, "--noisy-targets", "--tasks", 5)
    assert result.code == 2 and " ".join(result.err.split()).startswith(message) and result.out == ""
    with pytest.raises(ConfigError, match="the tasks have no noise"):
        maml.evaluate(maml.load(trained), tasks=5, noisy_targets=True)


@pytest.mark.usefixtures("optimised_kernels")
def test_table_and_json_say_that_targets_are_noisy_and_eval_json_is_for_those_without(cli: Cli) -> None:
    run = cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "tasks.noise=0.5").out.strip()
    command = ["eval", run, "--steps", 1]
    result = cli(*command, "--noisy-targets", "--tasks", 50)
    assert "errors on grid and fresh points against targets with noise\n" in result.out
    assert "noise" not in cli(*command, "--tasks", 50).out
    documents = [
        json.loads(cli(*command, *option, "--tasks", 50, "--json").out)["results"][0]
        for option in ([], ["--noisy-targets"])
    ]
    assert [document["noisy_targets"] for document in documents] == [False, True]
    clean, noisy = (document["baselines"]["least_squares"]["grid"]["mse"]["mean"] for document in documents)
    assert noisy - clean == pytest.approx(0.25, abs=0.05)
    result = cli("eval", run, "--steps", 10, "--noisy-targets")
    assert "not written to a file" in result.err and not (Path(run) / "eval.json").exists()
