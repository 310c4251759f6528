"""Workers and zygotes are killed in every state: each execution has its verdict, nobody hangs, the counts add up."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule.node.session import ExecuteRequest
from capsule_protocol.errors import EnvironmentFailed, PoolError, SessionError, WorkerLost
from tests.acceptance.pool.support import LONG, Warm, warm

if TYPE_CHECKING:
    from capsule_pool import PoolEvent

pytestmark = pytest.mark.anyio

ROUNDS = 120
USERS = 4
CODES = ("1 + 1", "print('x' * 1000)", "sum(range(10**5))", "import subprocess; subprocess.run(['true'])")
LOST = {"crashed", "killed", "worker_lost"}


class Killer:
    """Kills something at random when something happens in the pool."""

    def __init__(self, one: Warm) -> None:
        self._one = one
        self._random = random.Random(20)
        self._tell = one.events.__call__
        self.busy = False
        self.killed = 0

    def __call__(self, event: PoolEvent) -> None:
        self._tell(event)
        if self.busy and self._random.random() < 0.15:
            self._kill(self._random.choice(self._victims()))

    def _victims(self) -> list[int]:
        node = self._one.node
        idle = [entry.member.pid for entry in node._pools._pools["default"]._roster._idle.values()]
        used = [session.info().pid for session in node.sessions.values()]
        zygotes = [
            task.result().pid
            for task in node._environments._zygotes.values()
            if task.done() and not task.cancelled() and task.exception() is None
        ]
        return [*idle, *idle, *used, *used, *zygotes, 0]

    def _kill(self, pid: int) -> None:
        if pid:
            self.killed += 1
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def use(one: Warm, rounds: int, verdicts: Counter[str]) -> None:
    for number in range(rounds):
        try:
            session = await one.node.open_session()
        except (PoolError, EnvironmentFailed, WorkerLost) as error:
            verdicts[error.code] += 1
            continue
        with suppress(SessionError):  # it was killed when it was open
            finished = await session.submit(ExecuteRequest(CODES[number % len(CODES)])).finished()
            verdicts[finished.verdict] += 1
        await session.close()


async def test_whatever_is_killed_every_execution_ends_and_the_counts_add_up() -> None:
    verdicts: Counter[str] = Counter()
    async with warm(min_idle=3) as one:
        killer = Killer(one)
        one.node._pools._pools["default"]._on_event = killer
        killer.busy = True
        async with asyncio.timeout(100):
            await asyncio.gather(*(use(one, ROUNDS // USERS, verdicts) for _ in range(USERS)))
        killer.busy = False
        assert killer.killed
        assert verdicts["ok"]
        assert set(verdicts) <= {"ok", *LOST, "environment_failed", "worker_start_failed", "pool_unavailable"}, verdicts
        async with asyncio.timeout(LONG):
            counts = (await one.until(idle=3, in_use=0, starting=0, closing=0, waiting=0)).stats.counts
        assert counts["created"] == counts["gone"] + 3
        assert counts["attempts"] == counts["created"] + counts["failures"]
        assert counts["acquires"] == counts["released"]


async def test_many_sessions_leave_node_and_zygote_as_they_were() -> None:
    node = psutil.Process()

    async def settled(one: Warm) -> tuple[int, int, int, int, int]:
        await one.until(idle=2, in_use=0, starting=0, closing=0)
        zygote = psutil.Process((await one.node._environments.zygote("default")).pid)
        return node.num_fds(), node.num_threads(), len(asyncio.all_tasks()), zygote.num_fds(), len(zygote.children())

    verdicts: Counter[str] = Counter()
    async with warm(min_idle=2) as one:
        await use(one, 5, verdicts)
        before = await settled(one)
        async with asyncio.timeout(100):
            await asyncio.gather(*(use(one, 25, verdicts) for _ in range(USERS)))
        async with asyncio.timeout(LONG):
            while (after := await settled(one)) != before:  # ZeroMQ closes a socket's descriptors on its own threads
                await asyncio.sleep(0.01)
    assert verdicts == {"ok": 105}
    assert after == before
