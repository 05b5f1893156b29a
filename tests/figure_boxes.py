"""Texts of a drawn figure that are cut at its edge, overlap each other, or lie over a line."""

import itertools
from typing import Any

from maml_cli.reporting.canvas import Figure

SLACK = 1.5
"""Pixels by which boxes may overlap: they are larger than the glyphs in them."""


def faults(figure: Figure) -> list[str]:
    """A line for each text that is cut, for each pair that overlaps, and for each text in a panel over a line."""
    figure.draw_without_rendering()
    boxes = [(text, _text_box(text)) for text in _texts(figure)]
    cut = [
        f"cut: {text.get_text()!r}"
        for text, box in boxes
        if box.x0 < -SLACK
        or box.y0 < -SLACK
        or box.x1 > figure.bbox.width + SLACK
        or box.y1 > figure.bbox.height + SLACK
    ]
    pairs = [
        f"overlap: {first.get_text()!r} and {second.get_text()!r}"
        for (first, a), (second, b) in itertools.combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > SLACK and min(a.y1, b.y1) - max(a.y0, b.y0) > SLACK
    ]
    crossed = [
        f"crossed: {text.get_text()!r}"
        for axis in figure.axes
        for text in axis.texts
        if text.get_text().strip() and any(_crosses(line, _text_box(text)) for line in axis.lines)
    ]
    return cut + pairs + crossed


def _texts(figure: Figure) -> list[Any]:
    """All visible texts, of ticks those within the limits of their axes."""
    texts: list[Any] = [text for text in figure.texts if text.get_visible()]
    for axis in (axis for axis in figure.axes if axis.get_visible()):
        texts += [axis.title, *axis.texts]
        if axis.axison:
            for one, limits in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim())):
                low, high = sorted(limits)
                at = 0 if one is axis.xaxis else 1
                ticks = [label for label in one.get_ticklabels() if low <= label.get_position()[at] <= high]
                texts += [one.label, *(label for label in ticks if label.get_visible())]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    return [text for text in texts if text.get_text().strip() and text.get_visible()]


def _text_box(text: Any) -> Any:
    return text.get_window_extent()


def _crosses(line: Any, box: Any) -> bool:
    if line.get_linestyle() == "None" or len(line.get_xdata()) < 2:
        return False
    path = line.get_transform().transform_path(line.get_path())
    return bool(path.intersects_bbox(box.padded(-SLACK), filled=False))
