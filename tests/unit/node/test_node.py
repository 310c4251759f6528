"""The node with real zygotes and workers: what it opens, replaces and closes, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from capsule.config import NodeConfig, SessionOptions
from capsule.node.node import Node
from capsule.node.session import ExecuteRequest, Session
from capsule.settings.environments import EnvironmentConfig
from capsule_protocol.errors import EnvironmentFailed, LocalProtocolError, SessionError, WorkerLost
from tests.unit.kernels.forked import LONG
from tests.unit.node.support import assert_nothing_more, run, state_of_this_process

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def node() -> AsyncIterator[Node]:
    """A node that makes no worker ahead: what there is belongs to a test."""
    async with Node(NodeConfig(environments={"default": EnvironmentConfig(min_idle=0)})) as node:
        yield node


@pytest.fixture
async def session(node: Node) -> AsyncIterator[Session]:
    session = await node.open_session()
    yield session
    await session.close()


async def test_a_session_runs_code(session: Session) -> None:
    assert await run(session, "1 + 1") == "2"
    info = session.info()
    assert (info.state, info.executions, info.queue, info.epoch) == ("ready", 1, 0, 1)
    assert info.memory > 0
    assert info.pid > 0
    assert info.protocol == "1.0"
    assert info.responsive


async def test_a_closed_session_refuses_and_closes_again(node: Node) -> None:
    session = await node.open_session()
    running = session.submit(ExecuteRequest("while True: pass", stop_on_error=True))
    queued = session.submit(ExecuteRequest("1"))
    await asyncio.gather(session.close(), session.close())
    assert session.state == "closed"
    assert session.id not in node.sessions
    assert (await running.finished()).verdict in {"killed", "interrupted"}
    assert (await queued.finished()).verdict == "interrupted"
    for call in (lambda: session.submit(ExecuteRequest("1")), session.info):
        if call == session.info:
            assert session.info().state == "closed"
            continue
        with pytest.raises(SessionError) as caught:
            call()
        assert caught.value.code == "session_closed"
    with pytest.raises(SessionError):
        await session.restart()


async def test_a_zygote_that_was_killed_is_replaced(node: Node, session: Session) -> None:
    zygote = await node._environments.zygote("default")
    os.kill(zygote.pid, signal.SIGKILL)
    async with asyncio.timeout(LONG):
        await zygote.died.wait()
    other = await node.open_session()
    assert await run(other, "6 * 7") == "42"
    await other.close()
    assert await run(session, "1") == "1", "sessions outlive their zygote"


async def test_a_zygote_that_dies_unnoticed_costs_no_session(node: Node) -> None:
    zygote = await node._environments.zygote("default")
    os.kill(zygote.pid, signal.SIGKILL)
    session = await node.open_session()
    assert await run(session, "6 * 7") == "42"
    await session.close()


async def test_a_preload_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
    module = tmp_path / "preloaded.py"
    module.write_text("raise LookupError('not today')")
    environment = EnvironmentConfig(preload=("preloaded",), path=(str(tmp_path),))
    async with Node(NodeConfig(environments={"default": environment})) as node:
        for _ in range(2):
            with pytest.raises(EnvironmentFailed, match="not today") as caught:
                await node.open_session()
            assert "preloaded.py" in caught.value.details["traceback"]
        module.write_text("value = 5")
        session = await node.open_session()
        assert await run(session, "import preloaded; preloaded.value") == "5"


IMPORTS_FOR_EVER_ONCE = """
import os, signal
if os.path.exists({pipe!r}):
    with open({pipe!r}, "w") as told: told.write(str(os.getpid()))
    signal.pause()
value = 5
"""


async def test_a_zygote_that_is_killed_while_it_imports_is_replaced(tmp_path: Path) -> None:
    """Who waits for it is served by the next one, for it is not the environment that is at fault."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "preloaded.py").write_text(IMPORTS_FOR_EVER_ONCE.format(pipe=str(pipe)))
    environment = EnvironmentConfig(preload=("preloaded",), path=(str(tmp_path),))
    async with Node(NodeConfig(environments={"default": environment})) as node:
        opening = [asyncio.ensure_future(node.open_session()) for _ in range(2)]
        zygote = int(await asyncio.to_thread(pipe.read_text))
        pipe.unlink()
        os.kill(zygote, signal.SIGKILL)
        async with asyncio.timeout(LONG):
            for session in await asyncio.gather(*opening):
                assert await run(session, "import preloaded; preloaded.value") == "5"
        assert node.info().pools["default"].stats.counts["failures"] == 2


async def test_an_unknown_environment_lists_the_known_ones(node: Node) -> None:
    with pytest.raises(EnvironmentFailed, match="default") as caught:
        await node.open_session(SessionOptions(environment="other"))
    assert caught.value.code == "environment_unknown"


