"""What a node finds in its store is ruled on whatever the store raises meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from capsule.events import Finished, Output
from capsule.node.durable import Ledger, Scribe
from capsule.node.durable.household import Household
from capsule.node.durable.records import pack_request
from capsule.node.execution import ExecuteRequest
from capsule.node.front.front import Front
from capsule.node.node import Node
from capsule.node.tasks import Tasks
from capsule.node.verdicts import cancelled
from capsule.settings.service import ServeConfig
from capsule.wire import unpack_event
from capsule_bridge import Bridge, MemoryStore, NewPromise, Promise, Retention, SqliteStore, interceptors, promise_id
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


@pytest.mark.parametrize("harm", ["lost", "damaged"])
async def test_a_node_starts_over_promises_that_cannot_be_read_and_ends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(interceptors, "BUDGET", PATIENCE)
    large = pack_request(ExecuteRequest("#" * 100_000))
    left = Bridge(SqliteStore(tmp_path / "store.db", "process"))
    others = [NewPromise(f"{kind}:x", kind, "gone", b"", large) for kind in ("session", "input")]
    for new in (execution("begun", epoch=1, param=large), execution("waiting", param=large), *others):
        await left.accept(new)
    await left.close()
    for file in (tmp_path / "store.db.values").iterdir():
        file.unlink() if harm == "lost" else file.write_bytes(b"less")
    ended: asyncio.Queue[Promise] = asyncio.Queue()

    def look(step: interceptors.Step, promise: Promise) -> None:
        if step == "settled":
            ended.put_nowait(promise)

    bridge = Bridge(SqliteStore(tmp_path / "store.db", "process"), interceptors=[look])
    await bridge.accept(execution("whole"))
    async with Node() as node:
        front = Front(node, ServeConfig(), bridge)
        assert front.ledger is not None
        async with asyncio.timeout(PATIENCE):
            await Household(front.ledger, front.registry, node, ServeConfig).begin(())
            states = {promise.id: promise.state for promise in [await ended.get() for _ in range(5)]}
        await front.close()
    executions = {promise_id(name): "rejected" for name in ("begun", "waiting", "whole")}
    assert states == {"session:x": "rejected_canceled", "input:x": "rejected_canceled", **executions}
    for name, effects in {"begun": "unknown", "waiting": "none"}.items():
        (event,) = [event async for event in bridge.events(promise_id(name), 0)]
        finished = unpack_event(event.data, name, 1)
        assert isinstance(finished, Finished)
        assert finished.error is not None
        assert "cannot be read" in finished.error.message
        extent = {"reason": "store_damaged", "started": name == "begun", "last_seq": 0, "effects": effects}
        assert (finished.verdict, finished.error.details) == ("worker_lost", extent)
    assert [promise async for promise in bridge.pending()] == []
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
        scribe.flush()
        assert await asyncio.wait_for(told.events.get(), PATIENCE) == event
    assert (await bridge.get(promise_id("x"))).state == "resolved"


async def test_who_was_too_late_tells_what_stands(tasks: Tasks) -> None:
    bridge, told, first = Bridge(MemoryStore()), Told(), Told()
    await bridge.accept(execution("x", epoch=1))
    late, other = (Scribe(bridge, promise_id("x"), tasks, reader) for reader in (told, first))
    other.write(Output("x", 1, "stdout", "said"))
    other.flush()
    verdict, error = cancelled("so it was wanted")
    other.write(Finished("x", 2, verdict, error=error))
    other.flush()
    for _ in range(2):
        await asyncio.wait_for(first.events.get(), PATIENCE)
    late.write(Finished("x", 1, "ok"))
    late.flush()
    stands = [await asyncio.wait_for(told.events.get(), PATIENCE) for _ in range(2)]
    assert stands == [Output("x", 1, "stdout", "said"), Finished("x", 2, verdict, error=error)]


class Slow(MemoryStore):
    """A store whose `append` takes as long as the test likes; it has done it then, or not."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.go_on, self.gone_on = asyncio.Event(), asyncio.Event()

    async def append(self, *arguments: Any, **named: Any) -> int:
        if self.first:
            await super().append(*arguments, **named)
        await self.go_on.wait()
        last = await super().append(*arguments, **named)  # also as one does who asks again
        self.gone_on.set()
        return last


@pytest.mark.parametrize("first", [True, False], ids=["done", "not done"])
async def test_a_verdict_waits_for_no_commit_before_it_and_nothing_is_told_or_logged_twice(
    tasks: Tasks, first: bool
) -> None:
    store, told = Slow(first=first), Told()
    bridge = Bridge(store)
    fence = (await bridge.accept(execution("x", epoch=1))).promise.fence
    scribe = Scribe(bridge, promise_id("x"), tasks, told)
    scribe.fence = fence
    events = [Output("x", 1, "stdout", "one"), Output("x", 2, "stdout", "two"), Finished("x", 3, "ok")]
    for event in events:  # the second one waits for the first, and the verdict for neither
        scribe.write(event)
        scribe.flush()
    assert [await asyncio.wait_for(told.events.get(), PATIENCE) for _ in events] == events
    assert (await bridge.get(promise_id("x"))).state == "resolved"
    store.go_on.set()
    await asyncio.wait_for(store.gone_on.wait(), PATIENCE)
    await asyncio.wait_for(_all_over(tasks), PATIENCE)
    assert told.events.empty()
    log = [event.sequence async for event in bridge.events(promise_id("x"), 0)]
    assert log == [1, 2, 3]


@pytest.mark.parametrize("gone", [False, True])
async def test_a_verdict_takes_along_those_that_it_has_stopped_as_far_as_they_are_there(
    tasks: Tasks, gone: bool
) -> None:
    bridge, told, other = Bridge(MemoryStore()), Told(), Told()
    await bridge.accept(execution("x", epoch=1))
    await bridge.accept(execution("y"))
    ruling, error = cancelled("x of the same batch did not end in ok")
    stopped = [Finished(name, 1, ruling, error=error) for name in ("y", "z")[: 1 + gone]]
    scribe = Scribe(bridge, promise_id("x"), tasks, told)
    scribe.stopped = lambda: stopped
    scribe.write(Finished("x", 1, "error"))
    scribe.flush()
    assert (await asyncio.wait_for(told.events.get(), PATIENCE)).verdict == "error"
    assert (await bridge.get(promise_id("x"))).state == "rejected"
    assert (await bridge.get(promise_id("y"))).pending == gone
    second = Scribe(bridge, promise_id("y"), tasks, other)
    second.write(stopped[0])
    second.flush()
    assert await asyncio.wait_for(other.events.get(), PATIENCE) == stopped[0]
    assert [event.sequence async for event in bridge.events(promise_id("y"), 0)] == [1]


async def test_an_error_waits_until_all_of_an_earlier_node_is_lined_up(tasks: Tasks) -> None:
    bridge, complete = Bridge(MemoryStore()), asyncio.Event()
    told = {"x": Told(), "y": Told()}
    for name, verdict in ("x", "error"), ("y", "ok"):
        await bridge.accept(execution(name, epoch=1))
        scribe = Scribe(bridge, promise_id(name), tasks, told[name])
        scribe.complete = complete
        scribe.write(Finished(name, 1, verdict))  # type: ignore[arg-type]  # they are verdicts
        scribe.flush()
    await asyncio.wait_for(told["y"].events.get(), PATIENCE)
    assert (await bridge.get(promise_id("x"))).pending
    complete.set()
    await asyncio.wait_for(told["x"].events.get(), PATIENCE)


async def _all_over(tasks: Tasks) -> None:
    while running := tasks._tasks:
        await asyncio.wait(list(running))
