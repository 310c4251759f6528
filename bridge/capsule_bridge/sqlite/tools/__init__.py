"""What people do with a store by hand: look at it, check it, compact it, write it out. All of it blocks."""

from __future__ import annotations

from capsule_bridge.findings import CHECKS, StoreFinding
from capsule_bridge.sqlite.tools.check import check
from capsule_bridge.sqlite.tools.compact import Compacted, compact
from capsule_bridge.sqlite.tools.export import export
from capsule_bridge.sqlite.tools.info import StoreInfo, info

__all__ = ["CHECKS", "Compacted", "StoreFinding", "StoreInfo", "check", "compact", "export", "info"]