async def test_options_that_the_worker_refuses_leave_nothing(node: Node) -> None:
    await node.prepare()
    before = state_of_this_process()
    with pytest.raises(ValueError, match="nowhere"):
        await node.open_session(SessionOptions(cwd="/nowhere"))
    assert_nothing_more(before)


async def test_a_worker_that_is_late_is_told_and_leaves_nothing(node: Node) -> None:
    await node.prepare()
    before = state_of_this_process()
    with pytest.raises(WorkerLost) as caught:
        await node.open_session(SessionOptions(start_timeout=1e-6))
    assert caught.value.code == "worker_start_timeout"
    assert_nothing_more(before)


@pytest.mark.parametrize("min_idle", [0, 1])
async def test_a_session_that_is_cancelled_at_any_step_of_its_opening_leaves_nothing(min_idle: int) -> None:
    """Cancelled after one turn of the event loop, after two, and so on until one is open before that."""
    config = NodeConfig(environments={"default": EnvironmentConfig(min_idle=min_idle, max_sessions=4)})
    async with Node(config) as node:
        await (await node.open_session()).close()
        for turns in itertools.count():
            opening = asyncio.ensure_future(node.open_session(SessionOptions(files={"a": b"x"})))
            for _ in range(turns):
                await asyncio.sleep(0)
            if opening.done():
                await opening.result().close()
                break
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert not node.sessions
        # Whatever had been left in use would have taken one of the four places.
        async with asyncio.timeout(LONG):
            sessions = [await node.open_session() for _ in range(4)]
        assert node.info().pools["default"].in_use == 4
        for session in sessions:
            assert await run(session, "import os; os.listdir()") is not None
            await session.close()
    counts = node.info().pools["default"].stats.counts
    assert counts["acquires"] == counts["released"]


async def test_a_session_is_closed_whose_opener_is_cancelled_in_the_moment_it_is_open(node: Node) -> None:
    before = dict(node.sessions)
    opening = asyncio.ensure_future(node.open_session())
    await asyncio.sleep(0)
    (task,) = node._openings._tasks
    task.add_done_callback(lambda _: opening.cancel())
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert task.result().state == "closed"
    assert dict(node.sessions) == before


async def test_sessions_are_limited() -> None:
    async with Node(NodeConfig(max_sessions=1)) as node:
        session = await node.open_session()
        with pytest.raises(SessionError, match="max_sessions=1"):
            await node.open_session()
        await session.close()
        await node.open_session()


async def test_a_restart_gives_a_new_worker_and_ends_what_was_there(session: Session) -> None:
    await run(session, "x = 1")
    pid = session.info().pid
    running = session.submit(ExecuteRequest("print('go', flush=True)\nwhile True: pass", stop_on_error=True))
    while (await running.next_event()).__class__.__name__ != "Output":
        pass
    queued = session.submit(ExecuteRequest("1"))
    await session.restart()
    assert (await running.finished()).verdict == "killed"
    assert (await queued.finished()).verdict == "interrupted"
    assert session.info().epoch == 2
    assert session.info().pid != pid
    assert await run(session, "'x' in globals()") == "False"


async def test_a_session_that_closes_while_it_restarts_leaves_nothing(node: Node) -> None:
    await node.prepare()
    before = state_of_this_process()
    session = await node.open_session()
    restarting = asyncio.ensure_future(session.restart())
    await asyncio.sleep(0)
    with pytest.raises(SessionError, match="restarted"):
        session.submit(ExecuteRequest("1"))
    with pytest.raises(SessionError, match="restarted"):
        await session.restart()
    await session.close()
    with pytest.raises(SessionError, match="closed"):
        await restarting
    assert session.state == "closed"
    assert_nothing_more(before)


async def test_a_dead_session_says_so_and_can_be_restarted(session: Session) -> None:
    finished = await session.submit(ExecuteRequest("import os; os._exit(7)")).finished()
    assert finished.verdict == "crashed"
    assert session.state == "dead"
    with pytest.raises(SessionError) as caught:
        session.submit(ExecuteRequest("1"))
    assert caught.value.code == "session_dead"
    assert not await session.interrupt()
    await session.restart()
    assert await run(session, "1") == "1"


async def test_an_idle_worker_that_dies_is_noticed(session: Session) -> None:
    os.kill(session.info().pid, signal.SIGKILL)
    async with asyncio.timeout(LONG):
        assert session._tenancy._watch is not None
        await session._tenancy._watch
    assert session.state == "dead"
    assert session.info().pid == 0


