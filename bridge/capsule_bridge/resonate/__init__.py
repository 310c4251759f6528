"""The store whose verdicts a Resonate server gives, over a SQLite file with the rest. Needs the extra `resonate`."""

from __future__ import annotations

from capsule_bridge.resonate.store import ResonateStore

__all__ = ["ResonateStore"]
