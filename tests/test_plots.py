"""Figures show the numbers they were given, say what they show, and come out in every format in any environment."""

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from maml_cli.config.inner_schema import Inner
from maml_cli.config.schema import Outer
from maml_cli.evaluation import Errors, Evaluation, PointErrors, Protocol, Statistic, TaskFit, fit_tasks, open_run
from maml_cli.reporting import draw, draw_growth, figures, run_figures, training_figures
from maml_cli.reporting.axes import log_axis
from maml_cli.reporting.canvas import STYLE, Axes, Figure, line_styles, new_figure, save_figure
from maml_cli.reporting.figure_kinds import FIGURES, FigureKind, drawing_function
from maml_cli.reporting.figures import Curve
from maml_cli.reporting.training_figures import TrainingTraces
from maml_cli.runs import read_lines
from tests.conftest import TINY_RUN, Cli

ROOT = Path(__file__).parent.parent


def _errors(mean: float, ci95: float = 0.1) -> PointErrors:
    value = Statistic(mean, ci95, mean)
    return PointErrors(*[Errors(value, value)] * 3)


def _evaluation(means: list[float]) -> Evaluation:
    baselines: dict[str, PointErrors | None] = {
        "zero": _errors(4.25),
        "best_unadapted": _errors(3.0),
        "least_squares": _errors(1e-30),
    }
    steps = [_errors(mean) for mean in means]
    return Evaluation(
        shots=10,
        num_tasks=1000,
        seed=0,
        trained_steps=1,
        steps=steps,
        random_init=[_errors(5.0)] * len(means),
        baselines=baselines,
        notes={},
        by_seed={0: steps},
        noisy_targets=False,
        by_kind={},
        ensemble=[],
        calibration=[],
        task_errors=None,
    )


def _lines(axis: Axes) -> dict[str, list[float]]:
    return {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in axis.lines}


def _tick_labels(figure: Figure, axis: Axes) -> list[str]:
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    low, high = axis.get_ylim()
    ticks = [label for label in axis.get_yticklabels() if low <= label.get_position()[1] <= high]
    return [text for label in ticks if (text := label.get_text())]


def _fits(num_steps: int) -> list[TaskFit]:
    x = torch.linspace(-5, 5, 11)
    predictions = torch.stack([x * step / num_steps for step in range(num_steps + 1)])
    return [TaskFit(x, x, predictions, x[:3], x[:3])] * 4


def test_fit_draws_truth_support_and_the_steps_to_show_of_each_task() -> None:
    figure = figures.fit_figure(_fits(10), show_steps=[0, 1, 5, 10], trained_steps=5, measure="mse", title="a title")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert len(shown) == 4 and figure.get_suptitle() == "a title"
    x = torch.linspace(-5, 5, 11)
    expected = {
        "Truth": x,
        "Before adapting": x * 0,
        "After 1 inner step": x / 10,
        "After 5 inner steps (trained)": x / 2,
        "After 10 inner steps": x,
        "Support points": x[:3],
    }
    lines = _lines(shown[0])
    assert list(lines) == list(expected)
    for name, values in expected.items():
        assert lines[name] == pytest.approx(values.tolist())
    assert shown[0].get_title() == "MSE 10 → 0"  # the mean of x² at -5, -4, ..., 5
    assert shown[3].get_xlabel() == "x" and shown[0].get_ylabel() == "y"


@pytest.mark.parametrize("trained", [1, 5, 12])
def test_no_two_of_ten_steps_of_a_fit_look_alike(trained: int) -> None:
    figure = figures.fit_figure(_fits(10), show_steps=range(11), trained_steps=trained, measure="mse", title="")
    looks = [(line.get_color(), str(line._dash_pattern)) for line in figure.axes[0].lines[:-1]]  # type: ignore[attr-defined]
    assert len(looks) == 12 and len(set(looks)) == 12


