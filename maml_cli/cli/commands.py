"""The classes of commands and groups: typer's, whose errors name the command, and which refuse a path given twice."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from maml_cli.errors import ConfigError

ParseArgs = Callable[[typer.Context, list[str]], list[str]]


class Command(TyperCommand):
    """A command of maml."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left after options, as typer's; see `_parsed`."""
        return _parsed(self, super().parse_args, ctx, args)


class Group(TyperGroup):
    """A command of maml with subcommands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left after options, as typer's; see `_parsed`."""
        return _parsed(self, super().parse_args, ctx, args)


def _parsed(command: Any, parse: ParseArgs, context: Any, arguments: list[str]) -> list[str]:
    """The arguments that `parse` leaves; errors know the command whose help page explains them.

    Raises ConfigError for an option of one path that is given twice, of which typer would take the last: the other
    file would not be written. Of numbers and words the last counts, as scripts expect.
    """
    try:
        if arguments and not context.resilient_parsing:
            _, _, parameters = command.make_parser(context).parse_args(args=list(arguments))
            _check_repeated(parameters)
        return parse(context, arguments)
    except Exception as error:
        if getattr(error, "ctx", context) is None:
            error.ctx = context  # type: ignore[attr-defined]
        raise


def _check_repeated(parameters: Sequence[Any]) -> None:
    paths = [row for row in parameters if not row.multiple and row.type_descriptor.annotation is Path]
    for parameter in paths:
        if parameter.param_type_name == "option" and paths.count(parameter) > 1:
            raise ConfigError(f"{max(parameter.opts, key=len)}: given twice; give it once")
