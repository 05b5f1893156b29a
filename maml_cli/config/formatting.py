"""Keys and values of a config as text."""

from typing import Any

from maml_cli.errors import printable, shorten

MAX_LENGTH = 60
"""Characters of a key or a value in a message."""

Key = tuple[str | int, ...]


def format_key(key: Key) -> str:
    """A key as overrides and messages write it, `model.hidden[0]`, on one line, cut to 60 characters."""
    text = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in key).removeprefix(".")
    return shorten(printable(text), MAX_LENGTH)


def format_value(value: Any) -> str:
    """A value much as YAML writes it, cut to 60 characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print whole numbers of more than 4,300 digits
        text = "a number of thousands of digits"
    return shorten(printable(text), MAX_LENGTH)


def format_number(value: float) -> str:
    """A bound: `1,000,000`, `0.5`, `2^63`."""
    return "2^63" if value == 2**63 else f"{value:,.15g}" if abs(value) < 1e15 else f"{value:g}".replace("e+", "e")
