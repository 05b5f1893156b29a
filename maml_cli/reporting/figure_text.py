"""Text of figures: measured, broken into lines between words, and legends in columns that fit."""

import re
from collections.abc import Sequence

from maml_cli.reporting.matplotlib_import import FontProperties, matplotlib, text_to_path

POINTS = 72.0
"""Points of an inch."""
GLUE = "\N{NO-BREAK SPACE}"
TOGETHER = re.compile(r" (?=%|[=±] )|(?<=[=±→]) ")
"""Spaces at which lines are not broken."""


def text_width(text: str, font: FontProperties) -> float:
    """The width of one line of `text`, in inches."""
    width: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return width / POINTS


def fit_legend(labels: Sequence[str], width: float, most: int) -> tuple[list[str], int]:
    """Labels that fit into a figure of `width` inches, and the largest number of columns, at most `most`, that fits;
    columns are filled one after another. Labels that are wider than the figure are wrapped, in one column."""
    settings = matplotlib.rcParams
    font = FontProperties(size=settings["legend.fontsize"])
    em = font.get_size_in_points() / POINTS
    handle = em * (settings["legend.handlelength"] + settings["legend.handletextpad"])
    gap = em * settings["legend.columnspacing"]
    width -= 2 * em * (settings["legend.borderpad"] + settings["legend.borderaxespad"])
    widths = [text_width(label, font) + handle for label in labels]
    for columns in range(min(most, len(labels)), 1, -1):
        # As matplotlib fills them: the first columns have one row more where the rows do not come out even.
        short, longer = divmod(len(labels), columns)
        ends = [short * (column + 1) + min(column + 1, longer) for column in range(columns)]
        longest = [max(widths[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        if sum(longest) + gap * (columns - 1) <= width:
            return [*labels], columns
    return [wrapped(label, width - handle, font) for label in labels], 1


def wrapped(text: str, width: float, font: FontProperties) -> str:
    """`text` in lines of about the same length, of at most `width` inches, broken between words.

    Words that are wider are broken after a slash, a hyphen, an underscore or a dot, or where the line ends. Numbers
    stay with their signs and units, as in `K = 10`.
    """
    words = [word.replace(GLUE, " ") for word in TOGETHER.sub(GLUE, text).split(" ")]
    lines = _lines(words, width, font)
    for share in (0.9, 0.8, 0.7, 0.6):  # shorter lines, as long as there are not more of them
        shorter = _lines(words, share * width, font)
        lines = shorter if len(shorter) == len(lines) > 1 else lines
    return "\n".join(lines)


def _lines(words: Sequence[str], width: float, font: FontProperties) -> list[str]:
    lines = [""]
    for piece in (piece for word in words for piece in _pieces(word, width, font)):
        line = f"{lines[-1]} {piece}" if lines[-1] else piece
        if lines == [""] or text_width(line, font) <= width:
            lines[-1] = line
        else:
            lines.append(piece)
    return lines


def _pieces(word: str, width: float, font: FontProperties) -> list[str]:
    """`word`, or as many pieces of it as have at most `width` inches each, but for single characters."""
    pieces = []
    while len(word) > 1 and text_width(word, font) > width:
        fitting = next((end for end in range(len(word) - 1, 1, -1) if text_width(word[:end], font) <= width), 1)
        end = max(word.rfind(sign, 0, fitting) + 1 for sign in "/-_. ") or fitting
        pieces.append(word[:end].rstrip(" "))
        word = word[end:]
    return [*pieces, word]
