"""Styles of figures: sizes, fonts and texts in the files, colours that differ without colour, and style sheets."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties

from maml_cli.cli.figure_options import StyleOptions, figure_style, length, run_labels
from maml_cli.errors import ConfigError, UserError
from maml_cli.evaluation import Statistic
from maml_cli.reporting import figures
from maml_cli.reporting.canvas import Figure, figure_settings, line_styles, new_figure, save_figure
from maml_cli.reporting.figure_style import SHEETS, FigureStyle
from maml_cli.reporting.figure_text import text_width
from maml_cli.reporting.figures import Curve
from maml_cli.reporting.step_styles import fit_styles
from maml_cli.reporting.style_sheets import read_sheet
from tests.conftest import Cli

STATISTICS = [Statistic(3.0, 0.1, 3.0), Statistic(0.5, 0.1, 0.5)]


def _drawing(style: FigureStyle, *, title: str = "A title", num_curves: int = 2) -> Callable[[], Figure]:
    curves = [Curve(f"run {index}", STATISTICS, 1) for index in range(num_curves)]
    return lambda: figures.curves_figure(curves, measure="mse", ringed="as trained", title=title, style=style)


def _png_size(file: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", file.read_bytes()[16:24])  # of the chunk IHDR
    return width, height


@pytest.mark.parametrize(
    ("text", "inches"), [("3.3in", 3.3), ("3.3", 3.3), ("8.4cm", 8.4 / 2.54), ("84 mm", 84 / 25.4), ("240pt", 240 / 72)]
)
def test_lengths_are_inches(text: str, inches: float) -> None:
    assert length(text) == pytest.approx(inches)


@pytest.mark.parametrize("text", ["3.3inch", "-3in", "0", "1e3", "inf", "nan", "", "41in", "0.9in", "3,3cm"])
def test_other_lengths_are_refused(text: str, cli: Cli) -> None:
    result = cli("plot", "x", "--width", text)
    assert result.code == 2 and result.err.startswith("--width") and "must be a length" in result.err
    assert result.err.count("\n") == 1


def test_a_figure_has_the_size_that_was_asked_for_in_every_format(tmp_path: Path) -> None:
    """3.3 x 2.5 in: 165 pixels, 72 points of a PDF, and 72 points of an SVG an inch."""
    style = FigureStyle(width=3.3, height=2.5, font_size=8)
    files = [save_figure(_drawing(style), tmp_path / f"x.{form}", style) for form in ("png", "svg", "pdf")]
    assert _png_size(files[0]) == (544, 412)  # 544.5 x 412.5, cut off
    svg = files[1].read_text()
    size = re.search(r'<svg [^>]*width="([\d.]+)pt"[^>]*|height="([\d.]+)pt"', svg)
    assert size and 'width="237.6pt"' in svg and 'height="180pt"' in svg
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", files[2].read_bytes())
    assert box and [float(value) for value in box.groups()] == pytest.approx([237.6, 180])


def test_a_width_alone_leaves_a_panel_of_a_fair_height(tmp_path: Path) -> None:
    """Ten entries of the legend do not eat the axes: the figure grows until they are 0.62 times as high as wide."""
    style = FigureStyle(width=3.3, font_size=8)
    drawn: list[Figure] = []

    def draw() -> Figure:
        drawn.append(_drawing(style, num_curves=20)())
        return drawn[0]

    width, height = _png_size(save_figure(draw, tmp_path / "x.png", style))
    box = drawn[0].axes[0].get_position()
    assert width == 544 and box.height * height / (box.width * width) > 0.6


def test_svg_has_its_text_as_text_and_pdf_its_fonts_as_truetype(tmp_path: Path) -> None:
    style = FigureStyle(title="My title", x_label="Steps", y_label="Error")
    svg = save_figure(_drawing(style), tmp_path / "x.svg", style).read_text()
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    assert {"My title", "Steps", "Error", "run 0", "run 1"} <= {*texts} and "A title" not in texts
    pdf = save_figure(_drawing(style), tmp_path / "x.pdf", style).read_bytes()
    assert b"/FontFile2" in pdf and b"/Subtype /Type3" not in pdf


def test_an_empty_title_is_none(tmp_path: Path) -> None:
    for title, shown in (("", False), (None, True)):
        style = FigureStyle(title=title)
        svg = save_figure(_drawing(style), tmp_path / "x.svg", style).read_text()
        assert ("A title" in svg) == shown


def test_long_titles_are_wrapped_into_the_figure(tmp_path: Path) -> None:
    drawn: list[Figure] = []
    title = "a long title of many words " * 4

    def draw() -> Figure:
        drawn.append(_drawing(FigureStyle(width=3.3), title=title)())
        return drawn[0]

    save_figure(draw, tmp_path / "x.png", FigureStyle(width=3.3))
    lines = drawn[0].axes[0].get_title().split("\n")
    assert " ".join(lines).split() == title.split() and len(lines) > 1
    assert max(text_width(line, FontProperties(size=9)) for line in lines) < 3.3


def test_a_figure_too_small_for_its_text_is_one_line_and_no_file(tmp_path: Path) -> None:
    style = FigureStyle(width=1.0, height=1.0, font_size=12)
    with pytest.raises(ConfigError, match=r"a figure of 1 x 1 in: too small for its text; give a larger --width"):
        save_figure(_drawing(style), tmp_path / "x.png", style)
    assert not (tmp_path / "x.png").exists()


def _luminance(colour: Any) -> float:
    """Relative luminance (Rec. 709, linear light)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])


