"""Constraints across the keys of a config, and their violations by a config."""

from collections.abc import Callable, Mapping
from operator import attrgetter
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


def without_effect(
    defaults: Mapping[str, object], is_without: "Callable[[Config], bool]", depends_on: list[str], reason: str
) -> list[Constraint]:
    """Constraints that refuse values other than the `defaults` of settings that have no effect on some configs."""

    def constraint(key: str, default: object) -> Constraint:
        read = attrgetter(key)
        return Constraint(key, depends_on, lambda c: is_without(c) and read(c) != default, f"has no effect: {reason}")

    return [constraint(key, default) for key, default in defaults.items()]
