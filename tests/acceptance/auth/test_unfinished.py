"""What ZeroMQ itself does not bound: messages without an end, and much that comes before a greeting."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule import AsyncClient
from capsule.keys import read
from capsule.node.front.lobby import UNFINISHED, UNGREETED
from capsule_protocol.codec import encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.limits import DEFAULT_LIMITS
from tests.acceptance.auth.support import LONG, Guarded
from tests.acceptance.auth.zmtp import GREETING, MORE, RawTcp, connected, heard_out

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from capsule import AsyncSession

pytestmark = pytest.mark.anyio

MIB = 2**20
FOR_EVER = 2**30
"""Bytes after which a test gives up."""
GROWTH = DEFAULT_LIMITS.message_bytes + 64 * MIB
"""Bytes by which the node may grow through one connection with a key."""
SMALL_GROWTH = 32 * MIB
"""Bytes by which it may grow through one that has not greeted."""


class Flood:
    """Sends pieces as long as the node takes them, and looks at its memory meanwhile."""

    def __init__(self, node: Guarded) -> None:
        self._node = psutil.Process(node.process.pid)
        self._before = self._node.memory_info().rss
        self.grown = 0
        self.sent = 0

    def pour(self, write: Callable[[bytes], bool], piece: Callable[[], bytes]) -> None:
        while self.sent < FOR_EVER:
            data = piece()
            if not write(data):
                return
            self.sent += len(data)
            self.grown = max(self.grown, self._node.memory_info().rss - self._before)
        raise AssertionError("the node took all of it")


async def offences_of(operator: AsyncClient, at_least: int) -> int:
    """How many there are, as soon as there are so many: a connection may end a moment before it is counted."""
    async with asyncio.timeout(LONG):
        while (found := (await operator.info()).offences) < at_least:
            pass
    return found


async def undisturbed(session: AsyncSession, flood: asyncio.Task[None]) -> None:
    """While somebody floods the node, cells of another client run, each once."""
    number = int((await session.run("number = 0; number")).text)
    while not flood.done():
        number += 1
        assert (await session.run("number += 1; number")).text == str(number)
    await flood


async def test_a_message_without_an_end_is_cut_off_and_nobody_else_notices(node: Guarded) -> None:
    key = read(node.new("endless"))
    async with (
        AsyncClient(node.ipc) as operator,
        node.client(node.new("beside")) as client,
        client.session() as session,
    ):
        offences = (await operator.info()).offences
        part = bytes(MIB)

        def attack() -> None:
            with RawTcp(node.tcp, key) as raw:
                assert raw.greet().type == "welcome"
                flood.pour(raw.write, lambda: raw.sealed(part, MORE))

        flood = Flood(node)
        async with asyncio.timeout(LONG):
            await undisturbed(session, asyncio.ensure_future(asyncio.to_thread(attack)))
        assert UNFINISHED / 2 < flood.grown < GROWTH
        assert await offences_of(operator, offences + 1) == offences + 1
    log = node.log.read_text(encoding="utf-8")
    assert "of endless sessions=0> broke the protocol: more than" in log
    assert "of beside" not in log


async def test_who_has_a_key_and_does_not_greet_may_say_less(node: Guarded) -> None:
    key = read(node.new("mannerless"))
    async with AsyncClient(node.ipc) as operator:
        offences = (await operator.info()).offences
        flood = Flood(node)
        part = bytes(UNGREETED // 8)
        with RawTcp(node.tcp, key) as raw:
            flood.pour(raw.write, lambda: raw.sealed(part, MORE))
        assert flood.grown < SMALL_GROWTH
        assert await offences_of(operator, offences + 1) == offences + 1
    assert "action=connect code=message_too_large" in node.refusals()[-1]


@pytest.mark.parametrize("beginning", [b"", GREETING], ids=["at once", "after the greeting"])
async def test_who_has_no_key_cannot_fill_memory_either(node: Guarded, beginning: bytes) -> None:
    async with AsyncClient(node.ipc) as operator:
        offences = (await operator.info()).offences
        head = struct.pack(">BQ", 2, DEFAULT_LIMITS.message_bytes)  # a frame as large as may be
        flood = Flood(node)
        with connected(node.tcp) as stranger:

            def write(data: bytes) -> bool:
                with suppress(BrokenPipeError, ConnectionResetError):
                    stranger.sendall(data)
                    return True
                return False

            write(beginning + head)
            flood.pour(write, lambda: bytes(MIB // 4))
        assert flood.sent < DEFAULT_LIMITS.message_bytes
        assert flood.grown < SMALL_GROWTH
        if beginning:
            assert await offences_of(operator, offences + 1) == offences + 1


async def test_whole_messages_are_taken_however_large_and_many(node: Guarded) -> None:
    key = read(node.new("large"))
    buffers = (bytes(MIB),) * (DEFAULT_LIMITS.message_bytes // MIB - 1)
    async with AsyncClient(node.ipc) as operator:
        offences = (await operator.info()).offences
        with RawTcp(node.tcp, key) as raw:
            raw.greet("c_large")
            for number in range(4):  # none of them waits for an answer
                assert raw.send(encode(Envelope("info", {}, f"m_{number}", buffers=buffers)))
            assert raw.answer("m_3").type == "info_reply"
        assert (await operator.info()).offences == offences


def test_a_client_cannot_speak_for_another_by_its_identity(node: Guarded) -> None:
    ada, bob = read(node.new("ada")), read(node.new("bob"))
    with RawTcp(node.tcp, ada, identity=b"mine") as raw:
        raw.greet("c_ada")
        raw.say("open", {"name": "private"}, id_="m_1")
        assert raw.answer("m_1").type == "ready"
    with RawTcp(node.tcp, bob, identity=b"mine") as raw:
        raw.say("sessions", {}, id_="m_1")
        assert raw.answer().body["code"] == "unexpected_message"
    with RawTcp(node.tcp, bob, identity=b"mine") as raw:
        assert raw.greet("c_bob").type == "welcome"
        raw.say("sessions", {}, id_="m_1")
        assert raw.answer("m_1").body["info"] == {"sessions": []}


async def test_a_connection_that_is_over_gives_its_place_back_at_once(node: Guarded) -> None:
    key = read(node.new("brief"))
    async with AsyncClient(node.ipc) as operator, asyncio.timeout(LONG / 3):  # it is not the silence that is noticed
        others = (await operator.info()).clients
        for _ in range(20):
            with RawTcp(node.tcp, key, identity=b"same") as raw:
                assert raw.greet("c_brief").type == "welcome"
            while (await operator.info()).clients > others:
                await asyncio.sleep(0.01)


async def test_connections_that_break_off_leave_no_descriptor(node: Guarded) -> None:
    process = psutil.Process(node.process.pid)
    async with AsyncClient(node.ipc) as operator:
        await operator.info()
        before = process.num_fds()
        for size in range(0, len(GREETING) + 1, 4):
            with connected(node.tcp) as stranger:
                stranger.sendall(GREETING[:size])
                stranger.shutdown(socket.SHUT_WR)
                heard_out(stranger)
        async with asyncio.timeout(LONG):
            while process.num_fds() > before:
                await asyncio.sleep(0.01)  # the node forgets by its own clock


async def test_connections_that_do_not_greet_are_ended(folder: Path) -> None:
    with Guarded(folder, "greeting_timeout = 2.0\nclient_timeout = 600.0\n") as node:
        key = read(node.new("silent"))
        process = psutil.Process(node.process.pid)
        async with AsyncClient(node.ipc) as operator, node.client(node.new("polite")) as client:
            await client.info()
            assert (await operator.info()).clients == 2
            before = process.num_fds()
            strangers = [connected(node.tcp) for _ in range(10)]
            for number, stranger in enumerate(strangers):
                stranger.sendall(GREETING[: number * len(GREETING) // 9])
            silent = [RawTcp(node.tcp, key) for _ in range(5)]
            assert process.num_fds() > before
            for stranger in strangers:
                heard_out(stranger)
                stranger.close()
            for raw in silent:
                assert raw.hung_up()
                raw.close()
            async with asyncio.timeout(LONG):
                while process.num_fds() > before:
                    await asyncio.sleep(0.01)  # ZeroMQ closes its own by its own clock
            await client.info()
            assert (await operator.info()).clients == 2
