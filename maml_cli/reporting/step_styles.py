"""Lines of inner steps: their colours, dashes and names, which differ without colours as well."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from maml_cli.reporting.canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, YELLOW
from maml_cli.reporting.format import plural

DASH_DOT_DOT = (0, (7, 1.5, 1, 1.5, 1, 1.5))
STEP_DASHES: tuple[Any, ...] = ("-.", ":", (0, (8, 2)), DASH_DOT_DOT, (0, (2, 2)))


class StepLine(NamedTuple):
    """The line of an inner step: the step, its name in the legend, and its style."""

    step: int
    label: str
    style: dict[str, Any]


def step_lines(show_steps: Sequence[int], trained_steps: Sequence[int]) -> list[StepLine]:
    """The lines of `show_steps` for runs of the numbers of inner steps `trained_steps`.

    That of the first is emphasised, and it is named as trained where it is that of all runs.
    """
    trained = trained_steps[0]
    named = trained if {*trained_steps} == {trained} else 0
    return [StepLine(step, step_label(step, named), style) for step, style in fit_styles(show_steps, trained)]


def fit_styles(show_steps: Sequence[int], trained_steps: int) -> list[tuple[int, dict[str, Any]]]:
    """Each inner step with its style: step 0 is grey and dashed, the trained step blue, and the others all differ."""
    colours = (ORANGE, GREEN, PURPLE, YELLOW, SKY)
    # Dash and colour change together, so that neighbours differ without colours; the pairs repeat after 25.
    styles = [
        {"color": colours[index % 5], "ls": STEP_DASHES[(index + index // 5) % 5], "lw": 1.3}
        for index in range(len(show_steps))
    ]
    special = {0: {"color": GREY, "ls": "--", "lw": 1.2}, trained_steps: {"color": BLUE, "ls": "-", "lw": 1.8}}
    return [(step, special[step] if step in special else styles.pop(0)) for step in show_steps]


def step_label(step: int, trained_steps: int) -> str:
    """The name of an inner step in a legend."""
    if step == 0:
        return "Before adapting"
    return f"After {plural(step, 'inner step')}{' (trained)' if step == trained_steps > 1 else ''}"
