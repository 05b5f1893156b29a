"""Tables of the user's own points, read in blocks from CSV files, with the line of whatever is invalid."""

from maml_cli.tables.table import BLOCK_ROWS, Columns, PointTable, TableReader, read_table

__all__ = ["BLOCK_ROWS", "Columns", "PointTable", "TableReader", "read_table"]
