"""Signals that must end the process at once, whatever the main thread is doing: a watchdog thread, and one line.

Python runs its signal handlers in the main thread between two instructions, so that a long call into a library delays
them. The watchdog reads the number of each signal from a pipe that C code writes to.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from maml_cli.errors import InterruptedRun, printable

SECONDS_TO_ANSWER = 1.0
"""Seconds after a signal in which the main thread may end by itself; the watchdog acts after them."""
SECONDS_TO_UNWIND = 0.5
"""The same of commands other than trainings: with what follows, they end within a second."""
SECONDS_BETWEEN_LOOKS = 0.1
END = b"\0"

Expired = Callable[[int, float], None]
"""(number of the signal, seconds since it) -> None, called in the watchdog's thread until the process ends."""

temporary_files: set[Path] = set()
"""Files that an end without any other clean-up removes."""


@contextlib.contextmanager
def stop_signals_exit() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit inside the block, so that it cleans up, where they would end the process."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    is_main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in numbers if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def exit_at_once(code: int) -> None:
    """End the process and all of its descendants without any clean-up but of temporary files; nothing is printed."""
    for file in temporary_files.copy():
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
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
def interrupts_blocked() -> Iterator[None]:
    """SIGINT waits until the end of the block; processes started inside never receive it, as a terminal sends it to
    all processes of a command."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


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
def exit_on_interrupt(arguments: Sequence[str], *, is_last: bool) -> Iterator[None]:
    """Ctrl-C inside the block ends the process with exit code 130 and one line on stderr, at the latest after a second.

    The line names the command in `arguments`, those of the command line; an InterruptedRun has its own, or none. Code
    may convert or swallow KeyboardInterrupt: from the signal on, every exception ends the process. With `is_last`, the
    process ends after the block, and Ctrl-C is ignored from then on; within an import it then ends at once, as C++ that
    imports, of PyTorch for one, aborts the process at an exception.
    """
    handled = signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None)
    if threading.current_thread() is not threading.main_thread() or not handled:
        yield
        return
    interrupted, line, print_once = False, interrupted_line(arguments), _printer()

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:  # a second Ctrl-C must not disturb the end after the first
            interrupted = True
            sys.unraisablehook = lambda args: None
            if is_last and _is_importing(frame):
                print_once([line])
                exit_at_once(130)
            end_descendants()
            raise KeyboardInterrupt

    def expired(number: int, seconds: float) -> None:
        if signal.getsignal(signal.SIGINT) is interrupt and seconds > SECONDS_TO_UNWIND:
            print_once([line])
            exit_at_once(130)

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        with watchdog(expired, (signal.SIGINT,)):
            try:
                yield
            except BaseException as error:
                if not interrupted:
                    raise
                print_once(error.lines if isinstance(error, InterruptedRun) else [line])
                if is_last:
                    exit_at_once(130)
                sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN if is_last else previous)


def exit_while_importing() -> None:
    """Ctrl-C before the command line runs ends the program as `exit_on_interrupt` does; in another program nothing
    happens."""
    program = Path(sys.argv[0])
    is_program = program.stem in ("maml", "maml-script") or program.parts[-2:] == ("maml_cli", "__main__.py")
    if is_program and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        line, print_once = interrupted_line(sys.argv[1:]), _printer()

        def interrupt(number: int, frame: FrameType | None) -> None:
            print_once([line])
            os._exit(130)

        signal.signal(signal.SIGINT, interrupt)


def interrupted_line(arguments: Sequence[str]) -> str:
    """The line of an interrupt for people, with the first word of the command.

    >>> interrupted_line(["eval", "latest"])
    'maml eval: stopped by Ctrl-C'
    """
    command = [word for word in arguments[:1] if not word.startswith("-")]
    return printable(f"{' '.join(['maml', *command])}: stopped by Ctrl-C")


def _printer() -> Callable[[Sequence[str]], None]:
    """A function that prints lines to stderr the first time that it is called, in any thread.

    It waits for a call in another thread, but not for ever: the reader of stderr may have stopped reading.
    """
    lock, is_printed = threading.Lock(), False

    def print_once(lines: Sequence[str]) -> None:
        nonlocal is_printed
        if not lock.acquire(timeout=2 * SECONDS_BETWEEN_LOOKS):
            return
        if not is_printed:
            is_printed = True
            _write_to_stderr("".join(f"{line}\n" for line in lines))
        lock.release()

    return print_once


def _write_to_stderr(text: str) -> None:
    """Write lines to stderr, past its buffer, in the middle of whose use a signal may arrive; a closed one is left.

    On a terminal they replace a progress bar that is still open, and the ^C of the keyboard.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        try:
            descriptor = sys.stderr.fileno()
        except OSError:  # a stream of Python's, of a test for one
            sys.stderr.write(text)
            return
        start = ""
        if text and os.isatty(descriptor):
            start = "\n" if os.environ.get("TERM", "dumb") == "dumb" else "\r\x1b[K"
        os.write(descriptor, f"{start}{text}".encode(errors="backslashreplace"))


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
