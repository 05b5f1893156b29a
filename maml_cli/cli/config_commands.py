"""The commands about configs: `maml presets` and `maml config`."""

from pathlib import Path
from typing import Annotated

import typer

from maml_cli.cli.options import PresetArg, SetOpt, SourceArg
from maml_cli.config import presets

presets_app = typer.Typer(help="List, show or copy the configs that come with maml.")
config_app = typer.Typer(help="Check a config, or show it with every default filled in.", no_args_is_help=True)


@presets_app.callback(invoke_without_command=True)
def _presets(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        presets_list()


@presets_app.command("list")
def presets_list() -> None:
    """List the presets, one a line."""
    width = max(len(name) for name in presets.names())
    for name in presets.names():
        typer.echo(f"{name:{width}}  {presets.summary(name)}")


@presets_app.command("show")
def presets_show(name: PresetArg) -> None:
    """Print the YAML of a preset."""
    typer.echo(presets.path(name).read_text(encoding="utf-8"), nl=False)


@presets_app.command("copy")
def presets_copy(
    name: PresetArg,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that does not exist yet.")],
) -> None:
    """Copy a preset to FILE, as a start for a config of your own."""
    presets.copy(name, file)
    typer.echo(file)


@config_app.command("check")
def config_check(source: SourceArg, overrides: SetOpt = None) -> None:
    """Say whether a config is valid; if not, everything that is wrong with it, and where.

    [bold]Example[/]

      maml config check mine.yaml
    """
    from maml_cli.config import load_config

    load_config(source, overrides or [])
    typer.echo(f"{source}: valid")


@config_app.command("show")
def config_show(source: SourceArg, overrides: SetOpt = None) -> None:
    """Print a config with every default filled in and, beside each value, where it came from.

    [bold]Example[/]

      maml config show quickstart --set inner.steps=5
    """
    from maml_cli.config import annotated_yaml, load_config

    typer.echo(annotated_yaml(load_config(source, overrides or [])), nl=False)


@config_app.command("reference")
def config_reference() -> None:
    """Print every key of a config with its default and meaning, as a Markdown table."""
    from maml_cli.config import key_table_markdown

    typer.echo(key_table_markdown(), nl=False)
