"""Tables for people."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

_ENDLESS = 10_000


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain table on stdout; values are text, never markup, and whole: nobody can copy half a path or id."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # In a pipe a row is a line, so that grep and awk find it.
    width = None if sys.stdout.isatty() else _ENDLESS
    Console(markup=False, highlight=False, width=width).print(table)
