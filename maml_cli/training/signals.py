"""Ctrl-C and SIGTERM as a question that a loop can ask, so that it can save before it stops."""

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

SECONDS_TO_SAVE = 2.0


@dataclass
class Stop:
    """Which signal asked to stop, if any; calling it says whether one did."""

    received: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal: 130 after Ctrl-C, 143 after SIGTERM."""
        return 0 if self.received is None else 128 + int(self.received)


@contextlib.contextmanager
def catch_stop() -> Iterator[Stop]:
    """Within, the first Ctrl-C or SIGTERM is only noted, and one that comes later than a moment interrupts at once.

    The moment is for a Ctrl-C pressed twice, or sent to a whole group of processes: saving takes less.
    """
    stop = Stop()
    patience = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal patience
        now = time.monotonic()
        if stop() and now > patience:
            raise KeyboardInterrupt
        if not stop():
            stop.received, patience = signal.Signals(number), now + SECONDS_TO_SAVE

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
