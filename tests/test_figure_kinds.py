"""Figures of single tasks draw the numbers of an evaluation, computed here by another route."""

import json
import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image, ImageChops, ImageSequence

import maml_cli as maml
from maml_cli.evaluation import (
    Protocol,
    TaskErrors,
    TrainedRun,
    evaluate_run,
    iter_task_rows,
    numeric_difference,
    open_run,
    sample_test_tasks,
)
from maml_cli.reporting import run_figures
from maml_cli.reporting.animation import save_animation
from maml_cli.reporting.canvas import Axes, Figure, figure_settings
from maml_cli.reporting.figure_kinds import FIGURES
from maml_cli.reporting.figure_request import FigureChoices, FigureRequest, run_name
from maml_cli.reporting.figure_style import DEFAULT_STYLE
from maml_cli.reporting.task_figures import tail_figure
from tests.conftest import TINY_RUN, Cli


@pytest.fixture
def run(cli: Cli, trained: str) -> TrainedRun:
    """A run of one inner step at K = 10."""
    return open_run(Path(trained))


def _rows(run: TrainedRun, num_tasks: int) -> list[dict[str, float]]:
    """The table of maml eval --per-task."""
    result = evaluate_run(run, Protocol(num_tasks=num_tasks), keep_tasks=True)
    assert result.results[0].task_errors
    return [*iter_task_rows(result.results[0].task_errors)]


def _line(axis: Axes, start: str) -> tuple[list[float], list[float]]:
    (line,) = (line for line in axis.lines if str(line.get_label()).startswith(start))
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def test_a_path_is_the_median_and_the_single_errors_of_the_table(run: TrainedRun) -> None:
    request = FigureRequest(run, Protocol(num_tasks=41), FigureChoices(tasks_shown=3))
    (axis,) = run_figures.path(request).axes
    rows = _rows(run, 41)
    errors = np.array([[row[f"mse_step_{step}"] for step in range(11)] for row in rows])
    assert _line(axis, "Median")[1] == pytest.approx(np.median(errors, axis=0).tolist())
    singles = [line for line in axis.lines if line.get_linewidth() < 1 and len(np.asarray(line.get_xdata())) == 11]
    drawn = [np.asarray(line.get_ydata()).tolist() for line in singles]
    assert drawn == [pytest.approx(row) for row in errors[:3].tolist()]
    band = np.asarray(axis.collections[0].get_paths()[0].vertices)
    at_step_two = band[band[:, 0] == 2, 1]
    assert [at_step_two.min(), at_step_two.max()] == pytest.approx(np.quantile(errors[:, 2], [0.1, 0.9]).tolist())


def test_a_landscape_is_the_mean_of_the_tasks_of_each_cell(run: TrainedRun) -> None:
    axis, bar = run_figures.landscape(FigureRequest(run, Protocol(num_tasks=200))).axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("Amplitude", "Phase") and "MSE" in bar.get_ylabel()
    rows = _rows(run, 200)
    x, y, errors = (np.array([row[name] for row in rows]) for name in ("amplitude", "phase", "mse_step_1"))
    edges = [np.linspace(values.min(), values.max(), 4) for values in (x, y)]  # sqrt(200 / 25) is nearly 3
    sums, counts = (np.histogram2d(y, x, bins=edges[::-1], weights=weights)[0] for weights in (errors, None))
    drawn: np.ndarray[Any, Any] = np.ma.filled(np.ma.asarray(axis.collections[0].get_array()), math.nan)
    assert drawn.reshape(3, 3) == pytest.approx(sums / counts, rel=1e-6)


def _tail(errors: torch.Tensor, run: TrainedRun, steps: list[int]) -> Figure:
    tasks = sample_test_tasks(run.experiment.family, Protocol(num_tasks=errors.shape[1]), 10)
    return tail_figure(TaskErrors(tasks, "mse", errors), show_steps=steps, trained_steps=1, title="")


def test_a_tail_is_the_share_of_tasks_with_at_least_an_error(run: TrainedRun) -> None:
    """Of 1, ..., 200: at least 200 - n are n + 1 tasks; the worst two carry 399 of 200 * 201 / 2 = 20,100, 2 %."""
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    errors = torch.arange(1.0, 201.0)[order].expand(2, 200)
    (axis,) = _tail(errors, run, [0, 1]).axes
    values, shares = _line(axis, "After 1 inner step: worst 1 % carry 2 % of the mean")
    assert (values[0], shares[0], values[-1], shares[-1]) == (200, 0.005, 1, 1)
    for value, share in zip(values, shares, strict=True):
        assert share == pytest.approx((201 - value) / 200)
    assert axis.get_xscale() == axis.get_yscale() == "log"


