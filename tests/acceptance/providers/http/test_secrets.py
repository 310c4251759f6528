"""Secrets: the server gets them, the code does not, whatever the server sends back."""

from __future__ import annotations

import asyncio
import base64
import gzip
import traceback
from typing import Any

import pytest

from capsule_protocol.errors import CapabilityDenied, CapabilityError, CapabilityFailed
from tests.acceptance.providers.http.support import Reply, Seen, head, serve, serve_raw, web

pytestmark = pytest.mark.anyio

SECRET = "tok-5ecr3t/value+1"
HEADER: dict[str, Any] = {"secrets": {"headers": {"Authorization": "Bearer secret://api"}}}
QUERY: dict[str, Any] = {"secrets": {"query": {"key": "secret://api"}}}
A, B = "a.example.org", "b.example.org"
NAMES = {A: ["127.0.0.1"], B: ["127.0.0.1"]}


def told(answer: Any) -> str:
    return f"{answer.value!r} {answer.data!r}"


async def test_a_secret_is_sent_in_a_header() -> None:
    async with serve() as server, web(server.target(**HEADER), secrets={"api": SECRET}) as fetch:
        answer = await fetch("fetch", url=server.url())
    assert server.seen[0].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in told(answer)


async def test_a_secret_is_sent_in_the_query() -> None:
    async with serve() as server, web(server.target(**QUERY), secrets={"api": SECRET}) as fetch:
        answer = await fetch("fetch", url=server.url("/x?a=1"), params={"b": "2"})
    assert server.seen[0].target == "/x?a=1&b=2&key=tok-5ecr3t%2Fvalue%2B1"
    assert answer.value.url == server.url("/x?a=1&b=2")


async def test_only_the_entry_that_allows_the_request_adds_its_secrets() -> None:
    async with serve() as server:
        targets = [server.target(path="/private", **HEADER), server.target()]
        async with web(*targets, secrets={"api": SECRET}) as fetch:
            await fetch("fetch", url=server.url("/public"))
            await fetch("fetch", url=server.url("/private/x"))
    assert ["authorization" in seen.headers for seen in server.seen] == [False, True]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("how", [HEADER, QUERY])
async def test_what_a_server_sends_back_of_a_secret_is_masked(how: dict[str, Any], packed: bool) -> None:
    def echo(seen: Seen) -> Reply:
        body = f"{seen.target} {seen.headers} {base64.b64encode(SECRET.encode()).decode()} end".encode()
        packing = {"Content-Encoding": "gzip"} if packed else {}
        headers = {"X-Echo": seen.headers.get("authorization", seen.target), "Set-Cookie": f"a={SECRET}"}
        return Reply(200, headers | packing, gzip.compress(body) if packed else body)

    for operation in ("fetch", "stream"):
        async with serve(echo) as server, web(server.target(**how), secrets={"api": SECRET}) as fetch:
            answer = await fetch(operation, url=server.url())
        assert answer.data.endswith(b" end")
        assert b"*" * len(SECRET) in answer.data
        for form in (SECRET, "tok-5ecr3t%2Fvalue%2B1", base64.b64encode(SECRET.encode()).decode().rstrip("=")):
            assert form not in told(answer)
        assert answer.value.set_cookie == (f"a={'*' * len(SECRET)}",)


async def test_a_secret_that_comes_in_pieces_is_masked() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in f"<{SECRET}>".encode():
            writer.write(b"1\r\n%c\r\n" % byte)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with serve_raw(talk) as server, web(server.target(**HEADER), secrets={"api": SECRET}) as fetch:
        answer = await fetch("stream", url=server.url())
    assert answer.data == f"<{'*' * len(SECRET)}>".encode()


