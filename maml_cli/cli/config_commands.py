"""The commands about configs: `maml presets` and `maml config`."""

from pathlib import Path
from typing import Annotated

import typer

from maml_cli.cli.exit_codes import print_path
from maml_cli.cli.options import PresetArg, SetOpt, SourceArg, register
from maml_cli.cli.parameters import path
from maml_cli.errors import printable
from maml_cli.messages import wrapped

presets_app = typer.Typer(help="List, print or copy the configs that come with maml.")
config_app = typer.Typer(help="Check a config, or show it with every default filled in.", no_args_is_help=True)


@presets_app.callback(invoke_without_command=True)
def _presets(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        presets_list()


def presets_list() -> None:
    """List the presets, one per line; on a terminal, long summaries go on below themselves."""
    from maml_cli.config import presets

    indent = max(len(name) for name in presets.names()) + 2
    for name in presets.names():
        typer.echo(wrapped(f"{name:{indent}}{presets.summary(name)}"))


def presets_show(name: PresetArg) -> None:
    """Print the YAML of a preset."""
    from maml_cli.config import presets

    typer.echo(presets.path(name).read_text(encoding="utf-8"), nl=False)


def presets_copy(
    name: PresetArg,
    file: Annotated[Path, typer.Argument(parser=path, metavar="FILE", help="A new file.")],
) -> None:
    """Copy a preset to FILE, to start a config of your own from it."""
    from maml_cli.config import presets

    presets.copy(name, file)
    print_path(file)


def config_check(source: SourceArg, overrides: SetOpt = None) -> None:
    """Check a config; if it is not valid, print every problem and its line.

    Exits with 2 if there are problems.

    [bold]Example[/]

      maml config check mine.yaml
    """
    from maml_cli.config import load_config

    load_config(source, overrides or [])
    typer.echo(f"{printable(source)}: valid")


def config_show(source: SourceArg, overrides: SetOpt = None) -> None:
    """Print a config with every default filled in.

    Each value has a comment with its origin: a line of the file, --set, or the default.

    [bold]Example[/]

      maml config show quickstart --set inner.steps=5
    """
    from maml_cli.config import annotated_yaml, load_config

    typer.echo(annotated_yaml(load_config(source, overrides or [])), nl=False)


def config_schema() -> None:
    """Print the JSON schema of a config, by which editors complete and check it.

    The first line of a preset names the schema for editors with the YAML language server; `maml presets copy` and
    `maml init` write its path into yours.
    """
    from maml_cli.config import json_schema_text

    typer.echo(json_schema_text(), nl=False)


def config_keys() -> None:
    """Print every key of a config with its default and meaning, as a Markdown table."""
    from maml_cli.config import key_table_markdown

    typer.echo(key_table_markdown(), nl=False)


register(presets_app, presets_list, name="list")
register(presets_app, presets_show, name="show")
register(presets_app, presets_copy, name="copy")
register(config_app, config_check, name="check")
register(config_app, config_show, name="show")
register(config_app, config_keys, name="keys")
register(config_app, config_schema, name="schema")
