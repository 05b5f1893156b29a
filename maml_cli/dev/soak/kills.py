"""kill -9 of trainings at random moments, start-up and first evaluation included."""

import random
import signal
from pathlib import Path

from maml_cli.dev.soak.processes import Sending, maml
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.targets import STARTUP_SECONDS, finish, is_fresh, make_targets
from maml_cli.dev.soak.trained import remove

KILLS = 300
KILLS_OF_A_RUN = 3


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Kill trainings, each some times in a row, and resume them to the end: bytes as if undisturbed.

    A training is started by `--resume auto` each time, as a scheduler would. Moments are uniform over its duration; one
    that ends before its kill is no try.
    """
    tally, moments = Tally("kill -9 of trainings"), random.Random(0)
    targets = make_targets(scratch, scale=scale)
    count, number = scaled(KILLS, scale), 0
    while tally.tries < count:
        engine, target = [*targets.items()][number % len(targets)]
        fresh = is_fresh(number, scale=scale)
        folder = scratch / f"run-{number}"
        folder.mkdir()
        delays: list[float] = []
        while len(delays) < KILLS_OF_A_RUN:
            delay = moments.uniform(0, target.seconds + (STARTUP_SECONDS if fresh else 0))
            outcome = maml(target.arguments, folder, fresh=fresh, signals=[Sending(delay, signal.SIGKILL)])
            delays.append(round(delay, 4))
            if outcome.code == 0:
                break
            tally.tries += 1
            tally.check_end(outcome, {-9}, f"{engine}, killed after {delays} s")
        finish(tally, target, folder, f"{engine}, killed after {delays} s{', fresh' * fresh}")
        remove(folder)
        number += 1
    return tally.row()
