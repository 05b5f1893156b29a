"""Misspelt keys of a config: the fraction whose hint names the key that was meant."""

import itertools
import math
import random
import string
from pathlib import Path
from typing import NamedTuple

from maml_cli.config.fields import FIELDS
from maml_cli.config.suggestions import suggest_key
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled

GOAL = 0.998
"""Least fraction of misspelt keys whose hint names the key."""
LETTERS = string.ascii_lowercase + "_"


class HintCount(NamedTuple):
    """The hints for misspelt keys.

    tries: misspelt keys.
    failures: those whose hint does not name the key, each with its hint.
    """

    tries: int
    failures: list[tuple[str, str | None]]


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Misspell every key by every edit; in a short form, a sample.

    The fraction of right hints is in the name of the row. Below the goal, each wrong hint is a mistake that was not
    noticed; from there on, none is.
    """
    tally = Tally("all one-edit misspellings of keys")
    total = sum(len(misspellings(key)) for key in FIELDS)
    count = count_hints(sample=scaled(total, min(1, scale)))
    tally.tries = count.tries
    share = 1 - len(count.failures) / count.tries
    if share < GOAL:
        for misspelt, hint in count.failures:
            tally.fail("changed", f"{misspelt}: the hint is {hint}")
    percent = math.floor(10_000 * share) / 100  # 100 % is all of them
    return tally.row()._replace(attack=f"{tally.attack}, {percent:.2f} % with the right hint")


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


def count_hints(*, sample: int) -> HintCount:
    """The hints for `sample` of all misspellings by one edit of all keys."""
    pairs = [(key, misspelt) for key in FIELDS for misspelt in misspellings(key)]
    pairs = random.Random(0).sample(pairs, sample)
    hints = [(key, misspelt, suggest_key(misspelt, list(FIELDS))) for key, misspelt in pairs]
    return HintCount(
        len(pairs), [(misspelt, hint) for key, misspelt, hint in hints if key not in (hint or "").split(" or ")]
    )
