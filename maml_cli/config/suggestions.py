"""Hints for mistyped configs: the key or the value that was probably meant.

Names are compared in lower case and without `-`, `_` and spaces. Synonyms come first, then names that are spelt alike.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maml_cli.config.formatting import format_value
from maml_cli.config.synonyms import BOOLEANS, KEYS, VALUES

MAX_COMPARED = 60
"""Characters of a name that are compared: difflib takes quadratic time."""


def suggest_value(key: str, value: Any, choices: Sequence[str]) -> str | None:
    """The choice that `value` at `key` probably means, or `KEY: VALUE` of another key; None if unclear."""
    word = _word(value[0] if isinstance(value, list) and len(value) == 1 else value)
    exact = {choice: [choice] for choice in choices}
    return _lookup(word, exact) or _lookup(word, VALUES.get(key, {})) or _spelt_alike(word, choices)


def suggest_boolean(value: Any) -> str | None:
    """`true` or `false`, if `value` is a common word for it."""
    return _lookup(_word(value), BOOLEANS)


def suggest_key(key: str, known: Sequence[str]) -> str | None:
    """The keys among `known` that the unknown `key` probably means, joined by `or`; None if unclear.

    Names in the same section that differ by one edit are always among them. In order: a synonym, the same name in the
    same section or in others, a name spelt alike in the same section or, if very much so, in others.
    """
    section, name = _split(key)
    by_sibling = {_split(path)[1]: path for path in known if _split(path)[0] == section}
    close = [path for sibling, path in by_sibling.items() if _is_one_edit(name.lower(), sibling)]
    if close:
        synonym = _lookup(key, KEYS) or _lookup(name, KEYS)
        return " or ".join(dict.fromkeys([*([synonym] if synonym else []), *close]))
    alike = _spelt_alike(name, by_sibling)
    alike_anywhere = _spelt_alike(name, {_split(path)[1] for path in known}, cutoff=0.8)
    return (
        _lookup(key, KEYS)
        or " or ".join(_same_name(name, by_sibling.values()) or _same_name(name, known))
        or _lookup(name, KEYS)
        or (by_sibling[alike] if alike else None)
        or (" or ".join(_same_name(alike_anywhere, known)) if alike_anywhere else None)
    )


def _is_one_edit(name: str, other: str) -> bool:
    """Whether two names differ by a letter that one of them lacks, by another letter, or by two that are exchanged."""
    if abs(len(name) - len(other)) > 1:
        return False
    start = _common_start(name, other)
    end = _common_start(name[start:][::-1], other[start:][::-1])
    left, right = name[start : len(name) - end], other[start : len(other) - end]
    return max(len(left), len(right)) == 1 or (len(left) == 2 and left == right[::-1])


def _common_start(left: str, right: str) -> int:
    """The number of characters that two names have in common from their start."""
    differs = (index for index, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    return next(differs, min(len(left), len(right)))


def _split(key: str) -> tuple[str, str]:
    section, _, name = key.rpartition(".")
    return section, name


def _same_name(name: str, paths: Iterable[str]) -> list[str]:
    return [path for path in paths if _normalise(_split(path)[1]) == _normalise(name)]


def _word(value: Any) -> str:
    """`value` as a YAML word, without the module of `torch.float64` or `torch.nn.ReLU`."""
    text = value[:MAX_COMPARED] if isinstance(value, str) else format_value(value)
    return re.sub(r"^(\w+\.)*(?=[A-Za-z])", "", text)


def _normalise(name: str) -> str:
    return re.sub("[-_ ]", "", name.lower())


def _lookup(name: str, words: Mapping[str, Sequence[str]]) -> str | None:
    """The key of `words` that lists `name`."""
    return next((key for key, names in words.items() if _normalise(name) in map(_normalise, names)), None)


def _spelt_alike(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    by_spelling = {_normalise(known): known for known in sorted(names)}
    close = difflib.get_close_matches(_normalise(name)[:MAX_COMPARED], by_spelling, 1, cutoff)
    return by_spelling[close[0]] if close else None
