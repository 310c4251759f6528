"""Whatever happens, members and breakers take the steps of their tables, all of them, and no other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsule_pool import BreakerConfig, Pool, PoolConfig
from capsule_pool.breaker import Breaker
from capsule_pool.diagrams import mermaid, write_into
from capsule_pool.states import BREAKER, MEMBER, TABLES, BreakerEvent, BreakerState, Census, MemberEvent, MemberState
from capsule_pool.testing import ProcessFactory, ProcessMember
from capsule_protocol.errors import WorkerLost
from tests.unit.kernels.forked import LONG
from tests.unit.pool.watching import Events, give_way

PAGE = Path(__file__).parents[3] / "docs/explanation/how-the-pool-works.md"
FOR_EVER = 3600.0
FLAKY = WorkerLost("worker_start_failed", "the zygote has ended")


def edges(table: str) -> set[tuple[str, str]]:
    return {(state, event) for state, steps in TABLES[table].items() for event in steps}


# Members


class Record(Census):
    """Remembers the steps, also one that is not allowed: a task of the pool would only log its error."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.steps: set[tuple[str, str]] = set()
        self.leaving: list[asyncio.Task[ProcessMember]] = []  # in the moment in which a member is assigned

    def begin(self) -> None:
        self.begun += 1
        super().begin()

    def move(self, state: MemberState, event: MemberEvent) -> None:
        self.steps.add((state, event))
        super().move(state, event)
        while event == "assigned" and self.leaving:
            self.leaving.pop().cancel()


class Play:
    """A real pool to which things happen, one after another."""

    def __init__(self) -> None:
        self.factory = ProcessFactory()
        self.factory.held = 100
        self.events = Events()
        breaker = BreakerConfig(failures=2, pause=FOR_EVER, longest_pause=FOR_EVER)
        config = PoolConfig(
            min_idle=2,
            max_sessions=4,
            max_starting=2,
            idle_bytes=250,
            member_bytes=200,
            refill_delay=0,
            breaker=breaker,
        )
        self.pool: Pool[ProcessMember] = Pool(self.factory, config, on_event=self.events, jitter=lambda: 0.0)
        self.record = self.pool._census = Record()
        self.tasks: list[asyncio.Task[ProcessMember]] = []

    def act(self, operation: str) -> None:
        """Let one thing happen; nothing, if it cannot."""
        getattr(self, operation)()

    def acquire(self) -> None:
        self.tasks.append(asyncio.ensure_future(self.pool.acquire()))

    def acquire_and_leave(self) -> None:
        """Leave in the queue."""
        self.acquire()
        asyncio.get_running_loop().call_soon(self.tasks[-1].cancel)

    def acquire_and_leave_late(self) -> None:
        """Leave with a member that nobody has seen."""
        self.acquire()
        self.record.leaving.append(self.tasks[-1])

    def release(self) -> None:
        for member in self._used()[:1]:
            self.pool.release(member)

    def kill_idle(self) -> None:
        for entry in list(self.pool._roster._idle.values())[:1]:
            entry.member.kill()

    def kill_used(self) -> None:
        for member in self._used()[:1]:
            member.kill()

    def break_(self) -> None:
        self.factory.failure = FLAKY

    def mend(self) -> None:
        self.factory.failure = None

    def hold(self) -> None:
        self.factory.gate.clear()

    def go(self) -> None:
        self.factory.gate.set()

    def small(self) -> None:
        self.factory.held = 100

    def large(self) -> None:
        self.factory.held = 180

    def too_large(self) -> None:
        self.factory.held = 300

    def _used(self) -> list[ProcessMember]:
        """Those that somebody has, and has not released."""
        used = {id(entry.member) for entry in self.pool._roster._in_use.values()}
        done = [task for task in self.tasks if task.done() and not task.cancelled() and task.exception() is None]
        return [task.result() for task in done if id(task.result()) in used]

    async def close(self) -> None:
        await give_way()
        await self.pool.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def check(self) -> None:
        """The census is that of the members which are really there."""
        sizes, info = self.record.sizes, self.pool.info()
        counted = (sizes["starting"], sizes["idle"], sizes["in_use"], sizes["closing"])
        assert counted == (info.starting, info.idle, info.in_use, info.closing)
        assert sum(sizes.values()) == self.record.begun
        assert all(size >= 0 for size in sizes.values())
        alive = sum(not member.died.done() for member in self.factory.made)
        assert alive <= sum(counted)
        assert self.record.steps <= edges("member")