def test_steps_draws_the_means_their_interval_and_the_baselines() -> None:
    (axis,) = figures.steps_figure(_evaluation([3.0, 0.5, 0.4]), measure="mse", title="a title").axes
    lines = _lines(axis)
    assert lines["Meta-trained"] == [3.0, 0.5, 0.4]
    assert {"Random initialisation", "Predict zero (4.25)", "Best without adapting (3)"} <= lines.keys()
    assert "Least-squares oracle (1e-30, off axis)" in lines
    heights = np.asarray(axis.collections[0].get_paths()[0].vertices)[:, 1]
    assert heights.min() == pytest.approx(0.3) and heights.max() == pytest.approx(3.1)
    assert axis.get_yscale() == "log" and axis.get_xlabel() == "Inner steps" and "MSE" in axis.get_ylabel()


def test_errors_far_above_the_baselines_leave_the_axis_to_the_others() -> None:
    """The axis ends at 30 times the error of predicting zero, and begins 5 % of its length below the least error."""
    (axis,) = figures.steps_figure(_evaluation([3.0, 0.5, 1e25]), measure="mse", title="").axes
    low, high = axis.get_ylim()
    assert high == pytest.approx(30 * 4.25)
    assert low == pytest.approx(0.4 * (0.4 / high) ** 0.05)  # 0.4 = 0.5 less its half width


def test_the_first_inner_step_that_overflows_is_named() -> None:
    (axis,) = figures.steps_figure(_evaluation([3.0, math.inf, math.inf]), measure="mse", title="").axes
    assert "Meta-trained (overflows at inner step 1)" in _lines(axis)
    assert axis.get_ylim()[1] <= 30 * 4.25


def test_the_trained_step_is_named_in_the_legend_where_it_covers_no_line() -> None:
    figure = figures.steps_figure(_evaluation([0.5] * 11)._replace(trained_steps=9), measure="mse", title="")
    (axis,) = figure.axes
    (mark,) = (line for line in axis.lines if line.get_label() == "Trained for 9 inner steps")
    assert [*mark.get_xdata()] == [9, 9] and not axis.texts  # type: ignore[misc]
    assert "Trained for 9 inner steps" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_truth_that_the_prediction_meets_is_visible_below_it() -> None:
    figure = figures.fit_figure(_fits(10), show_steps=[0, 10], trained_steps=10, measure="mse", title="")
    truth, _, trained = figure.axes[0].lines[:3]
    assert truth.get_linewidth() > 2 * trained.get_linewidth() and truth.get_zorder() <= trained.get_zorder()


def _curve(losses: Sequence[float], before: Sequence[float], after: Sequence[float]) -> tuple[Figure, Axes]:
    traces = [[(step, [value]) for step, value in enumerate(values)] for values in (losses, before, after)]
    figure = training_figures.curve_figure(
        TrainingTraces(traces[0], traces[1], traces[2], 1),
        loss_label="Query loss (mse)",
        measure="mse",
        floor=3.0,
        title="",
    )
    return figure, figure.axes[0]


def test_a_diverged_validation_leaves_a_gap_in_the_curve() -> None:
    _, axis = _curve([2.0, 1.5], [3.0, 3.0], [math.nan, 1.0])
    adapted = _lines(axis)["Validation MSE, after 1 inner step"]
    assert math.isnan(adapted[0]) and adapted[1] == 1.0


def test_a_single_loss_is_a_dot() -> None:
    _, axis = _curve([2.0], [3.0, 3.0], [2.0, 1.0])
    assert [line.get_marker() for line in axis.lines if line.get_label() == "Query loss (mse)"] == ["."]


def test_every_loss_and_meta_gradient_of_the_schema_has_a_name() -> None:
    fields = Inner.model_fields["loss"], Outer.model_fields["meta_gradient"]
    names = run_figures.LOSS_NAMES, run_figures.LOSS_LABELS
    for field, table in zip(fields, names, strict=True):
        assert set(get_args(field.annotation)) == table.keys()


def test_an_early_peak_of_the_loss_leaves_the_curve_and_stands_in_the_legend() -> None:
    """The axis ends at three times the largest error before adapting, 4."""
    figure, axis = _curve([1e10, 1.0, 1e-4], [4.0, 3.0, 3.0], [4.0, 1.0, 1e-4])
    assert axis.get_ylim()[1] == pytest.approx(12.0) and "Query loss (mse), peak 1e10" in _lines(axis)
    assert len(_tick_labels(figure, axis)) >= 3
    _, axis = _curve([1e10, 1e10, 1e10], [4.0, 3.0, 3.0], [4.0, 1.0, 1.0])
    assert axis.get_ylim()[1] > 1e10  # a loss that stays high is no peak


