"""The plan of the published results: each config to train, its evaluations, its goals, and what others published."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from maml_cli.config import load_config
from maml_cli.dev.results_cases import Case, banks, gap, outside, transfer

SEEDS = (0, 1, 2, 3, 4)
ONE_SEED = (0,)
GOALS, METHODS, ABLATIONS, ENGINES, FIGURES = "goals", "methods", "ablations", "engines", "figures"
"""The groups of rows, each with tables of its own; rows of `figures` are in no table."""
MAML, LSTM = "maml", "lstm"
"""The learners that a row may train: one of this program, or the LSTM of `lstm_baseline`."""
ABLATED = "best-5shot"
"""The row that the ablations leave something out of."""


class Goal(NamedTuple):
    """A bound on the mean squared error.

    label: name of the goal, such as `G3`; several rows and several K may share it.
    shots: K, the support points of a test task.
    step: the inner step after which the error is measured.
    bound: the largest error that meets the goal.
    relative_to: an inner step; the bound is then a multiple of the error after it. None: the bound is an error.
    published: the errors that others published, with their source.
    lowest: the lowest of them by gradient steps on this network; None where there is none.
    """

    label: str
    shots: int
    step: int
    bound: float
    relative_to: int | None = None
    published: str = ""
    lowest: float | None = None


class ResultRow(NamedTuple):
    """A row of the results: one config, trained with each of its seeds.

    name: unique among the rows; run directories are named after it.
    preset, overrides: the config.
    shots: the K that it is trained with.
    steps: inner steps whose errors the tables show, the trained number first.
    cases: the evaluations of each of its runs.
    group: one of GOALS, METHODS, ABLATIONS, ENGINES and FIGURES.
    title: the method, the ablation or the engine, as the tables name it.
    seeds: of the trainings.
    goals: bounds on the mean over seeds.
    published: the errors that others published for this method at this K.
    num_committed: how many of its runs, those of the first seeds, are published with the results.
    learner: MAML or LSTM.
    """

    name: str
    preset: str
    shots: int
    steps: tuple[int, ...]
    cases: tuple[Case, ...]
    group: str
    title: str = ""
    overrides: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ONE_SEED
    goals: tuple[Goal, ...] = ()
    published: str = ""
    num_committed: int = 0
    learner: str = MAML


def results_plan() -> list[ResultRow]:
    """The rows in the order of the tables."""
    quickstart = ResultRow("quickstart", "quickstart", 10, (1, 10), banks(10)[:1], FIGURES)
    return [*_goals(), *_methods(), *_lstms(), *_ablations(), *_engines(), quickstart]


def _goals() -> Iterator[ResultRow]:
    yield from _as_published()
    one_step = {5: "0.41 ± .05 (Meta-Curvature)", 10: "0.20 ± .02 (Meta-Curvature), 0.19 ± .02 (CAVIA)"}
    five_steps = {5: "0.302 (clvrai/MAML-tf), 0.256 (Huisman et al. 2023)", 10: "0.202 (clvrai/MAML-tf)"}
    frequency = {5: "0.16 ± .04 (GAP, 2023)", 10: "0.04 ± .01 (GAP, 2023)"}
    head = {5: "0.0280 (LSTM, Huisman et al. 2023)", 10: "0.00757 (OP-LSTM, Huisman et al. 2023)"}
    lowest = {"G2": {5: 0.41, 10: 0.19}, "G3": {5: 0.256, 10: 0.190}, "G4g": {5: 0.16, 10: 0.04}}
    kinds = [
        ("G2", "best-1step", {5: 0.29, 10: 0.145}, one_step),
        ("G3", "best", {5: 0.004, 10: 0.0002}, five_steps),
        ("G4g", "best-frequency", {5: 0.06, 10: 0.006}, frequency),
        ("G6a", "ridge", {5: 0.0045, 10: 0.0005}, head),
        ("G6b", "ridge-body", {5: 0.0015, 10: 0.0001}, head),
        ("G4h", "ridge-frequency", {5: 0.04, 10: 0.002}, frequency),
    ]
    for label, kind, bounds, published in kinds:
        for shots, bound in bounds.items():
            name = f"{kind}-{shots}shot"
            step = load_config(name).config.trained_steps
            of_others = lowest.get(label, {}).get(shots)
            goals = [Goal(label, shots, step, bound, published=published[shots], lowest=of_others)]
            if label in ("G2", "G3", "G4g", "G4h", "G6b"):
                goals.append(Goal("G8", shots, 2 * step, 1.2, relative_to=step))
            cases = [*banks(shots), *gap(shots)] if "frequency" in kind else [*banks(shots)]
            if label in ("G3", "G6a", "G6b"):
                cases += [*transfer({5: (4, 6, 10, 20), 10: (5, 20)}[shots]), *outside(shots), *gap(shots)]
            yield _goal_row(name, shots, (step,), tuple(cases), goals)
    yield from _mixtures()


def _as_published() -> Iterator[ResultRow]:
    """MAML by the paper, one model at K = 5 and K = 10, with inner steps that are clipped and without."""
    published = {5: "0.35 (Finn et al. 2017), 0.271 (clvrai/MAML-tf)", 10: "0.190 (clvrai/MAML-tf)"}
    cases = (*banks(5), *banks(10))
    for name, label in (("finn-10shot-clip", "G1"), ("finn-10shot", "G1, no clip")):
        goals = [Goal(label, K, 10, {5: 0.35, 10: 0.15}[K], published=published[K]) for K in (5, 10)]
        row = _goal_row(name, 10, (1, 5, 10), (*cases, *outside(10)), goals)
        yield row._replace(title="MAML" if name == "finn-10shot" else "MAML, inner steps clipped")


def _mixtures() -> Iterator[ResultRow]:
    """MMAML's mixtures by its protocol: five support and five query points, errors on noisy targets of the latter."""
    bounds = {2: (0.34, 1.085), 3: (0.44, 1.231), 5: (0.87, 1.668)}
    for modes, (bound, of_maml) in bounds.items():
        cases = tuple(case._replace(points="query", noisy_targets=True) for case in banks(5))
        name = f"ridge-mixture-{modes}modes"
        step = load_config(name).config.trained_steps
        goal = Goal("G7", 5, step, bound, published=f"about {bound} (MMAML), {of_maml} (MAML) (Vuorio et al. 2019)")
        yield _goal_row(name, 5, (step,), cases, [goal])._replace(num_committed=1)