OPERATIONS = [name for name in vars(Play) if not name.startswith("_") and name not in {"act", "check", "close"}]


async def play(*scenes: list[str]) -> set[tuple[str, str]]:
    """The steps of all members of a pool to which this happens, with a moment between the scenes."""
    one = Play()
    try:
        for scene in scenes:
            for operation in scene:
                one.act(operation)
            await give_way()
            one.check()
    finally:
        await one.close()
    one.check()
    sizes = {state: size for state, size in one.record.sizes.items() if size}
    assert sizes in ({"gone": one.record.begun}, {})
    assert all(member.died.done() for member in one.factory.made)
    return one.record.steps


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(OPERATIONS), max_size=4), max_size=8))
def test_whatever_happens_members_take_steps_of_the_table_and_are_gone_in_the_end(scenes: list[list[str]]) -> None:
    asyncio.run(play(*scenes))


def test_every_step_of_a_member_can_be_seen() -> None:
    assert asyncio.run(all_lives()) == edges("member")


async def all_lives() -> set[tuple[str, str]]:
    """Let each thing happen that can happen to a member, and wait for what follows from it."""
    busy, closing = Play(), Play()
    try:
        async with asyncio.timeout(LONG):
            await _be_busy(busy)
            closing.acquire()
            await closing.events.until(closing.pool, lambda info: (info.idle, info.in_use) == (2, 1))
            closing.hold()
            closing.acquire()
            await closing.events.until(closing.pool, lambda info: (info.idle, info.starting) == (1, 1))
    finally:
        await busy.close()
        await closing.close()
    return busy.record.steps | closing.record.steps


async def _be_busy(one: Play) -> None:
    async def until(step: tuple[str, str]) -> None:
        await one.events.until(one.pool, lambda _: step in one.record.steps)

    one.acquire()
    await one.events.until(one.pool, lambda info: (info.idle, info.in_use) == (2, 1))
    one.kill_idle()
    await until(("idle", "died"))
    one.kill_used()
    await until(("in_use", "died"))
    one.release()
    await until(("closing", "ended"))
    await one.events.until(one.pool, lambda info: info.idle == 2)
    one.hold()
    one.acquire()
    one.acquire()
    await one.events.until(one.pool, lambda info: (info.in_use, info.starting) == (2, 2))
    one.acquire_and_leave_late()
    await give_way()
    one.large()  # two of them are more than may be idle
    one.go()
    await until(("in_use", "left"))
    await until(("idle", "evicted"))
    one.too_large()
    one.acquire()
    one.acquire()
    await until(("starting", "rejected"))
    one.break_()
    one.acquire()
    await until(("starting", "failed"))


# Breakers


class Watched(Breaker):
    """Remembers its steps."""

    def __init__(self) -> None:
        super().__init__(BreakerConfig(failures=3, window=10.0, pause=1.0, longest_pause=8.0), lambda: 1.0)
        self.steps: set[tuple[str, str, str]] = set()
        self.under_way: list[bool] = []
        self.now = 0.0

    def _move(self, event: BreakerEvent) -> None:
        before = self.state
        super()._move(event)
        self.steps.add((before, event, self.state))

    def act(self, operation: str, which: int = 0) -> None:
        """Let one thing happen; nothing, if it cannot. Attempts end in any order."""
        if operation == "begin" and self.may_start(self.now):
            self.under_way.append(self.attempt(self.now))
        elif operation == "wait":
            self.now = max(self.now + 1.0, self.next_attempt)
        elif operation != "begin" and self.under_way:
            probe = self.under_way.pop(-1 if operation == "fail_last" else which % len(self.under_way))
            if operation == "succeed":
                self.succeeded()
            else:
                self.failed(self.now, FLAKY, probe=probe)


