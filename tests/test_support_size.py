"""tasks.num_support as a range: the number of support points K is drawn for each outer step."""

from collections import Counter
from pathlib import Path

import pytest
import torch

import maml_cli as maml
from maml_cli.config import Config, from_dict, to_dict
from maml_cli.core import Points
from maml_cli.engines import make_engine
from maml_cli.engines.support_size import first_support, support_size
from maml_cli.evaluation import Protocol, compare_runs, evaluate_run
from maml_cli.experiment import build_experiment
from maml_cli.training import init_state
from tests.conftest import Cli


def _config(**run: object) -> Config:
    return from_dict(
        {
            "tasks": {"num_support": [2, 6], "num_query": 3},
            "model": {"hidden": [8], "activation": "tanh"},
            "inner": {"steps": 2, "alpha": {"learned": True}},
            "outer": {"steps": 8, "tasks_per_step": 4},
            "run": {"engine": "eager", "dtype": "float64", "eval_tasks": 3, "checkpoint_every": 4, **run},
        },
        label="config",
    )


def test_k_is_uniform_on_the_whole_numbers_of_the_range() -> None:
    """18 numbers, 9,000 steps: 500 of each, with a standard deviation of 21.7; 110 is beyond five of them."""
    counts = Counter(support_size((3, 20), step) for step in range(9000))
    assert sorted(counts) == [*range(3, 21)] and all(abs(count - 500) < 110 for count in counts.values())


def test_k_of_consecutive_steps_is_not_correlated() -> None:
    """Of 4,000 pairs, the correlation is within 5 / sqrt(4000)."""
    values = torch.tensor([support_size((3, 20), step) for step in range(4001)]).double()
    assert torch.corrcoef(torch.stack([values[1:], values[:-1]]))[0, 1].abs() < 5 / 4000**0.5


@pytest.mark.parametrize("name", ["reference", "eager"])
def test_an_outer_step_descends_the_gradient_at_its_first_k_support_points(name: str) -> None:
    """Two outer steps of two seeds in one call, against the reference meta-gradient at batches cut by hand; SGD with
    rate 0.1, so that the parameters move by -0.1 times the mean gradient over tasks."""
    config = _config(seeds=2, engine=name)
    config = from_dict(
        {**to_dict(config), "outer": {**to_dict(config)["outer"], "optimizer": "sgd", "lr": 0.1}}, label="config"
    )
    experiment = build_experiment(config)
    state, by_hand = init_state(config, experiment), init_state(config, experiment)
    make_engine(name, config, experiment)(state, 2)
    meta_params, batches = by_hand.meta_params, experiment.sample(by_hand.generators, num_steps=2)
    for step, batch in enumerate(batches.iter_steps()):
        size = support_size((2, 6), step)
        cut = batch._replace(support=Points(*(values[..., :size, :] for values in batch.support)))
        _, gradients = experiment.algorithm.meta_gradient(meta_params, cut, step)
        meta_params = type(meta_params)(
            *(
                {key: value - 0.1 * change[key].mean(dim=1) for key, value in group.items()}
                for group, change in zip(meta_params, gradients, strict=True)
            )
        )
    for expected, actual in zip(meta_params, state.meta_params, strict=True):
        for key, value in expected.items():
            torch.testing.assert_close(actual[key], value, rtol=1e-9, atol=1e-12)
    assert {support_size((2, 6), step) for step in range(2)} != {6}


def test_a_resumed_training_and_seeds_side_by_side_have_the_same_bytes(cli: Cli) -> None:
    maml.train(_config(seeds=2), out="whole")
    cli("train", "--config", "whole/config.yaml", "--out", "half")
    for file in ("half/checkpoints/step-00000008.pt", "half/last.json"):
        Path(file).unlink()
    assert cli("train", "--resume", "half").code == 0
    for name in ("checkpoints/step-00000008.pt", "metrics.jsonl"):
        assert Path("whole", name).read_bytes() == Path("half", name).read_bytes()
    maml.train(_config(seed=1), out="alone")
    together, alone = (maml.load(run).meta_params.params for run in ("whole", "alone"))
    assert all(torch.allclose(together[key][1], alone[key][0], rtol=1e-9) for key in alone)


def test_evaluations_are_at_both_ends_of_the_range_and_figures_at_the_largest(cli: Cli) -> None:
    run = maml.train(_config(), out="run")
    assert [result.shots for result in evaluate_run(run, Protocol(4)).results] == [2, 6]
    assert [comparison.shots for comparison in compare_runs([run, run], Protocol(4))] == [2, 6]
    assert cli("eval", "run", "--tasks", "4").out.count("K = ") == 2
    assert cli("plot", "run", "--tasks", "4").code == 0
    assert "2 to 6 support" in cli("train", "--config", "run/config.yaml", "--out", "again").err


def test_a_range_of_one_number_is_that_number() -> None:
    config = from_dict({"tasks": {"num_support": [5, 5]}}, label="config")
    assert to_dict(config)["tasks"]["num_support"] == 5 and config.tasks.support_range == (5, 5)
    assert to_dict(_config())["tasks"]["num_support"] == [2, 6]
    assert support_size((5, 5), 3) == 5


@pytest.mark.parametrize("engine", ["native", "compiled"])
def test_engines_of_fixed_shapes_refuse_a_range(engine: str, cli: Cli) -> None:
    result = cli("config", "check", "smoke", "--set", "tasks.num_support=[2,6]", "--set", f"run.engine={engine}")
    assert result.code == 2
    assert f"{engine} does not support tasks.num_support = [2, 6], a number that varies; use auto" in result.err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[20,3]", "must have its low end first"),
        ("[0,5]", "must be a whole number from 1 to 100,000, or [low, high] of two such numbers"),
        ("[3]", "must be a whole number from 1 to 100,000, or [low, high] of two such numbers"),
        ("many", "must be a whole number from 1 to 100,000, or [low, high] of two such numbers"),
        ("2.0", "did you mean 2?"),
    ],
)
def test_other_values_are_one_message(value: str, message: str, cli: Cli) -> None:
    result = cli("config", "check", "smoke", "--set", f"tasks.num_support={value}")
    assert result.code == 2 and message in result.err and result.err.count("\n") == 1


def test_the_query_points_stay_whole() -> None:
    batch = build_experiment(_config()).sample(init_state(_config(), build_experiment(_config())).generators)
    cut = first_support(batch, 2)
    assert cut.support.x.shape[-2] == 2 and torch.equal(cut.support.x, batch.support.x[..., :2, :])
    assert cut.query is batch.query and first_support(batch, 6) is batch
