"""Cases: the evaluations of a trained run that the published results show."""

from collections.abc import Iterable
from typing import NamedTuple

FIRST_BANK, SECOND_BANK = "first bank", "second bank"
TRANSFER, OUTSIDE, GAP = "other K", "outside the range", "GAP"
"""The kinds of cases."""
FIRST_SEED, SECOND_SEED = 0, 4711
"""Seeds of the test tasks: of the first bank, by which the learners were developed, and of one that was never used."""
NUM_FIRST, NUM_SECOND, NUM_GAP = 10_000, 100_000, 600


class Case(NamedTuple):
    """One evaluation of a trained run, after every inner step.

    name: unique among the cases of a row; its file is named after it.
    kind: FIRST_BANK, SECOND_BANK, TRANSFER, OUTSIDE or GAP.
    shots: K, the support points of a test task.
    title: what differs from the tasks of training, in words; empty for nothing.
    num_tasks, seed: of the test tasks.
    overrides: changes of the tasks, as of `maml eval --set`.
    points: the errors' points, `grid` or `query`: K random ones.
    noisy_targets: whether errors are measured against targets with noise.
    """

    name: str
    kind: str
    shots: int
    title: str = ""
    num_tasks: int = NUM_FIRST
    seed: int = FIRST_SEED
    overrides: tuple[str, ...] = ()
    points: str = "grid"
    noisy_targets: bool = False


def banks(shots: int) -> tuple[Case, Case]:
    """The two banks of test tasks at K = `shots`."""
    first = Case(f"first-bank-{shots}shot", FIRST_BANK, shots)
    second = first._replace(name=f"second-bank-{shots}shot", kind=SECOND_BANK, num_tasks=NUM_SECOND, seed=SECOND_SEED)
    return first, second


def transfer(other_shots: Iterable[int]) -> list[Case]:
    """Numbers of support points that the run was not trained with."""
    return [Case(f"{shots}shot", TRANSFER, shots, f"K = {shots}") for shots in other_shots]


def outside(shots: int) -> list[Case]:
    """Tasks of Finn's family outside the ranges of training, one range at a time."""
    changes = {
        "x": ("x to ±7, of support points too", "tasks.x=[-7,7]"),
        "test-x": ("x to ±7, support points within ±5", "tasks.test_x=[-7,7]"),
        "amplitude": ("amplitude 5 to 10", "tasks.amplitude=[5,10]"),
        "phase": ("phase π to 2π", "tasks.phase=[3.141592653589793,6.283185307179586]"),
    }
    return [
        Case(f"outside-{name}", OUTSIDE, shots, title, overrides=(override,))
        for name, (title, override) in changes.items()
    ]


def gap(shots: int) -> list[Case]:
    """The protocol of GAP (Kang et al. 2023): 600 tasks, errors on K random query points."""
    return [Case("gap", GAP, shots, num_tasks=NUM_GAP, points="query")]
