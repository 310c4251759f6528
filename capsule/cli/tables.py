"""Rows and columns, for a terminal and for a pipe."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from capsule.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

WIDE = 10_000
"""Columns of a pipe: nothing is cut for it."""
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60))


def plain(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The table without any control character, each line as long as its content."""
    from rich.console import Console

    buffer = io.StringIO()
    Console(file=buffer, width=WIDE, color_system=None, force_terminal=False).print(table(headings, rows))
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def text(headings: Sequence[str], rows: Iterable[Sequence[object]], *, terminal: bool) -> str:
    """The table as it belongs on a terminal, or on a pipe."""
    if not terminal:
        return plain(headings, rows)
    from capsule.cli.render import render

    return render(table(headings, rows))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """For rich, where something else prints it. What rows hold is shown, and never acts on the terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for row in rows:
        made.add_row(*(Text(one_line(cell)) for cell in row))
    return made


def age(seconds: float) -> str:
    """A time in its greatest unit."""
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def size(number: float) -> str:
    """Bytes in a unit that people read."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
