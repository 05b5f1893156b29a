"""Counts of an attack while it runs."""

import time
from dataclasses import dataclass, field
from typing import Literal

from maml_cli.dev.soak.processes import Outcome
from maml_cli.dev.soak.row import SoakRow

MAX_FAILURES = 20
"""Failed attempts that are stored with a line each; the others are only counted."""

Fault = Literal["losses", "tracebacks", "changed"]


@dataclass
class Tally:
    """The counts of an attack, which become its row of the table.

    attack: the attack as a phrase for the table.
    tries: attempts so far.
    losses, tracebacks, changed, failures: as in `SoakRow`.
    started: the clock at the start of the attack, in seconds.
    """

    attack: str
    tries: int = 0
    losses: int = 0
    tracebacks: int = 0
    changed: int = 0
    failures: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def fail(self, fault: Fault, line: str) -> None:
        """Count a failed attempt; `line` is enough to repeat it. Mutates the tally."""
        setattr(self, fault, getattr(self, fault) + 1)
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(f"{fault}: {line}")

    def check_end(self, outcome: Outcome, allowed: set[int], line: str) -> bool:
        """Whether a process ended with one of the `allowed` exit codes and printed no traceback; else count it."""
        if outcome.code in allowed and "Traceback" not in outcome.err and "Warning" not in outcome.err:
            return True
        last = (outcome.err.strip().splitlines() or [""])[-1][:200]
        self.fail("tracebacks", f"{line}: exit code {outcome.code} after {outcome.seconds:.1f} s: {last}")
        return False

    def row(self) -> SoakRow:
        """The row of the table, with the seconds since the start of the attack."""
        seconds = time.perf_counter() - self.started
        return SoakRow(
            self.attack, self.tries, self.losses, self.tracebacks, self.changed, round(seconds, 1), self.failures
        )


def scaled(count: int, scale: float) -> int:
    """The number of attempts of an attack that has `count` in its full form; at least one."""
    return max(1, round(count * scale))
