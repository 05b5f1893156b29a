"""Figures title what they draw, show all that they draw, and fit into any width that they can be given."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maml_cli.adaptation.own_fits import OwnFit
from maml_cli.evaluation import Protocol, TaskFit, TrainedRun, open_run
from maml_cli.reporting import run_figures, training_figures
from maml_cli.reporting.canvas import Figure, figure_settings, new_figure
from maml_cli.reporting.figure_kinds import FIGURES, drawing_function
from maml_cli.reporting.figure_layout import fit_to_style
from maml_cli.reporting.figure_request import FigureChoices, FigureRequest
from maml_cli.reporting.figure_style import SHEETS, FigureStyle
from maml_cli.reporting.figure_text import fit_legend, text_width, wrapped
from maml_cli.reporting.figures import value_limits
from maml_cli.reporting.fit_rows import FitRow, fit_rows_figure
from maml_cli.reporting.matplotlib_import import FontProperties
from maml_cli.reporting.own_points import own_fit_figure
from tests.conftest import TINY_RUN, Cli
from tests.figure_boxes import faults

X = torch.linspace(-2, 2, 5)


def _fit(num_steps: int) -> TaskFit:
    """A truth of 0, and after step s the prediction 1 / 2^s everywhere: a mean squared error of 1 / 4^s."""
    predictions = torch.stack([torch.full((5,), 0.5**step) for step in range(num_steps + 1)])
    return TaskFit(X, X * 0, predictions, X[:2], X[:2] * 0)


def _drawn(axis: Any) -> list[str]:
    return [line.get_label() for line in axis.lines if len(line.get_xdata()) and line.get_label().startswith("After")]


def test_a_row_draws_and_titles_the_inner_steps_that_its_run_was_trained_for() -> None:
    """1 / 4^5 = 0.000977 after five inner steps, 1 / 4 after one."""
    rows = [FitRow("five", [_fit(5)], [0, 1, 5], 5, "mse"), FitRow("one", [_fit(5)], [0, 1], 1, "mse")]
    figure = fit_rows_figure(rows, title="")
    first, second = figure.axes
    assert _drawn(first) == ["After 1 inner step", "After 5 inner steps"] and _drawn(second) == ["After 1 inner step"]
    assert (first.get_title(), second.get_title()) == ("MSE 1 → 0.000977", "MSE 1 → 0.25")
    names = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert names == ["five\ntrained: 5 inner steps", "one\ntrained: 1 inner step"]
    swapped = fit_rows_figure(rows[::-1], title="")
    legend = [text.get_text() for text in swapped.legends[0].get_texts()]
    assert legend == ["Truth", "Before adapting", "After 1 inner step", "After 5 inner steps", "Support points"]


def test_the_title_of_a_fit_is_the_error_of_the_steps_that_are_shown(cli: Cli, trained: str) -> None:
    for steps, words in (((1, 2), r"MSE \S+ → \S+"), ((2,), r"MSE [^ →]+")):
        request = FigureRequest(open_run(Path(trained)), Protocol(steps=4), FigureChoices(steps, 1))
        figure = run_figures.fit(request)
        assert re.fullmatch(words, figure.axes[0].get_title()) and figure.get_suptitle().endswith(", 2 inner steps")
        errors = []
        lines = {str(line.get_label()): line for line in figure.axes[0].lines}
        truth = np.asarray(lines["Truth"].get_ydata())
        for step in steps:
            (line,) = (line for label, line in lines.items() if label.startswith(f"After {step} "))
            errors.append(float(((np.asarray(line.get_ydata()) - truth) ** 2).mean()))
        shown = [float(word) for word in figure.axes[0].get_title().split()[1:] if word != "→"]
        assert shown == pytest.approx(errors, rel=6e-3)


def _own(label: str, query: list[float]) -> OwnFit:
    lines = [[-4.5, 0.0, 0.0], [-4.0, 2.0, 4.0]]
    return OwnFit(label, [-5.0, 0.0, 5.0], lines, None, [1.0, 2.0], [2.0, 3.0], query, query, (6.0, 1.0))


def test_points_of_the_user_are_shown_with_the_whole_curves_and_all_marks_in_the_legend() -> None:
    """Points from 2 to 3 curves from -4 to 4 and before from -4.5: the axis has 8 % of 8.5 more at both ends."""
    figure = own_fit_figure([_own("a", []), _own("b", [1.0])], trained_steps=1, title="", usual=(-5.0, 5.0))
    assert figure.axes[0].get_ylim() == pytest.approx((-5.18, 4.68), abs=1e-6)
    assert figure.axes[0].get_title() == "a: MSE 6 → 1"
    assert "Query points" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_last_panel_of_each_column_has_the_labels_of_x() -> None:
    """Four panels in three columns: the first is above the fourth, and nothing is below the second and third."""
    fits = [_own(label, []) for label in "abcd"]
    panels = own_fit_figure(fits, trained_steps=1, title="").axes[:4]
    assert [axis.get_xlabel() for axis in panels] == ["", "x", "x", "x"]
    assert [axis.xaxis.get_tick_params()["labelbottom"] for axis in panels] == [False, True, True, True]


def test_a_curve_that_runs_away_leaves_the_axis() -> None:
    """By half of the range of points and usual values, 10, beyond its ends at -5 and 5, and 8 % of 20 more."""
    assert value_limits([2.0, 3.0], [-1e9, 0.0, 1e30, math.nan], (-5.0, 5.0)) == pytest.approx((-11.6, 11.6))
    assert value_limits([2.0, 3.0], [2.5]) == pytest.approx((1.92, 3.08))
    low, high = value_limits([1.0], [math.inf])
    assert low < 1 < high


@pytest.fixture
def run(cli: Cli, trained: str) -> TrainedRun:
    return open_run(Path(trained))


NARROWEST = FigureStyle(width=3.0, font_size=12)
STYLES = [NARROWEST, FigureStyle(width=3.3, font_size=8), FigureStyle(sheet=SHEETS["paper"])]


@pytest.mark.parametrize("kind", [*FIGURES, "rows"])
def test_in_a_narrow_figure_no_text_is_cut_or_overlaps(kind: str, run: TrainedRun, cli: Cli) -> None:
    others = [open_run(Path(cli("train", "-c", "best-5shot", *TINY_RUN, "-q").out.strip()))] if kind == "rows" else []
    for style in STYLES if kind in ("steps", "tail") else [NARROWEST]:
        choices = FigureChoices(other_runs=others, style=style)
        request = FigureRequest(run, Protocol(num_tasks=120, shots=(10,)), choices)
        with figure_settings(style):
            drawn = drawing_function("fit" if others else kind)(request)
            figure: Figure = drawn.figure if kind == "adapt" else drawn
            fit_to_style(figure, style)
            assert faults(figure) == [], style


def test_texts_that_are_cut_or_overlap_are_found() -> None:
    figure = new_figure(3, 2)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1])
    axis.text(0.4, 0.5, "across the line")
    axis.text(0.4, 0.52, "on top of it")
    figure.text(0.95, 0.02, "beyond the edge")
    found = faults(figure)
    for words in (
        "cut: 'beyond the edge'",
        "crossed: 'across the line'",
        "overlap: 'across the line' and 'on top of it'",
    ):
        assert words in found


def test_lines_are_broken_between_words_and_numbers_stay_with_their_signs() -> None:
    font = FontProperties(size=8)
    width = text_width("quickstart: 200 test tasks, K =", font)
    assert wrapped("quickstart: 200 test tasks, K = 10", width, font) == "quickstart: 200\ntest tasks, K = 10"
    for text in ("outputs/a-long/path_of.a/run" * 3, "worst 1 % carry 99 % of the mean"):
        lines = wrapped(text, 1.0, font).split("\n")
        assert max(text_width(line, font) for line in lines) <= 1.0
        assert "".join(lines).replace(" ", "") == text.replace(" ", "") and not any(
            line.startswith("%") for line in lines
        )


def test_a_legend_that_is_wider_than_the_figure_is_wrapped_and_not_cut() -> None:
    labels, columns = fit_legend(["Before adapting: worst 1 % carry 99 % of the mean", "b"], 2.0, 3)
    assert columns == 1 and labels[1] == "b"
    assert labels[0].replace("\n", " ") == "Before adapting: worst 1 % carry 99 % of the mean" and "\n" in labels[0]


def test_several_kinds_are_drawn_once_each_and_a_name_of_a_file_is_no_directory(cli: Cli, trained: str) -> None:
    plot = ["plot", trained, "--tasks", 5]
    result = cli(*plot, "--out", "drawn", "--kind", "fit", "--kind", "tail,fit")
    assert result.out.split() == ["drawn/fit.png", "drawn/tail.png"]
    assert cli(*plot, "--out", "drawn", "--kind", "tail, path", "--format", "svg").out.split() == [
        "drawn/tail.svg",
        "drawn/path.svg",
    ]
    for arguments, message in (
        (["--kind", "fit,pie"], "--kind pie: must be fit, curve"),
        (["--kind", "fit,adapt", "--format", "svg"], "--format svg: must be gif or mp4 for --kind adapt\n"),
        (["--kind", "fit,tail", "--title", "T"], "--title T: is for one figure"),
        (["--out", "a b/q.pdf"], "--out a b/q.pdf: must be a directory"),
    ):
        refused = cli(*plot, *arguments)
        assert refused.code == 2 and refused.err.startswith(message), arguments
    assert cli(*plot, "--out", "q.svg").err.endswith("; give --out q --format svg\n")
    assert not Path("a b").exists() and not Path("q.svg").exists()
    Path("old.png").mkdir()
    assert cli(*plot, "--out", "old.png", "--kind", "fit").out == "old.png/fit.png\n"


def test_figures_of_several_seeds_name_the_seed_or_the_mean(cli: Cli) -> None:
    run = open_run(Path(cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "run.seeds=[7,8]").out.strip()))
    request = FigureRequest(run, Protocol(num_tasks=120))
    assert run_figures.fit(request).get_suptitle().endswith(", seed 7")
    assert ", seed 7: K" in run_figures.adapt(request).figure.get_suptitle()
    assert run_figures.tail(request).axes[0].get_title().endswith(", mean over 2 seeds")


def test_a_single_panel_of_alphas_has_no_title_that_repeats_its_axis() -> None:
    traces = {"alpha": [(0, [0.1]), (5, [0.2])]}
    (axis,) = training_figures.alpha_figure(traces, is_learned=True, title="T").axes
    assert (axis.get_title(), axis.get_ylabel()) == ("", "Alpha")
    both = training_figures.alpha_figure(traces | {"b": traces["alpha"]}, is_learned=True, title="T").axes
    assert [axis.get_title() for axis in both] == ["alpha", "b"]