def is_step(step: tuple[str, str, str]) -> bool:
    before, event, after = step
    return TABLES["breaker"][before].get(event) == after


@given(st.lists(st.tuples(st.sampled_from(["begin", "begin", "wait", "succeed", "fail", "fail"]), st.integers(0, 9))))
def test_whatever_happens_a_breaker_takes_steps_of_the_table(operations: list[tuple[str, int]]) -> None:
    one = Watched()
    for operation, which in operations:
        before = one.state
        one.act(operation, which)
        assert one.state in {before, *BREAKER[before].values()}
        assert all(map(is_step, one.steps))
        assert one.state != "half_open" or any(one.under_way)  # a probe that nobody waits for would block it for ever


OPENED = "begin begin begin begin fail fail fail"
"""One attempt is under way still."""


WAYS: dict[tuple[str, str], str] = {
    ("closed", "attempt"): "begin",
    ("closed", "success"): "begin succeed",
    ("closed", "failure"): "begin fail",
    ("closed", "too_many_failures"): OPENED,
    ("closed", "failure_of_the_probe"): f"{OPENED} wait begin succeed fail",
    ("open", "attempt"): f"{OPENED} wait begin",
    ("open", "success"): f"{OPENED} succeed",
    ("open", "failure"): f"{OPENED} fail",
    (
        "open",
        "failure_of_the_probe",
    ): f"{OPENED} wait begin succeed {'begin ' * 3} {'fail_last ' * 3} fail",
    ("half_open", "success"): f"{OPENED} wait begin succeed",
    ("half_open", "failure"): f"{OPENED} wait begin fail",
    ("half_open", "failure_of_the_probe"): f"{OPENED} wait begin fail_last",
}


@pytest.mark.parametrize("step", sorted(edges("breaker")), ids="-".join)
def test_every_step_of_a_breaker_can_be_seen(step: tuple[str, str]) -> None:
    one = Watched()
    *before, last = WAYS[step].split()
    for operation in before:
        one.act(operation)
    one.steps.clear()
    one.act(last)
    assert one.steps == {(*step, TABLES["breaker"][step[0]][step[1]])}


# Tables and diagrams


def test_the_tables_name_every_state_and_event_that_there_is() -> None:
    for table, states, events in (
        (MEMBER, get_args(MemberState), get_args(MemberEvent)),
        (BREAKER, get_args(BreakerState), get_args(BreakerEvent)),
    ):
        assert set(table) == set(states)
        assert {event for steps in table.values() for event in steps} == set(events)
        entered = {following for steps in table.values() for following in steps.values()}
        assert entered | {next(iter(table))} == set(states)


def test_the_diagrams_of_the_explanation_are_those_of_the_tables() -> None:
    """If not: `python -m capsule_pool.diagrams docs/explanation/how-the-pool-works.md`."""
    text = PAGE.read_text(encoding="utf-8")
    assert write_into(text) == text
    assert all(f"```mermaid\n{mermaid(name)}\n```" in text for name in TABLES)


def test_a_diagram_shows_every_step_to_another_state() -> None:
    for name, table in TABLES.items():
        for state, steps in table.items():
            for event, following in steps.items():
                lines = [
                    line for line in mermaid(name).splitlines() if line.startswith(f"    {state} --> {following}: ")
                ]
                events = lines[0].split(": ")[1].split(", ") if lines else []
                assert (event.replace("_", " ") in events) == (following != state)
