"""Signals that ask trainings to stop, at random moments, start-up and first evaluation included."""

import random
import signal
from collections.abc import Sequence
from pathlib import Path

from maml_cli.dev.soak.processes import STOPS, Outcome, Sending, maml
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.targets import STARTUP_SECONDS, Target, finish, is_fresh, make_targets
from maml_cli.dev.soak.trained import fingerprint, remove

TRAININGS = 100
TWICE_EVERY = 3
"""Every so many trainings get two signals."""
SECONDS_BETWEEN = 0.3
"""Largest time between two signals."""
SECONDS_TO_END = 5.0
"""Time limit from the first signal to the end: a training takes a tenth, alone on its core."""
RUN = "run"


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Send SIGINT, SIGTERM or SIGHUP to trainings, some two in quick succession, and resume them to the end.

    Each ends in time with the exit code of its signal, without a traceback, and the resumed run has the bytes of an
    undisturbed one. A training that has begun saves; before that, and once it is complete, a signal may end it by its
    default action. Moments are uniform over the duration; a training that ends before them is repeated, as no try.
    """
    tally, stream = Tally("SIGINT, SIGTERM and SIGHUP to trainings"), random.Random(0)
    targets = make_targets(scratch, scale=scale, options=["--out", RUN])
    count, number = scaled(TRAININGS, scale), 0
    while tally.tries < count:
        engine, target = [*targets.items()][number % len(targets)]
        fresh = is_fresh(number, scale=scale)
        signals = _random_signals(stream, target.seconds + (STARTUP_SECONDS if fresh else 0), number)
        folder = scratch / f"run-{number}"
        folder.mkdir()
        outcome = maml(target.arguments, folder, fresh=fresh, signals=signals)
        if outcome.seconds > signals[0].seconds:
            tally.tries += 1
            sent = ", ".join(f"{sending.number.name} after {sending.seconds:.3f} s" for sending in signals)
            line = f"{engine}{', fresh' * fresh}, {sent}"
            check_stop(tally, outcome, signals, target, folder, line)
            finish(tally, target, folder, line)
        remove(folder)
        number += 1
    return tally.row()


def check_stop(
    tally: Tally, outcome: Outcome, signals: Sequence[Sending], target: Target, folder: Path, line: str
) -> None:
    """Count a training in `folder` that did not end as it should after `signals`; mutates the tally."""
    if outcome.code == -signal.SIGINT and "maml_cli" not in outcome.err:
        return  # Python itself was starting, and had not imported the program
    numbers = [sending.number for sending in signals]
    if not tally.check_end(outcome, {0, *(128 + number for number in numbers), *(-number for number in numbers)}, line):
        return
    seconds = outcome.seconds - signals[0].seconds
    has_begun, is_complete = (folder / RUN).exists(), fingerprint(folder / RUN) == target.expected
    is_silent = not outcome.err.strip() or (outcome.code < 0 and "checkpoint saved" not in outcome.err)
    if seconds > SECONDS_TO_END:
        tally.fail("tracebacks", f"{line}: ended {seconds:.1f} s after the first signal")
    elif outcome.code == 0 and not is_complete:
        tally.fail("losses", f"{line}: exit code 0 although the run is not complete")
    elif is_silent and has_begun and not is_complete:
        tally.fail("losses", f"{line}: ended by the signal, without saving")


def _random_signals(stream: random.Random, duration: float, number: int) -> list[Sending]:
    """One signal within `duration`, or two for every so many trainings."""
    first = stream.uniform(0, duration)
    moments = [first, first + stream.uniform(0, SECONDS_BETWEEN)]
    return [Sending(moment, stream.choice(STOPS)) for moment in moments[: 1 + (number % TWICE_EVERY == 0)]]
