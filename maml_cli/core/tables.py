"""Tables of named choices: a name that a table lacks is an error, never a default."""

from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")


def lookup(table: Mapping[str, Row], name: str, key: str, table_name: str) -> Row:
    """The row of `table` for `name`, the value of the config key `key`; `table_name` is the table's module and name.

    Raises NotImplementedError with the key, the value and the table if there is no such row: the schema of the config
    then accepts a name that nothing implements.

    >>> lookup({"sgd": 1}, "sgd", "inner.optimizer", "core.update_rules.INNER_OPTIMIZERS")
    1
    >>> lookup({"sgd": 1}, "lion", "inner.optimizer", "core.update_rules.INNER_OPTIMIZERS")
    Traceback (most recent call last):
    NotImplementedError: inner.optimizer: lion has no row in the table core.update_rules.INNER_OPTIMIZERS, which has sgd
    """
    if name not in table:
        raise NotImplementedError(f"{key}: {name} has no row in the table {table_name}, which has {', '.join(table)}")
    return table[name]