def test_a_tail_of_extreme_errors_is_drawn(run: TrainedRun) -> None:
    for errors in ([0.0, 0.0, 0.0], [math.inf, math.nan, 1.0], [1e-300, 1.0, 1e300], [1.0, 1.0, 1.0]):
        _tail(torch.tensor([errors], dtype=torch.float64), run, [0]).savefig("x.png")


def test_tasks_are_the_sinusoids_of_the_table_and_their_mean(run: TrainedRun) -> None:
    (axis,) = run_figures.tasks(FigureRequest(run, Protocol(num_tasks=30), FigureChoices(tasks_shown=2))).axes
    rows = _rows(run, 30)
    x = np.asarray(axis.lines[0].get_xdata())
    expected = np.array(
        [row["amplitude"] * np.sin(row["frequency"] * x - row["phase"]) + row["offset"] for row in rows]
    )
    assert [np.asarray(line.get_ydata()) for line in axis.lines[:2]] == [pytest.approx(row) for row in expected[:2]]
    assert _line(axis, "Mean of 30 test tasks")[1] == pytest.approx(expected.mean(axis=0).tolist())


def test_fits_of_several_runs_are_rows_of_the_same_tasks(cli: Cli, run: TrainedRun) -> None:
    other = open_run(Path(cli("train", "-c", "joint-10shot", *TINY_RUN, "-q").out.strip()))
    choices = FigureChoices((0, 2), 2, [other], ["MAML", ""])
    figure = run_figures.fit(FigureRequest(run, Protocol(shots=(5,)), choices))
    assert len(figure.axes) == 4
    for label in ("Truth", "Support points"):
        lines = [_line(axis, label) for axis in figure.axes]
        assert lines[0] == lines[2] != lines[1] == lines[3]
    assert _line(figure.axes[0], "After 2")[1] != _line(figure.axes[2], "After 2")[1]
    names = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert names == ["MAML\ntrained: 1 inner step", "joint-10shot\ntrained: 0 inner steps"]
    wrong = cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "tasks.amplitude=[1,2]").out.strip()
    result = cli("plot", "outputs/smoke", "--kind", "fit", "--with", wrong)
    assert result.code == 2 and "another family than outputs/smoke" in result.err


def test_an_animation_goes_from_the_initial_to_the_last_prediction_and_has_equal_bytes_again(
    cli: Cli, trained: str, run: TrainedRun
) -> None:
    animation = run_figures.adapt(FigureRequest(run, Protocol(steps=2, shots=(5,)), FigureChoices(tasks_shown=1)))
    (axis,) = animation.figure.axes
    seen = []
    for frame in range(animation.num_frames):
        animation.draw_frame(frame)
        seen.append((animation.figure.get_suptitle().split(", ")[-1], _line(axis, "Adapting")[1]))
    assert [*dict(seen)] == ["inner step 0 of 2", "inner step 1 of 2 (trained)", "inner step 2 of 2"]
    assert seen[0][1] == _line(axis, "Before adapting")[1] != seen[-1][1]
    options = ["plot", trained, "--kind", "adapt", "--tasks-shown", 1, "--width", "2in", "--title", ""]
    assert cli(*options).out == f"{trained}/plots/adapt.gif\n"
    file = Path(trained, "plots", "adapt.gif")
    with Image.open(file) as picture:
        assert picture.size[0] == 200  # 100 pixels an inch
        picture.seek(3)
    before = file.read_bytes()
    assert cli(*options).code == 0 and file.read_bytes() == before
    assert cli("plot", trained, "--kind", "adapt", "--tasks-shown", 5).err == (
        "--tasks-shown 5: must be from 1 to 4 for --kind adapt\n"
    )


