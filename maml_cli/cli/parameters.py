"""Parsers of option values: text in, a value out, or a message that says what would be right."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import typer

from maml_cli.reporting.format import list_in_words


def whole_number(low: int, high: int | None = None) -> Callable[[str | int], int]:
    """A parser of whole numbers from `low` to `high`; without `high` the largest is that of PyTorch's seeds."""

    def parse(text: str | int) -> int:
        return _whole_number(str(text), low, high)

    return parse


class WholeNumbers(NamedTuple):
    """Whole numbers given as one option; an annotation of tuple would make typer expect several arguments."""

    values: tuple[int, ...]


def whole_numbers(low: int, high: int) -> Callable[[str], WholeNumbers]:
    """A parser of whole numbers separated by commas; repeated ones count once."""

    def parse(text: str) -> WholeNumbers:
        numbers = [_whole_number(part.strip(), low, high, several=True) for part in text.split(",")]
        return WholeNumbers(tuple(dict.fromkeys(numbers)))

    return parse


def one_of(choices: Sequence[str], *, key: str = "") -> Callable[[str], str]:
    """A parser of one of a few words; a synonym of the config's `key` gets a hint."""

    def parse(text: str) -> str:
        if text not in choices:
            from maml_cli.config.suggestions import suggest_value

            close = suggest_value(key, text, choices)
            hint = f"; did you mean {close}?" if close else ""
            raise typer.BadParameter(f"{text}: must be {list_in_words([*choices])}{hint}")
        return text

    return parse


def _whole_number(text: str, low: int, high: int | None, *, several: bool = False) -> int:
    # The digits are counted first: int() of thousands of digits is slow, and refused by Python.
    if text.isdecimal() and len(text) < 20 and low <= int(text) <= (high or 2**63 - 1):
        return int(text)
    to = f" to {high:,}" if high else " below 2^63"
    numbers = f"whole numbers from {low}{to}, such as 5,10,20" if several else f"a whole number from {low}{to}"
    raise typer.BadParameter(f"{text}: must be {numbers}")
