"""What people do by hand with a store in a database: look at it, check it, write it out. It may be in use meanwhile."""

from __future__ import annotations

from capsule_bridge.postgres.tools.check import check
from capsule_bridge.postgres.tools.export import export
from capsule_bridge.postgres.tools.info import DatabaseInfo, info

__all__ = ["DatabaseInfo", "check", "export", "info"]
