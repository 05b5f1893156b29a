"""Constraints across the keys of a config, and their violations by a config."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from maml_cli.config.schema import Config


class Constraint(NamedTuple):
    """A constraint across keys.

    key: the key to blame, such as `inner.alpha.per`.
    depends_on: the other keys that `is_violated` reads.
    is_violated: whether a config violates it.
    reason: words that follow the key in a message, or a function from a config that violates it to them.
    """

    key: str
    depends_on: list[str]
    is_violated: "Callable[[Config], bool]"
    reason: "str | Callable[[Config], str]"


class Violation(NamedTuple):
    """A constraint that a config violates.

    key: the key to blame.
    depends_on: the other keys of the constraint.
    reason: words that follow the key in a message.
    """

    key: str
    depends_on: list[str]
    reason: str
