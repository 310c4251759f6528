"""Where requests may not go: nothing reaches the server, whatever the code writes."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from capsule.providers.http import provider
from capsule.providers.http.schemas import FETCH
from capsule.providers.http.scope import Scope
from capsule_protocol.errors import ArgumentError, CapabilityDenied, CapabilityFailed, CapabilityTimeout
from tests.acceptance.providers.calls import ASKER, services
from tests.acceptance.providers.http.support import serve, web

pytestmark = pytest.mark.anyio

HOST = "api.example.org"
HERE = {HOST: ["127.0.0.1"], "other.example.org": ["127.0.0.1"]}


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "http://other.example.org:PORT/v1/"},
        {"url": "https://api.example.org:PORT/v1/"},
        {"url": "http://api.example.org/v1/"},
        {"url": "http://api.example.org:PORT/v1/", "method": "DELETE"},
        {"url": "http://api.example.org:PORT/v10"},
        {"url": "http://api.example.org:PORT/"},
        {"url": "http://api.example.org:PORT/v1/../admin"},
        {"url": "http://api.example.org:PORT/v1/%2e%2e/admin"},
        {"url": "http://api.example.org:PORT/%76%31%2fx"},
        {"url": "http://127.0.0.1:PORT/v1/"},
        {"url": "http://[::1]:PORT/v1/"},
    ],
)
async def test_what_no_entry_allows_is_denied_before_anything_is_sent(fields: dict[str, str]) -> None:
    async with serve() as server, web(server.target(HOST, path="/v1"), names=HERE) as fetch:
        sent = {**fields, "url": fields["url"].replace("PORT", str(server.port))}
        with pytest.raises(CapabilityDenied, match=r"allowed: GET/HEAD http://api\.example\.org:\d+/v1") as denied:
            await fetch("fetch", **sent)  # type: ignore[arg-type]  # the body is not among them
        assert denied.value.code == "capability_outside_grant"
        answer = await fetch("fetch", url=server.url("/v1/%78", host=HOST))  # what is granted goes on
    assert answer.value.status == 200
    assert [seen.target for seen in server.seen] == ["/v1/x"]


async def test_a_policy_can_ask_whether_a_request_is_within_its_scope() -> None:
    async with web({"host": HOST}, {"host": "127.0.0.1"}, {"host": "10.0.0.1"}) as fetch:
        request = FETCH.request.model_validate({"url": f"https://{HOST}/x"})
        fetch.provider.admit("fetch", request, fetch.scope)
        for url in ("https://other.example.org/", f"http://{HOST}/", f"https://{HOST}:1/"):
            with pytest.raises(CapabilityDenied):
                fetch.provider.admit("fetch", FETCH.request.model_validate({"url": url}), fetch.scope)
        fetch.provider.admit("fetch", FETCH.request.model_validate({"url": "https://127.0.0.1/"}), fetch.scope)
        with pytest.raises(CapabilityDenied) as denied:
            fetch.provider.admit("fetch", FETCH.request.model_validate({"url": "https://10.0.0.1/"}), fetch.scope)
    assert denied.value.code == "address_denied"


async def test_the_call_looks_at_the_scope_itself() -> None:
    """A broker that forgot to ask `admit` would send nothing all the same."""
    async with serve() as server, web(server.target(HOST), names=HERE) as fetch:
        fetch.provider = _Admitting(fetch.provider)
        with pytest.raises(CapabilityDenied):
            await fetch("fetch", url=server.url(host="other.example.org"))
    assert server.connections == 0


async def test_a_wildcard_allows_one_label() -> None:
    names = {"a.example.org": ["127.0.0.1"], "a.b.example.org": ["127.0.0.1"]}
    async with serve() as server, web(server.target("*.example.org"), names=names) as fetch:
        await fetch("fetch", url=server.url(host="a.example.org"))
        with pytest.raises(CapabilityDenied):
            await fetch("fetch", url=server.url(host="a.b.example.org"))
    assert [seen.headers["host"] for seen in server.seen] == [f"a.example.org:{server.port}"]


@pytest.mark.parametrize("host", ["example.org.", "EXAMPLE.org", "ｅxample.org"])  # noqa: RUF001
async def test_the_server_is_told_the_name_that_was_checked(host: str) -> None:
    async with serve() as server, web(server.target("example.org"), names={"example.org": ["127.0.0.1"]}) as fetch:
        await fetch("fetch", url=server.url(host=host))
    assert server.seen[0].headers["host"] == f"example.org:{server.port}"


# Addresses


@pytest.mark.parametrize(
    ("addresses", "kind"),
    [
        (["127.0.0.1"], "loopback"),
        (["::1"], "loopback"),
        (["::ffff:127.0.0.1"], "loopback"),
        (["64:ff9b::7f00:1"], "loopback"),
        (["10.0.0.1"], "private"),
        (["169.254.169.254"], "metadata"),
        (["fe80::1%eth0"], "link-local"),
        (["0.0.0.0"], "unspecified"),
        (["8.8.8.8", "127.0.0.1"], "loopback"),
        (["2606:4700::1", "8.8.8.8", "::ffff:10.0.0.1"], "private"),
    ],
)
async def test_a_name_with_an_address_that_is_not_public_is_denied(addresses: list[str], kind: str) -> None:
    async with serve() as server, web(server.target(HOST), names={HOST: addresses}, private=[]) as fetch:
        with pytest.raises(CapabilityDenied, match=f"{HOST} has an address that may not be reached: {kind}") as denied:
            await fetch("fetch", url=server.url(host=HOST))
    assert denied.value.code == "address_denied"
    assert not any(address in str(denied.value) for address in addresses)
    assert server.connections == 0


async def test_a_network_that_the_grant_names_is_reached_and_no_other() -> None:
    async with serve() as server, web(server.target(HOST), names=HERE, private=["127.0.0.0/30"]) as fetch:
        await fetch("fetch", url=server.url(host=HOST))
    async with serve() as server, web(server.target(HOST), names=HERE, private=["127.0.0.4/30"]) as fetch:
        with pytest.raises(CapabilityDenied):
            await fetch("fetch", url=server.url(host=HOST))
    assert server.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "[::]", "0.0.0.0", "169.254.169.254"])
async def test_an_address_in_the_url_is_denied_by_what_it_is(host: str) -> None:
    """Also where the operator allowed the host, and not the network."""
    async with serve() as server, web(server.target(host), private=[]) as fetch:
        with pytest.raises(CapabilityDenied) as denied:
            await fetch("fetch", url=server.url(host=host))
    assert denied.value.code == "address_denied"
    assert server.connections == 0


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1%2f", "127.0.0.1%00.example.org", "①27.0.0.01"]
)
async def test_an_address_in_disguise_is_no_url(host: str) -> None:
    async with serve() as server, web(server.target("**"), names=lambda *_: ["127.0.0.1"]) as fetch:
        with pytest.raises(ValidationError):
            await fetch("fetch", url=server.url(host=host))
    assert server.connections == 0


async def test_a_name_that_changes_its_address_is_looked_up_once_and_connected_as_it_was_checked() -> None:
    """DNS rebinding: the name is another machine's when it is checked, and this one's the next time."""
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) % 2 else ["127.0.0.1"]

    async with serve() as server, web(server.target(HOST), names=rebinding, private=["127.0.0.2/32"]) as fetch:
        with pytest.raises(CapabilityFailed) as failed:  # nobody listens there: the server is on 127.0.0.1
            await fetch("fetch", url=server.url(host=HOST))
        assert (failed.value.code, asked) == ("http_failed", [HOST])
        with pytest.raises(CapabilityDenied):  # and now it is the one that may not be reached
            await fetch("fetch", url=server.url(host=HOST))
    assert server.connections == 0


async def test_a_thousand_rounds_of_rebinding_reach_nothing() -> None:
    turn = iter(range(10**6))

    def rebinding(_host: str, _port: int) -> list[str]:
        return [["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]][next(turn) % 4]

    async with serve() as server, web(server.target(HOST), names=rebinding, private=["127.0.0.2/32"]) as fetch:
        calls = (fetch("fetch", url=server.url(host=HOST)) for _ in range(1000))
        ends = [type(await _outcome(call)) for call in calls]
    assert server.connections == 0
    assert (ends.count(CapabilityFailed), ends.count(CapabilityDenied)) == (250, 750)


@pytest.mark.parametrize("addresses", [[], [f"8.8.{n}.1" for n in range(65)]])
async def test_a_name_has_some_addresses_and_not_any_number(addresses: list[str]) -> None:
    async with web({"host": HOST}, names={HOST: addresses}) as fetch:
        with pytest.raises(CapabilityFailed, match="allowed: 1 to 64"):
            await fetch("fetch", url=f"https://{HOST}/")


# Looking names up


async def test_names_that_hang_hold_up_only_the_session_that_asks() -> None:
    held, hanging = threading.Event(), threading.Semaphore(0)

    def resolve(host: str, _port: int) -> list[str]:
        if host.startswith("slow"):
            hanging.release()
            held.wait()
        return ["127.0.0.1"]

    async with serve() as server, web(server.target("*.example.org"), names=resolve, connect_time=1) as fetch:
        try:
            calls = (fetch("fetch", url=server.url(host=f"slow{n}.example.org")) for n in range(20))
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(end) for end in ends} == {CapabilityTimeout}
            started = sum(thread.name == "capsule-http-name" for thread in threading.enumerate())
            assert started == 8  # given up, they count all the same
            with pytest.raises(CapabilityTimeout, match=r"no connection within 1 s"):
                await fetch("fetch", url=server.url(host="quick.example.org"))
            fetch.asker = replace(ASKER, session="s-2")
            await fetch("fetch", url=server.url(host="quick.example.org"))
        finally:
            held.set()
        for _ in range(8):
            hanging.acquire()
        fetch.asker = ASKER
        await fetch("fetch", url=server.url(host="quick.example.org"))


# What a grant may say


@pytest.mark.parametrize(
    ("scope", "field"),
    [
        ({}, "allow"),
        ({"allow": []}, "allow"),
        ({"allow": [{}]}, "host"),
        ({"allow": [{"host": "*"}]}, "host"),
        ({"allow": [{"host": "https://example.org"}]}, "host"),
        ({"allow": [{"host": "0x7f.1"}]}, "host"),
        ({"allow": [{"host": "a.org", "scheme": "ftp"}]}, "scheme"),
        ({"allow": [{"host": "a.org", "port": 0}]}, "port"),
        ({"allow": [{"host": "a.org", "methods": []}]}, "methods"),
        ({"allow": [{"host": "a.org", "methods": ["CONNECT"]}]}, "methods"),
        ({"allow": [{"host": "a.org", "path": "v1"}]}, "path"),
        ({"allow": [{"host": "a.org", "path": "/v1/../x"}]}, "path"),
        ({"allow": [{"host": "a.org", "path": "/ä"}]}, "path"),
        ({"allow": [{"host": "a.org", "secrets": {"headers": {"Host": "secret://x"}}}]}, "headers"),
        ({"allow": [{"host": "a.org", "secrets": {"headers": {"Authorization": "Bearer abc"}}}]}, "headers"),
        ({"allow": [{"host": "a.org", "secrets": {"query": {"key": "secret://"}}}]}, "query"),
        ({"allow": [{"host": "a.org"}], "private": ["0.0.0.0/0"]}, "private"),
        ({"allow": [{"host": "a.org"}], "private": ["10.0.0.1/8"]}, "private"),
        ({"allow": [{"host": "a.org"}], "private": ["::ffff:10.0.0.0/104"]}, "private"),
        ({"allow": [{"host": "a.org"}], "private": ["64:ff9b::a00:0/104"]}, "private"),
        ({"allow": [{"host": "a.org"}], "redirects": 21}, "redirects"),
        ({"allow": [{"host": "a.org"}], "read_time": 0}, "read_time"),
        ({"allow": [{"host": "a.org"}], "total_time": float("inf")}, "total_time"),
        ({"allow": [{"host": "a.org"}], "header_bytes": 2**20}, "header_bytes"),
        ({"allow": [{"host": "a.org"}], "verify": False}, "verify"),
    ],
)
async def test_a_scope_that_cannot_be_meant_is_refused(scope: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Scope.model_validate(scope)
    assert any(field in error["loc"] for error in refused.value.errors())


async def test_a_grant_needs_its_secrets_and_its_file(tmp_path: Path) -> None:
    made = provider()
    await made.start(services(known="x"))
    target = {"host": "a.org", "secrets": {"headers": {"X-Key": "secret://known"}}}
    made.check(Scope.model_validate({"allow": [target]}))
    target = {"host": "a.org", "secrets": {"query": {"key": "secret://unknown"}}}
    with pytest.raises(ArgumentError, match=r"scope\.allow\[0\]\.secrets: there is no secret 'unknown'"):
        made.check(Scope.model_validate({"allow": [target]}))
    for path in (tmp_path / "none", tmp_path, _written(tmp_path / "no.pem")):
        with pytest.raises(ArgumentError, match=r"scope\.ca_file: .* cannot be read"):
            made.check(Scope.model_validate({"allow": [{"host": "a.org"}], "ca_file": str(path)}))
    await made.stop()


def _written(path: Path) -> Path:
    path.write_text("no certificate")
    return path


async def _outcome(call: Any) -> Exception | None:
    try:
        await call
    except Exception as error:
        return error
    return None


class _Admitting:
    """A provider whose `admit` admits all."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def admit(self, *_: Any) -> None:
        pass
