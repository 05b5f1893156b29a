"""Limits on the size of a config, so that every input is read or refused within a second.

The largest config that makes sense, with 1,024 seeds of 19 digits and a comment on each line, is a tenth of them.
"""

from typing import Any

MAX_CHARACTERS = 2**19
"""Characters of a file, of a value, or of all overrides."""
MAX_VALUES = 10_000
"""Keys and values of a config."""
MAX_DEPTH = 16
"""Levels of sections and lists inside one another; a config has four."""
MAX_OVERRIDES = 1000

TOO_LONG = f"longer than {MAX_CHARACTERS:,} characters, the limit of a config"
TOO_MANY = f"more than {MAX_VALUES:,} keys and values, the limit of a config"
TOO_DEEP = f"more than {MAX_DEPTH} levels of sections and lists inside one another, the limit of a config"
NOT_TEXT = "bytes that are not UTF-8, or half of a surrogate pair"


def plain_values_problem(data: Any) -> str | None:
    """The limit that `data`, plain values of any origin, exceeds, or its text that is none; None for data in order.

    Values are visited level by level, so that neither depth nor a list that contains itself exhausts the stack.
    """
    level, num_values, num_characters = [data], 1, 0
    for _ in range(MAX_DEPTH):
        texts = [value for value in level if isinstance(value, str)]
        num_characters += sum(map(len, texts))
        inside = [value for value in level if isinstance(value, dict | list | tuple)]
        num_values += sum(len(value) * (2 if isinstance(value, dict) else 1) for value in inside)
        if num_characters > MAX_CHARACTERS:
            return TOO_LONG
        if num_values > MAX_VALUES:
            return TOO_MANY
        if any(is_no_text(text) for text in texts):
            return f"text with {NOT_TEXT}"
        level = [item for value in inside for item in (*value, *(value.values() if isinstance(value, dict) else ()))]
        if not level:
            return None
    return TOO_DEEP


def is_no_text(text: str) -> bool:
    """Whether `text` contains half of a surrogate pair, as an escape or as a byte that is not UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)
