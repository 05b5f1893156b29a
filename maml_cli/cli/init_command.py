"""The command `maml init`: a config to start from, of a preset or of the answers to five questions."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maml_cli.cli.completion import complete_preset
from maml_cli.cli.exit_codes import print_path
from maml_cli.cli.options import SetOpt
from maml_cli.cli.parameters import path
from maml_cli.errors import ConfigError, FileError

if TYPE_CHECKING:
    from maml_cli.config import Config

QUESTIONS = (
    ("tasks.family", "Family of functions: sine, line, quadratic, tanh, ... (maml config keys has all)"),
    ("tasks.num_support", "K, support points of a task"),
    ("inner.steps", "Inner steps"),
    ("inner.alpha.learned", "Is the step size alpha learned? (true, false)"),
    ("outer.steps", "Outer steps of the training"),
)
"""Key -> question; the default of an answer is that of the preset."""


def init(
    file: Annotated[Path, typer.Argument(parser=path, metavar="FILE", help="A new file.")] = Path("mine.yaml"),
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="PRESET",
            help="Start from this preset, and ask nothing.",
            autocompletion=complete_preset,
        ),
    ] = None,
    overrides: SetOpt = None,
) -> None:
    """Write a commented config to start from: of a preset, or of your answers to five questions.

    It has the keys that matter most, each with its meaning. Without --preset the questions are asked on a terminal;
    elsewhere, and for empty answers, the values are those of quickstart.

    [bold]Examples[/]

      maml init mine.yaml
      maml init mine.yaml --preset finn-10shot --set outer.lr=0.0005
    """
    from maml_cli.config import commented_yaml, load_config

    if file.exists():
        raise FileError(f"{file}: exists already; give a new file")
    loaded = load_config(preset or "quickstart", overrides or [])
    if preset is None and sys.stdin.isatty():
        loaded = load_config("quickstart", [*(overrides or []), *_answers(loaded.config)])
    text = commented_yaml(loaded.config, f"A config of maml, from the preset {preset or 'quickstart'}.")
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise FileError(f"{file}: cannot be written: {error.strerror}") from None
    typer.echo(f"next: maml train --config {file}", err=True)
    print_path(file)


def _answers(config: "Config") -> list[str]:
    """Overrides of the keys in QUESTIONS; after a wrong answer its reason is printed, and the question asked again."""
    from maml_cli.config import load_config, to_dict

    answers: list[str] = []
    for key, question in QUESTIONS:
        section, _, name = key.rpartition(".")
        values = to_dict(config)
        for section_name in section.split("."):
            values = values[section_name]
        default = json.dumps(values[name]).strip('"')
        while True:
            typer.echo(f"{question} [{default}]: ", nl=False, err=True)
            line = sys.stdin.readline()
            if not line:
                raise ConfigError("the answers ended before the last question; nothing was written")
            answer = f"{key}={line.strip() or default}"
            try:
                load_config("quickstart", [*answers, answer])
                break
            except ConfigError as error:
                typer.echo("\n".join(error.lines), err=True)
        answers.append(answer)
    return answers
