"""The command `maml schema`: the JSON schemas of what commands print."""

from typing import Annotated

import typer

from maml_cli.cli.completion import complete_document
from maml_cli.cli.parameters import one_of


def _document_name(text: str) -> str:
    from maml_cli.documents import DOCUMENTS

    return one_of([*DOCUMENTS])(text)


DocumentArg = Annotated[
    str | None,
    typer.Argument(
        parser=_document_name,
        metavar="NAME",
        help="The name of a document; without it, the names are listed.",
        autocompletion=complete_document,
        show_default=False,
    ),
]


def schema(name: DocumentArg = None) -> None:
    """Print the JSON schema (draft 2020-12) of what a command prints with --json, or of the lines of a log.

    It describes every field with its unit and excludes others. The schema of configs is that of maml config schema.

    [bold]Examples[/]

      maml schema
      maml schema eval > eval.schema.json
    """
    from maml_cli.documents import DOCUMENTS, json_schema_text

    if name is not None:
        typer.echo(json_schema_text(name), nl=False)
        return
    width = max(map(len, DOCUMENTS))
    for each, document in DOCUMENTS.items():
        typer.echo(f"{each:{width}}  {document.summary}")
