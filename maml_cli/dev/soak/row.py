"""The result of one attack, a row of the soak table."""

from typing import NamedTuple


class SoakRow(NamedTuple):
    """The result of one attack.

    attack: what was done, as a phrase for the table.
    tries: number of attempts.
    losses: attempts after which a run could not be resumed or data was missing.
    tracebacks: attempts that ended in a traceback, a crash of the process, or a time limit.
    changed: attempts after which a value differed from that of an undisturbed run, or damage was not noticed.
    seconds: duration of all attempts.
    failures: one line for each of the first failed attempts: enough to repeat it.
    """

    attack: str
    tries: int
    losses: int
    tracebacks: int
    changed: int
    seconds: float
    failures: list[str]
