"""Secrets that a policy names, `secret://NAME` in its scopes: whether the node has them, and where they stand."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from capsule.settings.complaints import Complaint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from capsule.broker.grants import GrantTable

REFERENCE = r"secret://([A-Za-z0-9_.-]{1,64})"
"""How a scope names one."""
_REFERENCE = re.compile(REFERENCE)


class Reference(NamedTuple):
    """Where a secret is named, and its name."""

    path: tuple[str, ...]
    name: str


def missing(tables: Sequence[GrantTable], secrets: Collection[str]) -> Iterator[Reference]:
    """What these grants name that is none of the node's secrets, for each grant once, where it does so first."""
    for number, table in enumerate(tables):
        told = set(secrets)
        for found in _references(("grants", str(number), "scope"), table.scope):
            if found.name not in told:
                told.add(found.name)
                yield found


def complaint(found: Reference, secrets: Collection[str]) -> Complaint:
    """What is wrong with it. Names of secrets are no secrets."""
    close = difflib.get_close_matches(found.name, secrets, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    message = f"names the secret {found.name!r}, which the configuration does not have{meant}"
    return Complaint(found.path, message, ", ".join(sorted(secrets)) or "one of [broker.secrets]", "policy_refused")


def line_of(found: Reference, text: str, statement: int) -> int:
    """The line in which it stands, in a statement that begins in this one and may have many."""
    named = re.compile(re.escape(f"secret://{found.name}") + r"(?![A-Za-z0-9_.-])")
    rest = enumerate(text.split("\n")[statement - 1 :], statement)
    return next((number for number, line in rest if named.search(line)), statement)


def _references(path: tuple[str, ...], value: Any) -> Iterator[Reference]:
    if isinstance(value, str):
        for found in _REFERENCE.finditer(value):
            yield Reference(path, found[1])
    elif isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        for name, one in inner:
            yield from _references((*path, str(name)), one)
