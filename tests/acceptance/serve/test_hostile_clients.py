"""Clients that send garbage, break the protocol, or hang up half-way harm nobody and leave nothing behind."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from capsule_protocol.envelope import Envelope
from tests.acceptance.serve.support import LONG, RawClient, Served, garbage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from capsule import AsyncClient

pytestmark = pytest.mark.anyio

MESSAGES = 20_000
SEED = 11
HELLO = Envelope("hello", {"versions": ["1.0"], "role": "client", "client": "c_hostile"})


@pytest.fixture(scope="module")
def hostile(place: Path) -> Iterator[Served]:
    """A service of its own, whose complaints nobody reads."""
    config = "[serve]\nclient_timeout = 2.0\nreconnect_timeout = 0.5\nmax_clients = 100\n"
    with Served(place / "hostile", config) as running:
        yield running
        assert running.stop() == 0


async def gone_since(served: Served, before: tuple[int, int]) -> None:
    """The node has no descriptor and no thread more than then, when it may still have had some of an earlier test."""
    node = psutil.Process(served.process.pid)
    async with asyncio.timeout(LONG):
        while node.num_fds() > before[0] or node.num_threads() > before[1]:
            await asyncio.sleep(0.1)  # the node forgets by its own clock


async def settled(served: Served, client: AsyncClient) -> tuple[int, int]:
    """Descriptors and threads of the node, once its pool is at rest and its connections are forgotten."""
    node = psutil.Process(served.process.pid)
    async with asyncio.timeout(LONG):
        while (pool := (await client.info()).pools["default"]).starting or pool.closing or pool.idle < pool.min_idle:
            await asyncio.sleep(0.01)
        before = (-1, -1)
        while (now := (node.num_fds(), node.num_threads())) != before:
            before = now
            await asyncio.sleep(0.5)  # the node forgets by its own clock
    return now


async def no_sessions(client: AsyncClient) -> None:
    async with asyncio.timeout(LONG):
        while (await client.info()).sessions:
            await asyncio.sleep(0.1)  # the node ends them by its own clock


async def test_garbage_harms_nobody(hostile: Served) -> None:
    chance = random.Random(SEED)
    async with hostile.client() as honest, honest.session() as session:
        await session.run("x = 1")
        node = psutil.Process(hostile.process.pid)
        before, memory = await settled(hostile, honest), node.memory_info().rss
        sent = 0
        while sent < MESSAGES:
            with RawClient(hostile.address) as peer, suppress(OSError):  # the node hangs up, as a rule
                if chance.randrange(2):
                    await peer.send(HELLO)
                for _ in range(MESSAGES // 40):
                    sent += 1
                    await peer.send_frames(garbage(chance))
            if sent % 10 == 0:
                assert (await session.run("x")).text == "1"
        await gone_since(hostile, before)
        assert (await honest.info()).sessions == 1
        assert node.memory_info().rss - memory < 32 * 2**20


async def test_what_a_client_says_cannot_act_on_the_terminal_of_who_reads_the_log(hostile: Served) -> None:
    evil = "\n\x1b[2J\u202e"
    with RawClient(hostile.address) as peer:
        await peer.send(Envelope("hello", {"versions": ["1.0"], "role": "client", "client": evil}))
        assert (await peer.receive()).type == "welcome"
        await peer.send(Envelope("event_ack", {"executions": {f"{evil}here": "no number"}}))
        assert (await peer.receive()).body["code"] == "invalid_message"
    log = hostile.log.read_text(encoding="utf-8")
    assert r"\n\x1b[2J\u202ehere" in log
    assert all(line.isprintable() for line in log.split("\n"))


async def test_bytes_that_are_not_even_framed_harm_nobody(hostile: Served) -> None:
    chance = random.Random(SEED)
    async with hostile.client() as honest, honest.session() as session:
        before = await settled(hostile, honest)
        for _ in range(200):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(hostile.address.removeprefix("ipc://"))
                with suppress(BrokenPipeError, ConnectionResetError):
                    raw.sendall(chance.randbytes(chance.randrange(1, 3000)))
        assert (await session.run("6 * 7")).text == "42"
        await gone_since(hostile, before)


@pytest.mark.parametrize(
    "body",
    [
        {"options": {"environment": "other", "env": 5, "files": {"a": "b"}}},
        {"options": {"colour": "red"}},
        {"files": ["a"]},
        {"files": ["../up"]},
        {"env": {"A=B": "c"}},
        {"cwd": "nul\0"},
        {"name": "x" * 10_000},
        {"environment": "nothing"},
    ],
)
async def test_a_session_that_cannot_be_opened_is_answered(hostile: Served, body: dict[str, Any]) -> None:
    with RawClient(hostile.address) as peer:
        await peer.send(HELLO)
        await peer.receive()
        buffers = (b"x",) if body.get("files") == ["../up"] else ()
        await peer.send(Envelope("open", body, "m_1", buffers=buffers))
        answer = await peer.receive()
        assert answer.body["reply_to"] == "m_1"
        assert answer.type == "ready" or answer.body["code"] in {
            "invalid_argument",
            "unknown_option",
            "environment_unknown",
        }


async def test_a_client_that_hangs_up_without_a_word_leaves_no_session(hostile: Served) -> None:
    async with hostile.client() as honest:
        await no_sessions(honest)  # of earlier tests, whose clients have hung up too
        with RawClient(hostile.address) as peer:
            await peer.send(HELLO)
            await peer.receive()
            await peer.send(Envelope("open", {}, "m_1"))
            await peer.receive()
            assert (await honest.info()).sessions == 1
        await no_sessions(honest)


async def test_a_client_too_many_is_refused_and_the_others_go_on(hostile: Served) -> None:
    async with hostile.client() as honest, honest.session() as session:
        with ExitStack() as stack:
            answers = []
            for number in range(110):
                peer = stack.enter_context(RawClient(hostile.address))
                await peer.send(HELLO._replace(body=HELLO.body | {"client": f"c_{number}"}))
                answers.append(await peer.receive())
            assert sum(answer.body.get("code") == "too_many_clients" for answer in answers) >= 10
            assert (await session.run("1")).text == "1"
