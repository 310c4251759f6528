"""Text of others on its way to a terminal or a log."""

from __future__ import annotations


def one_line(value: object) -> str:
    """A value as text of one line; what a terminal would obey is written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