@pytest.mark.parametrize("decades", [0.5, 1, 2, 4, 7, 14, 40, 100])
def test_a_log_axis_has_two_to_ten_labels_over_any_number_of_decades(decades: float) -> None:
    figure = new_figure(6.4, 4.0)
    axis = figure.subplots()
    axis.plot([0, 1], [1.1, 1.1 * 10.0**decades])
    log_axis(axis)
    labels = _tick_labels(figure, axis)
    assert 2 <= len(labels) <= 10 and len(set(labels)) == len(labels)


EXTREMES = [(value, 1.0) for value in (1e-310, 1e155, 1e308, 0.0, -1e308, math.inf, math.nan)]
EXTREMES += [(5e-324, 1e306), (1e-200, 1e150), (1.79e308, 1.79e308), (-1.79e308, 1.79e308), (0.0, 0.0)]


@pytest.mark.parametrize("pair", EXTREMES, ids=repr)
def test_any_numbers_are_drawn_without_a_warning_or_an_error(pair: tuple[float, float], tmp_path: Path) -> None:
    """Those beyond 1e100 are gaps: matplotlib would add, multiply and invert them."""
    trace = [(step, [value]) for step, value in enumerate(pair)]
    halves = torch.tensor(pair, dtype=torch.float64).repeat_interleave(6)
    x, truth = torch.linspace(-5, 5, 12), torch.ones(12)
    statistics = [Statistic(value, other, value) for value, other in (pair, pair[::-1])]
    traces = TrainingTraces(trace, trace, trace, 1)
    options: dict[str, Any] = {"measure": "mse", "title": "t"}
    drawings = [
        lambda: training_figures.curve_figure(traces, loss_label="loss", floor=None, **options),
        lambda: training_figures.alpha_figure({"alpha": trace}, is_learned=True, title="t"),
        lambda: figures.curves_figure([Curve("a", statistics, 1)], ringed="as compared", **options),
        lambda: figures.steps_figure(_evaluation([*pair]), **options),
        lambda: figures.fit_figure(
            [TaskFit(x, truth, torch.stack([halves, halves]), x[:3], truth[:3])],
            show_steps=[0, 1],
            trained_steps=1,
            **options,
        ),
    ]
    for drawing in drawings:
        save_figure(drawing, tmp_path / "x.png")


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (1.0, 1.0),
        (1e40, 1e40 * (1 + 2**-51)),
        (1e-300, 1e-300),
        (5e-324, 1e300),
        (1e307, 1.7e308),
        (0.0, 1e-320),
        (0, 0),
    ],
)
@pytest.mark.parametrize("top", [math.inf, 1e-9, 1e300])
def test_a_log_axis_over_equal_or_extreme_values_is_drawn_without_a_warning(
    low: float, high: float, top: float, tmp_path: Path
) -> None:
    def draw() -> Figure:
        figure = new_figure(6.4, 4.0)
        axis = figure.subplots()
        axis.plot([0, 1], [low, high])
        log_axis(axis, top=top)
        assert len(_tick_labels(figure, axis)) >= 2
        return figure

    save_figure(draw, tmp_path / "x.png")


def test_alpha_draws_a_panel_for_each_alpha_and_a_line_for_each_step() -> None:
    trace = {"head": [(0, [0.1, 0.2]), (10, [0.3, 0.4])], "hidden0": [(0, [1.0, 1.0]), (10, [2.0, 2.0])]}
    figure = training_figures.alpha_figure(trace, is_learned=True, title="t")
    assert [axis.get_title() for axis in figure.axes] == ["head", "hidden0"]
    lines = _lines(figure.axes[0])
    assert lines["Inner step 1"] == [0.1, 0.3] and lines["Inner step 2"] == [0.2, 0.4]


