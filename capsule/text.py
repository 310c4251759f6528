"""Text of others on its way to a terminal or a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capsule.events import InputRequest

ALLOWED = 400
"""Characters that a prompt shows of what is allowed."""


def one_line(value: object) -> str:
    """A value as text of one line; what a terminal would obey is written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def question(request: InputRequest) -> str:
    """What the code asks, with what is allowed, and what was wrong with the answer before."""
    words = request.terms.words()
    allowed = f"({words[:ALLOWED]}{' …' if len(words) > ALLOWED else ''}) " if words else ""
    gap = " " if allowed and request.prompt and not request.prompt[-1].isspace() else ""
    return (f"{request.refused}\n" if request.refused else "") + request.prompt + gap + allowed