@pytest.mark.parametrize("header", ["Range", "Request-Range"])
async def test_no_part_of_an_answer_is_asked_for_with_a_secret(header: str) -> None:
    """It could be a part of an echo, which no mask would know: `ranges` is for servers that echo nothing."""
    part: dict[str, Any] = {"headers": {header: "bytes=3-5"}}
    async with serve() as server, web(server.target(**HEADER), secrets={"api": SECRET}) as fetch:
        with pytest.raises(CapabilityDenied, match="ranges = true") as denied:
            await fetch("fetch", url=server.url(), **part)
        assert denied.value.code == "capability_outside_grant"
        assert server.connections == 0
    async with serve() as server, web(server.target(ranges=True, **HEADER), secrets={"api": SECRET}) as fetch:
        await fetch("fetch", url=server.url(), **part)
        assert server.seen[0].headers[header.lower()] == "bytes=3-5"


async def test_how_far_an_answer_was_packed_is_not_told_where_a_secret_is_in_it() -> None:
    """What the code writes beside it packs the better, the more it is like the secret."""

    def echo(seen: Seen) -> Reply:
        body = f"{seen.target} {seen.headers}".encode()
        return Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(body))

    async with serve(echo) as server, web(server.target(**HEADER), secrets={"api": SECRET}) as fetch:
        answer = await fetch("fetch", url=server.url())
    assert server.seen[0].headers["accept-encoding"] == "identity"
    assert answer.value.transferred == answer.value.size == len(answer.data)


async def test_a_secret_in_the_name_of_a_header_is_masked() -> None:
    reply = Reply(200, {"X-low5ecr3t-end": "1"})
    async with serve(lambda _: reply) as server, web(server.target(**HEADER), secrets={"api": "low5ecr3t"}) as fetch:
        answer = await fetch("fetch", url=server.url())
    assert "low5ecr3t" not in told(answer)


async def test_a_packing_that_hides_what_is_in_it_is_refused() -> None:
    reply = Reply(200, {"Content-Encoding": "br"}, b"\x00")
    async with serve(lambda _: reply) as server, web(server.target(**HEADER), secrets={"api": SECRET}) as fetch:
        with pytest.raises(CapabilityFailed, match="packed with 'br'"):
            await fetch("fetch", url=server.url())


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": {"Authorization": "Bearer mine"}},
        {"headers": {"authorization": "Bearer mine"}},
        {"headers": {"X_Key": "mine"}},
        {"headers": {"x-key": "mine"}},
        {"url": "/?key=mine"},
        {"url": "/?k%65y=mine"},
        {"url": "/?a=1;key=mine"},
        {"params": {"key": "mine"}},
    ],
)
async def test_the_code_does_not_set_what_the_grant_sets(fields: dict[str, Any]) -> None:
    target: dict[str, Any] = {
        "secrets": {
            "headers": {"Authorization": "secret://api", "X-Key": "secret://api"},
            "query": {"key": "secret://api"},
        }
    }
    async with serve() as server, web(server.target(**target), secrets={"api": SECRET}) as fetch:
        with pytest.raises(CapabilityDenied, match="is set by the grant") as denied:
            await fetch("fetch", **{**fields, "url": server.url(fields.get("url", "/"))})
    assert denied.value.code == "capability_outside_grant"
    assert server.connections == 0


# Redirects


@pytest.mark.parametrize("how", [HEADER, QUERY])
async def test_a_secret_goes_along_to_the_same_server_and_to_no_other(how: dict[str, Any]) -> None:
    place: list[str] = []

    def answer(seen: Seen) -> Reply:
        target = seen.target.partition("?")[0]
        return Reply(302, {"Location": place[len(target) - 1]}) if len(target) < 4 else Reply()

    async with serve(answer) as server:
        # The last one comes back to where the secret belongs, by way of a server that could have chosen the path.
        place += ["/a", server.url("/bb", host=B), server.url("/ccc", host=A)]
        async with web(server.target(A, **how), server.target(B, **how), names=NAMES, secrets={"api": SECRET}) as fetch:
            await fetch("fetch", url=server.url("/", host=A))
    sent = [SECRET in str(seen) or "tok-5ecr3t%2F" in str(seen) for seen in server.seen]
    assert sent == [True, True, False, False]


