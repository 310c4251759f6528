"""Kills something of a node, in the state and as often as a seed decides, while users open, run and close sessions.

A round is one kill. It happens at a moment at which something is in the state that is due, whatever the timing: users
go on until all rounds have happened.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from capsule.events import Finished, InputRequest
from capsule.node.session import ExecuteRequest
from capsule_kernels import system
from capsule_protocol.errors import ArgumentError, EnvironmentFailed, PoolError, SessionError, WorkerLost
from tests.acceptance.pool.support import LONG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from capsule.node.session import Session
    from capsule.node.worker import Worker
    from capsule_pool import Pool, PoolEvent, PoolInfo
    from capsule_pool.members import Factory
    from tests.acceptance.pool.support import Warm

STATES = ("starting", "idle", "assigned", "running", "closing")
TARGETS = ("worker", "box", "zygote")
USERS = 4
CODES = ("1 + 1", "print('x' * 1000)", "input()", "sum(range(10**5))", "import subprocess; subprocess.run(['true'])")
LOST = {"crashed", "killed", "worker_lost"}
REFUSED = {"environment_failed", "worker_start_failed", "pool_unavailable", "worker_lost"}
CHANCE = 0.3
"""How likely a kill is at a moment that would do: something must go well too."""


@dataclass(frozen=True, order=True)
class Round:
    """Kill a `target` while a worker is in this state: this worker, its box, its zygote, or the whole node."""

    state: str
    target: str


def plan(seed: int, rounds: int) -> list[Round]:
    """What is killed; the last of the list comes first."""
    draw = random.Random(seed)
    return [Round(draw.choice(STATES), draw.choices(TARGETS, (6, 4, 1))[0]) for _ in range(rounds)]


class Recorded:
    """A factory that remembers what it made."""

    def __init__(self, factory: Factory[Worker], made: set[Worker]) -> None:
        self.made = made
        self._factory = factory

    async def create(self) -> Worker:
        worker = await self._factory.create()
        self.made.add(worker)
        return worker


class Boxes:
    """The boxes of a node by the state of their workers."""

    def __init__(self, one: Warm, pool: Pool[Worker]) -> None:
        self._node = one.node
        self._roster = pool._roster
        made = {entry.member for entry in pool._roster._idle.values()}
        self._factory = pool._factory = Recorded(pool._factory, made)

    def zygote(self) -> int:
        """The one that lives, or 0."""
        task = self._node._environments._zygotes.get("default")
        over = task is None or not task.done() or task.cancelled() or task.exception() is not None
        return 0 if task is None or over else task.result().pid

    def of(self, state: str) -> list[int]:
        used = [entry.member for entry in self._roster._in_use.values()]
        busy = {session._tenancy.worker for session in self._node.sessions.values() if _runs(session)}
        made = self._factory.made = {worker for worker in self._factory.made if not worker.gone.is_set()}
        known = {
            "idle": [entry.member for entry in self._roster._idle.values()],
            "assigned": [worker for worker in used if worker not in busy],
            "running": [worker for worker in used if worker in busy],
            "closing": [worker for worker in made if worker.cause == "close"],
        }
        if state in known:
            return [worker._box.pid for worker in known[state] if worker._box is not None]
        others = {worker._box.pid for worker in made if worker._box is not None}
        return [box for box in system.children(self.zygote()) if box not in others]


def _runs(session: Session) -> bool:
    """Whether the worker says that it has begun what it was sent."""
    head = session._lineup.head
    return head is not None and session._tenancy.worker is not None and session._tenancy.worker.started(head.serial)


class Chaos:
    """Users of a warm pool, and the kills that happen to them."""

    def __init__(self, one: Warm, rounds: list[Round], seed: int) -> None:
        pool = one.node._pools._pools["default"]
        self.happened: Counter[Round] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.accepted = 0
        self._one = one
        self._boxes = Boxes(one, pool)
        self._seed = seed
        self._draw = random.Random(seed)
        self._rounds = rounds
        self._tell = one.events.__call__
        pool._on_event = self._on_event

    def __repr__(self) -> str:
        due = self._rounds[-1] if self._rounds else "nothing"
        happened = {f"{key.target} {key.state}": count for key, count in sorted(self.happened.items())}
        return f"seed {self._seed}: {happened}; {due} is due; {dict(self.verdicts)}, {dict(self.refused)}"

    async def run(self, seconds: float) -> None:
        """Let users go on until every round has happened."""
        with self._told():
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(self._use() for _ in range(USERS)))

    async def check(self) -> None:
        """Each execution had one verdict, nobody was told of anything but of a loss, and the pool's counts add up."""
        with self._told():
            assert self.accepted == self.verdicts.total()
            assert self.verdicts["ok"]
            assert set(self.verdicts) <= {"ok", *LOST}
            assert set(self.refused) <= REFUSED
            assert {happened.state for happened in self.happened} == set(STATES)
            min_idle = self._one.info.min_idle
            info = await self._one.until(idle=min_idle, in_use=0, starting=0, closing=0, waiting=0)
            counts = info.stats.counts
            assert counts["created"] == counts["gone"] + min_idle
            assert counts["attempts"] == counts["created"] + counts["failures"]
            assert counts["acquires"] == counts["released"]

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            error.add_note(repr(self))
            raise

    def _on_event(self, event: PoolEvent) -> None:
        self._tell(event)
        self._moment()

    def _moment(self) -> None:
        if self._rounds and self._draw.random() < CHANCE and self._kill(self._rounds[-1]):
            self.happened[self._rounds.pop()] += 1

    def _kill(self, due: Round) -> bool:
        boxes = self._boxes.of(due.state)
        if not boxes:
            return False
        box = self._draw.choice(boxes)
        if due.target == "node":
            os.kill(os.getpid(), signal.SIGKILL)
        if due.target == "zygote":
            return kill(self._boxes.zygote())
        # A worker that is being closed has been killed by that already.
        pids = [box] if due.target == "box" or due.state == "closing" else system.children(box)
        return any(kill(pid) for pid in pids[:1])

    async def _use(self) -> None:
        while self._rounds:
            if self._rounds[-1].state == "idle":  # users who take each worker as it is made would never let one be
                await self._until(lambda info: info.idle > 0 or info.breaker.state == "open")
                self._moment()
            try:
                session = await self._one.node.open_session()
            except (PoolError, EnvironmentFailed, WorkerLost) as error:
                self.refused[error.code] += 1
                # Do not ask an open breaker again and again.
                await self._until(lambda info: info.breaker.state != "open")
                continue
            self._moment()
            with suppress(SessionError):  # it was killed when it was open
                await self._execute(session)
            closing = asyncio.ensure_future(session.close())
            await asyncio.sleep(0)
            self._moment()
            await closing

    async def _execute(self, session: Session) -> None:
        execution = session.submit(ExecuteRequest(CODES[self.accepted % len(CODES)], allow_input=True))
        self.accepted += 1
        async for event in execution:
            self._moment()
            if isinstance(event, InputRequest):
                with suppress(ArgumentError):  # it was killed before this was read
                    execution.reply_input(event.request, "answer")
            elif isinstance(event, Finished):
                self.verdicts[event.verdict] += 1

    async def _until(self, is_true: Callable[[PoolInfo], bool]) -> None:
        pool = self._one.node._pools._pools["default"]
        async with asyncio.timeout(LONG):
            await self._one.events.until(pool, is_true)


def kill(pid: int) -> bool:
    """Kill a process; False if it had ended, or there is none."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        if ended.poll(0):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True
    finally:
        os.close(pidfd)
