"""A call that is cancelled at any of its steps leaves nothing: no task, no connection, no half-sent answer."""

from __future__ import annotations

import asyncio
import gzip
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from tests.acceptance.providers.http.conftest import sockets
from tests.acceptance.providers.http.support import Reply, Seen, serve, web
from tests.acceptance.providers.http.test_tls import certified

pytestmark = pytest.mark.anyio

HOST = "api.example.org"


async def body() -> AsyncIterator[bytes]:
    for _ in range(3):
        await asyncio.sleep(0)
        yield bytes(2**15)


def redirecting(seen: Seen) -> Reply:
    if seen.target.startswith("/from"):
        return Reply(303, {"Location": "/to"}, b"moved")
    return Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(seen.target.encode() * 10_000))


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_at_every_step(scheme: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = certified(authority, HOST) if scheme == "https" else None
    async with serve(redirecting, context) as server:
        target = server.target(HOST, scheme=scheme, methods=["GET", "POST"], secrets={"query": {"key": "secret://k"}})
        known = {HOST: ["127.0.0.1"]}
        async with web(target, names=known, secrets={"k": "v"}, ca_file=tmp_path / "ca.pem") as fetch:
            url = server.url("/from", host=HOST, scheme=scheme)
            await fetch("stream", body(), url=url, method="POST")  # what is made once is made
            tasks, open_before, cancelled = asyncio.all_tasks(), sockets(), 0
            for steps in itertools.count():
                task = asyncio.create_task(fetch("stream", body(), url=url, method="POST"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    break
                cancelled += 1
                while not (asyncio.all_tasks() <= tasks and sockets() <= open_before):
                    await asyncio.sleep(0)  # the server sees it, and lets go too
    assert task.result().data == b"/to?key=*" * 10_000
    assert cancelled > 20
