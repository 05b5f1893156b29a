"""The class of all commands and that of groups: typer's, stricter about options, with completions of their words."""

from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from maml_cli.errors import ConfigError

ParseArgs = Callable[[typer.Context, list[str]], list[str]]


class Command(TyperCommand):
    """A command of maml; see `_parsed`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return _parsed(self, super().parse_args, ctx, args)


class Group(TyperGroup):
    """A command of maml with subcommands; see `_parsed`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return _parsed(self, super().parse_args, ctx, args)


def _parsed(command: Any, parse: ParseArgs, context: Any, arguments: list[str]) -> list[str]:
    """The arguments that `parse` leaves; errors know the command whose help page explains them.

    Raises ConfigError for an option with one value that is given twice, of which typer would take the last.
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
    once = [row for row in parameters if row.param_type_name == "option" and not (row.multiple or row.is_flag)]
    for parameter in once:
        if once.count(parameter) > 1:
            raise ConfigError(f"{max(parameter.opts, key=len)}: given twice; give it once")
