"""The store in a SQLite file, for one node: the default of whoever wants to lose nothing."""

from __future__ import annotations

from capsule_bridge.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
