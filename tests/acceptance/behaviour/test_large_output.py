"""Output of any size is chunked, bounded and ordered; over a limit there is an error or a count, and life goes on."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from capsule.events import Display, Event, Finished, Output
from tests.acceptance.behaviour.support import HANG, cell, ok, run, still_well

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncClient, AsyncSession

MIB = 2**20
CHUNK = 64 * 1024


def printed(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Output))


async def collect(session: AsyncSession, code: str) -> list[Event]:
    async with asyncio.timeout(2 * HANG):
        return [event async for event in session.stream(code)]


@pytest.mark.anyio
async def test_three_mebibytes_without_a_newline_come_in_chunks(session: AsyncSession) -> None:
    events = await collect(session, f"print('x' * {3 * MIB}, end='')")
    assert printed(events) == "x" * (3 * MIB)
    assert all(len(event.text.encode()) <= CHUNK for event in events if isinstance(event, Output))


@pytest.mark.anyio
@pytest.mark.parametrize("writer", ["print(text, end='')", "os.write(1, text.encode())", "os.write(2, text.encode())"])
async def test_ten_megabytes_in_one_write(session: AsyncSession, writer: str) -> None:
    code = f"import os\ntext = ''.join('%07d ' % n for n in range(1_250_000))\n_ = {writer}"
    if "os.write" in writer:
        code += "\nassert _ == 10_000_000"
    events = await collect(session, code)
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.verdict == "ok"
    text = printed(events)
    assert len(text) == 10_000_000
    assert text.split() == [f"{n:07}" for n in range(1_250_000)]
    assert all(len(event.text) <= CHUNK for event in events if isinstance(event, Output))


@pytest.mark.anyio
async def test_a_million_tiny_prints_arrive_in_order(session: AsyncSession) -> None:
    result = await run(session, "for n in range(1_000_000): print(n)")
    assert result.verdict == "ok"
    assert result.stdout == "".join(f"{n}\n" for n in range(1_000_000))


@pytest.mark.anyio
async def test_a_hundred_megabytes_as_result_are_refused_or_cut_and_the_session_goes_on(session: AsyncSession) -> None:
    """The limit of a message is 64 MiB: the answer names the limit, or says how much was cut."""
    result = await run(session, "big = 'x' * 100_000_000\nbig")
    if result.verdict == "error":
        assert result.error is not None
        assert result.error.code in {"result_too_large", "message_too_large"}
        assert str(64 * MIB) in result.error.message
    else:
        assert result.verdict == "ok"
        assert 0 < len(result.text) < 64 * MIB
        assert "trunc" in f"{result.text[-200:]}{result.metadata}" or result.dropped > 0
    assert (await ok(session, "len(big)")).text == "100000000"
    await still_well(session)


@pytest.mark.anyio
async def test_a_display_over_the_limit_is_an_error_of_its_cell(client: AsyncClient) -> None:
    async with client.session(message_bytes=MIB) as session:
        code = "display({'text/plain': 'x' * 2_000_000}, raw=True)\nprint('after')"
        result = await run(session, code)
        assert result.verdict == "error" or result.dropped > 0 or "1048576" in f"{result.stderr}{result.displays}"
        if result.error is not None:
            assert str(MIB) in result.error.message
        await still_well(session)


@pytest.mark.anyio
async def test_ten_megabytes_as_result_arrive_whole(session: AsyncSession) -> None:
    result = await ok(session, "'x' * 10_000_000")
    assert result.text == repr("x" * 10_000_000)


@pytest.mark.anyio
async def test_multibyte_characters_survive_the_cuts(session: AsyncSession) -> None:
    """Characters of two, three and four bytes meet the borders of chunks at every offset."""
    result = await ok(session, "import sys\nfor n in range(3000): _ = sys.stdout.write('ä€😀' * 30 + 'x' * (n % 5))")
    assert result.stdout == "".join("ä€😀" * 30 + "x" * (n % 5) for n in range(3000))


@pytest.mark.anyio
async def test_carriage_returns_are_kept(session: AsyncSession) -> None:
    assert (await ok(session, "for n in range(3): print(n, end='\\r')")).stdout == "0\r1\r2\r"


async def slowly(client: AsyncClient, megabytes: int, **options: Any) -> tuple[list[Event], int]:
    """Let a session print while its client reads one event and then lets another session print as much.

    Answers all events, in the end, and by how much the node's memory grew while the client did not read.
    """
    line = 1000
    code = f"for n in range({megabytes * 1000}): print('%06d' % n + 'x' * {line - 7})"
    async with client.session(**options) as slow, client.session() as other:
        await ok(other, "1")
        gc.collect()
        node = psutil.Process()
        before = node.memory_info().rss
        stream = slow.stream(code)
        events = [await anext(stream)]
        async with asyncio.timeout(2 * HANG):
            async for _ in other.stream(code):
                pass
            while "drop" in options.get("backpressure", "") and slow.state == "busy":
                await asyncio.sleep(0.01)  # it waits for nobody, but may have had less of the processor
            grown = node.memory_info().rss - before
            events += [event async for event in stream]
        await still_well(slow)
    return events, grown


@pytest.mark.anyio
async def test_the_nodes_memory_is_bounded_while_a_client_reads_slowly(client: AsyncClient) -> None:
    """In the default mode the writer waits, and nothing is lost."""
    events, grown = await slowly(client, 200)
    assert grown < 80 * MIB
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.verdict, last.dropped) == ("ok", 0)
    lines = printed(events).splitlines()
    assert [int(line[:6]) for line in lines] == list(range(200_000))


@pytest.mark.anyio
async def test_displays_that_nobody_reads_are_few(client: AsyncClient, tmp_path: Path) -> None:
    """However large they are, the node and the worker hold a handful; all arrive in the end."""
    log = tmp_path / "log"
    code = f"""
        import os
        log = os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT)
        for n in range(60):
            display({{'text/plain': str(n) + 'x' * 10_000_000}}, raw=True)
            _ = os.write(log, b'.')
    """
    async with client.session() as session, client.session() as other:
        await ok(other, "1")
        gc.collect()
        before = psutil.Process().memory_info().rss
        stream = session.stream(cell(code))
        assert not isinstance(await anext(stream), Finished)
        async with asyncio.timeout(2 * HANG):
            async for _ in other.stream("for _ in range(60): display({'text/plain': 'x' * 10_000_000}, raw=True)"):
                pass
        grown = psutil.Process().memory_info().rss - before
        assert grown < 200 * MIB
        assert log.stat().st_size < 30
        async with asyncio.timeout(2 * HANG):
            events = [event async for event in stream]
        shown = [event.data["text/plain"][:2] for event in events if isinstance(event, Display)]
        assert [int(text.rstrip("x")) for text in shown] == list(range(60))


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["drop_newest", "drop_oldest"])
async def test_what_is_dropped_is_counted(client: AsyncClient, mode: str) -> None:
    events, grown = await slowly(client, 50, backpressure=mode, buffer_bytes=4 * MIB)
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.verdict == "ok"
    assert last.dropped > 0
    assert len(printed(events)) + last.dropped == 50_000_000
    assert sum(event.dropped for event in events if isinstance(event, Output)) <= last.dropped
    assert grown < 60 * MIB


@pytest.mark.anyio
async def test_the_error_mode_ends_the_execution(client: AsyncClient) -> None:
    events, _ = await slowly(client, 50, backpressure="error", buffer_bytes=4 * MIB)
    last = events[-1]
    assert isinstance(last, Finished)
    assert last.verdict != "ok"
    assert last.error is not None
    assert last.error.code == "output_limit_exceeded"
