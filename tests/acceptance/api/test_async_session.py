"""The asynchronous session: running, submitting, streaming, asking, ending."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule import (
    ArgumentError,
    AsyncClient,
    AsyncSession,
    EnvironmentFailed,
    Event,
    ExecutionError,
    Finished,
    Output,
    Result,
    SessionError,
    WorkerLost,
)
from capsule.events import Started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

PRINT_LATE = """import threading
go = threading.Event()
threading.Thread(target=lambda: go.wait() and print('late')).start()"""


async def running(session: AsyncSession, before: str = "") -> asyncio.Task[Result]:
    """A run that goes on for ever, once `before` has run."""
    started = asyncio.Event()

    def watch(event: Event) -> None:
        if isinstance(event, Output):
            started.set()

    code = f"{before}\nprint('go', flush=True)\nwhile True: pass"
    task = asyncio.ensure_future(session.run(code, on_event=watch))
    await started.wait()
    return task


async def test_run_gives_value_output_and_keeps_state(session: AsyncSession) -> None:
    first = await session.run("x = 20\nprint('hello')\nx + 1")
    second = await session.run("x + 2")
    assert (first.verdict, first.text, first.data["text/plain"], first.stdout) == ("ok", "21", "21", "hello\n")
    assert (second.text, second.stdout) == ("22", "")
    assert second.execution_count == first.execution_count + 1
    assert first.execution_id.startswith("x_")
    assert first.execution_id != second.execution_id
    assert first.duration > 0


async def test_an_error_is_a_result_until_it_is_asked_to_raise(session: AsyncSession) -> None:
    result = await session.run("print('before')\n1/0")
    assert (result.verdict, result.stdout) == ("error", "before\n")
    assert result.error is not None
    assert (result.error.name, result.error.message) == ("ZeroDivisionError", "division by zero")
    assert any("1/0" in line for line in result.error.traceback)
    with pytest.raises(ExecutionError, match="ZeroDivisionError") as caught:
        result.raise_for_error()
    assert caught.value.result is result


async def test_a_session_is_awaited_or_entered(client: AsyncClient) -> None:
    session = await client.session(name="awaited")
    assert (await session.run("1")).text == "1"
    assert session.name == "awaited"
    await session.close()
    async with await client.session() as session:
        assert (await session.run("2")).text == "2"
    assert session.state == "closed"


async def test_options_reach_the_worker(client: AsyncClient, tmp_path: Path) -> None:
    async with client.session(env={"COLOUR": "red", "HOME": None}, cwd=tmp_path) as session:
        result = await session.run("import os\nrepr((os.getcwd(), os.environ['COLOUR'], 'HOME' in os.environ))")
    assert result.text == repr(repr((str(tmp_path), "red", False)))


async def test_quiet_and_cell_options(session: AsyncSession) -> None:
    assert (await session.run("1", quiet=True)).text == ""
    result = await session.run("1/0", cell="notebook.py")
    assert result.error is not None
    assert any("notebook.py" in line for line in result.error.traceback)


async def test_on_event_gets_every_event_in_order(session: AsyncSession) -> None:
    events: list[Event] = []
    result = await session.run("print('a')\n1", on_event=events.append)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert {event.execution_id for event in events} == {result.execution_id}
    assert "".join(event.text for event in events if isinstance(event, Output)) == "a\n"


async def test_on_event_may_be_a_coroutine_function(session: AsyncSession) -> None:
    kinds: list[str] = []

    async def watch(event: Event) -> None:
        await asyncio.sleep(0)
        kinds.append(type(event).__name__)

    await session.run("print('a')", on_event=watch)
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("Started", "Finished", {"Output"})


async def test_what_on_event_raises_interrupts_the_code_and_reaches_the_caller(session: AsyncSession) -> None:
    def fail(event: Event) -> None:
        raise LookupError(type(event).__name__)

    with pytest.raises(LookupError, match="Started"):
        await session.run("while True: pass", on_event=fail)
    assert (await session.run("1")).text == "1"


async def test_a_cancelled_caller_interrupts_its_execution_only(session: AsyncSession) -> None:
    task = await running(session, "x = 1")
    behind = asyncio.ensure_future(session.run("x + 1"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await behind).text == "2"
    assert session.state == "ready"


async def test_a_cancelled_caller_in_the_queue_ends_its_execution_too(session: AsyncSession) -> None:
    first = await running(session, "x = []")
    task = asyncio.ensure_future(session.run("while True: x.append(1)"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await session.interrupt()
    assert (await first).verdict == "interrupted"
    assert (await session.run("type(x)")).text == "list"


async def test_a_timeout_is_a_verdict(session: AsyncSession) -> None:
    result = await session.run("print('on', flush=True)\nwhile True: pass", timeout=2.0)
    assert (result.verdict, result.stdout) == ("timeout", "on\n")
    assert result.error is not None
    assert result.error.code == "execution_timeout"
    assert (await session.run("1")).text == "1"


async def test_interrupt_ends_what_runs_and_says_whether_something_did(session: AsyncSession) -> None:
    assert await session.interrupt() is False
    task = await running(session)
    assert await session.interrupt() is True
    assert (await task).verdict == "interrupted"


async def test_restart_gives_a_new_worker_to_the_same_session(session: AsyncSession) -> None:
    before = await session.info()
    await session.run("x = 1")
    await session.restart()
    after = await session.info()
    assert (after.epoch, after.id) == (before.epoch + 1, before.id)
    assert after.pid != before.pid
    result = await session.run("x")
    assert result.error is not None
    assert result.error.name == "NameError"


async def test_a_dead_session_says_so_and_can_be_restarted(session: AsyncSession) -> None:
    result = await session.run("import os\nprint('last', flush=True)\nos._exit(3)")
    assert (result.verdict, result.stdout) == ("crashed", "last\n")
    assert session.state == "dead"
    with pytest.raises(SessionError) as caught:
        await session.run("1")
    assert caught.value.code == "session_dead"
    await session.restart()
    assert (await session.run("1")).text == "1"


async def test_info_tells_about_the_session(session: AsyncSession) -> None:
    await session.run("1")
    info = await session.info()
    assert (info.id, info.state, info.environment, info.executions, info.queue) == (
        session.id,
        "ready",
        "default",
        1,
        0,
    )
    assert psutil.pid_exists(info.pid)
    assert info.memory > 0
    assert info.protocol


async def test_questions_about_code(session: AsyncSession) -> None:
    await session.run("alphabet = 'abc'")
    completion = await session.complete("ü = alpha")
    assert "alphabet" in completion.matches
    assert (completion.start, completion.end) == (4, 9)
    assert "alphabet" in (await session.complete("alpha + 1", 5)).matches
    inspection = await session.inspect("len", 3)
    assert inspection.found
    assert "len" in inspection.data["text/plain"]
    assert not (await session.inspect("no_such_name_at_all")).found
    assert (await session.is_complete("1 + 1")).status == "complete"
    incomplete = await session.is_complete("if True:")
    assert (incomplete.status, incomplete.indent) == ("incomplete", "    ")
    assert (await session.is_complete("1 +* 1")).status == "invalid"


async def test_the_namespace_is_described_not_sent(session: AsyncSession) -> None:
    await session.run("numbers = list(range(1000))\nname = 'n'")
    namespace = await session.namespace()
    assert (namespace["numbers"].type, namespace["name"].repr) == ("list", "'n'")
    assert "numbers" in namespace
    assert "In" not in namespace
    with pytest.raises(KeyError):
        namespace["nothing"]


async def test_history_gives_the_last_cells_and_finds_some(session: AsyncSession) -> None:
    for code in ("a = 1", "b = 2", "c = 3"):
        await session.run(code)
    assert [entry.source for entry in await session.history(2)] == ["b = 2", "c = 3"]
    assert [entry.source for entry in await session.history(pattern="a*")] == ["a = 1"]


async def test_output_after_the_verdict_goes_to_on_background(client: AsyncClient) -> None:
    late: asyncio.Queue[Event] = asyncio.Queue()
    async with client.session(on_background=late.put_nowait) as session:
        result = await session.run(PRINT_LATE)
        assert result.stdout == ""
        second = await session.run("go.set()")
        async with asyncio.timeout(30):
            event = await late.get()
        assert isinstance(event, Output)
        assert event.text.startswith("late")
        assert (event.execution_id, event.sequence) == (result.execution_id, 0)
        assert second.verdict == "ok"


async def test_on_background_that_raises_harms_nothing(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    called = asyncio.Event()

    def fail(event: Event) -> None:
        called.set()
        raise LookupError("mine")

    async with client.session(on_background=fail) as session:
        await session.run(PRINT_LATE)
        await session.run("go.set()")
        async with asyncio.timeout(30):
            await called.wait()
        assert (await session.run("1")).text == "1"
    assert "on_background raised" in caplog.text


async def test_a_closed_session_refuses_everything_and_closes_again(client: AsyncClient) -> None:
    session = await client.session()
    await session.close()
    await session.close()
    assert (session.state, (await session.info()).state) == ("closed", "closed")
    calls = (
        session.run("1"),
        session.run_all(["1"]),
        session.interrupt(),
        session.cancel("x_1"),
        session.restart(),
        session.complete("1"),
        session.namespace(),
    )
    for call in calls:
        with pytest.raises(SessionError) as caught:
            await call
        assert caught.value.code == "session_closed"
    for refused in (session.submit, session.stream):
        with pytest.raises(SessionError):
            refused("1")


async def test_closing_gives_a_verdict_to_who_waits(client: AsyncClient) -> None:
    session = await client.session()
    task = await running(session)
    await session.close()
    assert (await task).verdict in {"killed", "worker_lost"}


async def test_an_exception_in_the_block_leaves_no_process(client: AsyncClient) -> None:
    pids: list[int] = []

    async def work() -> None:
        async with client.session() as session:
            pids.append((await session.info()).pid)
            raise LookupError

    with pytest.raises(LookupError):
        await work()
    assert not psutil.pid_exists(pids[0])


async def test_a_cancelled_block_leaves_no_process() -> None:
    opened = asyncio.Event()
    pids: list[int] = []

    async def work() -> None:
        async with AsyncClient() as client, client.session() as session:
            pids.append((await session.info()).pid)
            opened.set()
            await session.run("import time\nwhile True: time.sleep(100)")

    task = asyncio.ensure_future(work())
    await opened.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30])
async def test_an_opening_that_is_cancelled_leaves_nothing(client: AsyncClient, turns: int) -> None:
    async def open_one() -> AsyncSession:
        return await client.session()

    task = asyncio.ensure_future(open_one())
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.cancel():
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        await (await task).close()
    assert repr(client) == "<AsyncClient sessions=0>"


async def test_a_close_that_is_cancelled_goes_to_its_end(client: AsyncClient) -> None:
    session = await client.session()
    pid = (await session.info()).pid
    task = asyncio.ensure_future(session.close())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not psutil.pid_exists(pid)
    assert repr(client) == "<AsyncClient sessions=0>"


async def test_a_time_limit_of_the_caller_interrupts_the_code(session: AsyncSession) -> None:
    task = await running(session, "x = 1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await task
    assert (await session.run("x")).text == "1"


async def test_a_client_closes_its_sessions_and_refuses_then() -> None:
    client = AsyncClient()
    session = await client.session()
    opener = client.session()
    pid = (await session.info()).pid
    await client.close()
    await client.close()
    assert not psutil.pid_exists(pid)
    assert repr(client) == "<AsyncClient closed>"
    with pytest.raises(SessionError):
        await session.run("1")
    with pytest.raises(SessionError, match="client is closed") as caught:
        client.session()
    assert caught.value.code == "client_closed"
    for call in (opener, client.__aenter__()):
        with pytest.raises(SessionError, match="client is closed"):
            await call


async def test_bad_arguments_are_refused_and_leave_nothing(client: AsyncClient, session: AsyncSession) -> None:
    for refused in (b"1", None):
        with pytest.raises(ArgumentError, match="code"):
            await session.run(refused)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ArgumentError, match="timeout"):
        await session.run("1", timeout=-1)
    with pytest.raises(ArgumentError, match="did you mean 'quiet'"):
        await session.run("1", quite=True)  # type: ignore[call-arg]  # that is the test
    with pytest.raises(ArgumentError, match="on_event"):
        await session.run("1", on_event="print")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ArgumentError, match="on_input"):
        session.stream("1", on_input=3)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ArgumentError, match="key"):
        await session.run("1", key="once")
    with pytest.raises(ArgumentError, match="did you mean 'backpressure'"):
        client.session(backpresure="block")  # type: ignore[call-arg]  # that is the test
    with pytest.raises(ArgumentError, match="on_background"):
        client.session(on_background=3)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ArgumentError, match="ipc://PATH"):
        AsyncClient("tcp://example")
    assert (await session.info()).executions == 0


async def test_an_unknown_environment_names_the_known_ones(client: AsyncClient) -> None:
    with pytest.raises(EnvironmentFailed, match="default") as caught:
        await client.session("science")
    assert caught.value.code == "environment_unknown"


async def test_a_session_that_cannot_start_leaves_nothing(client: AsyncClient) -> None:
    with pytest.raises(WorkerLost) as caught:
        await client.session(start_timeout=1e-6)
    assert caught.value.code == "worker_start_timeout"
    assert repr(client) == "<AsyncClient sessions=0>"
