"""Ctrl-C and SIGTERM as a flag that the training loop reads, so that it can save before it stops."""

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

SECONDS_TO_SAVE = 2.0
"""Seconds after the first signal in which others are ignored: a Ctrl-C pressed twice, or sent to a whole process group,
must not interrupt the save, which takes less."""


@dataclass
class Stop:
    """The signal that asked training to stop, if any; calling it tells whether one did."""

    received: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.received is not None

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal: 130 after Ctrl-C, 143 after SIGTERM; 0 without one."""
        return 0 if self.received is None else 128 + int(self.received)


@contextlib.contextmanager
def catch_stop() -> Iterator[Stop]:
    """The first Ctrl-C or SIGTERM sets a flag; another more than SECONDS_TO_SAVE later raises KeyboardInterrupt."""
    stop = Stop()
    ignored_until = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal ignored_until
        now = time.monotonic()
        if not stop():
            stop.received, ignored_until = signal.Signals(number), now + SECONDS_TO_SAVE
        elif now > ignored_until:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