async def test_a_redirect_that_repeats_the_secret_parameter_is_followed_with_one() -> None:
    def answer(seen: Seen) -> Reply:
        return Reply(301, {"Location": f"/to?{seen.target.partition('?')[2]}"}) if "/from" in seen.target else Reply()

    async with serve(answer) as server, web(server.target(**QUERY), secrets={"api": SECRET}) as fetch:
        answer_ = await fetch("fetch", url=server.url("/from?a=1"))
    assert server.seen[1].target == "/to?a=1&key=tok-5ecr3t%2Fvalue%2B1"
    assert answer_.value.url == server.url("/to?a=1")
    assert SECRET not in told(answer_)


@pytest.mark.parametrize("location", [f"/to/{SECRET}", f"/to?x={SECRET}", "/to?x=tok-5ecr3t%2Fvalue%2B1", "/to?key=x"])
async def test_a_redirect_carries_no_secret_to_another_server(location: str) -> None:
    place: list[str] = []
    async with serve() as other, serve(lambda _: Reply(302, {"Location": place[0]})) as server:
        place.append(other.url(location, host=B))
        async with web(server.target(A, **QUERY), other.target(B), names=NAMES, secrets={"api": SECRET}) as fetch:
            if location == "/to?key=x":  # the name is taken out, whatever is in it
                await fetch("fetch", url=server.url(host=A))
                assert other.seen[0].target == "/to"
                return
            with pytest.raises(CapabilityDenied, match="would carry a secret") as denied:
                await fetch("fetch", url=server.url(host=A))
    assert other.connections == 0
    assert SECRET not in complete(denied.value)


# Errors


def complete(error: BaseException) -> str:
    """All that an error could tell: message, details, causes, and the traceback of them."""
    chain: list[str] = []
    step: BaseException | None = error
    while step is not None:
        chain += [str(step), repr(step), repr(getattr(step, "details", ""))]
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return "\n".join([*chain, *traceback.format_exception(error)])


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 404 SECRET\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/SECRET\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://SECRET/\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /SECRET\r\n\r\n",
        b"SECRET\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nSECRET\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: SECRET\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: SECRET\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: SECRET\r\nContent-Length: 1\r\n\r\nx",
        b"",
    ],
)
@pytest.mark.parametrize("how", [HEADER, QUERY])
async def test_no_error_tells_a_secret(how: dict[str, Any], raw: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(raw.replace(b"SECRET", SECRET.encode()))
        await writer.drain()

    async with serve_raw(talk) as server, web(server.target(**how), secrets={"api": SECRET}, redirects=1) as fetch:
        with pytest.raises(CapabilityError) as error:
            await fetch("stream", url=server.url())
    assert SECRET not in complete(error.value)
    assert "tok-5ecr3t%2F" not in complete(error.value)


async def test_no_error_tells_a_secret_where_time_is_up() -> None:
    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    target: dict[str, Any] = {"secrets": {"headers": {"X-Key": "secret://api"}, "query": {"key": "secret://api"}}}
    every: list[dict[str, Any]] = [{"read_time": 0.1}, {"total_time": 0.1}]
    for bounds in every:
        async with serve_raw(talk) as server, web(server.target(**target), secrets={"api": SECRET}, **bounds) as fetch:
            with pytest.raises(TimeoutError) as error:
                await fetch("fetch", url=server.url())
        assert SECRET not in complete(error.value)


@pytest.mark.parametrize(
    "value", ["", "sesame\n", "sesame\r\nHost: evil.org", "sesame ä", " sesame", "sesame ", "sesame\x00"]
)
async def test_a_secret_that_cannot_be_sent_is_an_error_that_does_not_tell_it(value: str) -> None:
    async with serve() as server, web(server.target(**HEADER), secrets={"api": value}) as fetch:
        with pytest.raises(CapabilityFailed, match="cannot be sent") as error:
            await fetch("fetch", url=server.url())
    assert error.value.code == "secret_unknown"
    assert server.connections == 0
    assert "sesame" not in complete(error.value)


async def test_a_scope_shows_no_secret() -> None:
    async with serve() as server, web(server.target(**HEADER), secrets={"api": SECRET}) as fetch:
        await fetch("fetch", url=server.url())
        assert SECRET not in repr(fetch.scope) + repr(fetch.provider) + repr(vars(fetch.provider))
