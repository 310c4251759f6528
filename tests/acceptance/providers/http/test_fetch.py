"""Requests that are allowed: what arrives at the server, and what comes back."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from capsule.providers.http import provider
from capsule_protocol.errors import CapabilityFailed, CapabilityTimeout
from tests.acceptance.providers.calls import services
from tests.acceptance.providers.http.support import Reply, head, serve, serve_raw, web

pytestmark = pytest.mark.anyio

ALL = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


async def test_an_answer_comes_with_status_headers_and_body() -> None:
    reply = Reply(201, {"X-Kind": "fruit"}, b"apples")
    async with serve(lambda _: reply) as server, web(server.target()) as fetch:
        answer = await fetch("fetch", url=server.url("/shop?a=1"))
    assert answer.data == b"apples"
    assert (answer.value.status, answer.value.headers["x-kind"]) == (201, "fruit")
    assert (answer.value.url, answer.value.http_version) == (server.url("/shop?a=1"), "HTTP/1.1")
    assert (answer.value.size, answer.value.transferred, answer.value.redirects) == (6, 6, ())


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("body", [b"", b"some bytes"])
async def test_method_headers_parameters_and_body_arrive(method: str, body: bytes) -> None:
    async with serve() as server, web(server.target(methods=ALL)) as fetch:
        await fetch(
            "fetch",
            body,
            url=server.url("/x?one=1"),
            method=method.lower(),
            headers={"X-Mine": "yes", "Authorization": "Bearer own"},
            params={"two": "a b&c", "three": ["x", "y"]},
        )
    (seen,) = server.seen
    assert (seen.method, seen.target) == (method, "/x?one=1&two=a%20b%26c&three=x&three=y")
    assert (seen.headers["x-mine"], seen.headers["authorization"]) == ("yes", "Bearer own")
    assert seen.headers["host"] == f"127.0.0.1:{server.port}"
    assert seen.body == body
    assert seen.headers.get("content-length", "0") == str(len(body))


async def test_a_head_has_no_body() -> None:
    async with serve(lambda _: Reply(200, {"content-length": "1000"})) as server, web(server.target()) as fetch:
        answer = await fetch("fetch", url=server.url(), method="HEAD")
    assert (answer.data, answer.value.headers["content-length"]) == (b"", "1000")


async def test_an_error_of_the_server_is_an_answer() -> None:
    async with serve(lambda _: Reply(404, {}, b"nothing")) as server, web(server.target()) as fetch:
        answer = await fetch("fetch", url=server.url())
    assert (answer.value.status, answer.data) == (404, b"nothing")


@pytest.mark.parametrize(
    ("method", "status", "retryable"),
    [
        ("GET", 404, False),
        ("GET", 503, True),
        ("GET", 302, False),
        ("GET", 502, True),
        ("POST", 503, True),  # the server says that it did nothing
        ("POST", 502, False),
        ("DELETE", 500, False),
    ],
)
async def test_an_error_of_the_server_is_raised_where_it_is_asked_for(
    method: str, status: int, retryable: bool
) -> None:
    async with serve(lambda _: Reply(status, {}, b"nothing")) as server, web(server.target(methods=ALL)) as fetch:
        with pytest.raises(CapabilityFailed, match=f"answered {status}") as refused:
            await fetch("stream", url=server.url(), method=method)
    assert (refused.value.code, refused.value.retryable) == ("http_failed", retryable)
    assert refused.value.details == {"status": status}


async def test_a_stream_hands_over_what_has_come_while_the_rest_has_not() -> None:
    first, second = asyncio.Event(), asyncio.Event()
    chunks: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await first.wait()
        writer.write(b"3\r\ntwo\r\n")
        await second.wait()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def taken(chunk: bytes) -> None:
        chunks.append(chunk)
        (first if len(chunks) == 1 else second).set()

    async with serve_raw(talk) as server, web(server.target()) as fetch:
        fetch.on_chunk = taken
        answer = await fetch("stream", url=server.url())
    assert (chunks, answer.data) == ([b"one", b"two"], b"onetwo")


async def test_large_bodies_go_both_ways() -> None:
    part = bytes(range(256)) * 4096
    sent, came = hashlib.sha256(), hashlib.sha256()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert b"transfer-encoding: chunked" in (await head(reader)).lower()
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(await reader.readline(), 16):
            data = (await reader.readexactly(size + 2))[:-2]
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            came.update(data)
        await reader.readline()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(16):
            sent.update(part)
            yield part

    back = hashlib.sha256()

    async def taken(chunk: bytes) -> None:
        back.update(chunk)

    async with serve_raw(talk) as server, web(server.target(methods=ALL)) as fetch:
        fetch.on_chunk = taken
        answer = await fetch("stream", body(), url=server.url(), method="POST")
    assert answer.value.size == 2**24
    assert sent.digest() == came.digest() == back.digest()


async def test_a_packed_body_is_unpacked() -> None:
    body = b"abc" * 100_000
    reply = Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(body))
    async with serve(lambda _: reply) as server, web(server.target()) as fetch:
        answer = await fetch("fetch", url=server.url())
    assert answer.data == body
    assert (answer.value.size, answer.value.transferred) == (len(body), len(reply.body))
    assert server.seen[0].headers["accept-encoding"] == "gzip"


async def test_a_part_of_a_body_is_asked_for_as_it_is() -> None:
    async with serve() as server, web(server.target()) as fetch:
        await fetch("fetch", url=server.url(), headers={"Range": "bytes=0-1"})
    assert server.seen[0].headers["accept-encoding"] == "identity"


async def test_a_body_in_a_packing_that_is_not_known_comes_as_it_is() -> None:
    reply = Reply(200, {"Content-Encoding": "br"}, b"\x00\x01")
    async with serve(lambda _: reply) as server, web(server.target()) as fetch:
        answer = await fetch("fetch", url=server.url())
    assert (answer.data, answer.value.headers["content-encoding"]) == (b"\x00\x01", "br")


async def test_headers_that_stand_there_twice_are_joined_and_cookies_are_not() -> None:
    headers = [("Vary", "a"), ("Vary", "b"), ("Set-Cookie", "x=1, 2"), ("Set-Cookie", "y=3")]
    async with serve(lambda _: Reply(200, headers)) as server, web(server.target()) as fetch:
        answer = await fetch("fetch", url=server.url())
    assert answer.value.headers["vary"] == "a, b"
    assert answer.value.set_cookie == ("x=1, 2", "y=3")
    assert "set-cookie" not in answer.value.headers


async def test_cookies_and_connections_are_not_kept() -> None:
    async with serve(lambda _: Reply(200, {"Set-Cookie": "id=1"})) as server, web(server.target()) as fetch:
        await fetch("fetch", url=server.url())
        await fetch("fetch", url=server.url())
    assert [seen.headers.get("cookie") for seen in server.seen] == [None, None]
    assert server.connections == 2


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(lambda _: Reply(500)) as proxy, serve() as server, web(server.target()) as fetch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url())
        answer = await fetch("fetch", url=server.url())
    assert (answer.value.status, proxy.connections) == (200, 0)


async def test_a_password_file_of_the_user_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password it\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with serve() as server, web(server.target()) as fetch:
        await fetch("fetch", url=server.url())
    assert "authorization" not in server.seen[0].headers


async def test_many_calls_at_once_do_not_mix() -> None:
    async with serve(lambda seen: Reply(200, {}, seen.target.encode())) as server, web(server.target()) as fetch:
        answers = await asyncio.gather(*(fetch("fetch", url=server.url(f"/{n}")) for n in range(40)))
    assert [answer.data for answer in answers] == [f"/{n}".encode() for n in range(40)]


async def test_an_address_that_does_not_answer_gives_way_to_the_next() -> None:
    async with serve() as server:
        names = {"two.example.org": ["127.0.0.9", "127.0.0.1"]}
        async with web(server.target("two.example.org"), names=names) as fetch:
            answer = await fetch("fetch", url=server.url(host="two.example.org"))
    assert answer.value.status == 200


async def test_an_address_of_version_6_is_reached() -> None:
    async with serve(address="::1") as server, web(server.target("::1"), private=["::1/128"]) as fetch:
        answer = await fetch("fetch", url=server.url(host="[::1]"))
    assert server.seen[0].headers["host"] == f"[::1]:{server.port}"
    assert answer.value.url == server.url(host="[::1]")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_server_is_an_error_that_may_go_away(method: str) -> None:
    async with serve() as server:
        pass
    async with web(server.target(methods=ALL)) as fetch:
        with pytest.raises(CapabilityFailed) as refused:
            await fetch("fetch", url=server.url(), method=method)
    assert (refused.value.code, refused.value.retryable) == ("http_failed", True)


async def test_a_name_that_does_not_exist_is_an_error() -> None:
    async with web({"host": "nowhere.example.org"}) as fetch:
        with pytest.raises(CapabilityFailed, match=r"nowhere\.example\.org was not found") as refused:
            await fetch("fetch", url="https://nowhere.example.org/")
    assert refused.value.code == "http_failed"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("times", [{"read_time": 0.2}, {"total_time": 0.2}, {}])
async def test_what_was_sent_and_not_answered_may_be_asked_for_again_only_if_it_changes_nothing(
    method: str, times: dict[str, Any]
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        if times:
            await reader.read()
        writer.close()

    async with serve_raw(talk) as server, web(server.target(methods=ALL), **times) as fetch:
        with pytest.raises(CapabilityTimeout if times else CapabilityFailed) as caught:
            await fetch("fetch", url=server.url(), method=method)
    assert caught.value.retryable is (method == "GET")


@pytest.mark.parametrize("fields", [{"timeout": 0.2}, {}])
async def test_a_call_ends_when_its_time_is_up(fields: dict[str, Any]) -> None:
    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await head(reader)
        await reader.read()

    async with serve_raw(talk) as server, web(server.target(), total_time=5 if fields else 0.2) as fetch:
        with pytest.raises(CapabilityTimeout) as late:
            await fetch("fetch", url=server.url(), **fields)
        await server.closed.wait()
    assert late.value.code == "capability_timeout"


@pytest.mark.parametrize("stage", ["sending", "asked", "answering", "taking"])
async def test_a_call_that_is_cancelled_leaves_no_connection(stage: str) -> None:
    reached, never = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        if stage in ("answering", "taking"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
            await writer.drain()
        if stage != "taking":
            reached.set()
        await reader.read()

    async def body() -> AsyncIterator[bytes]:
        yield bytes(2**17)
        await never.wait()

    async def taken(_chunk: bytes) -> None:
        reached.set()
        await never.wait()

    async with serve_raw(talk) as server, web(server.target(methods=ALL)) as fetch:
        fetch.on_chunk = taken if stage == "taking" else None
        data = body() if stage == "sending" else b""
        task = asyncio.create_task(fetch("stream", data, url=server.url(), method="POST"))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.closed.wait()


async def test_a_call_that_is_cancelled_while_a_name_is_looked_up_ends_at_once() -> None:
    reached, held, loop = asyncio.Event(), threading.Event(), asyncio.get_running_loop()

    def resolve(_host: str, _port: int) -> list[str]:
        loop.call_soon_threadsafe(reached.set)
        held.wait()
        return ["127.0.0.1"]

    async with serve() as server, web(server.target("a.example.org"), names=resolve) as fetch:
        task = asyncio.create_task(fetch("fetch", url=server.url(host="a.example.org")))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not held.is_set()
        held.set()
        assert server.connections == 0


async def test_it_starts_tells_of_its_health_and_stops_twice() -> None:
    made = provider()
    assert not (await made.health()).ok
    await made.start(services())
    assert (await made.health()).ok
    await made.stop()
    await made.stop()
    assert not (await made.health()).ok
