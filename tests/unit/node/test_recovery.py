"""What a node finds in its store is ruled on whatever the store raises meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from capsule.config import ServeConfig
from capsule.events import Finished, Output
from capsule.node.durable import Ledger, Scribe
from capsule.node.durable.household import Household
from capsule.node.durable.records import pack_request
from capsule.node.execution import ExecuteRequest
from capsule.node.front.front import Front
from capsule.node.node import Node
from capsule.node.tasks import Tasks
from capsule.node.verdicts import cancelled
from capsule_bridge import Bridge, MemoryStore, NewPromise, Retention, SqliteStore, promise_id
from capsule_bridge.sqlite.faults import FaultPoint
from capsule_protocol.errors import StoreError

pytestmark = pytest.mark.anyio

PATIENCE = 60.0


def execution(name: str, **fields: Any) -> NewPromise:
    param = pack_request(ExecuteRequest("6 * 7"))
    return NewPromise(promise_id(name), "execute", "s", b"", **{"param": param, **fields})


class Flaky(MemoryStore):
    """A store that raises these first, in whatever call."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__()
        self.failures = list(failures)

    def _check_open(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
        super()._check_open()


FAILURES = (StoreError("store_unavailable", "full"), OSError(28, "full"), RuntimeError("a mistake"))


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    made = Tasks()
    yield made
    await made.close()


async def test_a_store_that_fails_in_the_midst_of_a_recovery_does_not_end_it(tmp_path: Path) -> None:
    failures: list[OSError] = []

    def fault(at: FaultPoint) -> None:
        if failures and at == "before_commit":
            raise failures.pop()

    bridge = Bridge(SqliteStore(tmp_path / "store.db", "process", fault=fault))
    started = [execution(f"started{n}", epoch=1) for n in range(3)]
    waiting = [execution(f"waiting{n}") for n in range(3)]
    for new in started + waiting:
        await bridge.accept(new)
    async with Node() as node:
        front = Front(node, ServeConfig(), bridge)
        assert front.ledger is not None
        failures.extend(OSError(28, "No space left on device") for _ in range(5))
        async with asyncio.timeout(PATIENCE):
            await Household(front.ledger, front.registry, node, ServeConfig).begin(())
            verdicts = [await bridge.wait(new.id) for new in started + waiting]
        await front.close()
    assert failures == []
    assert {promise.state for promise in verdicts} == {"rejected"}
    logs = [[event.data async for event in bridge.events(new.id, 0)] for new in started + waiting]
    assert {len(log) for log in logs} == {1}, "one verdict each"
    await bridge.close()


async def test_what_is_another_nodes_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    bridge = Bridge(SqliteStore(tmp_path / "store.db", "process"))
    await bridge.accept(execution("x", epoch=1))
    found = await bridge.get(promise_id("x"))
    fence = await bridge.take(promise_id("x"), 2)
    tasks = Tasks()
    with pytest.raises(Exception, match="promise_fenced"):
        await Ledger(bridge, tasks).give_up(found, StoreError("store_closed", "x"), started=True)
    assert (await bridge.get(promise_id("x"))).pending
    await bridge.append(promise_id("x"), [b"x"], 0, fence)
    await bridge.close()


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_what_is_old_is_forgotten_after_whatever_the_store_raised(tasks: Tasks, failure: Exception) -> None:
    bridge = Bridge(Flaky())
    await bridge.accept(execution("x", timeout_at=bridge.now() + 1_000))
    assert isinstance(bridge.store, Flaky)
    bridge.store.failures.append(failure)
    tidying = tasks.start(Ledger(bridge, tasks).keep_tidy(lambda: Retention(results=2, tombstones=10)))
    async with asyncio.timeout(PATIENCE):
        while bridge.info().verdicts != {"rejected_timedout": 1}:
            await asyncio.sleep(0.001)
    assert not tidying.done()


class Told:
    """A reader of a scribe."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.last = 0

    def tell(self, event: Any) -> None:
        self.last = event.sequence
        self.events.put_nowait(event)

    def overrule(self, events: list[Any]) -> None:
        for event in events:
            self.tell(event)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_a_scribe_goes_on_after_whatever_the_store_raised(tasks: Tasks, failure: Exception) -> None:
    bridge, told = Bridge(Flaky()), Told()
    await bridge.accept(execution("x", epoch=1))
    assert isinstance(bridge.store, Flaky)
    scribe = Scribe(bridge, promise_id("x"), tasks, told)
    for event in (Output("x", 1, "stdout", "said"), Finished("x", 2, "ok")):
        bridge.store.failures.append(failure)
        scribe.write(event)
        assert await asyncio.wait_for(told.events.get(), PATIENCE) == event
    assert (await bridge.get(promise_id("x"))).state == "resolved"


async def test_who_was_too_late_tells_what_stands(tasks: Tasks) -> None:
    bridge, told, first = Bridge(MemoryStore()), Told(), Told()
    await bridge.accept(execution("x", epoch=1))
    late, other = (Scribe(bridge, promise_id("x"), tasks, reader) for reader in (told, first))
    other.write(Output("x", 1, "stdout", "said"))
    verdict, error = cancelled("so it was wanted")
    other.write(Finished("x", 2, verdict, error=error))
    for _ in range(2):
        await asyncio.wait_for(first.events.get(), PATIENCE)
    late.write(Finished("x", 1, "ok"))
    stands = [await asyncio.wait_for(told.events.get(), PATIENCE) for _ in range(2)]
    assert stands == [Output("x", 1, "stdout", "said"), Finished("x", 2, verdict, error=error)]
