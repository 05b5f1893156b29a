"""Signals that must end the process at once, whatever the main thread is doing: a watchdog thread, and quiet exits.

Python runs its signal handlers in the main thread between two instructions, so that a long call into a library delays
them. The watchdog reads the number of each signal from a pipe that C code writes to.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

SECONDS_TO_ANSWER = 1.0
"""Seconds after a signal in which the main thread may end by itself; the watchdog acts after them."""
SECONDS_BETWEEN_LOOKS = 0.1
END = b"\0"

Expired = Callable[[int, float], None]
"""(number of the signal, seconds since it) -> None, called in the watchdog's thread until the process ends."""


def exit_at_once(code: int) -> None:
    """End the process and all of its descendants without any clean-up; nothing is printed."""
    with contextlib.suppress(OSError):
        end_descendants()
    os._exit(code)


def end_descendants() -> None:
    """End all processes that descend from this one, compilers above all: politely, so that they remove their files."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        processes = descendants(os.getpid())
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)
        if processes and number == signal.SIGTERM:
            time.sleep(0.2)


@contextlib.contextmanager
def watchdog(expired: Expired, numbers: tuple[int, ...]) -> Iterator[None]:
    """A thread that calls `expired` repeatedly after one of the signals `numbers`; they need handlers of Python's."""
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    ended = threading.Event()

    def watch() -> None:
        received = os.read(reader, 1)
        while received != END and received[0] not in numbers:
            received = os.read(reader, 1)
        started = time.monotonic()
        while received != END and not ended.wait(SECONDS_BETWEEN_LOOKS):
            expired(received[0], time.monotonic() - started)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        ended.set()
        os.write(writer, END)
        thread.join()
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def quiet_interrupt(*, is_last: bool) -> Iterator[None]:
    """Ctrl-C inside the block ends the process with exit code 130 and no traceback, at the latest after a second.

    Code may convert or swallow KeyboardInterrupt: from the signal on, every exception ends the process. With `is_last`,
    the process ends after the block, and Ctrl-C is ignored from then on; within an import it then ends at once, as C++
    that imports, of PyTorch for one, aborts the process at an exception.
    """
    handled = signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None)
    if threading.current_thread() is not threading.main_thread() or not handled:
        yield
        return
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:  # a second Ctrl-C must not disturb the end after the first
            interrupted = True
            sys.unraisablehook = lambda args: None
            if is_last and _is_importing(frame):
                exit_at_once(130)
            end_descendants()
            raise KeyboardInterrupt

    def expired(number: int, seconds: float) -> None:
        if signal.getsignal(signal.SIGINT) is interrupt and seconds > SECONDS_TO_ANSWER:
            exit_at_once(130)

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        with watchdog(expired, (signal.SIGINT,)):
            yield
    except BaseException:
        if interrupted and is_last:
            exit_at_once(130)
        if interrupted:
            sys.exit(130)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN if is_last else previous)


def exit_quietly_while_importing() -> None:
    """Ctrl-C before the command line runs ends the program with exit code 130; in another program nothing happens."""
    program = Path(sys.argv[0])
    is_program = program.stem in ("maml", "maml-script") or program.parts[-2:] == ("maml_cli", "__main__.py")
    if is_program and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))


def _is_importing(frame: FrameType | None) -> bool:
    """Whether `frame` belongs to the import of a module."""
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def descendants(ancestor: int) -> list[int]:
    """The processes that descend from `ancestor`, by /proc; none where the system has no /proc."""
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(file.read_text(errors="replace").rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(file.parent.name))
    result, pending = list[int](), [ancestor]
    while pending:
        direct = children.get(pending.pop(), [])
        result += direct
        pending += direct
    return result