def test_a_fixed_alpha_is_drawn_as_fixed(cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _watch(monkeypatch, "alpha_figure")
    assert cli("plot", trained, "--kind", "alpha").code == 0
    ((figure, options),) = calls
    assert options["is_learned"] is False and "fixed at 0.01, not learned" in options["title"]
    axis = figure.axes[0]
    assert _lines(axis)["Fixed"] == [0.01, 0.01] and axis.lines[0].get_linestyle() == "--"
    assert axis.get_ylim()[0] < 0 < axis.get_ylim()[1]  # no zoom into rounding: zero is on the axis


@pytest.mark.parametrize("name", ["alpha", "curve"])
def test_titles_and_legends_are_inside_the_figure_and_tick_labels_apart(
    name: str, cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _watch(monkeypatch, f"{name}_figure")
    assert cli("plot", trained, "--kind", name).code == 0
    ((figure, _),) = calls
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    axis = figure.axes[0]
    for text in [figure._suptitle or axis.title, *figure.legends]:  # type: ignore[attr-defined]
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    low, high = axis.get_xlim()
    labels = [label for label in axis.get_xticklabels() if low <= label.get_position()[0] <= high]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) >= 2 and all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_every_engine_of_the_growth_benchmark_is_drawn_in_a_style_of_its_own(tmp_path: Path) -> None:
    engines = ["reference", "eager", "compiled", "native", "a fifth"]
    points = {"inner steps": {engine: [(1.0, 2.0 + i), (10.0, 20.0 + i)] for i, engine in enumerate(engines)}}
    (axis,) = training_figures.growth_figure(points).axes
    lines = _lines(axis)
    assert list(lines) == [*engines, "Proportional to the arithmetic"] and lines["a fifth"] == [6.0, 24.0]
    assert lines["Proportional to the arithmetic"] == [
        2.0,
        20.0,
    ]  # ten times the work of the fastest engine's first point
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.lines}) == 6
    assert axis.get_xlabel() == "Inner steps" and axis.get_ylabel() == "Milliseconds per outer step"


def test_arithmetic_grows_with_the_square_of_the_width() -> None:
    points = {"width of the layers": {"native": [(40.0, 1.0), (80.0, 3.0)]}}
    assert _lines(training_figures.growth_figure(points).axes[0])["Proportional to the arithmetic"] == [1.0, 4.0]


def test_growth_is_drawn_from_the_rows_that_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _watch(monkeypatch, "growth_figure")
    rows = [
        {"axis": "inner steps", "name": "eager", "value": value, "milliseconds": milliseconds}
        for value, milliseconds in ((1, 2.0), (5, 8.0), (10, None))
    ]
    file = draw_growth(rows, tmp_path / "growth.png")
    assert file.exists() and _lines(calls[0][0].axes[0])["eager"] == [2.0, 8.0]


def test_the_first_28_line_styles_differ_and_there_is_no_last_one() -> None:
    styles = [style for style, _ in zip(line_styles(), range(100), strict=False)]
    assert len(styles) == 100 and len({(style["ls"], style["color"]) for style in styles[:28]}) == 28


def test_compared_learners_are_drawn_and_named_however_many() -> None:
    values = [Statistic(3.0, 0.1, 3.0), Statistic(0.5, 0.1, 0.5)]
    curves = [Curve(f"run {index}", values, 1) for index in range(12)]
    curves[3] = curves[3]._replace(values=[values[0], Statistic(math.inf, math.inf, 1.0)], ringed_step=0)
    figure = figures.curves_figure(curves, measure="mse", ringed="as trained", title="")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        f"run {index}{' (overflows at inner step 1)' if index == 3 else ''}" for index in range(12)
    ]


@pytest.mark.parametrize("length", [5, 30, 60, 200])
def test_legends_of_runs_with_long_paths_are_inside_the_figure(length: int) -> None:
    values = [Statistic(3.0, 0.1, 3.0), Statistic(0.5, 0.1, 0.5)]
    curves = [Curve(("directory/" * 20)[:length] + str(index), values, 1) for index in range(5)]
    with matplotlib.rc_context(STYLE):
        figure = figures.curves_figure(curves, measure="mse", ringed="as trained", title="")
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [text[-1] for text in texts] == ["0", "1", "2", "3", "4"]


