"""A network that fails, and strangers and clients that send garbage, over `tcp://`."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
import zmq

from capsule import AsyncClient
from capsule.client.remote.tcp import _encrypt
from capsule.keys import read
from capsule_protocol.codec import encode
from capsule_protocol.envelope import Envelope
from tests.acceptance.auth.support import LONG, Guarded
from tests.acceptance.serve.support import TcpProxy, garbage
from tests.acceptance.serve.whole import survive_cuts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

SEED = 7
CUTS = 30
STRANGERS = 300
MESSAGES = 5000
HELLO = Envelope("hello", {"versions": ["1.0"], "role": "client", "client": "c_hostile"})
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(48)
"""How ZeroMQ begins."""


async def test_events_are_whole_whenever_the_connection_is_cut(node: Guarded, folder: Path) -> None:
    chance = random.Random(SEED)
    key = node.new("cut-off")
    async with (
        TcpProxy(folder, node.tcp) as proxy,
        AsyncClient(proxy.address, key=key) as client,
        client.session() as session,
    ):
        await survive_cuts(proxy, session, chance, CUTS, smallest=200)


def test_it_says_an_address_that_others_can_use(folder: Path) -> None:
    with Guarded(folder, arguments=["--listen", "tcp://0.0.0.0:0"]) as node:
        assert node.tcp.startswith("tcp://0.0.0.0:")
        port = node.tcp.rpartition(":")[2]
        assert f'Client("tcp://{socket.gethostname()}:{port}"' in node.next_line("from elsewhere")


async def at_rest(node: Guarded, operator: AsyncClient) -> psutil.Process:
    """The node, when its pool has made the worker that takes the place of the last one in use."""
    async with asyncio.timeout(LONG):
        while (pool := (await operator.info()).pools["default"]).starting or pool.idle < pool.min_idle:
            await asyncio.sleep(0.01)
    return psutil.Process(node.process.pid)


async def settled(process: psutil.Process, before: int) -> None:
    """The node has let go of every connection that a test made."""
    async with asyncio.timeout(LONG):
        while process.num_fds() > before:
            await asyncio.sleep(0.1)  # the node forgets by its own clock


async def test_strangers_that_speak_no_zeromq_or_break_off_harm_nobody(node: Guarded) -> None:
    chance = random.Random(SEED)
    host, _, port = node.tcp.removeprefix("tcp://").rpartition(":")
    async with (
        AsyncClient(node.ipc) as operator,
        node.client(node.new("neighbour")) as honest,
        honest.session() as session,
    ):
        await session.run("x = 1")
        process = await at_rest(node, operator)
        before, memory = process.num_fds(), process.memory_info().rss
        for number in range(STRANGERS):
            with socket.create_connection((host, int(port))) as stranger, suppress(OSError):
                noise = chance.randbytes(chance.randrange(300))
                stranger.sendall(GREETING[: chance.randrange(len(GREETING) + 1)] + noise)
            if number % 50 == 0:
                assert (await session.run("x")).text == "1"
        await settled(process, before)
        assert process.memory_info().rss - memory < 32 * 2**20
        assert (await session.run("x")).text == "1"


@pytest.fixture
def forgetful(folder: Path) -> Iterator[Guarded]:
    """A service that waits for nobody: what garbage opened is soon closed."""
    with Guarded(folder, "reconnect_timeout = 0.5\n") as node:
        yield node


async def test_garbage_of_a_client_with_a_key_harms_nobody(forgetful: Guarded) -> None:
    chance = random.Random(SEED)
    node = forgetful
    key = read(node.new("hostile"))
    async with (
        AsyncClient(node.ipc) as operator,
        node.client(node.new("honest")) as honest,
        honest.session() as session,
    ):
        await session.run("x = 1")
        process = await at_rest(node, operator)
        before, memory, offences = process.num_fds(), process.memory_info().rss, (await operator.info()).offences
        for _ in range(20):
            context = zmq.Context()
            hostile = context.socket(zmq.DEALER)
            try:
                hostile.setsockopt(zmq.SNDTIMEO, 100)
                _encrypt(hostile, key)
                hostile.connect(node.tcp)
                for number in range(MESSAGES // 20):
                    if chance.randrange(20) == 0:
                        hostile.send_multipart(encode(HELLO))
                    with suppress(zmq.Again):  # the node has hung up; ZeroMQ connects again
                        hostile.send_multipart(garbage(chance))
                    if number % 50 == 0:
                        assert (await session.run("x")).text == "1"
            finally:
                context.destroy(linger=1000)
        await settled(process, before)
        assert process.memory_info().rss - memory < 32 * 2**20
        # Each of the 20 is hung up on at its first offence; those that ZeroMQ connects again in time offend again.
        assert (await operator.info()).offences >= offences + 20
        assert [one.owner for one in await operator.sessions()] == ["honest"]
        assert (await session.run("x")).text == "1"
