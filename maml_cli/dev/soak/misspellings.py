"""Misspelt keys of a config: the fraction whose hint names the key that was meant."""

import itertools
import random
import string
from typing import NamedTuple

from maml_cli.config.fields import FIELDS
from maml_cli.config.suggestions import suggest_key

LETTERS = string.ascii_lowercase + "_"


class HintCount(NamedTuple):
    """The hints for misspelt keys.

    tries: misspelt keys.
    failures: those whose hint does not name the key, each with its hint.
    """

    tries: int
    failures: list[tuple[str, str | None]]


def misspellings(key: str) -> list[str]:
    """Every key with one edit of the name of `key`, its section unchanged.

    An edit deletes, replaces or inserts a letter, or exchanges two neighbours. Keys of the schema and empty names are
    left out.
    """
    section, dot, name = key.rpartition(".")
    halves = [(name[:at], name[at:]) for at in range(len(name) + 1)]
    edits = itertools.chain(
        (left + right[1:] for left, right in halves if right),
        (left + letter + right[1:] for left, right in halves if right for letter in LETTERS),
        (left + letter + right for left, right in halves for letter in LETTERS),
        (left + right[1] + right[0] + right[2:] for left, right in halves if len(right) > 1),
    )
    keys = dict.fromkeys(f"{section}{dot}{edit}" for edit in edits if edit)
    return [misspelt for misspelt in keys if misspelt not in FIELDS]


def count_hints(*, sample: int | None = None, seed: int = 0) -> HintCount:
    """The hints for all misspellings by one edit of all keys, or for `sample` of them."""
    pairs = [(key, misspelt) for key in FIELDS for misspelt in misspellings(key)]
    if sample is not None:
        pairs = random.Random(seed).sample(pairs, sample)
    hints = [(key, misspelt, suggest_key(misspelt, list(FIELDS))) for key, misspelt in pairs]
    return HintCount(
        len(pairs), [(misspelt, hint) for key, misspelt, hint in hints if key not in (hint or "").split(" or ")]
    )
