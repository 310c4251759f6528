"""Bad input from a caller gets an error that names the argument and what is allowed; nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncClient, AsyncSession, Client
from capsule_protocol.errors import ArgumentError, CapsuleError, SessionError
from tests.acceptance.behaviour.support import HANG, descendants, gone_since, still_well

if TYPE_CHECKING:
    from pathlib import Path

Call = Callable[[AsyncSession], Awaitable[Any]]


async def events(session: AsyncSession, code: Any, **options: Any) -> None:
    async for _ in session.stream(code, **options):
        pass


BAD_CALLS: dict[str, tuple[Call, str]] = {
    "bytes as code": (lambda s: s.run(b"1 + 1"), "code"),  # type: ignore[arg-type]  # what is wrong is the point
    "None as code": (lambda s: s.run(None), "code"),  # type: ignore[arg-type]  # what is wrong is the point
    "a number as code": (lambda s: s.run(5), "code"),  # type: ignore[arg-type]  # what is wrong is the point
    "a lone surrogate in code": (lambda s: s.run("'\ud800'"), "code"),
    "a negative timeout": (lambda s: s.run("1", timeout=-1), "timeout"),
    "no timeout at all": (lambda s: s.run("1", timeout=0), "timeout"),
    "a timeout that is no number": (lambda s: s.run("1", timeout=float("nan")), "timeout"),
    "a timeout as text": (lambda s: s.run("1", timeout="5"), "timeout"),  # type: ignore[arg-type]  # as above
    "an unknown option": (lambda s: s.run("1", colour="red"), "colour"),  # type: ignore[call-arg]  # as above
    "a misspelt option": (lambda s: s.run("1", quite=True), "quiet"),  # type: ignore[call-arg]  # as above
    "a callback that cannot be called": (lambda s: s.run("1", on_event=5), "on_event"),  # type: ignore[arg-type]  # as above
    "an answer that cannot be called": (lambda s: s.run("1", on_input="yes"), "on_input"),  # type: ignore[arg-type]  # as above
    "a key, which nothing keeps yet": (lambda s: s.run("1", key="k"), "key"),
    "bytes to stream": (lambda s: events(s, b"1"), "code"),
    "a negative timeout to stream": (lambda s: events(s, "1", timeout=-0.5), "timeout"),
    "bytes to complete": (lambda s: s.complete(b"os.", 3), "code"),  # type: ignore[arg-type]  # as above
    "a cursor outside": (lambda s: s.complete("os.", 99), "cursor"),
    "a cursor below zero": (lambda s: s.inspect("os", -1), "cursor"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", BAD_CALLS)
async def test_a_bad_call_is_refused_by_name(session: AsyncSession, name: str) -> None:
    call, argument = BAD_CALLS[name]
    before = (await session.info()).executions
    with pytest.raises(ArgumentError) as caught:
        await call(session)
    assert argument in str(caught.value)
    assert caught.value.code in {"invalid_argument", "unknown_option", "unsupported"}
    assert (await session.info()).executions == before
    await still_well(session)


BAD_SESSIONS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown environment": ({"environment": "nowhere"}, "default"),
    "an unknown option": ({"colour": "red"}, "colour"),
    "a misspelt option": ({"interrupt_grce": 1}, "interrupt_grace"),
    "an unknown backpressure": ({"backpressure": "explode"}, "drop_newest"),
    "a negative grace": ({"interrupt_grace": -1}, "interrupt_grace"),
    "text as a bound": ({"buffer_bytes": "many"}, "buffer_bytes"),
    "a missing directory": ({"cwd": "/nowhere/at/all"}, "cwd"),
    "a file as directory": ({"cwd": __file__}, "cwd"),
    "a number in the environment": ({"env": {"A": 5}}, "env"),
    "too much memory": ({"memory_bytes": 1 << 70}, "memory_bytes"),
    "too large a cache": ({"out_cache": 1 << 70}, "out_cache"),
    "a str as path": ({"path": "abc"}, "a list of str"),
    "a bad name of a variable": ({"env": {"A=B": "c"}}, "env"),
    "a name that is too long": ({"name": "x" * 10**6}, "name"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", BAD_SESSIONS)
async def test_a_bad_session_is_refused_and_leaves_nothing(cold: AsyncClient, private_tmp: Path, name: str) -> None:
    options, told = BAD_SESSIONS[name]
    async with cold.session() as session:
        await still_well(session)
        before, files = descendants(), set(private_tmp.rglob("*"))
        with pytest.raises(CapsuleError) as caught:
            async with cold.session(**options):
                pass
        assert told in str(caught.value)
        assert caught.value.code != ""
        # What was made for it has been told to end, and what an earlier test had may still go.
        await gone_since(before)
        assert set(private_tmp.rglob("*")) <= files


@pytest.mark.anyio
async def test_a_closed_session_says_so(client: AsyncClient) -> None:
    async with client.session() as session:
        pass
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: session.run("1"),
        lambda: events(session, "1"),
        session.interrupt,
        session.restart,
        lambda: session.complete("os.", 3),
        lambda: session.inspect("os", 1),
        lambda: session.is_complete("1"),
        session.namespace,
        lambda: session.cancel("x_1"),
    ]
    for call in calls:
        with pytest.raises(SessionError) as caught:
            await call()
        assert caught.value.code == "session_closed"
    assert (await session.info()).state == "closed"
    await session.close()


@pytest.mark.anyio
async def test_a_closed_client_says_so() -> None:
    client = AsyncClient()
    await client.close()
    await client.close()
    with pytest.raises(CapsuleError) as caught:
        async with client.session():
            pass
    assert caught.value.code == "client_closed"


@pytest.mark.anyio
async def test_a_session_closed_while_code_runs_gives_a_verdict(client: AsyncClient) -> None:
    session = await client.session()
    executions = [session.submit("import time; time.sleep(1000)"), session.submit("print('never')")]
    async with asyncio.timeout(HANG):
        results = [asyncio.ensure_future(execution.result()) for execution in executions]
        await session.close()
        ended = await asyncio.gather(*results, return_exceptions=True)
    for end in ended:
        assert isinstance(end, SessionError) or getattr(end, "verdict", "ok") != "ok"


@pytest.mark.parametrize(
    "options", [{"address": "tcp://nowhere"}, {"colour": "red"}, {"environments": 5}, {"directory": "/nope"}]
)
def test_a_bad_client_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        Client(**options)
    assert next(iter(options)) in str(caught.value)


def test_the_synchronous_client_refuses_the_same() -> None:
    with Client() as client, client.session() as session:
        for options in ({"code": b"1"}, {"code": "1", "timeout": -1}, {"code": "1", "colour": "red"}):
            with pytest.raises(ArgumentError):
                session.run(**options)
        assert session.run("6 * 7").text == "42"
    with pytest.raises(SessionError):
        session.run("1")


def test_a_closed_session_cannot_be_entered() -> None:
    with Client() as client:
        session = client.session()
        session.close()
        with pytest.raises(SessionError) as caught, session:
            pass
        assert caught.value.code == "session_closed"


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["itself", "its client"])
async def test_a_closed_asynchronous_session_cannot_be_entered(by: str) -> None:
    async with AsyncClient() as client:
        session = await client.session()
        await (session if by == "itself" else client).close()
        with pytest.raises(SessionError) as caught:
            async with session:
                pass
        assert caught.value.code == "session_closed"


def test_another_event_loop_is_told_whose_they_are() -> None:
    with asyncio.Runner() as owner, asyncio.Runner() as other:
        client = AsyncClient()
        session = owner.run(open_session(client))
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: session.run("1"),
            lambda: events(session, "1"),
            session.interrupt,
            session.restart,
            session.namespace,
            session.__aenter__,
            session.close,
            lambda: open_session(client),
            client.__aenter__,
            client.close,
        ]
        for call in calls:
            with pytest.raises(SessionError, match="belongs to another event loop"):
                other.run(awaited(call))
        owner.run(still_well(session))
        owner.run(client.close())


async def open_session(client: AsyncClient) -> AsyncSession:
    return await client.session()


async def awaited(call: Callable[[], Awaitable[Any]]) -> None:
    await call()


@pytest.mark.anyio
async def test_an_unknown_execution_cannot_be_cancelled(session: AsyncSession) -> None:
    assert not await session.cancel("x_unknown")
    result = await session.run("1")
    assert not await session.cancel(result.execution_id)
    await still_well(session)
