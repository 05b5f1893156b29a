"""The options and arguments that commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from maml_cli.config import presets

Device = Literal["auto", "cpu", "cuda", "mps"]


def complete_preset(incomplete: str) -> list[str]:
    """The presets whose names begin like that."""
    return [name for name in presets.names() if name.startswith(incomplete)]


ConfigOpt = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE|PRESET",
        help="A YAML file, or the name of a preset (see `maml presets`); by default: quickstart.",
        autocompletion=complete_preset,
        show_default=False,
    ),
]
RunOpt = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="The run directory; by default a new one, outputs/NAME, NAME-2, ..."),
]
ResumeOpt = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|auto",
        help="Go on with a run; auto: with the newest unfinished run of this config, if there is one.",
    ),
]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Replace one key of the config; may be repeated."),
]
TaskSetOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Other tasks than the trained ones (tasks.KEY), or what follows the last alpha of its own "
        "(inner.alpha.after_last_step); may be repeated.",
    ),
]
CheckpointOpt = Annotated[
    Path,
    typer.Option("--checkpoint", metavar="RUN|FILE", help="A run directory (its newest checkpoint) or one .pt file."),
]
RunsArg = Annotated[
    list[Path],
    typer.Argument(metavar="RUN RUN...", help="Run directories or checkpoint files, the first to compare with."),
]
ShotsOpt = Annotated[str | None, typer.Option(metavar="K,K,...", help="Support points, several K one after the other.")]
DeviceOpt = Annotated[
    Device | None,
    typer.Option(help="Where to compute; auto takes an accelerator for work that gains from one."),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout.")]
TasksOpt = Annotated[int, typer.Option("--tasks", min=2, max=1_000_000, help="Number of test tasks.")]
StepsOpt = Annotated[
    int | None, typer.Option(min=0, max=100_000, help="Inner steps to adapt; may exceed the trained number.")
]
SeedOpt = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the bank of test tasks.")]
PresetArg = Annotated[str, typer.Argument(help="The name of a preset.", autocompletion=complete_preset)]
SourceArg = Annotated[
    str,
    typer.Argument(metavar="FILE|PRESET", help="A YAML file or a preset.", autocompletion=complete_preset),
]
