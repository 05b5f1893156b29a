"""Points of the user's own from Python: arrays of every kind, adapted to as the inner loop is defined."""

import math
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import maml_cli as maml
from maml_cli.errors import ConfigError, DataError
from maml_cli.tasks import Scaling, affine_map

X = [-4.0, -2.0, 0.0, 1.5, 3.0]
Y = [0.3, -1.0, 0.5, 2.0, -0.7]
NEW = [-3.0, 0.25, 4.0]


@pytest.fixture(scope="module")
def run() -> maml.TrainedRun:
    """finn-10shot: a network 1-40-40-1 with relu, one inner step of 0.01 on the mean squared error."""
    return maml.load("finn-10shot")


def _network(params: dict[str, Tensor], x: Tensor) -> Tensor:
    for layer in ("hidden0", "hidden1"):
        x = torch.relu(x @ params[f"{layer}.w"] + params[f"{layer}.b"])
    return x @ params["head.w"] + params["head.b"]


def _adapted_by_hand(run: maml.TrainedRun, x: list[float], y: list[float], steps: int) -> list[list[float]]:
    """Predictions at NEW after 0, 1, ..., steps of gradient descent by 0.01, by PyTorch alone."""
    params = {key: value[0].clone() for key, value in run.meta_params.params.items()}
    inputs, targets, new = (torch.tensor(values, dtype=torch.float32).unsqueeze(-1) for values in (x, y, NEW))
    predictions = [_network(params, new)[:, 0].tolist()]
    for _ in range(steps):
        params = {key: value.detach().requires_grad_() for key, value in params.items()}
        torch.nn.functional.mse_loss(_network(params, inputs), targets).backward()  # type: ignore[no-untyped-call]
        params = {key: value.detach() - 0.01 * value.grad for key, value in params.items() if value.grad is not None}
        predictions.append(_network(params, new)[:, 0].tolist())
    return predictions


def test_predictions_are_those_of_gradient_descent_from_the_learned_initialisation(run: maml.TrainedRun) -> None:
    expected = _adapted_by_hand(run, X, Y, 3)
    fitted = run.adapt(X, Y, steps=3)
    numpy.testing.assert_allclose(fitted.steps(NEW), expected, rtol=1e-4, atol=1e-5)
    assert fitted.predict(NEW) == fitted.steps(NEW)[-1]
    assert run.adapt(X, Y).predict(NEW) == fitted.steps(NEW)[1]  # one inner step, as trained


def test_the_support_error_is_the_mean_squared_error_at_the_support_points(run: maml.TrainedRun) -> None:
    fitted = run.adapt(X, Y, steps=2)
    expected = [numpy.mean([(p - y) ** 2 for p, y in zip(step, Y, strict=True)]) for step in fitted.steps(X)]
    assert fitted.support_error == pytest.approx(expected, rel=1e-12)
    assert fitted.error(NEW, [1.0, 1.0, 1.0]) == pytest.approx(
        [numpy.mean([(p - 1) ** 2 for p in step]) for step in fitted.steps(NEW)], rel=1e-12
    )
    assert expected[0] > expected[1] > expected[2]


