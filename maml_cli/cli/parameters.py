"""Parsers of option values: text in, a value out, or a message that says what would be right."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from maml_cli.reporting.format import list_in_words

MAX_SEED = 2**63 - 1
"""The largest seed of PyTorch's generators."""


def path(text: str | Path) -> Path:
    """A path; the empty text is none, although Python reads it as the current directory."""
    if not str(text):
        raise typer.BadParameter("an empty path; give . for the current directory")
    return Path(text)


def whole_number(low: int, high: int | None = None) -> Callable[[str | int], int]:
    """A parser of whole numbers from `low` to `high`; by default up to the largest seed of PyTorch."""

    def parse(text: str | int) -> int:
        return _parse(str(text), low, high, expected=f"a whole number from {_range(low, high)}")

    return parse


class WholeNumbers(NamedTuple):
    """Whole numbers in the value of one option; typer would take an annotation of tuple for several values."""

    values: tuple[int, ...]


def whole_numbers(low: int, high: int) -> Callable[[str], WholeNumbers]:
    """A parser of whole numbers separated by commas; repeated ones count once."""
    expected = f"whole numbers from {_range(low, high)}, such as 5,10,20"

    def parse(text: str) -> WholeNumbers:
        numbers = [_parse(word.strip(), low, high, expected=expected) for word in text.split(",")]
        return WholeNumbers(tuple(dict.fromkeys(numbers)))

    return parse


def one_of(choices: Sequence[str], *, key: str = "") -> Callable[[str], str]:
    """A parser of one of `choices`; a synonym of a value of the config's `key` gets a hint."""

    def parse(text: str) -> str:
        if text not in choices:
            from maml_cli.config.suggestions import suggest_value

            close = suggest_value(key, text, choices)
            hint = f"; did you mean {close}?" if close else ""
            raise typer.BadParameter(f"{text}: must be {list_in_words([*choices])}{hint}")
        return text

    return parse


def _parse(text: str, low: int, high: int | None, *, expected: str) -> int:
    # The digits are counted first: int() of thousands of digits is slow, and refused by Python.
    if text.isdecimal() and len(text) < 20 and low <= int(text) <= (high or MAX_SEED):
        return int(text)
    raise typer.BadParameter(f"{text}: must be {expected}")


def _range(low: int, high: int | None) -> str:
    return f"{low} to {high:,}" if high else f"{low} below 2^63"
