"""TLS: the certificate is checked for the name, though the connection goes to an address."""

from __future__ import annotations

import asyncio
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

from capsule.providers.http.trust import Trust
from capsule_protocol.errors import CapabilityDenied, CapabilityFailed
from tests.acceptance.providers.http.support import Reply, serve, serve_raw, web

pytestmark = pytest.mark.anyio

HOST = "api.example.org"
HERE = {HOST: ["127.0.0.1"], "other.example.org": ["127.0.0.1"], "wrong.example.org": ["127.0.0.1"]}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def certified(authority: trustme.CA, *names: str, told: list[str] | None = None) -> ssl.SSLContext:
    """A server's context with a certificate for these names, which tells the names that clients ask for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)

    def asked(_socket: object, name: str | None, _context: object) -> None:
        if told is not None:
            told.append(str(name))

    context.sni_callback = asked
    return context


@pytest.mark.parametrize("where", ["grant", "node"])
async def test_the_name_is_asked_for_and_certified(authority: trustme.CA, ca_file: Path, where: str) -> None:
    told: list[str] = []
    more: dict[str, Any] = {"ca_file": ca_file} if where == "node" else {}
    context = certified(authority, HOST, told=told)
    async with serve(lambda _: Reply(200, {}, b"safe"), context) as server:
        target = server.target(HOST, scheme="https")
        async with web(target, names=HERE, **more) as fetch:
            if where == "grant":
                fetch.scope = type(fetch.scope).model_validate({**fetch.scope.model_dump(), "ca_file": ca_file})
            answer = await fetch("fetch", url=server.url(host=HOST, scheme="https"))
    assert (answer.data, told) == (b"safe", [HOST])
    assert server.seen[0].headers["host"] == f"{HOST}:{server.port}"


async def test_a_certificate_for_an_address_is_believed_for_that_address(authority: trustme.CA, ca_file: Path) -> None:
    async with (
        serve(context=certified(authority, "127.0.0.1")) as server,
        web(server.target(scheme="https"), server.target(HOST, scheme="https"), names=HERE, ca_file=ca_file) as fetch,
    ):
        assert (await fetch("fetch", url=server.url(scheme="https"))).value.status == 200
        with pytest.raises(CapabilityFailed, match="Hostname mismatch"):
            await fetch("fetch", url=server.url(host=HOST, scheme="https"))
    assert len(server.seen) == 1


@pytest.mark.parametrize("name", ["wrong.example.org", "*.other.org", "example.org", "127.0.0.1"])
async def test_a_certificate_for_another_name_is_not_believed(authority: trustme.CA, ca_file: Path, name: str) -> None:
    async with (
        serve(context=certified(authority, name)) as server,
        web(server.target(HOST, scheme="https"), names=HERE, ca_file=ca_file) as fetch,
    ):
        with pytest.raises(CapabilityFailed, match="CERTIFICATE_VERIFY_FAILED") as failed:
            await fetch("fetch", url=server.url(host=HOST, scheme="https"))
    assert failed.value.code == "http_failed"
    assert server.seen == []


async def test_an_authority_that_nobody_named_is_not_believed(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, ca_file: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))  # the environment is not asked
    monkeypatch.setenv("SSL_CERT_DIR", str(ca_file.parent))
    async with (
        serve(context=certified(authority, HOST)) as server,
        web(server.target(HOST, scheme="https"), names=HERE) as fetch,
    ):
        with pytest.raises(CapabilityFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await fetch("fetch", url=server.url(host=HOST, scheme="https"))
    assert server.seen == []


async def test_a_call_that_is_cancelled_in_the_handshake_leaves_no_connection() -> None:
    greeted, left = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        greeted.set()
        await reader.read()
        left.set()

    async with serve_raw(talk) as server, web(server.target(HOST, scheme="https"), names=HERE) as fetch:
        task = asyncio.create_task(fetch("fetch", url=server.url(host=HOST, scheme="https")))
        await greeted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            await left.wait()


async def test_a_server_without_tls_gets_nothing() -> None:
    async with serve() as server, web(server.target(HOST, scheme="https"), names=HERE) as fetch:
        with pytest.raises(CapabilityFailed) as failed:
            await fetch("fetch", url=server.url("/secret-path", host=HOST, scheme="https"))
    assert failed.value.code == "http_failed"
    assert server.seen == []


async def test_a_redirect_out_of_tls_is_not_followed(authority: trustme.CA, ca_file: Path) -> None:
    place: list[str] = []
    context = certified(authority, HOST)
    async with serve() as plain, serve(lambda _: Reply(302, {"Location": place[0]}), context) as server:
        place.append(plain.url("/to", host=HOST))
        targets = [server.target(HOST, scheme="https"), plain.target(HOST)]
        async with web(*targets, names=HERE, ca_file=ca_file) as fetch:
            with pytest.raises(CapabilityDenied, match="from https to http"):
                await fetch("fetch", url=server.url(host=HOST, scheme="https"))
    assert plain.connections == 0


async def test_a_redirect_into_tls_is_followed_and_is_to_another_server(authority: trustme.CA, ca_file: Path) -> None:
    place: list[str] = []
    async with (
        serve(context=certified(authority, HOST)) as safe,
        serve(lambda _: Reply(301, {"Location": place[0]})) as server,
    ):
        place.append(safe.url("/to", host=HOST, scheme="https"))
        targets = [server.target(HOST), safe.target(HOST, scheme="https")]
        async with web(*targets, names=HERE, ca_file=ca_file) as fetch:
            await fetch("fetch", url=server.url(host=HOST), headers={"Authorization": "mine"})
    assert (safe.seen[0].target, "authorization" in safe.seen[0].headers) == ("/to", False)


async def test_a_file_of_authorities_that_was_replaced_is_read_anew(authority: trustme.CA, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    async with (
        serve(context=certified(authority, HOST)) as server,
        web(server.target(HOST, scheme="https"), names=HERE) as fetch,
    ):
        fetch.scope = type(fetch.scope).model_validate({**fetch.scope.model_dump(), "ca_file": path})
        with pytest.raises(CapabilityFailed):
            await fetch("fetch", url=server.url(host=HOST, scheme="https"))
        path.unlink()
        authority.cert_pem.write_to_path(path)
        await fetch("fetch", url=server.url(host=HOST, scheme="https"))


async def test_the_loop_shakes_no_hands(authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a group that the server chooses, a step of a handshake was seen to take 134 ms."""
    threads: list[int] = []
    shake = ssl.SSLObject.do_handshake

    def noted(self: ssl.SSLObject) -> None:
        if not self.server_side:
            threads.append(threading.get_ident())
        shake(self)

    monkeypatch.setattr(ssl.SSLObject, "do_handshake", noted)
    async with (
        serve(lambda _: Reply(200, {}, b"safe"), certified(authority, HOST)) as server,
        web(server.target(HOST, scheme="https"), names=HERE, ca_file=ca_file) as fetch,
    ):
        assert (await fetch("fetch", url=server.url(host=HOST, scheme="https"))).data == b"safe"
    assert threads
    assert threading.get_ident() not in threads


async def test_no_group_of_any_size_can_be_asked_for() -> None:
    """38 ms for 4096 bits, and more for more; TLS 1.2 has no bound to it."""
    offered = {each["name"].partition("-")[0] for each in (await Trust().context(None)).get_ciphers()}
    assert offered <= {"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256", "ECDHE"}
    assert "ECDHE" in offered
