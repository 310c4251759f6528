"""The PostgreSQL store, which several nodes may share. It needs asyncpg: `pip install "capsule-exec[postgres]"`."""

from __future__ import annotations

from capsule_bridge.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
