"""A node whose pool can be watched, and what tests do with its sessions."""

from __future__ import annotations

import ast
import asyncio
import textwrap
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from capsule.config import NodeConfig, SessionOptions
from capsule.node.node import Node
from capsule.node.session import ExecuteRequest, Session
from capsule.settings.environments import EnvironmentConfig
from tests.unit.pool.watching import Events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule_pool import PoolInfo

LONG = 60.0


class Warm:
    """A node, what its pools tell, and its one environment's pool."""

    def __init__(self, **environment: Any) -> None:
        self.events = Events()
        config = EnvironmentConfig(**environment)
        self.node = Node(NodeConfig(environments={"default": config}), on_pool_event=self.events)

    @property
    def info(self) -> PoolInfo:
        return self.node.info().pools["default"]

    async def until(self, **sizes: int) -> PoolInfo:
        """Wait until the pool has these sizes."""
        async with asyncio.timeout(LONG):
            pool = self.node._pools._pools["default"]
            return await self.events.until(pool, lambda info: all(getattr(info, k) == v for k, v in sizes.items()))

    async def open_warm(self, **options: Any) -> Session:
        """A session that a warm worker was there for."""
        hits = self.info.stats.counts["hits"]
        session = await self.node.open_session(SessionOptions(**options))
        assert self.info.stats.counts["hits"] == hits + 1
        return session


@asynccontextmanager
async def warm(**environment: Any) -> AsyncIterator[Warm]:
    """A node whose pool is full and has no session."""
    one = Warm(**environment)
    async with one.node:
        session = await one.node.open_session()
        await session.close()
        await one.until(idle=one.info.min_idle, closing=0, in_use=0, starting=0)
        yield one


async def run(session: Session, code: str) -> str:
    async with asyncio.timeout(LONG):
        finished = await session.submit(ExecuteRequest(textwrap.dedent(code))).finished()
    assert finished.verdict == "ok", finished.error
    return finished.text


async def value(session: Session, code: str) -> Any:
    """What the last expression is, if it is made of plain values."""
    return ast.literal_eval(await run(session, code))