def _watch(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[Figure, dict[str, Any]]]:
    """The figures that a function of training_figures returns from now on, each with its keyword arguments."""
    calls: list[tuple[Figure, dict[str, Any]]] = []
    real = getattr(training_figures, name)

    def watched(*arguments: Any, **options: Any) -> Figure:
        figure: Figure = real(*arguments, **options)
        calls.append((figure, options | {"arguments": arguments}))
        return figure

    monkeypatch.setattr(training_figures, name, watched)
    return calls


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_every_kind_in_every_format_and_the_same_bytes_again(form: str, cli: Cli, trained: str) -> None:
    options = ["plot", trained, "--format", form, "--tasks", "10"]
    result = cli(*options)
    names = [f"{trained}/plots/{kind}.{form}" for kind in ("fit", "curve", "steps", "alpha")]
    assert result.code == 0 and result.out.split() == names and result.err == ""
    before = [Path(name).read_bytes() for name in names]
    cli(*options)
    assert before == [Path(name).read_bytes() for name in names]
    if form == "png":
        assert imread(names[0]).shape[1] > 1500  # legible in print


def test_no_setting_of_the_environment_or_the_user_changes_a_figure(cli: Cli, trained: str) -> None:
    """Nor ends it: a backend of notebooks, matplotlibrc files that are not text or set styles, no writable home."""
    Path("binary").write_bytes(b"\xff\xfe")
    Path("styled").write_text("lines.linewidth: 9\nfigure.dpi: banana\n")
    Path("home/.config/matplotlib").mkdir(parents=True)
    Path("home/.config/matplotlib/matplotlibrc").write_text("lines.linewidth: 9\n")
    environments = [
        {"MPLBACKEND": "nonsense", "MATPLOTLIBRC": "binary"},
        {"MATPLOTLIBRC": "styled", "HOME": str(Path("home").absolute())},
        {
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "MPLCONFIGDIR": "/dev/null/x",
            "HOME": "/dev/null/x",
        },
    ]
    assert cli("plot", trained, "--kind", "curve").code == 0
    figures = [Path(trained, "plots", "curve.png").read_bytes()]
    for environment in environments:
        command = [sys.executable, "-m", "maml_cli", "plot", trained, "--kind", "curve"]
        full = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        done = subprocess.run(command, env=full, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), environment
        figures.append(Path(trained, "plots", "curve.png").read_bytes())
    assert len(set(figures)) == 1


def test_a_date_in_the_environment_is_neither_read_nor_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for epoch in "0", "no date":
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        files = [save_figure(lambda: new_figure(1, 1), tmp_path / f"x.{form}") for form in ("svg", "pdf", "png")]
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1] and os.environ["SOURCE_DATE_EPOCH"] == "no date"


def test_importing_matplotlib_leaves_the_environment_as_it_was() -> None:
    code = "import os; before = dict(os.environ); import maml_cli.reporting.canvas; assert os.environ == before"
    full = os.environ | {"MPLBACKEND": "nonsense", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=full, check=True)


def test_a_new_figure_is_one_row_and_one_function(cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIGURES, "empty", FigureKind("draw_empty", "an empty figure"))
    monkeypatch.setattr(run_figures, "draw_empty", lambda request: new_figure(1, 1), raising=False)
    run = open_run(Path(trained))
    assert run_figures.drawable(run) == ["fit", "curve", "steps", "alpha", "empty"]
    (file,) = draw(run, Protocol(), kinds=["empty"], file_format="png", out=None)
    assert file == Path(trained, "plots", "empty.png") and file.exists()


def test_every_row_has_its_function_and_an_unknown_kind_raises(cli: Cli, trained: str) -> None:
    for kind in FIGURES:
        assert drawing_function(kind).__name__ == FIGURES[kind].function
    with pytest.raises(KeyError, match="pie"):
        draw(open_run(Path(trained)), Protocol(), kinds=["pie"], file_format="png", out=None)
    assert not Path(trained, "plots").exists()


