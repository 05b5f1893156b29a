"""The options and arguments that commands share, and the text of their help pages."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from maml_cli.cli.commands import Command
from maml_cli.cli.completion import complete_override, complete_preset, complete_resumed, complete_run, complete_words
from maml_cli.cli.parameters import WholeNumbers, one_of, path, whole_number, whole_numbers
from maml_cli.errors import ConfigError
from maml_cli.messages import print_message

Device = Literal["auto", "cpu", "cuda", "mps"]
DEVICES = ("auto", "cpu", "cuda", "mps")


def register(app: typer.Typer, function: Callable[..., None], *, name: str | None = None) -> None:
    """Register a function as a command of `app`, with its docstring as help page."""
    app.command(name, cls=Command, help=reflow(inspect.getdoc(function) or ""))(function)


def reflow(text: str) -> str:
    """The text with each paragraph on one line, which terminals of any width break; indented paragraphs unchanged."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(words if words.startswith(" ") else " ".join(words.split()) for words in paragraphs)


def run_path(text: str | Path) -> Path:
    """The path of a run; the word `latest` is that of the newest run in outputs/."""
    from maml_cli.runs import find_run

    path(text)
    return find_run(text)


def choose_run(run: Path | None, checkpoint: Path | None) -> Path:
    """The trained run that a command is about, given as an argument or by --checkpoint."""
    if run and checkpoint:
        raise ConfigError(f"RUN {run}, --checkpoint {checkpoint}: give one of the two")
    chosen = run or checkpoint
    if chosen is None:
        raise ConfigError(
            "RUN or --checkpoint: missing; give a run directory or a .pt file, such as outputs/quickstart, or latest"
        )
    return chosen


def choose_run_or_latest(run: Path | None, checkpoint: Path | None) -> Path:
    """As `choose_run`; the newest run in outputs/ where none is given, with a line on stderr that names it."""
    if run or checkpoint:
        return choose_run(run, checkpoint)
    latest = run_path("latest")
    print_message(f"{latest}: the newest run, as no RUN is given")
    return latest


ConfigOpt = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE|PRESET",
        help="A YAML file or the name of a preset (see `maml presets`); by default quickstart.",
        autocompletion=complete_preset,
        show_default=False,
    ),
]
RunDirOpt = Annotated[
    Path | None,
    typer.Option(
        "--out", parser=path, metavar="DIR", help="The run directory; by default a new one, outputs/NAME, NAME-2, ..."
    ),
]
ResumeOpt = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|latest|auto",
        help="Resume a run, with --set outer.steps=N to more outer steps; latest: the newest run in outputs; auto: the "
        "newest unfinished run with this config, else a new one.",
        autocompletion=complete_resumed,
    ),
]
InitOpt = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Start from the parameters of another run: a run directory, a .pt file, the name of a published "
        "run, or latest.",
        autocompletion=complete_run,
    ),
]
SetOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Replace one key of the config; may be repeated.",
        autocompletion=complete_override,
    ),
]
TaskSetOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Other tasks than the trained ones (tasks.KEY), a factor on every alpha (inner.alpha.scale), a limit on "
        "gradients (inner.clip_norm, inner.clip_value), momentum (inner.momentum), or other inner steps beyond the "
        "last per-step alpha (inner.alpha.after_last_step); may be repeated.",
        autocompletion=complete_override,
    ),
]
RunArg = Annotated[
    Path | None,
    typer.Argument(
        parser=run_path,
        metavar="RUN",
        help="A run directory (its newest checkpoint), a .pt file, the name of a published run, or latest, the newest "
        "run in outputs (latest:2, the one before it; ./latest is a path).",
        autocompletion=complete_run,
        show_default=False,
    ),
]
CheckpointOpt = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        parser=run_path,
        metavar="RUN",
        help="The same as the argument RUN.",
        autocompletion=complete_run,
    ),
]
RunsArg = Annotated[
    list[Path],
    typer.Argument(
        parser=run_path,
        metavar="RUN RUN...",
        help="Run directories, .pt files, published runs or latest; all are compared with the first.",
        autocompletion=complete_run,
    ),
]
AnyFamilyOpt = Annotated[
    bool, typer.Option("--any-family", help="Compare runs of different task families, on the tasks of the first.")
]
ShotsOpt = Annotated[
    WholeNumbers | None,
    typer.Option(
        "--shots",
        parser=whole_numbers(1, 100_000),
        metavar="K,K,...",
        help="Support points, one evaluation for each K; by default as trained, of a range its two ends.",
    ),
]
OneShotOpt = Annotated[
    int | None,
    typer.Option(
        "--shots",
        parser=whole_number(1, 100_000),
        metavar="K",
        help="Support points; by default as trained, of a range its largest.",
    ),
]
ShowStepsOpt = Annotated[
    WholeNumbers | None,
    typer.Option(
        "--show-steps",
        parser=whole_numbers(0, 100_000),
        metavar="N,N,...",
        help="Inner steps that fit and tail show; by default 0, the first, the trained and, of fit, the last.",
    ),
]
FiguresOpt = Annotated[
    Path | None,
    typer.Option("--out", parser=path, metavar="DIR", help="Directory of the files; by default plots/ of the run."),
]
DeviceOpt = Annotated[
    Device | None,
    typer.Option(
        "--device",
        parser=one_of(DEVICES, key="run.device"),
        autocompletion=complete_words(DEVICES),
        metavar="DEVICE",
        help="auto, cpu, cuda or mps; auto takes an accelerator for work that gains from one.",
    ),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout.")]
TasksOpt = Annotated[
    int, typer.Option("--tasks", parser=whole_number(2, 1_000_000), metavar="N", help="Number of test tasks, from 2.")
]
StepsOpt = Annotated[
    int | None,
    typer.Option(
        "--steps",
        parser=whole_number(0, 100_000),
        metavar="N",
        help="Inner steps to adapt; may exceed the trained number.",
    ),
]
SeedOpt = Annotated[
    int,
    typer.Option("--seed", parser=whole_number(0), metavar="N", help="Seed of the test tasks, a whole number from 0."),
]
PresetArg = Annotated[str, typer.Argument(metavar="NAME", help="The name of a preset.", autocompletion=complete_preset)]
SourceArg = Annotated[
    str,
    typer.Argument(metavar="FILE|PRESET", help="A YAML file or a preset.", autocompletion=complete_preset),
]
