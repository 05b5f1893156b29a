"""Ctrl-C and SIGTERM as a question that a loop can ask, so that it can save before it stops."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


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
    """Within, the first Ctrl-C or SIGTERM is only noted; a second Ctrl-C interrupts at once."""
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if stop():
            raise KeyboardInterrupt
        stop.received = signal.Signals(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