def test_an_mp4_needs_ffmpeg(cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        result = cli("plot", trained, "--kind", "adapt", "--format", "mp4")
    assert result.code == 2 and result.err.startswith("--format mp4: needs the program ffmpeg")
    assert not Path(trained, "plots").exists()
    Path("bin").mkdir()
    Path("bin", "ffmpeg").write_text("#!/bin/sh\necho 'Unknown encoder h264' >&2\nexit 1\n")
    Path("bin", "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:{os.environ['PATH']}")
    result = cli("plot", trained, "--kind", "adapt", "--format", "mp4", "--out", "drawn")
    assert result.code == 3 and not os.listdir("drawn")
    assert result.err == "drawn/adapt.mp4: the animation cannot be written: Unknown encoder h264\n"


@pytest.mark.skipif(not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg is not installed")
def test_an_mp4_is_h264_that_browsers_play_with_the_frames_and_time_of_the_gif(cli: Cli, trained: str) -> None:
    """With 1 inner step: 5 frames at the start, 5 of the change, 5 of the pause and 15 at the end, 10 a second. The
    width of 303 pixels becomes an even number."""
    options = ["plot", trained, "--kind", "adapt", "--tasks-shown", 1, "--steps", 1, "--width", "3.03in"]
    assert cli(*options).code == 0 and cli(*options, "--format", "mp4").out == f"{trained}/plots/adapt.mp4\n"
    fields = "codec_name,pix_fmt,width,nb_frames,duration"
    probe = ["ffprobe", "-v", "error", "-show_entries", f"stream={fields}", "-of", "json", f"{trained}/plots/adapt.mp4"]
    (stream,) = json.loads(subprocess.run(probe, capture_output=True, check=True).stdout)["streams"]
    assert (stream["codec_name"], stream["pix_fmt"]) == ("h264", "yuv420p") and stream["width"] in (302, 304)
    assert stream["nb_frames"] == "30" and float(stream["duration"]) == 3
    with Image.open(f"{trained}/plots/adapt.gif") as picture:
        assert picture.size[0] == stream["width"]
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(picture)) == 3000


def test_frames_of_an_animation_are_the_figure_drawn_anew(trained: str, run: TrainedRun, tmp_path: Path) -> None:
    """Only what moves is drawn in each frame; the colours of a GIF are close to the right ones."""
    request = FigureRequest(run, Protocol(steps=1, shots=(5,)), FigureChoices(tasks_shown=1))
    file = save_animation(lambda: run_figures.adapt(request), tmp_path / "adapt.gif")
    with figure_settings(DEFAULT_STYLE), Image.open(file) as picture:
        animation = run_figures.adapt(request)
        animation.figure.draw_without_rendering()
        animation.figure.set_layout_engine("none")
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]  # equal ones are one
        for frame, number in ((0, 0), (3, 7), (-1, animation.num_frames - 1)):
            animation.draw_frame(number)
            animation.figure.savefig(tmp_path / "anew.png", dpi=100)
            with Image.open(tmp_path / "anew.png") as anew:
                pixels = ImageChops.difference(frames[frame], anew.convert("RGB")).convert("L").histogram()
            assert sum(pixels[8:]) < 0.0005 * sum(pixels), frame


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (["smoke", "-s", "tasks.phase=1"], "fewer than two parameters of its tasks vary"),
        (["mmaml-2modes"], "a mixture of families, which share no parameters"),
    ],
)
def test_a_landscape_of_other_families_is_refused_with_the_reason(config: list[str], reason: str, cli: Cli) -> None:
    run = cli("train", "-c", *config, *TINY_RUN, "-q", "-s", "run.checkpoint_every=12").out.strip()
    result = cli("plot", run, "--kind", "landscape", "--tasks", 10)
    assert result.code == 2 and reason in result.err and result.err.count("\n") == 1


def test_a_landscape_of_a_family_with_a_frequency_is_over_it(cli: Cli) -> None:
    run = open_run(Path(cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "tasks.frequency=[0.8,1.2]").out.strip()))
    axis = run_figures.landscape(FigureRequest(run, Protocol(num_tasks=50))).axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("Amplitude", "Frequency")


def test_runs_that_differ_in_one_number_have_ordered_colours_and_baselines(cli: Cli, run: TrainedRun) -> None:
    smoke = ["train", "-c", "smoke", *TINY_RUN, "-q", "-s"]
    others = [cli(*smoke, f"inner.alpha.init={alpha}").out.strip() for alpha in (0.03, 0.02)]
    runs = [run, *(open_run(Path(other)) for other in others)]
    difference = numeric_difference(runs)
    assert difference and difference.key == "inner.alpha.init" and difference.values == (0.01, 0.03, 0.02)
    assert difference.ranks == [0, 1, 0.5]
    assert numeric_difference([run, run]) is None
    options = ["--tasks", 5, "--out", "c.svg", "--label", f"{others[0]}=Large"]
    assert cli("compare", "outputs/smoke", *others, *options).code == 0
    svg = Path("c.svg").read_text()
    for text in ("inner.alpha.init = 0.01", "Large", "inner.alpha.init = 0.02", "Predict zero"):
        assert text in svg
    for share in (0, 0.425, 0.85):  # without the end of the scale that is as light as the page
        assert to_hex(colormaps["viridis"](share)) in svg


def test_all_draws_the_kinds_that_are_not_on_request() -> None:
    assert [name for name, kind in FIGURES.items() if not kind.on_request] == ["fit", "curve", "steps", "alpha"]


def test_figures_name_a_published_run_as_its_user_does() -> None:
    assert run_name(maml.load("best-5shot")) == "best-5shot"
