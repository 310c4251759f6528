"""The public API as a type checker sees it. Never run: mypy --strict reads it."""

from __future__ import annotations

from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, assert_type

from capsule import (
    AsyncClient,
    AsyncEvents,
    AsyncExecution,
    AsyncSession,
    Client,
    Display,
    Event,
    Events,
    Execution,
    ExecutionError,
    InputRequest,
    Output,
    Result,
    Session,
)
from capsule.client.answers import (
    Completeness,
    Completion,
    HistoryEntry,
    Inspection,
    LeftOutName,
    Namespace,
    RestoreReport,
    SaveReport,
)
from capsule.comms import CommRequest
from capsule.events import CommMessage, ErrorInfo
from capsule.node.info import FileInfo, SessionInfo, SessionSummary


def answer(request: InputRequest) -> str:
    return request.prompt


async def answer_later(request: InputRequest) -> str:
    return request.prompt


def choose(request: InputRequest) -> str | list[int]:
    return [1] if request.schema else str(request.choices)


def watch(event: Event) -> None:
    if isinstance(event, Output):
        assert_type(event.text, str)


async def watch_later(event: Event) -> None:
    if isinstance(event, Display):
        assert_type(event.update, bool)


async def operator(client: AsyncClient) -> None:
    assert_type(await client.sessions(), list[SessionSummary])
    assert_type(await client.interrupt("n"), bool)
    await client.kill("n")
    await client.drain(wait=True)
    assert_type((await client.save("n", Path("f"), names=["x"])).left_out, list[LeftOutName])
    assert_type(await client.restore("n", "f", allow_other_interpreter=True), RestoreReport)
    session = await client.session()
    assert_type((await session.save()).data, bytes | None)
    assert_type(await session.save("f", timeout=1.0), SaveReport)
    assert_type(await session.restore(b"", names=("x",)), RestoreReport)


async def asynchronous() -> None:
    async with AsyncClient() as client:
        assert_type(client, AsyncClient)
        async with client.session("default", env={"A": "b", "C": None}, cwd=Path("/"), name="n") as session:
            assert_type(session, AsyncSession)
        session = await client.session(backpressure="drop_oldest", on_background=watch)
        assert_type(session, AsyncSession)
        assert_type(await client.attach("n", share=True), AsyncSession)
    assert_type(await session.run("1", timeout=1, quiet=True, on_event=watch, on_input=answer), Result)
    assert_type(await session.run("1", on_event=watch_later, on_input=answer_later), Result)
    assert_type(await session.run("1", on_input=choose), Result)
    execution = session.submit("1", batch="b", stop_on_error=True)
    assert_type(execution, AsyncExecution)
    assert_type(await execution.result(), Result)
    assert_type(await execution.result(timeout=1, on_event=watch_later), Result)
    assert_type(execution.execution_id, str)
    assert_type(await execution.cancel(), bool)
    assert_type(await session.run_all(["1", "2"], stop_on_error=False, timeout=2.5), list[Result])
    async with session.stream("1", cell="name", store_history=False) as events:
        assert_type(events, AsyncEvents)
        async for event in events:
            assert_type(event, Event)
    assert_type(await session.complete("a", 1), Completion)
    assert_type(await session.inspect("a", detail=1, timeout=3), Inspection)
    assert_type(await session.is_complete("a"), Completeness)
    assert_type(await session.history(3, pattern="*"), list[HistoryEntry])
    assert_type(await session.history(lines=(1, None), session=-1, output=True), list[HistoryEntry])
    assert_type(await session.send_comm(CommRequest("message", "c1", {"n": 1})), Result)
    assert_type(await session.comms("target"), dict[str, str])
    assert_type(await session.debug({"seq": 1, "command": "debugInfo"}), dict[str, Any])
    assert_type(await session.namespace(), Namespace)
    assert_type(await session.info(), SessionInfo)
    assert_type(await session.upload(Path("a"), progress=print), FileInfo)
    assert_type(await session.upload(b"1", "a"), FileInfo)
    assert_type(await session.download("a"), bytes)
    await session.download("a", Path("b"))
    assert_type(await session.files(), list[FileInfo])
    assert_type(await session.interrupt(), bool)
    assert_type(await session.restart(), None)
    # What must not pass: each line below is an error, or mypy would complain of an unused comment.
    await session.run(b"1")  # type: ignore[arg-type]  # code is text
    await session.run("1", timeout="1")  # type: ignore[arg-type]  # seconds are a number
    await session.run("1", quite=True)  # type: ignore[call-arg]  # no such option
    await session.run("1", on_input=watch)  # type: ignore[arg-type]  # that is no answer
    session.submit("1", stop_on_error="yes")  # type: ignore[arg-type]  # a flag is a bool


def synchronous() -> None:
    with Client() as client, client.session(cwd="/tmp", files={"a": "1", "b": Path("b")}) as session:
        assert_type(client, Client)
        assert_type(session, Session)
        assert_type(session.run("1", timeout=1, on_event=watch, on_input=answer), Result)
        execution = session.submit("1")
        assert_type(execution, Execution)
        assert_type(execution.result(timeout=1.5).raise_for_error(), Result)
        assert_type(session.run_all(["1"]), list[Result])
        with session.stream("1") as events:
            assert_type(events, Events)
            assert_type(list(events), list[Event])
        assert_type(session.info(), SessionInfo)
        assert_type(session.namespace(), Namespace)
        assert_type(session.send_comm(CommRequest("close", "c1")), Result)
        assert_type(session.comms(), dict[str, str])
        assert_type(session.debug({"seq": 1, "command": "debugInfo"}), dict[str, Any])
        assert_type(session.run("1", user_expressions={"a": "b"}, payloads=True).comms, list[CommMessage])
        assert_type(session.upload(BytesIO(b"1"), "a"), FileInfo)
        assert_type(session.download("a"), bytes)
        assert_type(session.files(), list[FileInfo])
        session.upload(StringIO("1"), "a")  # type: ignore[arg-type]  # text is no bytes
        session.run("1", on_input=answer_later)  # type: ignore[arg-type]  # nothing awaits it here
        session.run("1", quite=True)  # type: ignore[call-arg]  # no such option


def results(result: Result) -> None:
    assert_type(result.text, str)
    assert_type(result.displays, list[Display])
    assert_type(result.error, ErrorInfo | None)
    assert_type(result.duration, float)
    try:
        result.raise_for_error()
    except ExecutionError as error:
        assert_type(error.code, str)
