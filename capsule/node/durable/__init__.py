"""What the node writes down with the bridge: its sessions, what was accepted, and what became of it."""

from __future__ import annotations

from capsule.node.durable.ledger import Entry, History, Ledger
from capsule.node.durable.scribe import Scribe

__all__ = ["Entry", "History", "Ledger", "Scribe"]
