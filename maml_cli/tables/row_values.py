"""Values in the rows of a table: numbers, and messages about what is none."""

import math
from collections.abc import Sequence

from maml_cli.errors import DataError, shorten
from maml_cli.tables.text_rows import Row

MAX_QUOTED = 40
"""Characters of a value that a message quotes."""


def are_numbers(fields: Sequence[str]) -> bool:
    """Whether every field is a number, and there is one."""
    try:
        return bool([float(field) for field in fields])
    except ValueError:
        return False


def parse_numbers(rows: Sequence[Row], column: int, name: str, source: str) -> list[float]:
    """The numbers in a column of rows; raises DataError with the line of the first that is no finite number."""
    fields = [row[column] for _, row in rows]
    try:
        values = list(map(float, fields))
    except ValueError:
        values = []
    if values and all(map(math.isfinite, values)) and "_" not in "".join(fields):
        return values
    for line, row in rows:
        if problem := _number_problem(row[column].strip()):
            raise DataError(f"{source}:{line}: {name} is {problem}")
    return values


def _number_problem(field: str) -> str:
    """The reason why a field is no finite number; empty if it is one."""
    try:
        value = float(field)
    except ValueError:
        value = None
    if value is not None and math.isfinite(value) and "_" not in field:
        return ""
    if not field:
        return "empty; give a number"
    if value is not None and not math.isfinite(value):
        return f"{quoted(field)}; give a finite number, or leave the row out"
    if field.count(",") == 1 and are_numbers([field.replace(",", ".")]):
        return f"{quoted(field)}, with a decimal comma; write {field.replace(',', '.')}"
    return f"{quoted(field)}; give a number"


def width_problem(row: Sequence[str], width: int, separator: str) -> str:
    """The reason why a row does not have `width` values, with what would be right."""
    commas = separator == "," and len(row) == 2 * width and are_numbers(row)
    hint = "decimal commas? write 1.5, or separate columns by ; and write 1.5" if commas else "give as many"
    values = "1 value" if len(row) == 1 else f"{len(row)} values"
    return f"{values} where the first line has {width}; {hint}"


def quoted(text: str) -> str:
    """`text` in quotes, cut to MAX_QUOTED characters."""
    return f'"{shorten(text, MAX_QUOTED)}"'