def _goal_row(
    name: str, shots: int, steps: tuple[int, ...], cases: tuple[Case, ...], goals: Sequence[Goal]
) -> ResultRow:
    return ResultRow(name, name, shots, steps, cases, GOALS, seeds=SEEDS, goals=tuple(goals), num_committed=len(SEEDS))


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
    noise = "finn-10shot-noise"
    yield _method(noise, noise, 10, "MAML, noise on the weights", (1, 5, 10))._replace(num_committed=1)
    for name, title, steps, overrides_at_5 in methods:
        for shots in (5, 10):
            if (name, shots) == ("finn", 10):
                continue  # among the goals
            preset = "finn-5shot" if name == "finn" else f"{name}-10shot"
            overrides = (f"tasks.num_support={shots}", *overrides_at_5) if shots == 5 and name != "finn" else ()
            row = _method(f"{name}-{shots}shot", preset, shots, title, steps, overrides)
            yield row._replace(published=published.get((name, shots), ""))
    for shots in (5, 10):
        yield _method(f"wide-{shots}shot", f"wide-{shots}shot", shots, "1-64-64-1 with sines", (5,))


def _lstms() -> Iterator[ResultRow]:
    """The tasks and the outer loop of the config; its network and its inner loop are of no use."""
    config = ("outer.steps=60000", "outer.lr=2e-3", "outer.schedule=cosine", "outer.clip_norm=1")
    for shots, published in ((5, "0.0280"), (10, "0.0084")):
        row = _method(f"lstm-{shots}shot", "finn-10shot", shots, "LSTM over the support set", (0,))
        overrides = (f"tasks.num_support={shots}", "tasks.num_query=20", *config)
        yield row._replace(overrides=overrides, cases=banks(shots), published=published, learner=LSTM)


def _method(
    name: str, preset: str, shots: int, title: str, steps: tuple[int, ...], overrides: tuple[str, ...] = ()
) -> ResultRow:
    return ResultRow(name, preset, shots, steps, banks(shots)[:1], METHODS, title, overrides)


def _ablations() -> Iterator[ResultRow]:
    """A row for each part of ABLATED that it is trained without."""
    no_clip = ("inner.clip_norm=null", "outer.clip_task_norm=null", "outer.clip_norm=null")
    without: dict[str, tuple[str, ...]] = {
        "stratified query points": ("tasks.query_sampling=uniform",),
        "inner clipping": ("inner.clip_norm=null",),
        "any clipping": no_clip,
        "curvature per inner step": ("inner.curvature_per_step=false",),
    }
    for title, overrides in without.items():
        name = f"ablation-{title.replace(' ', '-')}"
        yield ResultRow(name, ABLATED, 5, (5,), banks(5), ABLATIONS, f"without {title}", overrides)


def _engines() -> Iterator[ResultRow]:
    """One training by each engine, and in float64; a shorter one of ABLATED, since `reference` is slow."""
    kinds: dict[str, tuple[str, ...]] = {
        "reference": ("run.engine=reference",),
        "eager": ("run.engine=eager",),
        "default": (),
        "float64": ("run.dtype=float64",),
    }
    for preset, shots, step, shorter in (("finn-10shot", 10, 1, ()), (ABLATED, 5, 5, ("outer.steps=10000",))):
        for title, overrides in kinds.items():
            name = f"engine-{preset}-{title}"
            yield ResultRow(name, preset, shots, (step,), banks(shots), ENGINES, title, (*shorter, *overrides))
