"""Figures show the numbers they were given, say what they show, and come out in every format."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from maml_cli.evaluation import Evaluation, PointErrors, Protocol, Statistic, TaskFit, fit_tasks, open_run
from maml_cli.evaluation.statistics import Errors
from maml_cli.reporting import figures
from maml_cli.runs import read_lines
from tests.conftest import Cli, Tiny


def _errors(mean: float, ci95: float = 0.1) -> PointErrors:
    value = Statistic(mean, ci95, mean)
    return PointErrors(*[Errors(value, value)] * 3)


def _evaluation(means: list[float]) -> Evaluation:
    random = [_errors(5.0)] * len(means)
    baselines = {"zero": _errors(4.25), "best_unadapted": _errors(3.0), "least_squares": _errors(1e-30)}
    steps = [_errors(mean) for mean in means]
    return Evaluation(10, 1000, 0, 1, steps, random, {**baselines}, {0: steps})


def test_fit_draws_truth_support_and_every_step_of_each_task() -> None:
    x = torch.linspace(-5, 5, 11)
    predictions = torch.stack([x * 0, x * 0.5, x])
    figure = figures.fit_figure([TaskFit(x, x, predictions, x[:3], x[:3])] * 4, measure="mse", title="a title")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 4 and figure.get_suptitle() == "a title"
    lines = {str(line.get_label()): line for line in shown[0].lines}
    assert list(lines) == ["truth", "before adapting", "after 1 step", "after 2 steps", "support points"]
    for name, values in {"before adapting": predictions[0], "after 2 steps": predictions[2], "truth": x}.items():
        assert torch.equal(torch.as_tensor(lines[name].get_ydata()), values)
    assert len(lines["support points"].get_xdata()) == 3  # type: ignore[arg-type]
    assert shown[0].get_title() == "MSE 10 → 0"
    assert shown[3].get_xlabel() == "x" and shown[0].get_ylabel() == "y"


def test_steps_draws_the_means_their_interval_and_the_baselines() -> None:
    (axis,) = figures.steps_figure(_evaluation([3.0, 0.5, 0.4]), measure="mse", title="a title").axes
    lines = {str(line.get_label()): line for line in axis.lines}
    assert list(lines["meta-trained"].get_ydata()) == [3.0, 0.5, 0.4]  # type: ignore[arg-type]
    assert {"random initialisation", "predict zero (4.25)", "best without adapting (3)"} <= lines.keys()
    assert "least-squares oracle: 1e-30, below the axis" in lines
    heights = np.asarray(axis.collections[1].get_paths()[0].vertices)[:, 1]
    assert heights.min() == pytest.approx(0.3) and heights.max() == pytest.approx(3.1)
    assert axis.get_yscale() == "log" and axis.get_xlabel() == "inner steps" and "MSE" in axis.get_ylabel()


def test_what_overflows_does_not_flatten_the_rest() -> None:
    for bad in math.inf, 1e25:
        (axis,) = figures.steps_figure(_evaluation([3.0, 0.5, bad]), measure="mse", title="").axes
        assert axis.get_ylim()[1] <= 30 * 4.25
    (axis,) = figures.curve_figure(
        [(1, [2.0])],
        [(0, [[3.0], [math.nan]]), (1, [[3.0], [1.0]])],
        loss_label="query loss (mse)",
        measure="mse",
        floor=3.0,
        title="",
    ).axes
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in axis.lines}
    adapted = lines["validation MSE, after 1 step"]
    assert math.isnan(adapted[0]) and adapted[1] == 1.0


def test_alpha_draws_a_panel_for_each_alpha_and_a_line_for_each_step() -> None:
    figure = figures.alpha_figure(
        {"head": [(0, [0.1, 0.2]), (10, [0.3, 0.4])], "hidden0": [(0, [1, 1]), (10, [2, 2])]}, title="t"
    )
    assert [axis.get_title() for axis in figure.axes] == ["head", "hidden0"]
    lines = {str(line.get_label()): list(line.get_ydata()) for line in figure.axes[0].lines}  # type: ignore[arg-type]
    assert lines["inner step 1"] == [0.1, 0.3] and lines["inner step 2"] == [0.2, 0.4]


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_every_kind_in_every_format_and_the_same_bytes_again(form: str, cli: Cli, trained: str) -> None:
    options = ["plot", "--checkpoint", trained, "--format", form, "--tasks", "10"]
    result = cli(*options)
    names = [f"{trained}/plots/{kind}.{form}" for kind in ("fit", "curve", "steps", "alpha")]
    assert result.code == 0 and result.out.split() == names and result.err == ""
    before = [Path(name).read_bytes() for name in names]
    cli(*options)
    assert before == [Path(name).read_bytes() for name in names]
    if form == "png":
        assert imread(names[0]).shape[1] > 1500  # legible in print


def test_one_kind_elsewhere_from_a_lone_checkpoint(cli: Cli, trained: str) -> None:
    lone = Path("lone.pt")
    lone.write_bytes((Path(trained) / "checkpoints" / "step-00000012.pt").read_bytes())
    assert cli("plot", "--checkpoint", lone, "--kind", "fit", "--steps", "2", "--shots", "3").out == "plots/fit.png\n"
    assert cli("plot", "--checkpoint", lone, "--kind", "steps", "--tasks", "5", "--out", "f/g").out == "f/g/steps.png\n"
    result = cli("plot", "--checkpoint", lone, "--kind", "curve")
    assert result.code == 3 and "no metrics.jsonl around it" in result.err


def test_the_trace_of_a_learned_alpha_is_that_of_the_log(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cli("train", "-c", "lab-learned-alpha", *Tiny, "-q").out.strip()
    seen: dict[str, Any] = {}
    real = figures.alpha_figure

    def look(trace: Any, *, title: str) -> Figure:
        seen.update(trace, title=title)
        return real(trace, title=title)

    monkeypatch.setattr(figures, "alpha_figure", look)
    assert cli("plot", "--checkpoint", run, "--kind", "alpha").code == 0
    logged = [(r["step"], r["alpha"]["alpha"]) for r in read_lines(Path(run) / "metrics.jsonl") if "alpha" in r]
    assert len(logged) == 3 and seen["alpha"] == [(0, [0.1]), *logged]
    assert seen["title"] == "lab-learned-alpha: alpha, learned per scalar; K = 4, 5 inner steps"


def test_fits_are_those_of_the_test_bank(cli: Cli, trained: str) -> None:
    opened = open_run(Path(trained))
    found = fit_tasks(opened, Protocol(num_tasks=3, shots=(4,), steps=2))
    assert len(found) == 3 and found[0].predictions.shape == (3, 301) and found[0].support_x.shape == (4,)
    assert len({fit.truth.abs().max().item() for fit in found}) == 3
