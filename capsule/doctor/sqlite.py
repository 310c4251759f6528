"""The SQLite in which durable promises are kept."""

from __future__ import annotations

import sqlite3

from capsule.doctor.finding import Finding

NEEDED = (3, 37, 0)
"""The first with strict tables."""
REPAIRED = (3, 51, 3)
"""The first in which connections that write at the same moment cannot spoil a file with a write-ahead log."""

_Version = tuple[int, ...]


def examine(version: _Version = sqlite3.sqlite_version_info) -> Finding:
    """What is to be said of this interpreter's SQLite."""
    name = _text(version)
    if version < NEEDED:
        message = f"version {name} has no strict tables: durable promises cannot be kept"
        return Finding("sqlite", "error", message, f"Use a Python whose SQLite is {_text(NEEDED)} or newer.")
    if version < REPAIRED:
        message = (
            f"version {name} can spoil a file when two connections write or checkpoint at once; "
            "Capsule writes with one only, and a lock keeps other nodes out"
        )
        hint = f"Open a store with no other program that writes. Repaired in {_text(REPAIRED)}."
        return Finding("sqlite", "info", message, hint)
    return Finding("sqlite", "ok", f"version {name}")


def _text(version: _Version) -> str:
    return ".".join(map(str, version))
