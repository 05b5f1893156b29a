"""The command `maml init`: a config to start from, of a preset or of the answers to five questions."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maml_cli.cli.completion import complete_preset
from maml_cli.cli.exit_codes import print_path
from maml_cli.cli.options import SetOpt
from maml_cli.cli.parameters import path
from maml_cli.errors import ConfigError
from maml_cli.messages import print_message, quoted

if TYPE_CHECKING:
    from maml_cli.config import Config

QUESTIONS = (
    (
        "tasks.family",
        "Family of functions: sine, line, tanh, ..., or data for curves of your own (maml config keys has all)",
    ),
    ("tasks.num_support", "K, support points of a task"),
    ("inner.steps", "Inner steps"),
    ("inner.alpha.learned", "Is the step size alpha learned? (true, false)"),
    ("outer.steps", "Outer steps of the training"),
)
"""Key -> question; the default of an answer is that of the preset."""
TABLE_QUESTION = (
    "Table of your curves, a row for each point with the columns task, x and y (tasks.data has other names)"
)
EXAMPLES = {"tasks.family=mixture": "; start from an example instead: maml presets copy mmaml-2modes FILE"}
"""Answer that needs more than a line -> advice after its problem."""


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
    from maml_cli.config import commented_yaml, load_config, presets

    presets.check_new(file)
    loaded = load_config(preset or "quickstart", overrides or [])
    if preset is None and sys.stdin.isatty():
        loaded = load_config("quickstart", [*(overrides or []), *_answers(loaded.config)])
    text = commented_yaml(loaded.config, f"A config of maml, from the preset {preset or 'quickstart'}.")
    presets.write_new(file, text)
    print_message(f"next: maml train --config {quoted(file)}")
    print_path(file)


def _answers(config: "Config") -> list[str]:
    """Overrides of the keys in QUESTIONS, in their order."""
    answers: list[str] = []
    for key, question in QUESTIONS:
        answers += _answer(config, key, question, answers)
    return answers


def _answer(config: "Config", key: str, question: str, before: Sequence[str]) -> list[str]:
    """The override of `key` after those `before` it, and of the table of curves where it needs one; after a wrong
    answer its reason is printed, and the question asked again."""
    from maml_cli.config import override, to_dict
    from maml_cli.config.fields import value_at

    default = json.dumps(value_at(to_dict(config), key)).strip('"')
    while True:
        word = _line(f"{question} [{default}]") or default
        given = [f"{key}={word}"]
        if given == ["tasks.family=data"]:
            table = _line(TABLE_QUESTION)
            given.append(f"tasks.file={json.dumps(table)}")
            if not Path(table).is_file():
                print_message(f"{table}: no such file; maml presets copy own-curves has an example")
                continue
        try:
            override(config, [*before, *given], label="config", option="")
        except ConfigError as error:
            example = EXAMPLES.get(given[0], "")
            for line in error.lines:
                print_message(line.partition(f"{word}: ")[2] or line.strip().removeprefix("config: ") + example)
        else:
            return given


def _line(question: str) -> str:
    """The answer to a question on the terminal, without spaces around it; raises ConfigError at the end of input."""
    typer.echo(f"{question}: ", nl=False, err=True)
    line = sys.stdin.readline()
    if not line:
        raise ConfigError("the answers ended before the last question; nothing was written")
    return line.strip()
