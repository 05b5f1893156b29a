"""A config that was read, with the origin of each of its values."""

from typing import NamedTuple

from maml_cli.config.formatting import Key
from maml_cli.config.schema import Config


class Origin(NamedTuple):
    """The origin of a value: a line of a file, or an override.

    label: short form, `x.yaml:7` or `--set`.
    key: position of the key, `x.yaml:7:3`, or the override.
    value: position of the value, or the override.
    order: rank in a list of problems: (0, line, column) in a file, (1, index, 0) for an override.
    """

    label: str
    key: str
    value: str
    order: tuple[int, int, int]


class LoadedConfig(NamedTuple):
    """A config and the origins of its values.

    config: the config.
    name: the stem of its file, for run directories.
    origins: the origin of every value that is not a default, by key.
    """

    config: Config
    name: str
    origins: dict[Key, Origin]

    def origin(self, key: Key) -> str:
        """The short form of the origin of `key`: `x.yaml:7`, `--set` or `default`."""
        return self.origins[key].label if key in self.origins else "default"
