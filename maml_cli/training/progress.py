"""Progress of a training on stderr: a bar on a terminal, one line every few seconds elsewhere."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from tqdm import tqdm

from maml_cli.evaluation import OnTasks, ignore_tasks
from maml_cli.messages import print_message

SECONDS_BETWEEN_LINES = 5.0
"""Interval of lines in a log file, which a person reads afterwards."""
SECONDS_BETWEEN_REDRAWS = 0.25
"""Interval of redraws of the bar: four a second look continuous and cost nothing measurable."""
SECONDS_BEFORE_BAR, SECONDS_BEFORE_LINE = 1.0, 2.0
"""Evaluations and other work shorter than this show no bar, and no line."""
SLOW_RATE = 10.0
"""Rates below this, of work that is counted in single pieces, are not shown."""
EVALUATION_BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} tasks"
LOSS_DECAY = 0.98
"""Decay per outer step of the exponential moving average of the loss, over about 50 steps."""

OnStep = Callable[[int, float], None]


@contextlib.contextmanager
def progress(
    *, first_step: int, steps: int, tasks_per_step: int, quiet: bool, clock: Callable[[], float] = time.monotonic
) -> Iterator[OnStep]:
    """A function (outer steps taken, loss) -> None that shows the progress of outer steps `first_step` to `steps`.

    The rate is measured from the first call on, so that compilation and warm-up in the first outer steps are not in
    it. The last line has the total time instead of the time left, in seconds of `clock`.
    """
    if quiet:
        yield lambda step, loss: None
        return
    on_terminal = _is_on_terminal()
    interval = SECONDS_BETWEEN_REDRAWS if on_terminal else SECONDS_BETWEEN_LINES
    bar = tqdm(
        initial=first_step,
        total=steps,
        disable=not on_terminal,
        dynamic_ncols=True,
        bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {desc}",
    )
    bar.dynamic_ncols = _columns_for_bar  # type: ignore[assignment]  # tqdm calls it
    started = shown = clock()
    average_loss, previous_step = math.nan, first_step
    measured_from: tuple[int, float] | None = None

    def on_step(step: int, loss: float) -> None:
        nonlocal shown, average_loss, previous_step, measured_from
        decay = 0.0 if math.isnan(average_loss) else LOSS_DECAY ** (step - previous_step)
        average_loss = loss + (average_loss - loss) * decay if decay else loss
        previous_step, now = step, clock()
        rate = _rate(step, now, measured_from)
        measured_from = measured_from or (step, now)
        if now - shown < interval and step < steps:
            return
        shown = now
        words = [f"loss {average_loss:.4g}"]
        words += [f"{rate:,.0f} steps/s, {rate * tasks_per_step:,.0f} tasks/s"] if rate else []
        words += _duration(steps - step, rate, now - started)
        if on_terminal:
            bar.set_description_str(", ".join(words), refresh=False)
            bar.n = step
            bar.refresh()
        else:
            print_message(f"step {step:,}/{steps:,}: {', '.join(words)}")

    with bar:
        yield on_step


@contextlib.contextmanager
def evaluation_progress(*, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> Iterator[OnTasks]:
    """A function (predictor, tasks done, tasks in all) -> None that shows the progress of an evaluation.

    A bar on a terminal, removed at the end; elsewhere a line every few seconds, so that short evaluations print none.
    """
    if quiet:
        yield ignore_tasks
        return
    on_terminal = _is_on_terminal()
    interval = SECONDS_BEFORE_BAR if on_terminal else SECONDS_BEFORE_LINE
    shown, bar = clock(), None
    ended: float | None = shown

    def on_tasks(predictor: str, done: int, total: int) -> None:
        nonlocal shown, bar, interval, ended
        now = clock()
        if ended is not None:
            shown += now - ended  # outer steps between two evaluations do not count
        ended = now if done == total else None
        if bar is not None and (done == total or bar.desc != f"{predictor}: "):
            bar.close()
            bar = None
        if now - shown < interval or done == total:
            return
        shown = now
        interval = SECONDS_BETWEEN_REDRAWS if on_terminal else SECONDS_BETWEEN_LINES
        if not on_terminal:
            print_message(f"{predictor}: {done:,}/{total:,} tasks")
            return
        if bar is None:  # made when it is needed: a bar moves those of the training around it
            bar = tqdm(desc=predictor, total=total, dynamic_ncols=True, leave=False, bar_format=EVALUATION_BAR)
        bar.n = done
        bar.refresh()

    try:
        yield on_tasks
    finally:
        if bar is not None:
            bar.close()


@contextlib.contextmanager
def count_progress(
    verb: str, unit: str, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int], None]]:
    """A function (number done) -> None that shows the progress of work whose end is not known, as `evaluation_progress`
    shows it."""
    on_terminal = _is_on_terminal()
    interval = SECONDS_BEFORE_BAR if on_terminal else SECONDS_BEFORE_LINE
    started = shown = clock()
    with tqdm(disable=not on_terminal, leave=False, dynamic_ncols=True, bar_format="{desc}") as bar:

        def on_count(done: int) -> None:
            nonlocal shown, interval
            now = clock()
            if now - shown < interval:
                return
            shown = now
            interval = SECONDS_BETWEEN_REDRAWS if on_terminal else SECONDS_BETWEEN_LINES
            rate = done / (now - started)
            words = f"{verb}: {done:,} {unit if done != 1 else unit.removesuffix('s')}"
            text = f"{words}, {rate:,.0f} {unit}/s" if rate >= SLOW_RATE else words
            if on_terminal:
                bar.set_description_str(text)
            else:
                print_message(text)

        yield on_count


def _columns_for_bar(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal, without the columns of the ^C that it shows at Ctrl-C: a bar over all of them
    would continue in the next line."""
    columns, rows = os.get_terminal_size(stream.fileno())
    return columns - 2, rows


def _is_on_terminal() -> bool:
    return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0


def format_seconds(seconds: float) -> str:
    """A duration as `0.4 s`, `12 s`, or `16:48` from a minute on."""
    if seconds < 0.95:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 59.5 else tqdm.format_interval(round(seconds))


def _duration(steps_left: int, rate: float | None, seconds: float) -> list[str]:
    """The total time of a finished training, or the time left if the rate is known."""
    if steps_left == 0:
        return [f"done in {format_seconds(seconds)}"]
    return [f"{format_seconds(steps_left / rate)} left"] if rate else []


def _rate(step: int, now: float, measured_from: tuple[int, float] | None) -> float | None:
    """Outer steps per second since the first call; None before the second call."""
    if measured_from is None or now <= measured_from[1]:
        return None
    return (step - measured_from[0]) / (now - measured_from[1])
