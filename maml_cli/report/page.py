"""The HTML page of a report: tables, figures, config and playground of trained runs, in one file without requests."""

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from maml_cli import __version__
from maml_cli.config import Config, leaves, plain_yaml, to_dict, value_text
from maml_cli.errors import ConfigError, printable
from maml_cli.evaluation import OnTasks, Protocol, TrainedRun, compare_runs, evaluate_run, ignore_tasks, measure_of
from maml_cli.report.inline_svg import inline_svg
from maml_cli.report.learner_document import learner_document
from maml_cli.report.playground_tasks import playground_tasks
from maml_cli.reporting import (
    PlainTable,
    TitledTable,
    comparison_notes,
    comparison_tables,
    draw,
    drawable,
    evaluation_tables,
    plain_table,
    table_notes,
    tasks_note,
)
from maml_cli.runs import RunOverview, make_folder, read_overview, target_of, write_atomic
from maml_cli.runtime import machine_info
from maml_cli.training import learner_summary

SOURCES = Path(__file__).parent
MAX_BYTES = 2_000_000
"""Largest size of a page."""
PRIVATE = ("executable", "compiler")
"""Facts about the machine with paths in them, which a page that is passed on does not tell."""
FIGURE_TEXTS = {
    "fit": "Fits to test tasks: the truth, the support points, and the network before and after adapting",
    "steps": "Error against inner steps, with baselines",
    "curve": "Training: losses and validation errors over outer steps",
    "alpha": "Step sizes of the inner loop over outer steps",
}
"""Kind of figure -> its caption, in the order of the page."""


class PageTable(NamedTuple):
    """A table of a page with the lines of text above and below it."""

    heading: Sequence[str]
    table: PlainTable
    notes: Sequence[str]


class Section(NamedTuple):
    """The section of a page about one run.

    name: of the run.
    title: the run, and the outer step of its checkpoint.
    summary: pairs of a word and a line about the training.
    tables: errors and their distribution.
    notes: lines about the signs in the tables.
    figures: pairs of a caption and an SVG.
    config: key, value and its origin.
    yaml: the config as a file.
    commands: lines of a shell that repeat training and evaluation.
    warnings: about the files of the run.
    """

    name: str
    title: str
    summary: Sequence[tuple[str, str]]
    tables: Sequence[PageTable]
    notes: Sequence[str]
    figures: Sequence[tuple[str, Markup]]
    config: Sequence[tuple[str, str, str]]
    yaml: str
    commands: Sequence[str]
    warnings: Sequence[str]


def write_report(
    runs: Sequence[TrainedRun], protocol: Protocol, file: Path, *, on_tasks: OnTasks = ignore_tasks
) -> None:
    """Write the page about `runs` to `file`; `on_tasks` is called after each chunk of tasks of an evaluation.

    Raises OSError if it cannot be written, and ConfigError if the page would be larger than MAX_BYTES.
    """
    page = report_page(runs, protocol, on_tasks=on_tasks)
    content = page.encode()
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"the report of {len(runs)} runs would have {len(content) / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:g}; "
            f"give fewer runs"
        )
    make_folder(file.parent)
    write_atomic(target_of(file), content)