KINDS: dict[str, Any] = {
    "list": list,
    "tuple": tuple,
    "numpy, float64": numpy.array,
    "numpy, float32": lambda values: numpy.array(values, dtype=numpy.float32),
    "numpy, big endian": lambda values: numpy.array(values, dtype=">f8"),
    "tensor": torch.tensor,
    "tensor, (K, 1)": lambda values: torch.tensor(values).unsqueeze(-1),
    "list of lists, (K, 1)": lambda values: [[value] for value in values],
    "numpy, (K, 1)": lambda values: numpy.array(values)[:, None],
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_arrays_of_every_kind_give_the_same_predictions_in_their_own_kind(kind: Any, run: maml.TrainedRun) -> None:
    expected = run.adapt(X, Y).predict(NEW)
    result = run.adapt(kind(X), kind(Y)).predict(kind(NEW))
    like = kind(NEW)
    assert isinstance(result, type(like) if not isinstance(like, tuple) else list)
    assert getattr(result, "dtype", None) == (
        numpy.dtype("float64") if kind is KINDS["numpy, big endian"] else getattr(like, "dtype", None)
    )
    values = result.numpy() if isinstance(result, Tensor) else numpy.array(result)
    numpy.testing.assert_allclose(values.reshape(-1), expected, rtol=1e-5)
    assert values.shape == (like.shape if isinstance(like, Tensor) else numpy.shape(like))


def test_integers_and_single_numbers_are_numbers(run: maml.TrainedRun) -> None:
    fitted = run.adapt(numpy.array([0, 1, 2]), [0, 1, 0])
    assert isinstance(fitted.predict(1), float) and fitted.predict(1) == fitted.predict([1.0])[0]
    assert fitted.predict(numpy.array([1])).dtype == numpy.float64


def test_a_batch_of_tasks_is_every_task_on_its_own(run: maml.TrainedRun) -> None:
    """(B, K) support points, inputs that tasks share and inputs of their own."""
    x, y = numpy.array([X, [*NEW, 1.0, 2.0], X]), numpy.array([Y, Y[::-1], Y[::-1]])
    batch = run.adapt(x, y)
    shared = batch.predict(numpy.array(NEW))
    own = batch.predict(x[:, :2])
    assert shared.shape == (3, 3) and own.shape == (3, 2) and batch.predict(x[..., None]).shape == (3, 5, 1)
    for task in range(3):
        alone = run.adapt(x[task], y[task])
        numpy.testing.assert_allclose(shared[task], alone.predict(NEW), rtol=1e-5)
        numpy.testing.assert_allclose(own[task], alone.predict(x[task, :2]), rtol=1e-5)
        assert [step[task] for step in batch.support_error] == pytest.approx(alone.support_error, rel=1e-5)


def test_tasks_of_different_sizes_are_grouped_and_come_back_in_their_order(run: maml.TrainedRun) -> None:
    """150 tasks of 1 to 7 points, more than adapt at a time, as a list of arrays of two kinds."""
    generator = numpy.random.default_rng(0)
    x = [generator.uniform(-5, 5, 1 + index % 7) for index in range(150)]
    y = [numpy.sin(values).tolist() for values in x]
    ragged = run.adapt(x, y)
    new = [values[: 1 + index % 2] for index, values in enumerate(x)]
    predictions = ragged.predict(new)
    assert [len(values) for values in predictions] == [len(values) for values in new]
    for index in (0, 1, 6, 7, 101, 149):
        alone = run.adapt(x[index], y[index]).predict(new[index])
        numpy.testing.assert_allclose(predictions[index], alone, rtol=1e-4, atol=1e-6)


def test_points_with_labels_of_tasks_may_be_in_any_order(run: maml.TrainedRun) -> None:
    labels = ["b", "a", "b", "a", "a", "b"]
    x, y = [0.0, 1.0, 2.0, -1.0, 3.0, 4.0], [1.0, 2.0, 0.0, -2.0, 0.5, 1.5]
    fitted = run.adapt(x, y, task=labels)
    alone = {
        label: run.adapt(*([v for v, of in zip(values, labels, strict=True) if of == label] for values in (x, y)))
        for label in "ab"
    }
    assert fitted.labels == ("b", "a")
    expected = [alone["a"].predict(0.5), alone["b"].predict(0.5), alone["a"].predict(-2.0)]
    assert fitted.predict([0.5, 0.5, -2.0], task=["a", "b", "a"]) == pytest.approx(expected, rel=1e-5)
    assert fitted.predict([0.5]) == [pytest.approx([alone[label].predict(0.5)], rel=1e-5) for label in "ba"]
    numbered = run.adapt(numpy.array(x), numpy.array(y), task=numpy.array([1, 0, 1, 0, 0, 1]))
    assert numbered.labels == (1, 0) and numbered.predict([0.5], task=[0]) == fitted.predict([0.5], task=["a"])


def test_several_seeds_give_their_mean_and_a_band_of_1_6449_standard_deviations(
    run: maml.TrainedRun, tmp_path: Path
) -> None:
    several = maml.train("smoke", "outer.steps=3", "run.seeds=3", "run.eval_tasks=2", out=tmp_path / "run")
    fitted = several.adapt(X, Y)
    by_seed = []
    for seed in range(3):
        one = maml.train("smoke", "outer.steps=3", f"run.seed={seed}", "run.eval_tasks=2", out=tmp_path / f"{seed}")
        by_seed.append(one.adapt(X, Y).predict(numpy.array(NEW)))
    mean, deviation = numpy.mean(by_seed, axis=0), numpy.std(by_seed, axis=0, ddof=1)
    numpy.testing.assert_allclose(fitted.predict(NEW), mean, rtol=1e-4, atol=1e-6)
    low, high = fitted.band(numpy.array(NEW))
    numpy.testing.assert_allclose(low, mean - 1.6448536 * deviation, rtol=1e-4, atol=1e-6)
    numpy.testing.assert_allclose(high, mean + 1.6448536 * deviation, rtol=1e-4, atol=1e-6)
    with pytest.raises(DataError, match="band: the run has one seed; a band needs several"):
        run.adapt(X, Y).band(NEW)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [1], "x has 2 values, y 1; give as many"),
        ([[1, 2], [1]], [[1, 2], [1, 2]], "x of task 1 has 1 values, y 2; give as many"),
        ([[1, 2], [1]], [1, 2], "x is of 2 tasks, y of 1; give as many"),
        ([1, math.nan], [1, 2], r"x\[1\]: is nan; give finite numbers"),
        ([[1, 2], [1, math.inf]], [[1, 2], [1, 2]], r"x\[1\]\[1\]: is inf; give finite numbers"),
        (numpy.array([[1, 2], [1, -math.inf]]), numpy.ones((2, 2)), r"x\[1, 1\]: is -inf; give finite numbers"),
        ([], [], r"x: has shape \(0,\); give \(K,\) or \(K, 1\) for one task"),
        (numpy.ones((2, 3, 2)), numpy.ones((2, 3, 2)), r"x: has shape \(2, 3, 2\)"),
        ("points", [1], "x: is str; give a list, a numpy array or a tensor"),
        ([True, False], [1, 2], r"x\[0\]: is True; give numbers"),
        (["1", "2"], [1, 2], r"x\[0\]: is '1'; give numbers"),
        (numpy.array([1j]), [1], "x: has dtype complex128; give real numbers"),
        (torch.tensor([True]), [1], "x: has dtype torch.bool; give real numbers"),
        ([[1.0, 2.0], 3.0], [1, 2, 3], r"x\[1\]: is a number among arrays"),
        ([[[1.0, 2.0], [3.0, 4.0]]], [1], r"x\[0\]: has tasks in it"),
    ],
)
def test_points_that_no_learner_can_adapt_to_are_refused_with_their_position(
    x: Any, y: Any, message: str, run: maml.TrainedRun
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        run.adapt(x, y)
    assert isinstance(error.value, maml.UserError)


def test_inputs_and_labels_that_fit_no_task_are_refused(run: maml.TrainedRun) -> None:
    batch = run.adapt([X, X], [Y, Y])
    with pytest.raises(DataError, match="x: is of 3 tasks; the learner was adapted to 2"):
        batch.predict([NEW, NEW, NEW])
    with pytest.raises(DataError, match="task: the tasks have no labels"):
        batch.predict([1.0], task=["a"])
    labelled = run.adapt([1.0, 2.0], [1.0, 2.0], task=["a", "a"])
    with pytest.raises(DataError, match="task: 'b' is none of the tasks that the learner was adapted to"):
        labelled.predict([1.0], task=["b"])
    with pytest.raises(DataError, match="task: has 1 labels, x 2 values; give a label for each value"):
        run.adapt([1.0, 2.0], [1.0, 2.0], task=["a"])
    with pytest.raises(DataError, match="x: a task has 100,001 points; a learner adapts to at most 100,000"):
        run.adapt(torch.zeros(100_001), torch.zeros(100_001))


def test_inner_steps_without_alphas_and_oracle_networks_are_refused(tmp_path: Path) -> None:
    per_step = ["inner.alpha.learned=true", "inner.alpha.per_step=true", "inner.steps=2", "outer.steps=1"]
    limited = maml.train("smoke", *per_step, "run.eval_tasks=2", out=tmp_path / "limited")
    with pytest.raises(ConfigError, match=r"--steps 3: .*limited has alphas for 2 inner steps"):
        limited.adapt(X, Y, steps=3)
    oracle = maml.train("smoke", "model.oracle=true", "outer.steps=1", "run.eval_tasks=2", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="an oracle network needs amplitude, frequency and phase of each task"):
        oracle.adapt(X, Y)


def test_scalings_are_undone_and_composed() -> None:
    """x in [0, 24] onto [-5, 5] is x * 10/24 - 5."""
    scaling = Scaling(*affine_map((0.0, 24.0), (-5.0, 5.0)), *affine_map((10.0, 30.0), (-1.0, 1.0)))
    assert [*scaling] == pytest.approx([10 / 24, -5.0, 0.1, -2.0])
    values = torch.tensor([0.0, 12.0, 24.0], dtype=torch.float64)
    torch.testing.assert_close(scaling.x_to_network(values), torch.tensor([-5.0, 0.0, 5.0], dtype=torch.float64))
    torch.testing.assert_close(scaling.y_to_user(scaling.y_to_network(values)), values)
    twice = Scaling(2.0, 1.0, 3.0, -1.0).after(scaling)
    torch.testing.assert_close(twice.x_to_network(values), scaling.x_to_network(values) * 2 + 1)
    torch.testing.assert_close(twice.y_to_network(values), scaling.y_to_network(values) * 3 - 1)
    assert affine_map((2.0, 2.0), (-5.0, 5.0)) == (1.0, -2.0)  # a single input is moved to the middle
