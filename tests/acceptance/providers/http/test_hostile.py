"""Servers that mean harm: what they do ends in an error, within bounds, and holds nobody else up."""

from __future__ import annotations

import asyncio
import gc
import gzip
import itertools
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from capsule_protocol.errors import CapabilityError, CapabilityFailed, CapabilityTimeout
from tests.acceptance.providers.http.support import Raw, Reply, head, serve, serve_raw, web

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"


def sending(data: bytes, *, endless: bytes = b"", pause: float = 0) -> Raw:
    """Sends bytes, and then some others for as long as they are taken."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(data)
        while endless:
            writer.write(endless)
            await writer.drain()
            await asyncio.sleep(pause)
        await writer.drain()

    return talk


@asynccontextmanager
async def responsive(most: float) -> AsyncIterator[None]:
    """Nothing in here holds the event loop for longer than this many seconds at a time."""
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            before = time.thread_time()  # the loop's own work: what others do to a busy machine does not count
            await asyncio.sleep(0)
            worst = max(worst, time.thread_time() - before)

    gc.collect()
    gc.disable()  # what other tests have left behind takes its time to be looked through
    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        gc.enable()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert worst < most, f"the loop was held for {worst * 1000:.1f} ms"


# Heads


@pytest.mark.parametrize(
    "talk",
    [
        sending(OK, endless=b"X-More: " + b"x" * 1000 + b"\r\n"),
        sending(OK + b"X-More: ", endless=b"x" * 1000),
        sending(OK, endless=b"a:\r\n" * 250),
        sending(OK + b"X-More: a\r\n", endless=b" folded\r\n" * 100),
        sending(b"", endless=b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        sending(b"", endless=b"HTTP/1.1 100 Continue\r\nX-More: " + b"x" * 100 + b"\r\n\r\n"),
        sending(b"", endless=b"\r\n" * 100),
        sending(b"", endless=b"x" * 1000),
    ],
    ids=["headers", "one header", "tiny headers", "folds", "1xx", "1xx with headers", "empty lines", "garbage"],
)
async def test_a_head_without_end_is_cut(talk: Raw) -> None:
    async with serve_raw(talk) as server, web(server.target()) as fetch, responsive(0.02):
        with pytest.raises(CapabilityFailed) as failed:
            await fetch("fetch", url=server.url(), timeout=20.0)
        await server.closed.wait()
    assert failed.value.code == "http_failed"


async def test_the_size_of_the_head_is_bounded_by_the_grant() -> None:
    filler = b"X-More: " + b"x" * 1500 + b"\r\n"
    raw = OK + filler + b"Content-Length: 2\r\n\r\nok"
    async with serve_raw(sending(raw)) as server:
        async with web(server.target(), header_bytes=2048) as fetch:
            assert (await fetch("fetch", url=server.url())).data == b"ok"
        async with web(server.target(), header_bytes=1024) as fetch:
            with pytest.raises(CapabilityFailed, match="larger than 1024 bytes"):
                await fetch("fetch", url=server.url())


async def test_a_head_of_very_many_headers_is_refused_before_they_are_read() -> None:
    for lines in (b"a:\r\n" * 7000, b"a:\n" * 9000):
        raw = OK + lines + b"Content-Length: 2\r\n\r\nok"
        async with serve_raw(sending(raw)) as server, web(server.target()) as fetch, responsive(0.02):
            with pytest.raises(CapabilityFailed, match="more than 256 headers"):
                await fetch("fetch", url=server.url())


async def test_lines_of_the_body_are_no_headers() -> None:
    raw = OK + b"X: y\r\n" * 200 + b"Content-Length: 3000\r\n\r\n" + b"\n" * 3000
    async with serve_raw(sending(raw)) as server, web(server.target()) as fetch:
        assert (await fetch("fetch", url=server.url())).data == b"\n" * 3000


async def test_a_few_interim_answers_are_passed_over() -> None:
    raw = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + OK
        + b"Content-Length: 2\r\n\r\nok"
    )
    async with serve_raw(sending(raw)) as server, web(server.target()) as fetch:
        answer = await fetch("fetch", url=server.url())
    assert (answer.value.status, answer.data, "link" in answer.value.headers) == (200, b"ok", False)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 99 No\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 1x\r\n\r\na",
        OK + b"Content-Length: 99999999999999999999999999\r\n\r\na",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffffff\r\n",
        OK + b"Content-Length: 10\r\n\r\nabc",
        OK + b"Bad Name: x\r\n\r\n",
        OK + b": x\r\n\r\n",
        OK + b"X: \x00\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
    ],
)
@pytest.mark.parametrize("operation", ["fetch", "stream"])
async def test_an_answer_that_is_not_as_http_has_it_is_an_error(raw: bytes, operation: str) -> None:
    async with serve_raw(sending(raw)) as server, web(server.target()) as fetch:
        with pytest.raises(CapabilityFailed) as failed:
            await fetch(operation, url=server.url())
    assert failed.value.code in ("http_failed", "capability_too_large")


async def test_what_stands_behind_an_answer_is_no_answer() -> None:
    """Response splitting: a second answer on the connection is never taken for that to the next request."""
    raw = OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 4\r\n\r\nevil"
    async with serve_raw(sending(raw)) as server, web(server.target()) as fetch:
        answers = [(await fetch("fetch", url=server.url())).data for _ in range(3)]
    assert (answers, server.connections) == ([b"ok"] * 3, 3)


async def test_of_two_lengths_the_chunks_count() -> None:
    raw = OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    async with serve_raw(sending(raw)) as server, web(server.target()) as fetch:
        assert (await fetch("fetch", url=server.url())).data == b"abcde"


# Bodies


@pytest.mark.parametrize("cap", ["grant", "limits"])
@pytest.mark.parametrize(
    "talk",
    [
        sending(OK + b"Transfer-Encoding: chunked\r\n\r\n", endless=b"1000\r\n" + bytes(4096) + b"\r\n"),
        sending(OK + b"\r\n", endless=bytes(65536)),
        sending(OK + b"Content-Length: 1000000000000\r\n\r\n", endless=bytes(65536)),
        sending(
            OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], endless=b"\x00\x00\x00\xff\xff" * 1000
        ),
        sending(OK + b"Content-Encoding: gzip\r\n\r\n", endless=gzip.compress(b"") * 1000),
    ],
    ids=["chunks", "until the end", "length", "empty blocks", "empty members"],
)
async def test_a_body_without_end_is_cut(talk: Raw, cap: str) -> None:
    bound: dict[str, Any] = {"response_bytes": 100_000} if cap == "grant" else {}
    async with serve_raw(talk) as server, web(server.target(), **bound) as fetch, responsive(0.02):
        fetch.limits = {} if cap == "grant" else {"response_bytes": 100_000}
        with pytest.raises(CapabilityFailed, match="larger than 100000 bytes") as failed:
            await fetch("stream", url=server.url())
        await server.closed.wait()
    assert failed.value.code == "capability_too_large"


async def test_a_length_over_the_bound_is_refused_before_the_body_comes() -> None:
    async with (
        serve_raw(sending(OK + b"Content-Length: 100001\r\n\r\n")) as server,
        web(server.target(), response_bytes=100_000) as fetch,
    ):
        with pytest.raises(CapabilityFailed, match="larger than 100000 bytes"):
            await fetch("fetch", url=server.url())


async def test_a_body_of_just_the_bound_is_taken() -> None:
    async with (
        serve(lambda _: Reply(200, {}, bytes(100_000))) as server,
        web(server.target(), response_bytes=100_000) as fetch,
    ):
        assert len((await fetch("fetch", url=server.url())).data) == 100_000


async def test_a_request_over_the_bound_is_cut() -> None:
    async with serve() as server, web(server.target(methods=["POST"]), request_bytes=100_000) as fetch:
        with pytest.raises(CapabilityFailed, match="request is larger than 100000 bytes") as failed:
            await fetch("fetch", (bytes(1000) for _ in range(10**6)), url=server.url(), method="POST")
        await fetch("fetch", bytes(100_000), url=server.url(), method="POST")
    assert failed.value.code == "capability_too_large"
    assert [len(seen.body) for seen in server.seen] == [100_000]


async def test_a_bomb_does_not_unpack_further_than_the_bound() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)  # can stand there any number of times
    bomb = gzip.compress(b"")[:10] + megabyte * 1024
    assert len(bomb) < 2**21  # and unpacks to a gigabyte
    reply = Reply(200, {"Content-Encoding": "gzip"}, bomb)
    async with serve(lambda _: reply) as server, web(server.target(), response_bytes=2**22) as fetch, responsive(0.02):
        tracemalloc.start()
        try:
            with pytest.raises(CapabilityFailed, match="larger than 4194304 bytes"):
                await fetch("fetch", url=server.url())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 2**25


async def test_layers_of_packing_are_not_unpacked() -> None:
    body = gzip.compress(gzip.compress(b"abc"))
    async with (
        serve(lambda _: Reply(200, {"Content-Encoding": "gzip, gzip"}, body)) as server,
        web(server.target()) as fetch,
    ):
        answer = await fetch("fetch", url=server.url())
    assert (answer.data, answer.value.headers["content-encoding"]) == (body, "gzip, gzip")


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(b"abc")[:-1], gzip.compress(b"abc")[:-8] + bytes(8)],
    ids=["no packing", "cut off", "wrong sum"],
)
async def test_a_damaged_packing_is_an_error(body: bytes) -> None:
    async with serve(lambda _: Reply(200, {"Content-Encoding": "gzip"}, body)) as server, web(server.target()) as fetch:
        with pytest.raises(CapabilityFailed, match="compressed body"):
            await fetch("fetch", url=server.url())


async def test_a_flood_of_tiny_chunks_lets_others_work() -> None:
    chunks = b"1\r\nx\r\n" * 10_000
    raw = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks * 5 + b"0\r\n\r\n"
    async with serve_raw(sending(raw)) as server, web(server.target()) as fetch, responsive(0.02):
        answer = await fetch("fetch", url=server.url())
    assert answer.data == b"x" * 50_000


# Time


@pytest.mark.parametrize(
    ("raw", "endless"),
    [
        (b"", b""),
        (OK, b""),
        (OK + b"Content-Length: 10\r\n\r\n", b""),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b""),
    ],
    ids=["nothing", "half a head", "no body", "no chunk"],
)
async def test_a_server_that_falls_silent_is_left_after_the_time_to_read(raw: bytes, endless: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(raw)
        await reader.read()

    async with serve_raw(talk) as server, web(server.target(), read_time=0.3) as fetch:
        with pytest.raises(CapabilityTimeout, match=r"for 0\.3 s"):
            await fetch("fetch", url=server.url())
        await server.closed.wait()


@pytest.mark.parametrize(
    "talk",
    [
        sending(OK + b"X-Slow: ", endless=b"x", pause=0.05),
        sending(OK + b"Content-Length: 1000\r\n\r\n", endless=b"x", pause=0.05),
        sending(b"", endless=b"H", pause=0.05),
    ],
    ids=["head", "body", "status"],
)
async def test_a_server_that_drips_is_left_when_the_time_is_up(talk: Raw) -> None:
    """Slow-loris: each byte comes in time, and all of them never do."""
    async with serve_raw(talk) as server, web(server.target(), read_time=10, total_time=0.6) as fetch:
        with pytest.raises(CapabilityTimeout, match=r"longer than 0\.6 s"):
            await fetch("fetch", url=server.url())
        await server.closed.wait()


async def test_a_server_that_takes_nothing_is_left_after_the_time_to_write() -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.wait_closed()

    body = (bytes(2**20) for _ in itertools.count())
    async with serve_raw(talk) as server, web(server.target(methods=["POST"]), read_time=0.3) as fetch:
        with pytest.raises(CapabilityTimeout, match=r"for 0\.3 s"):
            await fetch("stream", body, url=server.url(), method="POST")


async def test_a_handshake_that_never_comes_is_left_after_the_time_to_connect() -> None:
    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await asyncio.Event().wait()

    async with serve_raw(talk) as server, web(server.target(scheme="https"), connect_time=0.5) as fetch:
        with pytest.raises(CapabilityTimeout, match=r"no connection within 0\.5 s"):
            await fetch("fetch", url=server.url(scheme="https"))


async def test_one_hostile_server_does_not_hold_up_the_calls_to_another() -> None:
    chunks = sending(OK + b"Transfer-Encoding: chunked\r\n\r\n", endless=b"1\r\nx\r\n" * 1000)
    async with serve_raw(chunks) as bad, serve() as good, web(bad.target(), good.target()) as fetch:
        flood = asyncio.create_task(fetch("stream", url=bad.url()))
        for _ in range(20):
            async with asyncio.timeout(30):
                assert (await fetch("fetch", url=good.url())).value.status == 200
        flood.cancel()
        with pytest.raises((asyncio.CancelledError, CapabilityError)):
            await flood