def report_page(runs: Sequence[TrainedRun], protocol: Protocol, *, on_tasks: OnTasks = ignore_tasks) -> str:
    """The page about `runs` as text."""
    names = unique_names([run.name for run in runs])
    sections = [
        _section(run, name, index, protocol, on_tasks)
        for index, (run, name) in enumerate(zip(runs, names, strict=True))
    ]
    learners = [learner_document(run) | {"name": name} for run, name in zip(runs, names, strict=True)]
    environment = Environment(loader=FileSystemLoader(SOURCES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html").render(
        title=", ".join(names),
        version=__version__,
        sections=sections,
        comparison=_comparison(runs, protocol, on_tasks) if len(runs) > 1 else None,
        differences=_differences(runs, names),
        data={"learners": learners, "playground": playground_tasks(runs[0], measure=measure_of(runs))},
        machine={name: value for name, value in machine_info().items() if name not in PRIVATE},
        style=_source("page.css"),
        scripts=[_source("matrices.js"), _source("learner.js"), _source("playground.js")],
    )


def unique_names(names: Sequence[str]) -> list[str]:
    """Names that tell runs apart: the last of the path where it is enough, else the path, else with a number.

    >>> unique_names(["outputs/a", "outputs/b"]), unique_names(["x/a", "y/a"]), unique_names(["a", "a"])
    (['a', 'b'], ['x/a', 'y/a'], ['a', 'a (2)'])
    """
    short = [Path(name).name or name for name in names]
    chosen = short if len(set(short)) == len(set(names)) else [*names]
    return [
        printable(name) if chosen[:index].count(name) == 0 else f"{printable(name)} ({chosen[:index].count(name) + 1})"
        for index, name in enumerate(chosen)
    ]


def _source(name: str) -> Markup:
    return Markup((SOURCES / name).read_text(encoding="utf-8"))


def _section(run: TrainedRun, name: str, index: int, protocol: Protocol, on_tasks: OnTasks) -> Section:
    result = evaluate_run(run, protocol, on_tasks=on_tasks).results
    with tempfile.TemporaryDirectory() as directory:
        kinds = [kind for kind in drawn_kinds(run) if kind in drawable(run)]
        shown = result[-1]  # of the largest K
        one_shot = protocol._replace(shots=(shown.shots,))
        files = draw(run, one_shot, kinds=kinds, file_format="svg", out=Path(directory), evaluation=shown)
        svgs = [inline_svg(file.read_text(encoding="utf-8"), prefix=f"run{index}-{file.stem}-") for file in files]
    config = run.checkpoint.config
    overview = read_overview(run.checkpoint.run) if run.checkpoint.run else None
    return Section(
        name=name,
        title=printable(run.title),
        summary=_facts(run.config, overview),
        tables=[_page_table(table) for evaluation in result for table in evaluation_tables(evaluation, run.measure)],
        notes=[*table_notes(result), tasks_note(shown.num_tasks, protocol)],
        figures=[(FIGURE_TEXTS[kind], svg) for kind, svg in zip(kinds, svgs, strict=True)],
        config=config_rows(config, overview),
        yaml=plain_yaml(to_dict(config), flow=None, width=100),
        commands=_commands(run, name, protocol),
        warnings=[*map(printable, run.checkpoint.warnings)],
    )


def drawn_kinds(run: TrainedRun) -> list[str]:
    """The kinds of figures of a run, in the order of the page; an alpha that is fixed needs none."""
    return [kind for kind in FIGURE_TEXTS if kind != "alpha" or run.config.inner.alpha.learned]


def _page_table(titled: TitledTable) -> PageTable:
    return PageTable(titled.heading, plain_table(titled.table), titled.notes)


def _comparison(runs: Sequence[TrainedRun], protocol: Protocol, on_tasks: OnTasks) -> tuple[list[PageTable], list[str]]:
    """Tables of the runs on the same test tasks, and notes; the reason instead where they cannot be compared."""
    try:
        comparisons = compare_runs(runs, protocol, on_tasks=on_tasks)
    except ConfigError as error:
        return [], [f"Not on the same test tasks: {error}"]
    return [_page_table(table) for table in comparison_tables(comparisons)], comparison_notes(comparisons)


def config_rows(config: Config, overview: RunOverview | None) -> list[tuple[str, str, str]]:
    """Each key of `config`, its value as YAML, and its origin: the default, the preset, or a change from both."""
    defaults = dict(leaves(to_dict(Config())))
    return [
        (name, value_text(value), _origin(name, overview) if defaults.get(key, defaults) != value else "default")
        for key, value in leaves(to_dict(config))
        for name in [".".join(map(str, key))]
    ]


def _origin(name: str, overview: RunOverview | None) -> str:
    """The origin of a value that is not the default."""
    is_of_preset = overview and overview.preset and name not in overview.changes
    return f"preset {overview.preset}" if overview and is_of_preset else "changed"


def _facts(config: Config, overview: RunOverview | None) -> list[tuple[str, str]]:
    """Pairs of a word and a line about a training: its preset and engine, and the lines of its summary."""
    facts = []
    if overview is not None:
        changes = ", ".join(f"{key}={value_text(value)}" for key, value in overview.changes.items())
        facts.append(("preset", f"{overview.preset or 'none'}{f', changed: {changes}' if changes else ''}"))
    facts += [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in learner_summary(config)]
    if overview is None:
        return facts
    versions = f", by {overview.versions}" if overview.versions else ""
    return [*facts, ("engine", f"{overview.engine}{versions}")]


def _differences(runs: Sequence[TrainedRun], names: Sequence[str]) -> PlainTable | None:
    """The keys in which the configs of several runs differ, with the value of each run; None without any."""
    configs = [{key: value for key, value, _ in config_rows(run.checkpoint.config, None)} for run in runs]
    keys = [key for key in dict.fromkeys(key for config in configs for key in config)]
    rows = [[key, *(config.get(key, "") for config in configs)] for key in keys]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return PlainTable(["key", *names], [differing]) if differing else None


def _commands(run: TrainedRun, name: str, protocol: Protocol) -> list[str]:
    tasks = "" if protocol.num_tasks == Protocol().num_tasks else f" --tasks {protocol.num_tasks}"
    again, config = shlex.quote(f"outputs/{name}-again"), shlex.quote(f"{name}.yaml")
    return [
        f"maml train --config {config} --out {again}",
        f"maml eval --checkpoint {again}{tasks}",
        f"maml plot --checkpoint {again}{tasks}",
        f"maml compare {shlex.quote(run.checkpoint.label)} {again}{tasks}",
    ]
