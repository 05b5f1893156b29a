"""Values of options: whatever a user types is taken or refused in one line that says what would be right."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_cli.cli.app import app
from maml_cli.cli.conditions import parse_condition
from maml_cli.cli.figure_options import run_labels
from maml_cli.config import load_config
from maml_cli.errors import UserError
from maml_cli.reporting.canvas import label_text
from maml_cli.reporting.style_sheets import read_sheet
from maml_cli.runs import find_run
from maml_cli.sweeps import check_storage_url
from maml_cli.sweeps.space import check_space, read_space
from tests.conftest import Cli

TYPICAL = [
    "",
    "1:2",
    "-5:5:50",
    "5,10,20",
    "3.3in",
    "84 mm",
    "1e-3..1e-1:log",
    "inner.steps=1,5",
    "outer.lr<0.01",
    "png",
]
HOSTILE = ["9" * 5000, "1:2:" + "9" * 5000, "1e400", "nan", "\udcff", "\0", "٣", "²", "1_0", "a" * 5000, "[" * 200]
PIECES = st.sampled_from(
    [*":,.=<>!- ", "..", "\n", "1", "-5", "0", "1e9", "nan", "inf", "²", "٣", "mm", "x", "log", "["]
)
VALUES = st.sampled_from([*TYPICAL, *HOSTILE]) | st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=12)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for child, subcommand in getattr(command, "commands", {}).items():
        yield from _commands(subcommand, f"{name} {child}")


PARAMETERS = [
    (f"{name} {parameter.name}", parameter, typer.Context(command, info_name=name))
    for name, command in _commands(typer.main.get_command(app), "maml")
    for parameter in command.params
]
WITH_PARSER = [row for row in PARAMETERS if row[1].type_descriptor.parameter_info.parser is not None]


def test_every_value_that_is_not_free_text_has_a_parser_of_ours() -> None:
    """Messages of typer's own types quote pydantic."""
    without = {name: row.type_descriptor.annotation for name, row, _ in PARAMETERS} | {
        row[0]: None for row in WITH_PARSER
    }
    assert set(without.values()) <= {None, bool, str, list[str]}


@pytest.mark.parametrize("parameter", [pytest.param(row, id=row[0]) for row in WITH_PARSER])
def test_a_parser_takes_a_text_or_says_what_it_must_be(parameter: tuple[str, Any, Any]) -> None:
    _, option, context = parameter

    @settings(max_examples=60)
    @given(VALUES)
    def convert(text: str) -> None:
        is_list = option.multiple or option.nargs == -1
        try:
            option.process_value(context, [text] if is_list else text)
        except typer.BadParameter as error:
            assert "must be" in error.message or "empty path" in error.message, error.message
        except UserError:
            pass

    convert()


@given(VALUES)
def test_texts_that_commands_parse_themselves_are_taken_or_refused(text: str) -> None:
    config = load_config("smoke").config
    for trial in (
        lambda: parse_condition(text),
        lambda: check_space(config, read_space(grid=[f"inner.steps={text}"])),
        lambda: read_space(grid=[text]),
        lambda: read_space(ranges=[f"inner.alpha.init={text}"], trials=2),
        lambda: read_space(choose=[f"outer.lr={text}"], trials=2),
        lambda: load_config("smoke", [text]),
        lambda: load_config("smoke", [f"inner.steps={text}"]),
        lambda: load_config("smoke", [f"tasks.x_range={text}"]),
        lambda: find_run(text),
        lambda: find_run(f"latest:{text}"),
        lambda: check_storage_url(text),
        lambda: check_storage_url(f"redis://{text}"),
        lambda: label_text(text, 200),
        lambda: read_sheet(text),
        lambda: run_labels([text], [], example="RUN=TEXT"),
    ):
        with contextlib.suppress(UserError, OSError):
            trial()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("adapt", "best-5shot", "--data", "p.csv", "--range", "1:2"), "--range 1:2: must be LOW:HIGH:N, such as"),
        (("adapt", "best-5shot", "--data", "p.csv", "--range", "1:2:3:4"), "--range 1:2:3:4: must be LOW:HIGH:N"),
        (("export", "params", "best-5shot", "--format", "zip"), "--format zip: must be safetensors, npz or torch"),
        (("export", "params", "best-5shot", "--seed", "x"), "--seed x: must be a whole number from 0"),
        (("sweep", "--grid", "inner.steps=1,5", "--storage", "redis://["), "--storage: must be a URL, SCHEME://USER"),
        (("sweep", "--grid", "inner.steps=1,5", "--storage", "postgresql://u:p/w@h/d"), "--storage: must be a URL"),
        (("presets", "copy", "smoke", ""), "FILE an empty path; give . for the current directory"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_must_be(arguments: tuple[str, ...], message: str, cli: Cli) -> None:
    result = cli(*arguments)
    assert result.code == 2 and result.err.startswith(message) and result.err.count("\n") == 1
