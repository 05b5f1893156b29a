"""Ctrl-C, SIGTERM and SIGHUP as a flag that the training loop reads, so that it can save before it stops."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

from maml_cli.interrupts import SECONDS_TO_ANSWER, end_descendants, exit_at_once, watchdog

SECONDS_TO_SAVE = 2.0
"""Seconds after the first signal in which others are ignored: a Ctrl-C pressed twice, or sent to a whole process group,
must not interrupt the save, which takes less."""
SECONDS_WITHOUT_RESCUE = 10.0
"""Seconds after the first signal in which a call may end whose start was not saved."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

Rescue = Callable[[], None]
"""Saves the state before a long call, and prints a message, in the thread of the watchdog."""


@dataclass
class Stop:
    """The signal that asked training to stop, if any; calling it gives its number, 0 for none.

    received: that signal.
    can_save: whether training will read the flag; until then, a signal raises KeyboardInterrupt.
    """

    received: signal.Signals | None = None
    can_save: bool = True
    _call: tuple[float, Rescue, float] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> int:
        return 0 if self.received is None else int(self.received)

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP; 0 without one."""
        return 0 if self.received is None else 128 + int(self.received)

    @contextlib.contextmanager
    def abandonable(self, rescue: Rescue, is_saved: bool) -> Iterator[None]:
        """A block that a signal ends, and the process with it, if it takes too long: `rescue` is called before.

        `is_saved` tells whether nothing is lost by that; otherwise the block has more time to end.
        """
        self._call = (time.monotonic(), rescue, SECONDS_TO_ANSWER if is_saved else SECONDS_WITHOUT_RESCUE)
        try:
            yield
        finally:
            with self._lock:  # the watchdog does not release it
                self._call = None

    def expired(self, number: int, seconds: float) -> None:
        """End the process if the block has not ended in time; called by the watchdog."""
        with self._lock:
            if self._call is None:
                return
            started, rescue, limit = self._call
            if min(seconds, time.monotonic() - started) > limit:
                rescue()
                exit_at_once(128 + number)


@contextlib.contextmanager
def catch_stop() -> Iterator[Stop]:
    """The first Ctrl-C, SIGTERM or SIGHUP sets a flag; another more than SECONDS_TO_SAVE later raises
    KeyboardInterrupt. A signal that the process ignores, as SIGHUP after nohup, is ignored still. Nothing is caught
    outside of the main thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stop
        return
    ignored_until = 0.0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal ignored_until
        now, is_first = time.monotonic(), not stop()
        if is_first:
            stop.received, ignored_until = signal.Signals(number), now + SECONDS_TO_SAVE
        if not stop.can_save if is_first else now > ignored_until:
            end_descendants()  # compilers: killed alone, a driver leaves its compiler running
            raise KeyboardInterrupt

    ignored = {number for number in SIGNALS if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN}
    previous = {number: signal.signal(number, handle) for number in SIGNALS if number not in ignored}
    try:
        with watchdog(stop.expired, tuple(previous)):
            yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