async def test_questions_are_answered_and_end_with_their_worker(session: Session) -> None:
    answer = await session.ask("complete", {"code": "impor", "cursor": 5}, LONG)
    assert "import" in answer["matches"]
    with pytest.raises(Exception, match="cannot be asked"):
        await session.ask("execute", {})
    running = session.submit(ExecuteRequest("print('go', flush=True)\nwhile True: pass"))
    await running.next_event()
    with pytest.raises(Exception, match="not answered") as caught:
        await session.ask("complete", {"code": "impor", "cursor": 5}, 0.05)
    assert caught.value.code == "request_timeout"  # type: ignore[attr-defined]
    assert caught.value.retryable  # type: ignore[attr-defined]  # to have asked changes nothing
    asking = asyncio.ensure_future(session.ask("is_complete", {"code": "1"}))
    await asyncio.sleep(0)
    os.kill(session.info().pid, signal.SIGKILL)
    with pytest.raises(WorkerLost):
        await asyncio.wait_for(asking, LONG)


async def test_a_late_answer_to_a_question_harms_nothing(session: Session) -> None:
    running = session.submit(ExecuteRequest("import time; time.sleep(0.3)"))
    with pytest.raises(Exception, match="not answered"):
        await session.ask("complete", {"code": "impor", "cursor": 5}, 0.05)
    assert (await running.finished()).verdict == "ok"
    assert await run(session, "1") == "1"


async def test_heartbeats_are_answered_while_code_runs() -> None:
    async with Node(NodeConfig(heartbeat_interval=0.05)) as node:
        session = await node.open_session()
        first = session.info().last_heartbeat
        running = session.submit(ExecuteRequest("import time\nwhile True: time.sleep(0.01)"))
        async with asyncio.timeout(LONG):
            while session.info().last_heartbeat == first:
                await asyncio.sleep(0.01)
        assert session.info().responsive
        await session.interrupt()
        assert (await running.finished()).verdict == "interrupted"


async def test_a_silent_worker_is_shown_and_not_killed() -> None:
    async with Node(NodeConfig(heartbeat_interval=0.05)) as node:
        session = await node.open_session()
        os.kill(session.info().pid, signal.SIGSTOP)
        async with asyncio.timeout(LONG):
            while session.info().responsive:
                await asyncio.sleep(0.01)
        os.kill(session.info().pid, signal.SIGCONT)
        assert await run(session, "1") == "1"


async def test_a_full_queue_is_refused(node: Node) -> None:
    session = await node.open_session(SessionOptions(max_queue=2))
    running = session.submit(ExecuteRequest("while True: pass", stop_on_error=True))
    waiting = [session.submit(ExecuteRequest("1")) for _ in range(2)]
    with pytest.raises(SessionError, match="max_queue=2"):
        session.submit(ExecuteRequest("1"))
    assert await session.cancel(waiting[0].id)
    assert not await session.cancel(waiting[0].id)
    session.submit(ExecuteRequest("1"))
    await session.cancel(running.id)
    assert (await running.finished()).verdict == "interrupted"
    await session.close()


async def test_an_error_in_on_background_harms_nothing(session: Session) -> None:
    called = asyncio.Event()

    def fail(_event: object) -> None:
        called.set()
        raise RuntimeError("of the caller")

    session.on_background = fail
    code = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()"
    await run(session, code)
    async with asyncio.timeout(LONG):
        await called.wait()
    assert await run(session, "1") == "1"


async def test_a_session_is_busy_while_a_question_is_open(session: Session) -> None:
    asking = asyncio.ensure_future(session.ask("namespace_summary", {}))
    await asyncio.sleep(0)
    assert (session.state, session.info().state) == ("busy", "busy")
    async with asyncio.timeout(LONG):
        await asking
    assert session.state == "ready"
    with pytest.raises(LocalProtocolError):
        await session.ask("complete", {"code": "x" * (session.options.message_bytes + 1), "cursor": 0})
    assert session.state == "ready"


async def test_code_that_has_begun_is_interrupted_though_the_answer_before_it_was_not_read(
    session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "begun"
    os.mkfifo(path)
    begun = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    told = asyncio.Event()
    asyncio.get_running_loop().add_reader(begun, told.set)
    try:
        asking = asyncio.ensure_future(session.ask("complete", {"code": "imp", "cursor": 3}))
        await asyncio.sleep(0)
        running = session.submit(ExecuteRequest(f"open({str(path)!r}, 'w').write('go')\nwhile True: pass"))
        session._tenancy.pause()
        async with asyncio.timeout(LONG):
            await told.wait()
            assert not asking.done()
            assert await session.interrupt()
            session._tenancy.resume()
            assert (await running.finished()).verdict == "interrupted"
            assert "import" in (await asking)["matches"]
    finally:
        asyncio.get_running_loop().remove_reader(begun)
        os.close(begun)


async def test_a_reader_that_stands_still_delays_no_interrupt(session: Session) -> None:
    execution = session.submit(ExecuteRequest("while True: print('x' * 1000)"))
    async with asyncio.timeout(LONG):
        await execution.next_event()  # somebody reads, so that nothing is thrown away; and then reads no more
        while not execution._channel.full:
            await asyncio.sleep(0)
        await session.interrupt()
        assert (await execution.finished()).verdict == "interrupted"
    assert await run(session, "6 * 7") == "42"
