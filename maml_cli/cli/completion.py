"""Completions of the shell: presets, runs, config keys and documents that begin with a word, found without PyTorch."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from maml_cli.errors import FileError

MAX_COMPLETIONS = 500
"""Completions that are offered at most."""


@contextlib.contextmanager
def words_of_shell() -> Iterator[None]:
    """A block that prints completions as bash and zsh read them."""
    shell = os.environ.get("_MAML_COMPLETE")
    with _quotes_of_zsh() if shell == "complete_zsh" else _words_of_bash():
        yield


@contextlib.contextmanager
def _quotes_of_zsh() -> Iterator[None]:
    """A block that prints apostrophes in completions for zsh, which typer doubles: in quotes, that leaves none."""
    stdout, printed = sys.stdout, io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        stdout.write(printed.getvalue().replace("''", r"'\''"))


@contextlib.contextmanager
def _words_of_bash() -> Iterator[None]:
    """A block that prints completions for bash, which splits words at `=` and replaces the text after it alone."""
    if os.environ.get("_MAML_COMPLETE") != "complete_bash":
        yield
        return
    words, index = os.environ.get("COMP_WORDS", "").split("\n"), int(os.environ.get("COMP_CWORD", "0"))
    joined, index, is_split = join_words(words, index)
    os.environ.update(COMP_WORDS="\n".join(joined), COMP_CWORD=str(index))
    stdout, printed = sys.stdout, io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        lines = printed.getvalue().splitlines(keepends=True)
        stdout.writelines(line.rpartition("=")[2] if is_split else line for line in lines)


def join_words(words: Sequence[str], index: int) -> tuple[list[str], int, bool]:
    """The words of a line with `key`, `=` and `value` as one, the position of the word that has that at `index`, and
    whether it was split.

    >>> join_words(["maml", "train", "--set", "run.engine", "=", "na"], 5)
    (['maml', 'train', '--set', 'run.engine=na'], 3, True)
    """
    joined, position, is_split = list[str](), index, False
    for number, word in enumerate(words):
        follows = number > 0 and "=" in (word, words[number - 1])
        joined = [*joined[:-1], joined[-1] + word] if follows else [*joined, word]
        if number == index:
            position, is_split = len(joined) - 1, follows
    return joined, position, is_split


def complete_words(words: Sequence[str]) -> Callable[[str], list[str]]:
    """A completion to those of `words` that begin with the text typed."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def complete_preset(incomplete: str) -> list[str]:
    """The names of presets that begin with `incomplete`, and YAML files."""
    from maml_cli.config import presets

    names = [name for name in presets.names() if name.startswith(incomplete)]
    return [*names, *_paths(incomplete, suffixes=(".yaml", ".yml"))][:MAX_COMPLETIONS]


def complete_document(incomplete: str) -> list[str]:
    """The names of JSON documents that begin with `incomplete`."""
    from maml_cli.documents import DOCUMENTS

    return complete_words([*DOCUMENTS])(incomplete)


def complete_own_run(incomplete: str) -> list[str]:
    """Runs that begin with `incomplete`: those in outputs/, the newest first, `latest`, and paths."""
    from maml_cli.runs import newest_runs
    from maml_cli.runs.newest import LATEST

    runs: list[str] = []
    with contextlib.suppress(FileError):
        runs = [str(run) for run in newest_runs()]
    paths = [path for path in _paths(incomplete, suffixes=(".pt",)) if path.rstrip("/") not in runs]
    words = [word for word in [*runs, LATEST] if word.startswith(incomplete) and word.isprintable()]
    return [*words, *paths][:MAX_COMPLETIONS]


def complete_run(incomplete: str) -> list[str]:
    """As `complete_own_run`, and the names of published runs."""
    from maml_cli.runs.published import published_names

    names = [name for name in published_names() if name.startswith(incomplete)]
    return [*complete_own_run(incomplete), *names][:MAX_COMPLETIONS]


def complete_resumed(incomplete: str) -> list[str]:
    """As `complete_own_run`, and `auto`."""
    return [*complete_own_run(incomplete), *(["auto"] if "auto".startswith(incomplete) else [])]


def complete_condition(incomplete: str) -> list[str]:
    """As `complete_override`, and the columns of `maml runs`."""
    from maml_cli.cli.conditions import COLUMNS

    return [*(f"{name}=" for name in COLUMNS if name.startswith(incomplete)), *complete_override(incomplete)]


def complete_override(incomplete: str) -> list[str]:
    """The keys of the config that begin with `incomplete`, as `key=`; after it, and where only one key does, the values
    of a key that takes words, as `key=value`."""
    from maml_cli.config.fields import FIELDS, choices, section_model

    key, equals, word = incomplete.partition("=")
    if equals:
        values = choices(FIELDS[key]) if key in FIELDS else []
        return [f"{key}={value}" for value in values if value.startswith(word)]
    keys = [key for key, field in FIELDS.items() if section_model(field) is None and key.startswith(incomplete)]
    only = [f"{key}={value}" for key in keys for value in choices(FIELDS[key])] if len(keys) == 1 else []
    return only or [f"{key}=" for key in keys]  # shells add a space after a completion that is the only one


def _paths(incomplete: str, *, suffixes: tuple[str, ...]) -> list[str]:
    """The directories, as `name/`, and the files with one of `suffixes` whose path begins with `incomplete`; none for
    an empty word, for which there are better ones."""
    if not incomplete:
        return []
    folder, _, start = incomplete.rpartition("/")
    prefix = incomplete[: len(incomplete) - len(start)]
    try:
        with os.scandir(folder or ("/" if prefix else ".")) as entries:
            named = sorted((e.name, e.is_dir()) for e in entries if e.name.startswith(start) and e.name.isprintable())
    except OSError:
        return []
    shown = [(name, is_folder) for name, is_folder in named if start.startswith(".") or not name.startswith(".")]
    return [
        f"{prefix}{name}{'/' if is_folder else ''}"
        for name, is_folder in shown
        if is_folder or Path(name).suffix in suffixes
    ]
