"""Progress of a training on stderr: a bar on a terminal, one plain line every few seconds elsewhere."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_REDRAWS = 0.25

OnStep = Callable[[int, float], None]


def print_message(text: str) -> None:
    """A line on stderr. One that nobody reads any more is no reason to stop a training."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(*, first_step: int, steps: int, tasks_per_step: int, quiet: bool) -> Iterator[OnStep]:
    """A function to call with outer steps, each or some of them, and their losses.

    The loss shown is smoothed over some fifty steps; the rate and the time left are those since the start.
    """
    if quiet:
        yield lambda step, loss: None
        return
    on_terminal = sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    every = SECONDS_BETWEEN_REDRAWS if on_terminal else SECONDS_BETWEEN_LINES
    bar = tqdm(
        initial=first_step,
        total=steps,
        disable=not on_terminal,
        dynamic_ncols=True,
        mininterval=SECONDS_BETWEEN_REDRAWS,
        bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {desc}, {remaining} left",
    )
    started = shown = time.monotonic()
    smooth, seen = float("nan"), first_step

    def on_step(step: int, loss: float) -> None:
        nonlocal shown, smooth, seen
        smooth = loss if smooth != smooth else loss + (smooth - loss) * 0.98 ** (step - seen)
        seen, now = step, time.monotonic()
        if now - shown < every and step < steps:
            return
        shown = now
        rate = (step - first_step) / max(now - started, 1e-9)
        words = f"loss {smooth:.4g}, {rate:,.0f} steps/s, {rate * tasks_per_step:,.0f} tasks/s"
        if on_terminal:
            bar.set_description_str(words, refresh=False)
            bar.update(step - bar.n)
        else:
            left = (steps - step) / rate
            print_message(f"step {step:,}/{steps:,}: {words}, {tqdm.format_interval(left)} left")

    with bar:
        yield on_step
