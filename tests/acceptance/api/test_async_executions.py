"""Several executions at once, and events one by one."""

from __future__ import annotations

import asyncio
import gc

import pytest

from capsule import ArgumentError, AsyncClient, AsyncSession, Event, Finished, InputRequest, Output, SessionError
from capsule.events import Started

pytestmark = pytest.mark.anyio

PRINT_1_MIB = "for _ in range(1024): print('x' * 1023)"
"""More than a session with the smallest buffer and its pipe hold."""


async def text_of(events: object) -> str:
    return "".join([event.text async for event in events if isinstance(event, Output)])  # type: ignore[attr-defined]  # any stream of events


async def test_submitted_code_runs_in_order_and_is_read_in_any(session: AsyncSession) -> None:
    executions = [session.submit(f"print({number})\n{number}") for number in range(5)]
    results = [await execution.result() for execution in reversed(executions)]
    assert [(result.text, result.stdout) for result in results] == [(str(n), f"{n}\n") for n in (4, 3, 2, 1, 0)]
    assert [result.execution_id for result in reversed(results)] == [x.execution_id for x in executions]


async def test_a_handle_tells_its_state(session: AsyncSession) -> None:
    first, second = session.submit("import time\nwhile True: time.sleep(100)"), session.submit("1")
    assert (first.state, second.state, second.done) == ("running", "queued", False)
    assert await first.cancel() is True
    assert (await second.result()).text == "1"
    assert (first.state, second.state, second.done) == ("done", "done", True)
    assert second.execution_id in repr(second)
    assert await second.cancel() is False


async def test_a_result_can_be_asked_for_twice_and_by_two(session: AsyncSession) -> None:
    execution = session.submit("print('once')")
    one, two = await asyncio.gather(execution.result(), execution.result())
    assert one is two
    assert await execution.result() is one
    assert one.stdout == "once\n"


async def test_a_waiter_that_leaves_takes_nothing_along(session: AsyncSession) -> None:
    blocker = session.submit("import time\nwhile True: time.sleep(100)")
    execution = session.submit("print('kept')")
    waiter = asyncio.ensure_future(execution.result())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await blocker.cancel()
    assert (await execution.result()).stdout == "kept\n"


async def test_a_result_that_does_not_come_in_time_is_a_timeout_and_the_code_goes_on(session: AsyncSession) -> None:
    blocker = session.submit("import time\nwhile True: time.sleep(100)")
    execution = session.submit("print('kept')\n1")
    for waiting in (execution, blocker):
        with pytest.raises(TimeoutError):
            await waiting.result(timeout=0.05)
    with pytest.raises(ArgumentError, match="timeout"):
        await execution.result(timeout=0)
    assert not execution.over
    await blocker.cancel()
    result = await execution.result(timeout=60)
    assert (result.text, result.stdout) == ("1", "kept\n")
    assert await execution.result(timeout=0.001) is result  # it is there
    events = session.stream("import time\nwhile True: time.sleep(100)")
    with pytest.raises(TimeoutError):
        await events.result(timeout=0.05)
    await events.aclose()


async def test_output_that_nobody_reads_does_not_hold_up_who_waits_for_what_is_behind(client: AsyncClient) -> None:
    async with client.session(buffer_bytes=65536) as session, asyncio.timeout(60):
        for behind in ("result", "run", "events", "stream"):
            first = session.submit(PRINT_1_MIB)
            if behind == "result":
                assert (await session.submit("1").result()).text == "1"
            elif behind == "run":
                assert (await session.run("1")).text == "1"
            elif behind == "events":
                assert await text_of(session.submit("print(1)").events()) == "1\n"
            else:
                assert await text_of(session.stream("print(1)")) == "1\n"
            assert len((await first.result()).stdout) == 2**20


async def test_a_stream_gives_events_in_order_and_ends_in_finished(session: AsyncSession) -> None:
    async with session.stream("print('a')\n40 + 2") as stream:
        events = [event async for event in stream]
        assert stream.execution_id == events[0].execution_id
    assert isinstance(events[0], Started)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.verdict, last.text) == ("ok", "42")


async def test_a_slow_reader_gets_everything(client: AsyncClient) -> None:
    async with client.session(buffer_bytes=65536) as session:
        size = 0
        async for event in session.stream(PRINT_1_MIB):
            await asyncio.sleep(0)
            size += len(event.text) if isinstance(event, Output) else 0
    assert size == 2**20


async def test_leaving_a_stream_cancels_its_execution(session: AsyncSession) -> None:
    async with session.stream("while True: print('on')") as events:
        async for event in events:
            if isinstance(event, Output):
                break
    assert (await events.result()).verdict == "interrupted"
    assert (await session.run("1")).text == "1"


async def test_an_exception_in_a_stream_cancels_its_execution(session: AsyncSession) -> None:
    with pytest.raises(LookupError):
        async with session.stream("while True: print('on')"):
            raise LookupError
    assert (await session.run("1")).text == "1"


