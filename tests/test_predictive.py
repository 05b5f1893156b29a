"""Predictive distributions of closed-form heads: numpy's Bayesian linear regression, scipy, and draws of the model."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import maml_cli as maml
from maml_cli.config import Config
from maml_cli.core import MIN_NOISE, NOISE, Params, Points, RidgeHead, expand_to_tasks, log_noise
from maml_cli.core.ridge import PENALTY
from maml_cli.errors import DataError
from maml_cli.evaluation import Protocol, evaluate_run, fit_tasks, sample_test_tasks
from maml_cli.evaluation.calibration import CalibrationByTask, calibration_scores
from maml_cli.reporting.figures import fit_figure
from maml_cli.reporting.fit_rows import adapting
from maml_cli.reporting.training_figures import TrainingTraces, curve_figure
from maml_cli.tasks import make_family
from tests.conftest import Cli

FLOAT = torch.float64
HEAD = RidgeHead(lambda params, x: x)  # the inputs are the features


def _model(features: int, noise: float, log_penalty: Tensor, *, tasks: int = 1) -> tuple[Params, Params]:
    """The parameters of a head with prior means 0.5, -0.5, 0.5, ..., and its rule; of `tasks` equal tasks."""
    prior = torch.tensor([(-1) ** i / 2 for i in range(features + 1)], dtype=FLOAT).reshape(1, 1, -1, 1)
    prior = prior.expand(1, tasks, -1, 1)
    rho = torch.full((1, tasks, 1, 1, 1), log_noise(noise), dtype=FLOAT)
    rule = {PENALTY: log_penalty.reshape(1, 1, 1, -1, 1).expand(1, tasks, 1, -1, 1), NOISE: rho}
    return {"head.w": prior[..., :-1, :], "head.b": prior[..., -1:, :]}, rule


def _adapted(params: Params, rule: Params, support: Points) -> Params:
    return HEAD.solve(params, support, rule[PENALTY].squeeze(-3)) | HEAD.posterior(params, support, rule)


@pytest.mark.parametrize("count", [0, 2, 3, 8])
@pytest.mark.parametrize("per_feature", [False, True])
def test_mean_variance_and_likelihood_are_those_of_bayesian_linear_regression(count: int, per_feature: bool) -> None:
    """With no, fewer, as many and more points than weights: precision P / sigma^2 with P = diag(lambda) + F^T F, mean
    P^-1 (diag(lambda) w0 + F^T y), and scipy's density."""
    draws = np.random.default_rng(0)
    (x, new_x), (y, new_y) = ([draws.normal(size=(n, d)) for n in (count, 5)] for d in (2, 1))
    log_penalty = torch.tensor([-1.0, 0.3, 1.0] if per_feature else [-0.7], dtype=FLOAT)
    params, rule = _model(2, 0.3, log_penalty)
    support, query = (Points(*(torch.tensor(v)[None, None] for v in both)) for both in ((x, y), (new_x, new_y)))
    adapted = _adapted(params, rule, support)

    design, new_design = (np.hstack([values, np.ones((len(values), 1))]) for values in (x, new_x))
    penalties = np.diag(np.broadcast_to(np.exp(log_penalty.numpy()), 3))
    precision = penalties + design.T @ design
    mean = np.linalg.inv(precision) @ (penalties @ [[0.5], [-0.5], [0.5]] + design.T @ y)
    variance = 0.09 * (1 + np.diag(new_design @ np.linalg.inv(precision) @ new_design.T))
    expected = -scipy.stats.norm(new_design @ mean, np.sqrt(variance)[:, None]).logpdf(new_y).mean()
    np.testing.assert_allclose(HEAD.variance(adapted, query.x)[0, 0, :, 0], variance, rtol=1e-10)
    assert HEAD.nll(adapted, query).item() == pytest.approx(expected, rel=1e-10)


