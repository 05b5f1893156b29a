"""The table of attacks. To add one, write its module and add its row."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import NamedTuple, cast

from maml_cli.dev.soak.row import SoakRow

Attack = Callable[..., SoakRow]
"""(scratch directory, *, scale) -> row: scale 1 is the full form, 0.01 a short one. Equal in every run."""


class AttackSource(NamedTuple):
    """The function of an attack: its module in this package, imported when the attack runs, and its name."""

    module: str
    function: str = "attack"

    def load(self) -> Attack:
        """The function."""
        return cast(Attack, getattr(import_module(f"maml_cli.dev.soak.{self.module}"), self.function))


ATTACKS: Mapping[str, AttackSource] = {
    "resume": AttackSource("resume"),
    "sanitizers": AttackSource("sanitizers"),
    "kills": AttackSource("kills"),
    "injection": AttackSource("injection"),
    "trainings": AttackSource("trainings"),
    "signals": AttackSource("signals"),
    "bits": AttackSource("damage", "attack_bits"),
    "truncations": AttackSource("damage", "attack_truncations"),
    "file-size": AttackSource("limits"),
    "full-disks": AttackSource("disks", "attack_full"),
    "read-only": AttackSource("disks", "attack_read_only"),
    "fuzz": AttackSource("fuzz"),
    "misspellings": AttackSource("misspellings"),
    "hostile-checkpoints": AttackSource("hostile_checkpoints"),
    "hostile-runs": AttackSource("hostile_runs"),
    "concurrency": AttackSource("concurrency"),
    "shared": AttackSource("shared"),
}
"""The longest first, so that two at a time end together."""
ALONE = frozenset({"concurrency", "shared"})
"""Attacks that need all cores, and run after the others, one at a time."""