async def test_dropping_a_stream_cancels_its_execution(session: AsyncSession) -> None:
    async for event in session.stream("while True: print('on')"):
        if isinstance(event, Output):
            break
    gc.collect()
    assert (await session.run("1")).text == "1"


async def test_events_of_a_handle_and_then_the_rest_as_a_result(session: AsyncSession) -> None:
    execution = session.submit("print('first', flush=True)\nimport os\nos.write(1, b'second')\n7")
    events = execution.events()
    seen: list[Event] = []
    while not seen or not isinstance(seen[-1], Output):
        seen.append(await anext(events))
    result = await events.result()
    text = "".join(event.text for event in seen if isinstance(event, Output))
    assert (result.verdict, result.text) == ("ok", "7")
    assert text + result.stdout == "first\nsecond"


async def test_events_that_are_being_collected_are_refused(session: AsyncSession) -> None:
    execution = session.submit("import time\nwhile True: time.sleep(100)")
    waiter = asyncio.ensure_future(execution.result())
    await asyncio.sleep(0)
    with pytest.raises(SessionError, match="collected"):
        execution.events()
    await execution.cancel()
    assert (await waiter).verdict == "interrupted"


async def test_many_handles_that_nobody_keeps_cost_nothing(session: AsyncSession) -> None:
    for number in range(300):
        session.submit(f"last = {number}")
    assert (await session.run("last")).text == "299"
    session.submit("1")
    assert len(session._unread) <= 65


async def test_run_all_gives_results_in_order(session: AsyncSession) -> None:
    assert [result.text for result in await session.run_all(str(number) for number in range(5))] == list("01234")
    assert await session.run_all([]) == []


async def test_run_all_stops_at_an_error_unless_told_otherwise(session: AsyncSession) -> None:
    codes = ["x = 1", "1/0", "x = 2"]
    stopped = await session.run_all(codes)
    assert [result.verdict for result in stopped] == ["ok", "error", "interrupted"]
    assert stopped[2].error is not None
    assert stopped[2].error.code == "execution_cancelled"
    assert (await session.run("x")).text == "1"
    assert [result.verdict for result in await session.run_all(codes, stop_on_error=False)] == ["ok", "error", "ok"]


async def test_run_all_runs_nothing_if_one_argument_is_wrong(session: AsyncSession) -> None:
    with pytest.raises(ArgumentError, match=r"codes\[1\]"):
        await session.run_all(["x = 1", b"2"])  # type: ignore[list-item]  # that is the test
    with pytest.raises(ArgumentError, match="codes"):
        await session.run_all("1")
    assert (await session.info()).executions == 0


async def test_a_cancelled_run_all_leaves_nothing_in_the_queue(session: AsyncSession) -> None:
    await session.run("ran = []")
    task = asyncio.ensure_future(session.run_all([f"ran.append({n})\nwhile True: pass" for n in range(3)]))
    await asyncio.sleep(0)
    assert (await session.info()).queue + 1 >= 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await session.run("len(ran) < 2")).text == "True"


# Input (the rest is in the behaviour tests)


async def test_an_answer_that_is_no_text_is_eof_and_an_argument_error(session: AsyncSession) -> None:
    with pytest.raises(ArgumentError, match="on_input: returned int"):
        await session.run("try: input()\nexcept EOFError: seen = 1", on_input=lambda _: 3)
    assert (await session.run("seen")).text == "1"


async def test_a_question_that_the_verdict_overtakes_is_cancelled(session: AsyncSession) -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def never(request: InputRequest) -> str:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    running = session.submit("input('? ')", on_input=never)
    reading = asyncio.ensure_future(running.result())
    async with asyncio.timeout(30):
        await asked.wait()
        assert await session.interrupt()
        assert (await reading).verdict == "interrupted"
        await cancelled.wait()


async def test_an_answer_that_comes_too_late_is_dropped(client: AsyncClient) -> None:
    late = asyncio.Event()

    async def slow(request: InputRequest) -> str:
        await late.wait()
        return "too late"

    def watch(event: Event) -> None:
        if isinstance(event, Output):
            late.set()

    async with client.session(input_timeout=0.1) as session:
        code = "try: input()\nexcept Exception as error: print(type(error).__name__, flush=True)"
        result = await session.run(code, on_input=slow, on_event=watch)
    assert result.verdict == "ok"
    assert result.stdout != "EOFError\n"


async def test_a_stream_answers_questions_too_and_raises_after_the_verdict(session: AsyncSession) -> None:
    assert await text_of(session.stream("print(input())", on_input=lambda _: "yes")) == "yes\n"

    def fail(request: InputRequest) -> str:
        raise LookupError("mine")

    kinds: list[type[Event]] = []

    async def iterate() -> None:
        async for event in session.stream("input()", on_input=fail):
            kinds.append(type(event))  # noqa: PERF401 - it is interrupted by an exception

    with pytest.raises(LookupError, match="mine"):
        await iterate()
    assert kinds[-1] is Finished