def test_intervals_of_a_model_that_is_right_cover_as_many_targets_as_they_say() -> None:
    """Of 40,000 tasks drawn from the prior, each with four points and a new target; within four standard errors of a
    binomial count."""
    tasks, draws, log_penalty = 40_000, torch.Generator().manual_seed(0), torch.tensor([-1.0, 0.5, 0.0], dtype=FLOAT)
    params, rule = _model(2, 0.3, log_penalty, tasks=tasks)
    prior = torch.cat([params["head.w"], params["head.b"]], dim=-2)
    scale = 0.3 * (-log_penalty / 2).exp().reshape(-1, 1)
    head = prior + scale * torch.randn(1, tasks, 3, 1, generator=draws, dtype=FLOAT)
    x, noise = (torch.randn(1, tasks, 5, d, generator=draws, dtype=FLOAT) for d in (2, 1))
    y = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1) @ head + 0.3 * noise
    adapted = _adapted(params, rule, Points(x[..., :4, :], y[..., :4, :]))
    solved = torch.cat([adapted["head.w"], adapted["head.b"]], dim=-2)
    new = torch.cat([x[..., 4:, :], torch.ones(1, tasks, 1, 1, dtype=FLOAT)], dim=-1)
    scores = calibration_scores(
        new @ solved - y[..., 4:, :], HEAD.variance(adapted, x[..., 4:, :]), torch.zeros(1, 1, 1)
    )
    for share, level in zip(scores[1:, 0].mean(dim=-1).tolist(), (0.95, 0.5), strict=True):
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / tasks)


def test_gradients_of_the_likelihood_are_finite_differences() -> None:
    """In the prior means, the penalties, the noise, and the inputs, through the solution and the posterior."""
    draws = torch.Generator().manual_seed(1)
    x, y = (torch.randn(1, 1, 6, d, generator=draws, dtype=FLOAT, requires_grad=d == 2) for d in (2, 1))
    params, rule = _model(2, 0.3, torch.tensor([-1.0, 0.3, 1.0], dtype=FLOAT))
    leaves = [value.clone().requires_grad_() for value in (*params.values(), *rule.values())]

    def nll(x: Tensor, *leaves: Tensor) -> Tensor:
        start, rule_params = dict(zip(params, leaves, strict=False)), dict(zip(rule, leaves[2:], strict=True))
        adapted = _adapted(start, rule_params, Points(x[..., :4, :], y[..., :4, :]))
        return HEAD.nll(adapted, Points(x[..., 4:, :], y[..., 4:, :])).sum()

    assert torch.autograd.gradcheck(nll, (x, *leaves))


def test_the_noise_has_a_floor_and_small_penalties_leave_everything_finite() -> None:
    """Points that are interpolated, rho = -1000 and lambda = exp(-30), in float32; the schema asks for more noise."""
    params, rule = _model(2, 0.3, torch.tensor([-30.0], dtype=FLOAT))
    params, rule = ({key: value.float() for key, value in values.items()} for values in (params, rule))
    rule[NOISE] = torch.full_like(rule[NOISE], -1000.0).requires_grad_()
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
    support = Points(x, torch.ones(1, 1, 2, 1))
    adapted = _adapted(params, rule, support)
    variance, nll = HEAD.variance(adapted, x), HEAD.nll(adapted, support)
    assert (variance >= MIN_NOISE**2).all() and nll.isfinite()
    assert torch.autograd.grad(nll.sum(), rule[NOISE])[0].isfinite().all()
    (bound,) = type(Config().inner.ridge).model_fields["noise"].metadata[:1]
    assert bound.ge > MIN_NOISE


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_scores_are_expectations_over_the_noise_that_targets_lack(noise: float) -> None:
    """By Gauss-Hermite quadrature of scipy's density, and its probabilities; a point is inside an interval or not."""
    error, variance = np.array([0.3, -1.2, 2.5]), np.array([0.5, 0.6, 0.9])
    errors, variances = (torch.tensor(values).reshape(1, 1, 3, 1) for values in (error, variance))
    scores = calibration_scores(errors, variances, torch.full((1, 1, 1), noise, dtype=FLOAT)).flatten()
    normal, (nodes, weights) = scipy.stats.norm(0, np.sqrt(variance)), np.polynomial.hermite_e.hermegauss(20)
    draws = error + noise * nodes[:, None]
    nll = (-normal.logpdf(draws) * weights[:, None]).sum() / math.sqrt(2 * math.pi) / 3
    covered = []
    for level in (0.95, 0.5):
        low, high = normal.interval(level)
        target = scipy.stats.norm(error, noise)
        covered.append(((low < error) & (error < high)) if noise == 0 else target.cdf(high) - target.cdf(low))
    assert scores.tolist() == pytest.approx([nll, *(shares.mean() for shares in covered)])
    bad = calibration_scores(torch.full((1, 1, 1, 1), torch.nan), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1))
    assert bad.flatten().tolist() == [math.inf, 0, 0]


