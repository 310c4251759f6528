"""What a kernel uses: sessions of the front without a connection, which are as those of any other client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from capsule.client.remote.execution import RemoteExecution
from capsule.client.remote.node import RemoteNode
from capsule.comms import CommRequest
from capsule.config import NodeConfig, SessionOptions
from capsule.events import Display, Event, Finished, InputRequest, Output, Started
from capsule.node.execution import ExecuteRequest
from capsule.node.front.following import Line
from capsule.node.front.front import Front
from capsule.node.front.inside import InsideNode, InsideSession
from capsule.node.node import Node
from capsule.settings.service import QuotaConfig, ServeConfig
from capsule_bridge import Bridge, SqliteStore, open_store, session_promise
from capsule_bridge.sqlite.faults import FaultPoint
from capsule_protocol.errors import ArgumentError, RemoteProtocolError, SessionError

pytestmark = pytest.mark.anyio

LONG = 60.0


@asynccontextmanager
async def fronted(config: ServeConfig | None = None, bridge: Bridge | None = None) -> AsyncIterator[Front]:
    async with Node(NodeConfig(), bridge=bridge) as node:
        front = Front(node, config or ServeConfig(), bridge)
        try:
            yield front
        finally:
            await front.close()


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    async with fronted() as made:
        yield made


@pytest.fixture
async def session(front: Front) -> InsideSession:
    return await InsideNode(front).open_session(SessionOptions())


async def events_of(execution: RemoteExecution) -> list[Event]:
    """All of them."""
    told: list[Event] = []
    async with asyncio.timeout(LONG):
        while not (told and isinstance(told[-1], Finished)):
            told.append(await execution.next_event())
    return told


async def verdict_of(execution: RemoteExecution) -> Finished:
    last = (await events_of(execution))[-1]
    assert isinstance(last, Finished)
    return last


async def refusal_of(execution: RemoteExecution) -> str:
    """The code of what is against it."""
    with pytest.raises(SessionError) as caught:
        await events_of(execution)
    return caught.value.code


async def test_events_come_in_their_order_and_nothing_of_them_is_kept(front: Front, session: InsideSession) -> None:
    codes = [f"print({number})\n{number}" for number in range(2)]
    both = [session.submit(ExecuteRequest(code, stop_on_error=True)) for code in codes]
    for number, execution in enumerate(both):
        told = await events_of(execution)
        assert [event.sequence for event in told] == list(range(1, len(told) + 1))
        assert told[0] == Started(execution.id, 1, number + 1)
        assert "".join(event.text for event in told if isinstance(event, Output)) == f"{number}\n"
        assert isinstance(told[-1], Finished)
        assert told[-1].text == str(number)
    (hosted,) = front.registry
    assert not hosted.logs


async def test_who_has_not_asked_for_an_execution_does_not_acknowledge_it(front: Front, session: InsideSession) -> None:
    execution = session.submit(ExecuteRequest("1"))
    (hosted,) = front.registry
    await hosted.settled()
    (log,) = hosted.logs.values()
    hosted.acknowledge(execution.id, log.last, "c_another")
    assert hosted.logs
    await events_of(execution)
    assert not hosted.logs


async def test_what_is_lined_up_for_a_client_that_is_gone_by_then_waits_for_nobody(
    front: Front, session: InsideSession
) -> None:
    (hosted,) = front.registry
    flood = ExecuteRequest("for _ in range(20_000): print('x' * 1023)", client="c_gone")
    log = hosted.submit(flood, "x_flood", None)
    async with asyncio.timeout(LONG):
        await hosted.settled()
    assert log.ended
    assert (await verdict_of(session.submit(ExecuteRequest("1")))).text == "1"


async def test_who_reads_slowly_gets_all_of_it(session: InsideSession) -> None:
    size = 8 * 2**20
    told = await events_of(session.submit(ExecuteRequest(f"for _ in range({size // 1024}): print('x' * 1023)")))
    assert sum(len(event.text) for event in told if isinstance(event, Output)) == size


async def test_questions_and_answers(front: Front, session: InsideSession) -> None:
    execution = session.submit(ExecuteRequest("input('how many? ')", allow_input=True))
    asked = await execution.next_event()
    while not isinstance(asked, InputRequest):
        asked = await execution.next_event()
    with pytest.raises(ArgumentError):
        execution.reply_input("another", "1")
    execution.reply_input(asked.request, "3")
    assert (await verdict_of(execution)).text == "'3'"
    execution.reply_input(asked.request, "4")  # it is over, and waits for nothing
    assert (await session.ask("complete", {"code": "prin", "cursor": 4}))["matches"] == ["print"]
    with pytest.raises(RemoteProtocolError):
        await session.ask("complete", {"code": 1})
    assert session.info().pid == next(iter(front.registry)).session.info().pid


async def test_what_belongs_to_no_execution_any_more(session: InsideSession) -> None:
    late: asyncio.Queue[Event] = asyncio.Queue()
    session.on_background = late.put_nowait
    run = "lambda: (go.wait(), print('late', end=''))"
    code = f"import threading\ngo = threading.Event()\nthreading.Thread(target={run}).start()"
    assert (await verdict_of(session.submit(ExecuteRequest(code)))).verdict == "ok"
    await verdict_of(session.submit(ExecuteRequest("go.set()")))
    told = await asyncio.wait_for(late.get(), LONG)
    assert isinstance(told, Output)
    assert told.text == "late"


async def test_others_look_on_and_take_it_over(front: Front, session: InsideSession, tmp_path: Path) -> None:
    front.listen(f"ipc://{tmp_path}/s")
    states: list[tuple[str, str]] = []
    session.on_state = lambda *told: states.append(told)
    running = session.submit(ExecuteRequest("while True: pass"))
    other = RemoteNode(f"ipc://{tmp_path}/s")
    await other.attach(session.id, watch=True)
    assert (await session.cancel(running.id), states) == (True, [])
    assert (await verdict_of(running)).verdict != "ok"
    running = session.submit(ExecuteRequest("while True: pass"))
    third = RemoteNode(f"ipc://{tmp_path}/s")
    taken = await third.attach(session.id)
    assert await refusal_of(running) == "session_taken"
    assert states == [("closed", "session_taken")]
    with pytest.raises(SessionError, match="taken"):
        session.submit(ExecuteRequest("1"))
    await session.close()  # it is not this one's any more
    assert await taken.interrupt()
    assert len(front.registry) == 1
    for one in (other, third):
        await one.close()


async def test_an_operator_ends_it(front: Front, session: InsideSession) -> None:
    running = session.submit(ExecuteRequest("while True: pass"))
    await running.next_event()
    (hosted,) = front.registry
    await front.registry.kill(hosted)
    assert (await verdict_of(running)).verdict != "ok"
    with pytest.raises(SessionError) as caught:
        await session.cancel(running.id)
    assert caught.value.code == "session_killed"


async def test_a_mistake_of_the_node_ends_the_session_and_its_worker(front: Front, session: InsideSession) -> None:
    running = session.submit(ExecuteRequest("while True: pass"))
    await running.next_event()
    (hosted,) = front.registry
    cast("Line", hosted.reader).give_up("an event could not be told")
    assert await refusal_of(running) == "internal_error"
    await session.close()
    async with asyncio.timeout(LONG):
        while len(front.registry):  # it is closed from the loop's next turn on
            await asyncio.sleep(0)
        await front.registry.ended()
    assert hosted.session.state == "closed"
    assert not front.node.sessions


async def test_a_worker_that_dies_is_told(session: InsideSession) -> None:
    dead = asyncio.Event()
    session.on_state = lambda state, _reason: dead.set() if state == "dead" else None
    execution = session.submit(ExecuteRequest("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"))
    assert (await verdict_of(execution)).verdict == "crashed"
    await asyncio.wait_for(dead.wait(), LONG)
    assert await refusal_of(session.submit(ExecuteRequest("1"))) == "session_dead"
    with pytest.raises(SessionError):
        await session.ask("complete", {"code": "1", "cursor": 0})


async def test_closing_ends_what_runs(front: Front, session: InsideSession) -> None:
    running = session.submit(ExecuteRequest("while True: pass"))
    await running.next_event()
    await session.close()
    await session.close()
    assert (await verdict_of(running)).verdict != "ok"
    assert len(front.registry) == 0
    with pytest.raises(SessionError) as caught:
        session.submit(ExecuteRequest("1"))
    assert caught.value.code == "session_closed"


async def test_a_node_that_is_about_to_end_takes_nothing_new(front: Front, session: InsideSession) -> None:
    front.drain()
    assert await refusal_of(session.submit(ExecuteRequest("1"))) == "node_closed"
    with pytest.raises(SessionError) as caught:
        await InsideNode(front).open_session(SessionOptions())
    assert caught.value.code == "node_closed"


async def test_quotas_count() -> None:
    quota = QuotaConfig(sessions=1, bytes_per_second=1024)
    async with fronted(ServeConfig(quotas={"default": quota})) as front:
        session = await InsideNode(front).open_session(SessionOptions())
        with pytest.raises(SessionError, match="sessions"):
            await InsideNode(front).open_session(SessionOptions())
        assert (await verdict_of(session.submit(ExecuteRequest(f"# {'x' * 2**20}\n1")))).verdict == "ok"
        assert await refusal_of(session.submit(ExecuteRequest("1"))) == "quota_exceeded"
        with pytest.raises(SessionError, match="bytes_per_second"):
            await session.ask("complete", {"code": "1", "cursor": 0})


MUCH = "x" * 2**20


@pytest.mark.parametrize(
    "request_",
    [
        ExecuteRequest("", comm=CommRequest("open", "c", {"much": MUCH}, target="none")),
        ExecuteRequest("", comm=CommRequest("open", "c", target="none", buffers=(MUCH.encode(),))),
        ExecuteRequest("", user_expressions={"much": f"len('{MUCH}')"}),
    ],
    ids=["comm", "buffers", "expressions"],
)
async def test_all_that_is_asked_counts_for_the_quota(request_: ExecuteRequest) -> None:
    async with fronted(ServeConfig(quotas={"default": QuotaConfig(bytes_per_second=2**16)})) as front:
        session = await InsideNode(front).open_session(SessionOptions())
        await events_of(session.submit(request_))
        assert await refusal_of(session.submit(ExecuteRequest("1"))) == "quota_exceeded"


async def test_questions_count_for_the_quota() -> None:
    async with fronted(ServeConfig(quotas={"default": QuotaConfig(bytes_per_second=2**16)})) as front:
        session = await InsideNode(front).open_session(SessionOptions())
        await session.ask("complete", {"code": MUCH, "cursor": 0})
        assert await refusal_of(session.submit(ExecuteRequest("1"))) == "quota_exceeded"


async def test_what_belongs_to_no_execution_counts_for_the_quota() -> None:
    async with fronted(ServeConfig(quotas={"default": QuotaConfig(bytes_per_second=2**16)})) as front:
        session = await InsideNode(front).open_session(SessionOptions())
        late: asyncio.Queue[Event] = asyncio.Queue()
        session.on_background = late.put_nowait
        run = "lambda: (go.wait(), display({'text/plain': 'x' * 2**20}, raw=True))"
        code = f"import threading\ngo = threading.Event()\nthreading.Thread(target={run}).start()"
        await events_of(session.submit(ExecuteRequest(code)))
        await events_of(session.submit(ExecuteRequest("go.set()")))
        assert isinstance(await asyncio.wait_for(late.get(), LONG), Display)
        assert await refusal_of(session.submit(ExecuteRequest("1"))) == "quota_exceeded"


async def test_what_is_executed_is_written_down_where_that_is_so(tmp_path: Path) -> None:
    bridge = Bridge(open_store("process", str(tmp_path / "store.db"), beside=tmp_path / "store.db", token=None))
    try:
        async with fronted(bridge=bridge) as front:
            session = await InsideNode(front).open_session(SessionOptions())
            execution = session.submit(ExecuteRequest("print(1)\n2"))
            told = await events_of(execution)
            assert [type(event) for event in told] == [Started, Output, Finished]
            assert front.ledger is not None
            (hosted,) = front.registry
            kept = await front.ledger.history(session.id, hosted.logs, execution.id, 0)
            assert kept.events == told
            await session.close()
    finally:
        await bridge.close()


class Disk:
    """A disk that may be told to take its time: it says that it is about to commit, and waits until it may."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        self.slow = False
        self.go_on = threading.Event()

    def fault(self, at: FaultPoint) -> None:
        if self.slow and at == "before_commit":
            self.loop.call_soon_threadsafe(self.reached.set)
            self.go_on.wait(LONG)


