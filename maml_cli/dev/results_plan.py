"""The plan of the published results: each preset to train, its goals, and the errors that others published."""

from collections.abc import Iterator
from typing import NamedTuple

SEEDS = (0, 1, 2)


class Goal(NamedTuple):
    """A bound on the mean squared error on the grid.

    shots: K, the support points of a test task.
    step: the inner step after which the error is measured.
    bound: the largest error that meets the goal.
    published: the errors that others published, with their source.
    """

    shots: int
    step: int
    bound: float
    published: str = ""


class ResultRow(NamedTuple):
    """A row of the results: one config, trained with each of its seeds.

    name: unique among the rows; run directories are named after it.
    preset, overrides: the config.
    title: the method, as the tables name it.
    shots: each K of the evaluation.
    steps: inner steps whose errors the tables show, the trained number first.
    seeds: of the trainings.
    label: the group of goals, `G1` to `G4`, or empty.
    goals: bounds on the mean over seeds, one for each K and inner step.
    published: the errors that others published for this method at this K.
    """

    name: str
    preset: str
    title: str
    shots: tuple[int, ...]
    steps: tuple[int, ...]
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    label: str = ""
    goals: tuple[Goal, ...] = ()
    published: str = ""


def results_plan() -> list[ResultRow]:
    """The rows in the order of the tables: goals, each method at K = 5 and K = 10, wider networks, the quickstart."""
    wide = [
        ResultRow(f"wide-{shots}shot", f"wide-{shots}shot", "1-64-64-1 with sines", (shots,), (5,), seeds=SEEDS)
        for shots in (5, 10)
    ]
    return [
        *_goals(),
        *_methods(),
        *wide,
        ResultRow("quickstart", "quickstart", "MAML, the quickstart", (10,), (1, 10)),
    ]


def _goals() -> Iterator[ResultRow]:
    finn_goals = (
        Goal(5, 1, 0.70, "0.67 (Finn et al. 2017), 0.661 (clvrai/MAML-tf)"),
        Goal(5, 10, 0.35, "0.35 (Finn et al. 2017), 0.271 (clvrai/MAML-tf)"),
        Goal(10, 1, 0.45, "0.451 (clvrai/MAML-tf)"),
        Goal(10, 10, 0.20, "0.190 (clvrai/MAML-tf)"),
    )
    for name, title, label in (
        ("finn-10shot", "MAML", "G1"),
        ("finn-10shot-noise", "MAML with noise on the weights", "G1, noise"),
    ):
        yield ResultRow(name, name, title, (5, 10), (1, 5, 10), seeds=SEEDS, label=label, goals=finn_goals)
    one_step = {5: "0.41 ± .05 (Meta-Curvature)", 10: "0.20 ± .02 (Meta-Curvature), 0.19 ± .02 (CAVIA)"}
    five_steps = {5: "0.38 (MAML, Finn et al. 2017), 0.302 (clvrai/MAML-tf)", 10: "0.202 (clvrai/MAML-tf)"}
    frequency = {5: "0.16 ± .04 (GAP, 2023)", 10: "0.04 ± .01 (GAP, 2023)"}
    bounds = {5: (0.34, 0.008, 0.08), 10: (0.18, 0.0015, 0.015)}
    for shots, (g2, g3, g4) in bounds.items():
        for label, kind, goal in (
            ("G2", "best-1step", Goal(shots, 1, g2, one_step[shots])),
            ("G3", "best", Goal(shots, 5, g3, five_steps[shots])),
            ("G4", "best-frequency", Goal(shots, 5, g4, frequency[shots])),
        ):
            name = f"{kind}-{shots}shot"
            steps = (5, 10) if label == "G3" else (goal.step,)
            yield ResultRow(name, name, name, (shots,), steps, seeds=SEEDS, label=label, goals=(goal,))


def _methods() -> Iterator[ResultRow]:
    methods: list[tuple[str, str, tuple[int, ...], tuple[str, ...]]] = [
        ("finn", "MAML", (1, 5, 10), ()),
        ("fomaml", "FOMAML", (1, 10), ()),
        ("annealed", "derivative-order annealing", (5, 10), ()),
        ("anil", "ANIL", (1, 10), ()),
        ("boil", "BOIL", (1, 10), ()),
        ("cavia", "CAVIA", (1, 10), ()),
        ("bias-input", "MAML with a bias input", (1, 10), ()),
        ("meta-sgd", "Meta-SGD", (1,), ()),
        ("lslr", "LSLR", (5,), ()),
        ("alpha-per-step", "alpha per parameter and step", (5,), ()),
        ("multi-step", "multi-step loss", (5, 10), ()),
        ("maml-plus-plus", "MAML++", (5,), ()),
        ("meta-curvature", "Meta-Curvature", (1, 10), ()),
        ("momentum", "momentum in the inner loop", (5, 10), ()),
        ("reptile", "Reptile", (5, 32), ("tasks.num_query=20",)),
        ("imaml", "implicit MAML", (16,), ()),
        ("joint", "joint training", (0, 10), ()),
        ("oracle", "oracle network", (0,), ()),
    ]
    published = {("cavia", 10): "0.19 ± .02", ("meta-sgd", 5): "0.48 ± .06", ("meta-sgd", 10): "0.26 ± .03"}
    published |= {("meta-curvature", 5): "0.41 ± .05", ("meta-curvature", 10): "0.20 ± .02"}
    for name, title, steps, overrides_at_5 in methods:
        for shots in (5, 10):
            if (name, shots) == ("finn", 10):
                continue  # among the goals
            preset = "finn-5shot" if name == "finn" else f"{name}-10shot"
            overrides = (f"tasks.num_support={shots}", *overrides_at_5) if shots == 5 and name != "finn" else ()
            row = ResultRow(f"{name}-{shots}shot", preset, title, (shots,), steps, overrides)
            yield row._replace(published=published.get((name, shots), ""))