def test_the_noise_that_targets_lack_is_that_of_each_task_and_none_if_they_have_it() -> None:
    tasks = dict(Config.model_validate({"tasks": {"relative_noise": 0.2}}).tasks)
    family, protocol = make_family(tasks), Protocol(num_tasks=30)
    (block,) = sample_test_tasks(family, protocol, 5).iter_blocks()
    amplitudes = torch.tensor(block.functions.columns()["amplitude"], dtype=FLOAT)
    torch.testing.assert_close(block.missing_noise.flatten(), 0.2 * amplitudes)
    (noisy,) = sample_test_tasks(family, protocol._replace(noisy_targets=True), 5).iter_blocks()
    assert not noisy.missing_noise.any()


NOISY = ["inner.head=ridge", "inner.adapt=head", "inner.ridge.noise=0.4", "tasks.noise=0.2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> maml.TrainedRun:
    out = tmp_path_factory.mktemp("runs") / "noisy"
    return maml.train("smoke", "outer.steps=30", "run.eval_tasks=4", "run.seeds=2", *NOISY, out=out)


def test_the_calibration_is_that_of_scipy_on_the_predictions(run: maml.TrainedRun) -> None:
    """For each seed on its own, against targets with the noise of the tasks in expectation."""
    (evaluation,) = evaluate_run(run, Protocol(num_tasks=50, steps=1)).results
    tasks = sample_test_tasks(run.experiment.family, Protocol(num_tasks=50), 10)
    (chunk,) = tasks.iter_chunks(run.experiment.network_inputs, num_runs=2, chunk=200)
    points = {name: Points(*(values.float() for values in group)) for name, group in chunk.items()}
    adapted = run.experiment.algorithm.unroll(expand_to_tasks(run.meta_params, 50), points["support"], 1)
    assert run.experiment.variance is not None
    for calibration, params in zip(evaluation.calibration, adapted, strict=True):
        mean, variance = (
            function(params, points["grid"].x).detach().double().numpy()
            for function in (run.experiment.predict, run.experiment.variance)
        )
        normal = scipy.stats.norm(mean - chunk["grid"].y.numpy(), np.sqrt(variance))
        nll = (-normal.logpdf(0) + 0.5 * 0.04 / variance).mean(axis=(2, 3))
        low, high = normal.interval(0.5)
        covered = (scipy.stats.norm.cdf(high / 0.2) - scipy.stats.norm.cdf(low / 0.2)).mean(axis=(2, 3))
        for statistic, values in ((calibration.nll, nll), (calibration.coverage_50, covered)):
            assert statistic.mean == pytest.approx(values.mean(), rel=1e-4)
            assert statistic.ci95 == pytest.approx(1.96 * values.mean(axis=0).std(ddof=1) / math.sqrt(50), rel=1e-3)
            assert statistic.ci95_seeds is not None
    rows = [row for row in maml.evaluate(run, tasks=50, steps=1).to_rows() if row["measure"] == "coverage_50"]
    by_task = maml.evaluate(run, tasks=50, steps=1, per_task=True).per_task()
    assert [row["nll_step_1"] for row in by_task] == pytest.approx(nll.mean(axis=0), rel=1e-4)
    assert [row["mean"] for row in rows] == [step.coverage_50.mean for step in evaluation.calibration]


def test_a_table_and_the_document_have_likelihood_and_coverage(cli: Cli, run: maml.TrainedRun, trained: str) -> None:
    directory = run.checkpoint.run
    out = cli("eval", directory, "--tasks", 20, "--steps", 1).out
    table = out.partition("predictive distribution of new targets, on the 100-point grid\n")[2].splitlines()
    assert " ".join(table[0].split()) == "step NLL per point median in the 95 % interval in the 50 % interval"
    assert max(map(len, table)) <= 80
    (result,) = json.loads(cli("eval", directory, "--tasks", 20, "--steps", 1, "--json").out)["results"]
    assert [step["step"] for step in result["calibration"]] == [0, 1]
    assert float(table[2].split()[1]) == pytest.approx(result["calibration"][1]["nll"]["mean"], rel=1e-3)
    plain = cli("eval", trained, "--tasks", 20, "--json").out
    assert "calibration" not in plain and "predictive" not in cli("eval", trained, "--tasks", 20).out


def _mean_and_std(run: maml.TrainedRun, x: Tensor, y: Tensor, new_x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of the mixture of both seeds' distributions, by numpy from the features that
    each head reads."""
    means, variances = [], []
    for seed in (0, 1):
        params, rule = ({k: v[seed].double().numpy() for k, v in group.items()} for group in run.meta_params)

        def design(inputs: Tensor, params: dict[str, np.ndarray] = params) -> np.ndarray:
            hidden = inputs.double().numpy().reshape(-1, 1)
            for layer in range(len(run.config.model.hidden)):
                hidden = np.maximum(hidden @ params[f"hidden{layer}.w"] + params[f"hidden{layer}.b"], 0)
            return np.hstack([hidden, np.ones((len(hidden), 1))])

        prior, features, new = np.vstack([params["head.w"], params["head.b"]]), design(x), design(new_x)
        penalties = np.exp(rule[PENALTY]).item() * np.eye(len(prior))
        inverse, noise = np.linalg.inv(features.T @ features + penalties), np.exp(2 * rule[NOISE]).item() + 1e-6
        means.append(new @ inverse @ (features.T @ y.double().numpy().reshape(-1, 1) + penalties @ prior))
        variances.append(noise * (1 + np.diag(new @ inverse @ new.T)))
    mean, variance = np.stack(means)[..., 0], np.stack(variances)
    return mean.mean(axis=0), np.sqrt(variance.mean(axis=0) + mean.var(axis=0))


def test_predictions_have_the_deviation_of_the_mixture_of_seeds_in_python_in_tables_and_in_documents(
    cli: Cli, run: maml.TrainedRun, trained: str, tmp_path: Path
) -> None:
    x, new_x = torch.tensor([-4.0, -1.0, 0.5, 3.0]), torch.tensor([-5.0, 0.0, 5.0])
    mean, std = _mean_and_std(run, x, x.sin(), new_x)
    fitted = run.adapt(x, x.sin())
    assert fitted.predict(new_x.tolist()) == pytest.approx(mean, rel=1e-3)
    assert fitted.std(new_x.tolist()) == pytest.approx(std, rel=1e-3) and isinstance(fitted.std(new_x), Tensor)
    Path("points.csv").write_text("x,y\n" + "".join(f"{float(a)},{float(a.sin())}\n" for a in x))
    arguments = ["adapt", run.checkpoint.run, "--data", "points.csv", "--range=-5:5:3", "--plot", "fit.png"]
    assert cli(*arguments, "--out", "fit.csv").code == 0
    header, *rows = Path("fit.csv").read_text().splitlines()
    assert header == "x,y,y0,y1,low,high,sd"
    assert [float(row.split(",")[-1]) for row in rows] == pytest.approx(std, rel=1e-3)
    records = json.loads(cli(*arguments, "--json").out)["predictions"]
    assert [record["sd"] for record in records] == pytest.approx(std, rel=1e-3)
    with pytest.raises(DataError, match=r"std: the run has no predictive distribution; train one with"):
        maml.load(trained).adapt(x, x.sin()).std(new_x)


def test_rescaled_points_have_deviations_in_their_own_units(cli: Cli, run: maml.TrainedRun) -> None:
    """The range of y is eight hundred times that of a run that is not rescaled."""
    (low, high), (bottom, top) = run.experiment.family.x, run.experiment.family.y
    sd = []
    for factor, options in ((800, ["--rescale"]), (1, [])):
        Path("points.csv").write_text(f"x,y\n{low},{factor * bottom}\n0,0\n{high},{factor * top}\n")
        out = cli("adapt", run.checkpoint.run, "--data", "points.csv", *options, "--json").out
        sd.append(json.loads(out)["predictions"][1]["sd"])
    assert sd[0] == pytest.approx(800 * sd[1], rel=1e-3)


def test_figures_of_fits_have_the_interval_as_a_band(run: maml.TrainedRun) -> None:
    """After the last step that is drawn; in an animation it moves to that of each frame."""
    fits = fit_tasks(run, Protocol(num_tasks=2, steps=2))
    options: dict[str, Any] = {"trained_steps": 1, "measure": "mse", "title": ""}
    figure = fit_figure(fits, show_steps=[0, 1], **options)
    animation = adapting(fits, **options)
    for step, panels in ((1, figure.axes), (2, animation.figure.axes)):
        animation.draw_frame(animation.num_frames - 1)
        for axis, fit in zip(panels, fits, strict=False):
            (band,) = axis.collections
            assert fit.std is not None
            vertices = torch.from_numpy(band.get_paths()[0].vertices)
            for sign in (-1, 1):
                ends = torch.stack([fit.x, fit.predictions[step] + sign * 1.959964 * fit.std[step]], dim=-1)
                assert torch.cdist(ends, vertices).min(dim=1).values.max() < 1e-5
    assert "95 % interval of new targets" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_likelihoods_of_a_training_have_a_linear_axis_of_their_own() -> None:
    traces = TrainingTraces([], [(0, [4.0]), (10, [3.0])], [(0, [2.0]), (10, [0.1])], 1, nll=[(5, [0.5]), (10, [-0.7])])
    figure = curve_figure(traces, loss_label="NLL", measure="mse", floor=None, title="")
    errors, likelihood = figure.axes
    assert (errors.get_yscale(), likelihood.get_yscale()) == ("log", "linear") and len(errors.lines) == 2
    assert [np.asarray(line.get_ydata()).tolist() for line in likelihood.lines] == [[0.5, -0.7]]


def test_tasks_are_scored_with_their_own_noise_some_at_a_time() -> None:
    noise = torch.tensor([0.0, 0.4, 1.0], dtype=FLOAT).reshape(3, 1, 1)
    mean, targets, variance = torch.randn(3, 1, 3, 4, 1, generator=torch.Generator().manual_seed(2), dtype=FLOAT)
    at_once, in_turn = CalibrationByTask(noise), CalibrationByTask(noise)
    for collector, parts in ((at_once, [slice(0, 3)]), (in_turn, [slice(0, 2), slice(2, 3)])):
        for part in parts:
            collector.add(0, mean[:, part], targets[:, part], variance.exp()[:, part])
    assert at_once.statistics([0]) == in_turn.statistics([0])


def test_tasks_in_turns_of_a_table_have_the_deviations_of_each_alone(cli: Cli, run: maml.TrainedRun) -> None:
    points = {"a": [(-4.0, 1.0), (2.0, 0.5)], "b": [(0.0, -1.0), (1.0, 2.0)]}
    rows = [f"{label},{x},{y}" for pair in zip(*([(k, p) for p in v] for k, v in points.items()), strict=True)
            for label, (x, y) in pair]  # fmt: skip
    Path("points.csv").write_text("\n".join(["task,x,y", *rows]) + "\n")
    options = ["--task", "task", "--range=-5:5:3", "--json"]
    records = json.loads(cli("adapt", run.checkpoint.run, "--data", "points.csv", *options).out)["predictions"]
    for label, of_task in points.items():
        sd = [record["sd"] for record in records if record["task"] == label]
        fitted = run.adapt(*map(list, zip(*of_task, strict=True)))
        assert sd == pytest.approx(fitted.std([-5.0, 0.0, 5.0]), rel=1e-4)
