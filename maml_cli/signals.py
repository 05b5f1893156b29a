"""Ctrl-C and SIGTERM as a question that a loop can ask, so that it can save before it stops."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stop:
    """Which signal asked to stop, if any; falsy until one did."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal: 130 after Ctrl-C, 143 after SIGTERM."""
        return 0 if self.signal is None else 128 + int(self.signal)


@contextlib.contextmanager
def catch_stop() -> Iterator[Stop]:
    """Within, the first Ctrl-C or SIGTERM is only noted; a second Ctrl-C interrupts at once."""
    stop = Stop()

    def note(number: int, frame: FrameType | None) -> None:
        if stop():
            raise KeyboardInterrupt
        stop.signal = signal.Signals(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
