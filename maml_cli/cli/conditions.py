"""Conditions on runs, `outer.lr<0.01`: the values of --where."""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from maml_cli.config import strict_yaml
from maml_cli.config.fields import FIELDS, choices, is_number, section_model, takes, value_at
from maml_cli.config.suggestions import suggest_key, suggest_value
from maml_cli.errors import ConfigError, shorten
from maml_cli.reporting.format import list_in_words
from maml_cli.runs import STATES, RunOverview

TEXT_COLUMNS = ("name", "preset", "state", "engine")
NUMBER_COLUMNS = ("step", "error")
COLUMNS = (*TEXT_COLUMNS, *NUMBER_COLUMNS)
OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
EQUALITIES = ("=", "!=")
SIGNS = ("=", "!", "<", ">", "~")
"""Characters of operators, with which no value begins."""
MISTAKEN = {"=<": "<=", "=>": ">=", "<>": "!=", "=!": "!="}
"""Operators of other languages, or written the other way round -> ours."""
MAX_LENGTH = 100
"""Characters of a condition in a message."""


class Condition(NamedTuple):
    """A condition on runs.

    key: a column of `maml runs` or a dotted key of the config.
    symbol: of OPERATORS.
    value: a plain value to compare with.
    """

    key: str
    symbol: str
    value: Any

    def holds(self, run: RunOverview) -> bool:
        """Whether the condition holds for a run; never where the run has no such value, and `<` and the like only
        for numbers."""
        is_column = self.key in COLUMNS
        if not is_column and run.config is None:
            return False
        value = getattr(run, self.key) if is_column else value_at(run.config or {}, self.key)
        if self.symbol in EQUALITIES:
            return OPERATORS[self.symbol](_typed(value), _typed(self.value))
        return _is_number(value) and OPERATORS[self.symbol](value, self.value)


def parse_condition(text: str) -> Condition:
    """The condition in the text KEY OPERATOR VALUE; raises ConfigError with a hint for an unknown key or value."""
    match = re.fullmatch(r"\s*([^\s=!<>]+)\s*(==|!=|<=|>=|=|<|>)\s*(.*?)\s*", text, flags=re.DOTALL)
    if match is None:
        raise _error(text, f"must be KEY, one of {' '.join(OPERATORS)}, and a value, such as outer.lr<0.01")
    key, symbol, word = match[1], match[2].replace("==", "="), match[3]
    if word[:1] in SIGNS:
        close = MISTAKEN.get(match[2] + word[0])
        hint = f"; did you mean {close}?" if close else ""
        raise _error(text, f"{match[2]}{word[0]} is none of {' '.join(OPERATORS)}{hint}")
    _check_key(text, key)
    value = word if key in TEXT_COLUMNS else _parse_value(text, word)
    is_order = symbol not in EQUALITIES
    if is_order and key in TEXT_COLUMNS:
        raise _error(text, f"{key} is a text, compared by = or !=")
    if (is_order or (key in NUMBER_COLUMNS and value is not None)) and not _is_number(value):
        raise _error(text, f"{key} {symbol} takes a number")
    if key in FIELDS and is_number(FIELDS[key]) and isinstance(value, str):
        raise _error(text, f"{key} is a {takes(FIELDS[key])}")
    _check_choice(text, key, word)
    return Condition(key, symbol, value)


def _check_key(text: str, key: str) -> None:
    """Raises ConfigError unless `key` is a column, or a value of the config or inside one that is a mapping."""
    if key in COLUMNS:
        return
    if key in FIELDS:
        if section_model(FIELDS[key]) is not None:
            raise _error(text, f"{key} is a section of the config; give one of its keys")
        return
    if key.startswith("tasks.parameters."):
        return
    close = suggest_key(key, [*COLUMNS, *FIELDS])
    hint = f"did you mean {close}?" if close else f"there are {', '.join(COLUMNS)} and the keys of maml config keys"
    raise _error(text, f"{key} is neither a column nor a key of the config; {hint}")


def _check_choice(text: str, key: str, word: str) -> None:
    """Raises ConfigError for a word that the state or a key of the config never is."""
    words: list[str] = [*STATES] if key == "state" else choices(FIELDS[key]) if key in FIELDS else []
    if words and word not in words:
        close = suggest_value(key, word, words)
        raise _error(text, f"{key} is {list_in_words(words)}{f'; did you mean {close}?' if close else ''}")


def _parse_value(text: str, word: str) -> Any:
    document = strict_yaml.parse(word)
    if document.errors:
        raise _error(text, document.errors[0].message)
    return document.value


def _error(text: str, problem: str) -> ConfigError:
    return ConfigError(f"--where {shorten(text, MAX_LENGTH)}: {problem}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _typed(value: Any) -> tuple[bool, Any]:
    """A value that equals another only if both are booleans or neither is: Python's True equals 1."""
    return isinstance(value, bool), value
