"""Redirects: each step is checked as if the code had asked for it, and takes less along to another server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from capsule_protocol.errors import CapabilityDenied, CapabilityFailed
from tests.acceptance.providers.http.support import Reply, Seen, head, serve, serve_raw, web

pytestmark = pytest.mark.anyio

ALL = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
A, B = "a.example.org", "b.example.org"
NAMES = {A: ["127.0.0.1"], B: ["127.0.0.1"], "inner.example.org": ["127.0.0.7"]}
MINE = {
    "Authorization": "Bearer mine",
    "Cookie": "id=1",
    "X-Api-Key": "mine",
    "Accept": "text/plain",
    "User-Agent": "me",
    "Content-Type": "text/plain",
}


def redirecting(location: str, status: int = 302, *, at: str = "/from") -> Callable[[Seen], Reply]:
    """Answers with a redirect at one path, and with what it got at all others."""

    def answer(seen: Seen) -> Reply:
        if seen.target.startswith(at):
            return Reply(status, {"Location": location}, b"moved")
        return Reply(200, {}, f"{seen.method} {seen.target} {seen.body.decode()}".encode())

    return answer


async def test_a_redirect_is_followed_and_told() -> None:
    async with serve(redirecting("to?x=1#part")) as server, web(server.target()) as fetch:
        answer = await fetch("fetch", url=server.url("/from?y=2"))
    assert answer.data == b"GET /to?x=1 "
    assert (answer.value.url, answer.value.redirects) == (server.url("/to?x=1"), (server.url("/from?y=2"),))


async def test_a_redirect_is_not_followed_where_that_is_asked_for() -> None:
    async with serve(redirecting("/to")) as server, web(server.target()) as fetch:
        answer = await fetch("fetch", url=server.url("/from"), follow_redirects=False)
    assert (answer.value.status, answer.value.headers["location"], answer.data) == (302, "/to", b"moved")
    assert len(server.seen) == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("location", ["/busy", "/broken", "/silent", f"http://{B}:1/", "http://nowhere.example.org/"])
async def test_what_was_changed_before_a_redirect_is_not_to_be_done_again(method: str, location: str) -> None:
    statuses = {"/from": 303, "/busy": 503, "/broken": 502}

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await head(reader)).split()[1].decode()
        if target in statuses:
            writer.write(f"HTTP/1.1 {statuses[target]} .\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    async with serve_raw(talk) as server:
        targets = [server.target(methods=ALL), {"scheme": "http", "host": B, "port": 1}]
        async with web(*targets, {"scheme": "http", "host": "nowhere.example.org"}, names=NAMES) as fetch:
            with pytest.raises(CapabilityFailed) as failed:
                await fetch("fetch", url=server.url("/from"), method=method, raise_for_status=True)
    assert (failed.value.code, failed.value.retryable) == ("http_failed", method == "GET")


async def test_a_redirect_without_a_place_is_an_answer() -> None:
    async with serve(lambda _: Reply(304)) as server, web(server.target()) as fetch:
        assert (await fetch("fetch", url=server.url())).value.status == 304
    async with serve(lambda _: Reply(302, {}, b"where?")) as server, web(server.target()) as fetch:
        assert (await fetch("fetch", url=server.url())).data == b"where?"


@pytest.mark.parametrize("redirects", [0, 1, 5])
async def test_the_number_of_redirects_is_bounded(redirects: int) -> None:
    async with serve(redirecting("/from")) as server, web(server.target(), redirects=redirects) as fetch:
        with pytest.raises(CapabilityFailed, match=f"more than {redirects} redirects"):
            await fetch("fetch", url=server.url("/from"))
    assert len(server.seen) == redirects + 1


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://127.0.0.1:PORT/admin", "capability_outside_grant"),
        (f"http://{B}:PORT/to", "capability_outside_grant"),
        (f"http://{A}:1/to", "capability_outside_grant"),
        ("/v2", "capability_outside_grant"),
        ("/v1/../v2", "capability_outside_grant"),
        ("http://169.254.169.254/latest/meta-data/", "address_denied"),
        ("http://inner.example.org/v1/", "address_denied"),
        ("http://[::ffff:169.254.169.254]/", "address_denied"),
        ("file:///etc/passwd", "http_failed"),
        ("http://2852039166/latest/meta-data/", "http_failed"),
        (f"http://{A}:PORT@169.254.169.254/", "http_failed"),
        ("\\\\169.254.169.254\\x", "http_failed"),
        ("/v1/%2e%2e%2fadmin", "http_failed"),
        ("/v1/ x", "http_failed"),
        ("/v1/%", "http_failed"),
    ],
)
async def test_a_redirect_leads_nowhere_that_the_code_could_not_go(location: str, code: str) -> None:
    place: list[str] = []
    async with serve(lambda seen: redirecting(place[0], at="/v1/from")(seen)) as server:
        place.append(location.replace("PORT", str(server.port)))
        inner = {"scheme": "http", "host": "inner.example.org"}
        cloud = [{"scheme": "http", "host": host} for host in ("169.254.169.254", "::ffff:169.254.169.254")]
        grant = [server.target(A, path="/v1"), inner, *cloud]
        async with web(*grant, names=NAMES, private=["127.0.0.1/32"]) as fetch:
            with pytest.raises((CapabilityDenied, CapabilityFailed)) as refused:
                await fetch("fetch", url=server.url("/v1/from", host=A))
    assert refused.value.code == code
    assert [seen.target for seen in server.seen] == ["/v1/from"]


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (301, "PUT", "PUT"),
        (302, "DELETE", "DELETE"),
        (307, "POST", "POST"),
        (308, "PUT", "PUT"),
        (303, "HEAD", "HEAD"),
        (302, "HEAD", "HEAD"),
    ],
)
async def test_the_method_after_a_redirect(status: int, method: str, then: str) -> None:
    async with serve(redirecting("/to", status)) as server, web(server.target(methods=ALL)) as fetch:
        body = b"" if method == "HEAD" else b"body"
        await fetch("fetch", body, url=server.url("/from"), method=method, headers={"Content-Type": "text/x"})
    seen = server.seen[1]
    assert (seen.method, seen.body) == (then, body if then == method else b"")
    assert ("content-type" in seen.headers) is (then == method)


async def test_the_method_after_a_redirect_has_to_be_allowed() -> None:
    targets: Any = None
    async with serve(redirecting("/to", 307)) as server:
        targets = [server.target(methods=["POST"], path="/from"), server.target(methods=["GET"], path="/to")]
        async with web(*targets) as fetch:
            with pytest.raises(CapabilityDenied, match="POST http"):
                await fetch("fetch", b"body", url=server.url("/from"), method="POST")
    assert len(server.seen) == 1


async def test_a_body_that_is_too_large_to_be_kept_is_not_sent_again() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield bytes(2**16)
        yield b"1"

    async with serve(redirecting("/to", 307)) as server, web(server.target(methods=ALL)) as fetch:
        with pytest.raises(CapabilityFailed, match="asks for the body again"):
            await fetch("fetch", body(), url=server.url("/from"), method="POST")
        await fetch("fetch", bytes(2**16), url=server.url("/from"), method="POST")
    assert len(server.seen) == 3


async def test_to_another_server_go_no_credentials() -> None:
    place: list[str] = []
    async with serve() as other, serve(lambda seen: redirecting(place[0])(seen)) as server:
        place.append(other.url("/to", host=B))
        async with web(server.target(A), other.target(B), names=NAMES) as fetch:
            await fetch("fetch", url=server.url("/from", host=A), headers=MINE)
    (seen,) = other.seen
    told = {
        name: value for name, value in seen.headers.items() if name not in ("host", "connection", "accept-encoding")
    }
    assert told == {"accept": "text/plain", "user-agent": "me", "content-type": "text/plain"}
    assert server.seen[0].headers["authorization"] == "Bearer mine"


async def test_to_the_same_server_all_headers_go_again() -> None:
    async with serve(redirecting("/to")) as server, web(server.target(A), names=NAMES) as fetch:
        await fetch("fetch", url=server.url("/from", host=A), headers=MINE)
    assert server.seen[1].headers["authorization"] == "Bearer mine"
    assert server.seen[1].headers["x-api-key"] == "mine"


@pytest.mark.parametrize("another", ["name", "port"])
async def test_another_name_or_port_is_another_server(another: str) -> None:
    place: list[str] = []
    async with serve() as other, serve(lambda seen: redirecting(place[0])(seen)) as server:
        place.append(server.url("/to", host=B) if another == "name" else other.url("/to", host=A))
        async with web(server.target(A), server.target(B), other.target(A), names=NAMES) as fetch:
            await fetch("fetch", url=server.url("/from", host=A), headers=MINE)
    last = (server if another == "name" else other).seen[-1]
    assert "authorization" not in last.headers
    assert "cookie" not in last.headers


async def test_credentials_do_not_come_back_with_a_redirect_back() -> None:
    def answer(seen: Seen) -> Reply:
        host = seen.headers["host"].partition(":")[0]
        place = f"http://{A if host == B else B}:{server.port}{seen.target}x"
        return Reply(302, {"Location": place}) if len(seen.target) < 4 else Reply()

    async with serve(answer) as server, web(server.target(A), server.target(B), names=NAMES) as fetch:
        await fetch("fetch", url=server.url("/", host=A), headers=MINE)
    hosts = [seen.headers["host"].partition(":")[0] for seen in server.seen]
    assert hosts == [A, B, A, B]
    assert ["authorization" in seen.headers for seen in server.seen] == [True, False, False, False]


async def test_the_body_of_a_redirect_is_not_waited_for() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readuntil(b"\r\n\r\n")
        if b"/from" in line:
            writer.write(b"HTTP/1.1 302 Found\r\nLocation: /to\r\nContent-Length: 1000000000\r\n\r\nx")
            await reader.read()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    async with serve_raw(talk) as server, web(server.target()) as fetch:
        assert (await fetch("fetch", url=server.url("/from"))).data == b"ok"