@pytest.mark.parametrize("sheet", [None, *SHEETS])
def test_lines_differ_in_dash_marker_or_luminance_and_show_against_the_background(sheet: str | None) -> None:
    style = FigureStyle() if sheet is None else FigureStyle(sheet=SHEETS[sheet])
    with figure_settings(style):
        lines = [(line["ls"], line["marker"]) for line, _ in zip(line_styles(), range(8), strict=False)]
        assert len({*lines}) == 8
        steps = fit_styles(range(7), 1)
        assert len({str(line["ls"]) for _, line in steps}) == 7
        background = _luminance("maml:background")
        for line, _ in zip(line_styles(), range(7), strict=False):
            light, dark = sorted((_luminance(line["color"]), background), reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 2, line["color"]


def test_a_style_sheet_changes_colours_fonts_and_size_and_the_next_figure_has_ours_again(tmp_path: Path) -> None:
    file = tmp_path / "thesis.mplstyle"
    file.write_text(
        "# a comment\nfigure.figsize: 3, 2.5\nfont.size: 7\n"
        "axes.prop_cycle: cycler('color', ['#112233', \"#445566\"])\n"
        'axes.facecolor: "#EEEEEE"  # quoted\nlines.linewidth: 3\n'
    )
    before = save_figure(_drawing(FigureStyle()), tmp_path / "before.svg").read_bytes()
    style = FigureStyle(sheet=read_sheet(str(file)))
    svg = save_figure(_drawing(style), tmp_path / "x.svg", style).read_text()
    assert 'width="216pt"' in svg and 'height="180pt"' in svg and "font-size: 7px" in svg
    assert "#112233" in svg and "#445566" in svg and "#eeeeee" in svg and "#0072b2" not in svg
    assert save_figure(_drawing(FigureStyle()), tmp_path / "after.svg").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("text.usetex: True", "text.usetex: not taken from a style sheet; remove the line"),
        ("backend: module://evil", "backend: not taken from a style sheet"),
        ("animation.ffmpeg_path: /tmp/evil", "animation.ffmpeg_path: not taken from a style sheet"),
        ("font.sise: 8", "font.sise: no setting of matplotlib"),
        ("font.size: big", "font.size: big: "),
        ("font.size: 1e9", "font.size: must be from 1 to 100 points"),
        ("figure.figsize: 1000, 2", "must be a width and a height from 1 to 100 inches"),
        ("axes.prop_cycle: __import__('os').system('x')", "axes.prop_cycle: must be such as cycler("),
        ("axes.prop_cycle: cycler('color', 'r' * 10**9)", "axes.prop_cycle: must be such as cycler("),
        ("axes.facecolor", "axes.facecolor"),
        ("font.family: No Such Font", "font.family: No Such Font: no such font on this machine"),
    ],
)
def test_a_style_sheet_with_anything_else_is_refused_with_its_line(line: str, words: str, cli: Cli) -> None:
    Path("bad.mplstyle").write_text(f"font.size: 8\n{line}\n")
    result = cli("plot", "x", "--style", "bad.mplstyle")
    assert result.code == 2 and words in result.err and result.err.count("\n") == 1
    assert result.err.startswith("bad.mplstyle")


def test_a_style_is_a_name_or_a_regular_file(cli: Cli) -> None:
    Path("folder.mplstyle").mkdir()
    for style, code, words in (
        ("papre", 2, "--style papre: must be paper, slides or dark, or a file that ends in .mplstyle"),
        ("none.mplstyle", 3, "none.mplstyle: cannot be read: no such file"),
        ("folder.mplstyle", 3, "folder.mplstyle: a directory, not a regular file"),
    ):
        result = cli("plot", "x", "--style", style)
        assert (result.code, result.err.count("\n")) == (code, 1) and result.err.startswith(words)


def test_options_of_one_figure_are_refused_for_several(cli: Cli) -> None:
    assert cli("plot", "x", "--x-label", "t").err == "--x-label t: is for one figure; give its --kind\n"
    assert cli("plot", "x", "--with", "y").err == "--with y: is for --kind fit, which draws a row for each run\n"
    assert cli("plot", "x", "--kind", "adapt", "--format", "png").err.startswith("--format png: must be gif or mp4")


def test_labels_are_of_named_runs_and_of_the_others_in_their_order() -> None:
    runs = [Path("a"), Path("b=c"), Path("d")]
    assert run_labels(["First", "d=Third"], runs, example="") == ["First", "", "Third"]
    assert run_labels(["b=c=Second", "x=y"], runs, example="") == ["x=y", "Second", ""]
    for labels in (["1", "2", "3", "4"], ["a=1", "a=2"]):
        with pytest.raises(UserError, match="--label"):
            run_labels(labels, runs, example="a=TEXT")


def test_text_of_the_user_has_no_control_characters() -> None:
    style = figure_style(StyleOptions(title="a\x1b[31m\n", x_label="µ"))
    assert style.title == "a\\x1b[31m\\n" and style.x_label == "µ"


def test_the_style_of_a_command_is_in_the_file_and_equal_options_give_equal_bytes(cli: Cli, trained: str) -> None:
    options = [
        "plot",
        trained,
        "--kind",
        "fit",
        "--width",
        "84mm",
        "--font-size",
        "7",
        "--title",
        "",
        "--style",
        "dark",
    ]
    assert cli(*options).code == 0
    first = Path(trained, "plots", "fit.png").read_bytes()
    assert _png_size(Path(trained, "plots", "fit.png"))[0] == int(84 / 25.4 * 165)
    assert cli(*options).code == 0 and Path(trained, "plots", "fit.png").read_bytes() == first


def test_a_new_figure_keeps_the_proportion_of_its_kind() -> None:
    sizes = [
        new_figure(6, 4, FigureStyle(width=w, height=h)).get_size_inches() for w, h in ((3, None), (None, 8), (1, 9))
    ]
    assert [size.tolist() for size in sizes] == [[3, 2], [12, 8], [1, 9]]