def test_a_checkpoint_outside_a_run_directory_has_a_fit_and_errors_but_no_curve(cli: Cli, trained: str) -> None:
    lone = Path("lone.pt")
    lone.write_bytes((Path(trained) / "checkpoints" / "step-00000012.pt").read_bytes())
    assert cli("plot", lone, "--kind", "fit", "--steps", "2", "--shots", "3").out == "plots/fit.png\n"
    assert cli("plot", lone, "--kind", "steps", "--tasks", "5", "--out", "f/g").out == "f/g/steps.png\n"
    result = cli("plot", lone, "--kind", "curve")
    assert result.code == 3 and "no metrics.jsonl around it" in result.err


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ([], ["Before adapting", "After 1 inner step"]),
        (["--steps", "10"], ["Before adapting", "After 1 inner step", "After 10 inner steps"]),
        (["--show-steps", "3,0,3"], ["Before adapting", "After 3 inner steps"]),
    ],
)
def test_a_fit_shows_before_first_trained_and_last_step_or_those_asked_for(
    options: list[str], labels: list[str], cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Figure] = []
    real = figures.fit_figure

    def watched(*arguments: Any, **options: Any) -> Figure:
        calls.append(real(*arguments, **options))
        return calls[-1]

    monkeypatch.setattr(figures, "fit_figure", watched)
    assert cli("plot", trained, "--kind", "fit", *options).code == 0
    assert list(_lines(calls[0].axes[0])) == ["Truth", *labels, "Support points"]


def test_steps_to_show_beyond_the_inner_steps_are_refused(cli: Cli, trained: str) -> None:
    result = cli("plot", trained, "--kind", "fit", "--steps", "3", "--show-steps", "0,5")
    assert (result.code, result.err) == (2, "--show-steps 5: must be at most 3, the --steps to adapt\n")


def test_the_trace_of_a_learned_alpha_is_that_of_the_log(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cli("train", "-c", "lab-learned-alpha", *TINY_RUN, "-q").out.strip()
    calls = _watch(monkeypatch, "alpha_figure")
    assert cli("plot", run, "--kind", "alpha").code == 0
    logged = [(r["step"], r["alpha"]["alpha"]) for r in read_lines(Path(run) / "metrics.jsonl") if "alpha" in r]
    ((_, options),) = calls
    assert len(logged) == 3 and options["arguments"][0]["alpha"] == [(0, [0.1]), *logged]
    assert options["title"] == "lab-learned-alpha: alpha, learned per scalar; K = 4, 5 inner steps"


def test_a_trace_of_several_seeds_is_the_mean_of_those_that_have_not_diverged(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cli("train", "-c", "lab-learned-alpha", *TINY_RUN, "-q", "-s", "run.seeds=3").out.strip()
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if "alpha" in line:
            line["alpha"]["alpha"] = [[0.2], None, [0.4]]
    Path(run, "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    calls = _watch(monkeypatch, "alpha_figure")
    assert cli("plot", run, "--kind", "alpha").code == 0
    points = calls[0][1]["arguments"][0]["alpha"]
    assert [values for _, values in points[1:]] == [[pytest.approx(0.3)]] * 3


def test_alphas_of_the_log_that_are_null_are_gaps_or_left_out(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cli("train", "-c", "lab-learned-alpha", *TINY_RUN, "-q", "-s", "run.seeds=2").out.strip()
    lines = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    values = iter([[[None], [0.5]], [[None], None], [[0.25], [0.75]]])
    for line in lines:
        if "alpha" in line:
            line["alpha"]["alpha"] = next(values)
    Path(run, "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    calls = _watch(monkeypatch, "alpha_figure")
    assert cli("plot", run, "--kind", "alpha").code == 0
    assert calls[0][1]["arguments"][0]["alpha"] == [(0, [0.1]), (5, [0.5]), (12, [0.5])]


def test_fits_have_a_prediction_for_each_inner_step_and_differ_by_task(cli: Cli, trained: str) -> None:
    run = open_run(Path(trained))
    fits = fit_tasks(run, Protocol(num_tasks=3, shots=(4,), steps=2))
    assert len(fits) == 3 and fits[0].predictions.shape == (3, 301) and fits[0].support_x.shape == (4,)
    assert len({fit.truth.abs().max().item() for fit in fits}) == 3