async def test_who_is_cancelled_while_he_opens_one_leaves_none_written_down(tmp_path: Path) -> None:
    disk = Disk()
    bridge = Bridge(SqliteStore(tmp_path / "store.db", "process", fault=disk.fault))
    try:
        async with fronted(bridge=bridge) as front:
            disk.slow = True
            opening = asyncio.ensure_future(InsideNode(front).open_session(SessionOptions()))
            await asyncio.wait_for(disk.reached.wait(), LONG)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            disk.go_on.set()
            await front.registry.ended()
            assert [promise.id async for promise in bridge.pending()] == []
            assert len(front.registry) == 0
            assert not front.registry.ids
    finally:
        await bridge.close()


@pytest.mark.parametrize("node_ends", [False, True])
async def test_closing_goes_on_when_its_caller_is_cancelled(tmp_path: Path, node_ends: bool) -> None:
    bridge = Bridge(open_store("process", str(tmp_path / "store.db"), beside=tmp_path / "store.db", token=None))
    told = asyncio.Event()
    try:
        async with fronted(bridge=bridge) as front:
            front.listen(f"ipc://{tmp_path}/s")
            session = await InsideNode(front).open_session(SessionOptions())
            other = RemoteNode(f"ipc://{tmp_path}/s")
            watched = await other.attach(session.id, watch=True)
            watched.on_state = lambda state, _reason: told.set() if state == "closed" else None
            closing = asyncio.ensure_future(session.close())
            await asyncio.sleep(0)  # it has begun
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            with pytest.raises(SessionError):
                session.submit(ExecuteRequest("1"))
            if not node_ends:
                assert not (await asyncio.wait_for(bridge.wait(session_promise(session.id)), LONG)).pending
                await asyncio.wait_for(told.wait(), LONG)
            await other.close()
        assert [promise.id async for promise in bridge.pending()] == []
    finally:
        await bridge.close()
