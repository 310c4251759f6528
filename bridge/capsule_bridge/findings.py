"""What `capsule store check` says of a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

EXAMPLES = 5
"""Of many that are wrong in the same way so many are named."""

Severity = Literal["ok", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class StoreFinding:
    """The outcome of one check. `error`: something is lost or wrong; `warning`: it may be; `info`: know it."""

    code: str
    severity: Severity
    message: str
    hint: str = ""


class Check(NamedTuple):
    """A query that finds what is wrong."""

    query: str
    wrong: str
    hint: str
    severity: Severity = "error"


CHECKS: dict[str, str] = {
    "database": "the pages of the database are whole",
    "schema": "tables and indexes are those of this version",
    "logs": "the events of each promise are numbered without a gap",
    "events": "each event belongs to a promise",
    "children": "no promise waits whose parent has its verdict",
    "parents": "each parent is there, or is remembered",
    "tombstones": "nothing is both there and forgotten",
    "values": "each large value is in its file, and whole",
    "files": "each file of a large value belongs to something",
}
"""Every code, and what is so when it is `ok`."""


def finding(code: str, severity: Severity, wrong: str, hint: str) -> StoreFinding:
    """The finding of a check: what is wrong, or nothing."""
    return StoreFinding(code, severity, wrong, hint) if wrong else StoreFinding(code, "ok", CHECKS[code])


def some(names: Iterable[str]) -> str:
    """The first of many names, and how many more there are."""
    named = list(names)
    more = f", and {len(named) - EXAMPLES} more" if len(named) > EXAMPLES else ""
    return ", ".join(named[:EXAMPLES]) + more
