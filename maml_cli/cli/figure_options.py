"""The options of figures that commands share: size, fonts, texts and style sheet."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from maml_cli.cli.completion import complete_run, complete_words
from maml_cli.cli.options import run_path
from maml_cli.cli.parameters import one_of, whole_number
from maml_cli.errors import ConfigError
from maml_cli.reporting.figure_kinds import ANIMATION_FORMATS, FIGURES, FILE_FORMATS
from maml_cli.reporting.figure_style import SHEETS, FigureStyle, Sheet
from maml_cli.reporting.format import list_in_words

INCHES = {"": 1.0, "in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72}
"""Inches of each unit of length; a bare number has none."""
ALL = "all"
"""The kind that stands for all that are not drawn on request alone."""
LEAST_LENGTH, GREATEST_LENGTH = 1.0, 40.0
LEAST_FONT, GREATEST_FONT = 4.0, 40.0
NUMBER = r"[0-9]{1,6}(?:\.[0-9]{0,6})?|\.[0-9]{1,6}"


class StyleOptions(NamedTuple):
    """The style of a figure as the command line gives it; see FigureStyle. `sheet` is a name or a path."""

    width: float | None = None
    height: float | None = None
    font_size: float | None = None
    title: str | None = None
    x_label: str | None = None
    y_label: str | None = None
    sheet: str | None = None


def length(text: str) -> float:
    """A parser of lengths: a number with the unit in, cm, mm or pt, or of inches without a unit. Returns inches."""
    match = re.fullmatch(rf"({NUMBER}) ?(in|cm|mm|pt)?", text.strip())
    inches = float(match[1]) * INCHES[match[2] or ""] if match else 0.0
    if not LEAST_LENGTH <= inches <= GREATEST_LENGTH:
        raise typer.BadParameter(
            f"{text}: must be a length from {LEAST_LENGTH:g} to {GREATEST_LENGTH:g} inches, such as 3.3in, 8.4cm, 84mm "
            f"or 240pt"
        )
    return inches


def font_size(text: str) -> float:
    """A parser of font sizes in points."""
    match = re.fullmatch(rf"({NUMBER}) ?(?:pt)?", text.strip())
    if not match or not LEAST_FONT <= float(match[1]) <= GREATEST_FONT:
        raise typer.BadParameter(f"{text}: must be a number of points from {LEAST_FONT:g} to {GREATEST_FONT:g}")
    return float(match[1])


class Kinds(NamedTuple):
    """Kinds of figures in the value of one option."""

    names: tuple[str, ...]


def parse_kinds(text: str) -> Kinds:
    """A parser of kinds of figures separated by commas."""
    return Kinds(tuple(one_of([*FIGURES, ALL])(word.strip()) for word in text.split(",")))


def check_is_directory(out: Path | None, kinds: Sequence[str]) -> None:
    """Raises ConfigError if the directory of figures of `kinds` has the name of a file of a figure."""
    ending = out.suffix.lower().removeprefix(".") if out is not None else ""
    if out is None or ending not in (*FILE_FORMATS, *ANIMATION_FORMATS) or out.is_dir():
        return
    has_ending = all(ending in (FILE_FORMATS if kind == ALL else FIGURES[kind].formats) for kind in kinds)
    words = f"--out {shlex.quote(str(out.with_suffix('')))}{f' --format {ending}' if has_ending else ''}"
    raise ConfigError(f"--out {out}: must be a directory, in which each figure has the name of its kind; give {words}")


def figure_style(options: StyleOptions) -> FigureStyle:
    """The style of a figure, with its style sheet read; raises FileError or ConfigError if that cannot be used."""
    from maml_cli.reporting.canvas import label_text
    from maml_cli.reporting.style_sheets import read_sheet

    texts = (options.title, options.x_label, options.y_label)
    title, x_label, y_label = (text and label_text(text, MAX_TEXT) for text in texts)
    sheet = Sheet() if options.sheet is None else read_sheet(options.sheet)
    return FigureStyle(options.width, options.height, options.font_size, title, x_label, y_label, sheet)


def check_file_format(option: str, file: Path) -> None:
    """Raises ConfigError if the suffix of a file is none of a figure."""
    if file.suffix.lower().removeprefix(".") not in FILE_FORMATS:
        raise ConfigError(f"{option} {file}: must end in {list_in_words([f'.{name}' for name in FILE_FORMATS])}")


def run_labels(labels: Sequence[str], runs: Sequence[Path], *, example: str) -> list[str]:
    """A label for each of `runs`, empty where none is given: `RUN=TEXT` labels that run, and other texts label the runs
    in their order. Raises ConfigError for more labels than runs, and for two of one run."""
    named: dict[int, str] = {}
    names = [str(run) for run in runs]
    in_order = []
    for label in labels:
        name = max((name for name in names if label.startswith(f"{name}=")), key=len, default=None)
        if name is None:
            in_order.append(label)
        elif (index := names.index(name)) in named:
            raise ConfigError(f"--label {label}: a second label of {name}; give one")
        else:
            named[index] = label[len(name) + 1 :]
    free = [index for index in range(len(runs)) if index not in named]
    if len(in_order) > len(free):
        raise ConfigError(f"--label {in_order[len(free)]}: more labels than runs; give one for each, or {example}")
    named |= dict(zip(free, in_order, strict=False))
    return [named.get(index, "") for index in range(len(runs))]


MAX_TEXT = 200
"""Characters of a title or a label."""

WidthOpt = Annotated[
    float | None,
    typer.Option("--width", parser=length, metavar="LENGTH", help="Width, such as 3.3in, 84mm, 8.4cm or 240pt."),
]
HeightOpt = Annotated[
    float | None,
    typer.Option("--height", parser=length, metavar="LENGTH", help="Height; by default it follows from the width."),
]
FontSizeOpt = Annotated[
    float | None, typer.Option("--font-size", parser=font_size, metavar="POINTS", help="Size of labels and legends.")
]
TitleOpt = Annotated[
    str | None, typer.Option("--title", metavar="TEXT", help="The title; '' for none.", show_default=False)
]
XLabelOpt = Annotated[str | None, typer.Option("--x-label", metavar="TEXT", help="The label of the x axis.")]
YLabelOpt = Annotated[str | None, typer.Option("--y-label", metavar="TEXT", help="The label of the y axis.")]
StyleOpt = Annotated[
    str | None,
    typer.Option(
        "--style", metavar="STYLE", help=f"{', '.join(SHEETS)}, or a matplotlib style sheet, such as thesis.mplstyle."
    ),
]
LabelOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="[RUN=]TEXT",
        help="The name of a run: of RUN, or of each in turn; repeat it.",
    ),
]
KindOpt = Annotated[
    list[Kinds] | None,
    typer.Option(
        "--kind",
        parser=parse_kinds,
        autocompletion=complete_words([*FIGURES, ALL]),
        metavar="KIND,...",
        help="; ".join(f"{name}: {row.help}" for name, row in FIGURES.items())
        + f"; {ALL}: "
        + list_in_words([name for name, row in FIGURES.items() if not row.on_request], last="and")
        + ", the default. Repeat it, or give a list.",
    ),
]
FormatOpt = Annotated[
    str | None,
    typer.Option(
        "--format",
        parser=one_of([*FILE_FORMATS, *ANIMATION_FORMATS]),
        autocompletion=complete_words([*FILE_FORMATS, *ANIMATION_FORMATS]),
        metavar="FORMAT",
        help=f"{list_in_words([*FILE_FORMATS])}, by default png; of adapt {list_in_words([*ANIMATION_FORMATS])}.",
        show_default=False,
    ),
]
WithOpt = Annotated[
    list[Path] | None,
    typer.Option(
        "--with",
        parser=run_path,
        metavar="RUN",
        help="Of fit: another run, in a row of its own; repeat it.",
        autocompletion=complete_run,
    ),
]
TasksShownOpt = Annotated[
    int | None,
    typer.Option(
        "--tasks-shown",
        parser=whole_number(1, 100),
        metavar="N",
        help="Single tasks to draw: of fit (6, or 3 with --with), adapt (3), path (30) and tasks (20).",
        show_default=False,
    ),
]
