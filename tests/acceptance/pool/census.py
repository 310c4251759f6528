"""What a node and its zygote have open and running, counted when nothing of a session is left."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import psutil

from tests.acceptance.pool.support import LONG, run

if TYPE_CHECKING:
    from tests.acceptance.pool.support import Warm

USERS = 4


@dataclass(frozen=True)
class Census:
    """Of node and zygote; `zygote` is its process id."""

    descriptors: int
    threads: int
    tasks: int
    children: int
    zygote: int
    zygote_descriptors: int
    zygote_threads: int
    boxes: int


async def cycle(one: Warm, sessions: int) -> None:
    """Open, use and close so many sessions, a few at a time. The record of events does not grow by it."""
    await asyncio.gather(*(_use(one, sessions // USERS) for _ in range(USERS)))
    one.events.seen.clear()


async def settled(one: Warm) -> Census:
    """Wait until the pool is full and at rest, then count."""
    await one.until(idle=one.info.min_idle, in_use=0, starting=0, closing=0)
    node, zygote = psutil.Process(), psutil.Process((await one.node._environments.zygote("default")).pid)
    while not _at_rest(zygote, one.info.idle):  # a box says that it is gone just before it is
        await asyncio.sleep(0.01)
    return Census(
        node.num_fds(),
        node.num_threads(),
        len(asyncio.all_tasks()),
        len(node.children()),
        zygote.pid,
        zygote.num_fds(),
        zygote.num_threads(),
        len(zygote.children()),
    )


def _at_rest(zygote: psutil.Process, idle: int) -> bool:
    """Whether it has the boxes of the pool, and the one that it keeps ahead."""
    with suppress(psutil.NoSuchProcess):
        names = sorted(child.name() for child in zygote.children())
        return names == [*["capsule-box"] * idle, "capsule-spare"]
    return False


async def grown(one: Warm, before: Census) -> dict[str, tuple[int, int]]:
    """What there is more of than before, and stays. ZeroMQ closes descriptors on its own threads, unannounced."""
    more = _more(before, await settled(one))
    with suppress(TimeoutError):
        async with asyncio.timeout(LONG):
            while more:
                await asyncio.sleep(0.01)
                more = _more(before, await settled(one))
    return more


def _more(before: Census, after: Census) -> dict[str, tuple[int, int]]:
    pairs = {name: (count, getattr(after, name)) for name, count in asdict(before).items()}
    return {
        name: pair for name, pair in pairs.items() if pair[1] > pair[0] or (name == "zygote" and pair[0] != pair[1])
    }


async def _use(one: Warm, sessions: int) -> None:
    for _ in range(sessions):
        session = await one.node.open_session()
        assert await run(session, "6 * 7") == "42"
        await session.close()
