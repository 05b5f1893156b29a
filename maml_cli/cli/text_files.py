"""Text files that commands write while they compute: an old file is replaced at the end, or stays as it is."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import typer

Write = Callable[[str], object]

STANDARD_STREAM = Path("-")
"""The path that stands for standard input or output."""


@contextlib.contextmanager
def text_writer(out: Path | None) -> Iterator[Write]:
    """A function that writes text to `out`, which replaces an old file at the end of the block; nowhere for None."""
    from maml_cli.runs import make_folder, replacing, target_of

    if out is None:
        yield lambda text: None
    elif out == STANDARD_STREAM:
        yield lambda text: typer.echo(text, nl=False)
    else:
        make_folder(out.parent)
        with replacing(target_of(out)) as descriptor, open(descriptor, "w", encoding="utf-8", closefd=False) as stream:
            yield stream.write
            stream.flush()
