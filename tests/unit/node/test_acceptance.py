"""What is asked of a session while others fill the intake, or the store fails. Session, ledger and store are real."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from capsule import AsyncClient
from capsule.node.durable import Entry, Ledger
from capsule.node.durable.intake import MOST, Intake
from capsule.node.execution import ExecuteRequest
from capsule.node.front.hosted import Hosted
from capsule.node.session import Session
from capsule.node.tasks import Tasks
from capsule_bridge import Bridge, SqliteStore
from capsule_bridge.sqlite.faults import FaultPoint
from capsule_protocol.errors import StoreError

pytestmark = pytest.mark.anyio
LONG = 30.0
REQUEST = ExecuteRequest("1 + 1")


class Disk:
    """The first transaction after `arm` waits for `go`, and then fails."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self._armed = False

    def arm(self) -> None:
        self._armed = True

    def fault(self, at: FaultPoint) -> None:
        if at == "begun" and self._armed:
            self._armed = False
            self.go.wait(LONG)
            raise OSError(28, "No space left on device")


class Rig:
    """A session that is written down, and what was accepted of it."""

    def __init__(self, session: Session, ledger: Ledger, tasks: Tasks, disk: Disk) -> None:
        self.ledger = ledger
        self.disk = disk
        self.hosted = Hosted(session, "me", tasks, lambda _: None, ledger)
        self.entries: list[tuple[str, Entry]] = []
        accept = ledger.accept

        async def watched(*arguments: object, **named: object) -> Entry:
            entry = await accept(*arguments, **named)  # type: ignore[arg-type]
            self.entries.append((str(arguments[3]), entry))
            return entry

        ledger.accept = watched  # type: ignore[method-assign]

    def ask(self, execution: str) -> asyncio.Task[object]:
        return asyncio.create_task(self.hosted.accept(self.ledger, REQUEST, execution, None))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    tasks, disk = Tasks(), Disk()
    store = SqliteStore(tmp_path / "store.db", "process", fault=disk.fault)
    async with AsyncClient() as client, await client.session() as session:
        inner = session._inner
        assert isinstance(inner, Session)
        ledger = Ledger(Bridge(store), tasks)
        await ledger.opened(inner, "me")
        yield Rig(inner, ledger, tasks, disk)
        disk.go.set()
        await tasks.close()
    await store.close()


async def test_whoever_waits_for_a_session_waits_for_no_other_one(rig: Rig) -> None:
    async with AsyncExitStack() as others, asyncio.timeout(LONG):
        for _ in range(MOST):
            await others.enter_async_context(rig.ledger.intake.admitted("another"))
        asked = [rig.ask(f"x_{number}") for number in range(3)]
        await asyncio.sleep(0)
        assert len(rig.ledger.intake) == 3
        await rig.hosted.lined_up()
        await asyncio.gather(*asked)
    assert [name for name, _ in rig.entries] == ["x_0", "x_1", "x_2"]


async def test_when_the_store_fails_nobody_waits_for_those_before(rig: Rig) -> None:
    rig.ledger.intake = Intake(1)
    rig.disk.arm()
    asked = [rig.ask(f"x_{number}") for number in range(3)]
    await asyncio.sleep(0)
    assert len(rig.ledger.intake) == 2
    rig.disk.go.set()
    async with asyncio.timeout(LONG):
        with pytest.raises(StoreError):
            await asked[0]
        assert len(rig.ledger.intake) == 0
        await asyncio.gather(*asked[1:])


async def test_who_asks_again_before_the_store_has_failed_keeps_its_place(rig: Rig) -> None:
    """Then what is behind it has not begun, though the first attempt of what is before it is gone."""
    rig.ledger.intake = Intake(1)
    rig.disk.arm()
    first, again, behind = rig.ask("x_1"), rig.ask("x_1"), rig.ask("x_2")
    await asyncio.sleep(0)
    rig.disk.go.set()
    async with asyncio.timeout(LONG):
        with pytest.raises(StoreError):
            await first
        await asyncio.gather(again, behind)
    assert {name: entry.begun for name, entry in rig.entries} == {"x_1": True, "x_2": False}
