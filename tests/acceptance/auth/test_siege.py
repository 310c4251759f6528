"""Garbage, truncated, oversized, replayed, out-of-state and half-open traffic over `tcp://`, with a key and without."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient
from capsule.keys import read
from tests.acceptance.auth.siege import CONFIG, NetworkSiege, lay
from tests.acceptance.auth.support import LONG, Guarded
from tests.acceptance.auth.zmtp import COMMAND, GREETING, RawTcp, connected, frame, heard_out

if TYPE_CHECKING:
    from pathlib import Path

ATTACKS = 12


@pytest.mark.slow
def test_whatever_is_said_over_the_network_nobody_else_notices(folder: Path) -> None:
    with Guarded(folder, CONFIG) as node, NetworkSiege(node) as siege:
        lay(siege, ATTACKS)
        siege.end()
        assert siege.sent.total() > 1000


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["flipped", "replayed", "huge", "command"])
async def test_what_zeromq_cannot_read_ends_its_connection_and_counts(node: Guarded, kind: str) -> None:
    name = f"unreadable-{kind}"
    key = read(node.new(name))
    async with AsyncClient(node.ipc) as operator:
        offences = (await operator.info()).offences
        with RawTcp(node.tcp, key) as raw:
            raw.greet()
            sealed = raw.sealed(b"x" * 100)
            match kind:
                case "flipped":
                    raw.write(sealed[:-1] + bytes([sealed[-1] ^ 1]))
                case "replayed":
                    raw.write(sealed + sealed)
                case "huge":
                    raw.write(struct.pack(">BQ", 2, 2**40))
                case "command":
                    raw.write(frame(b"\x05HELLO" + bytes(200), COMMAND))
            assert raw.hung_up()
        async with asyncio.timeout(LONG):
            while (await operator.info()).offences == offences:
                await asyncio.sleep(0.01)  # the node is told by ZeroMQ
        expected = 2 if kind == "replayed" else 1  # what is replayed was no message the first time either
        assert (await operator.info()).offences == offences + expected
    assert f"of {name} sessions=0> broke the protocol" in node.log.read_text(encoding="utf-8")


@pytest.mark.anyio
async def test_strangers_that_cannot_be_read_count(node: Guarded) -> None:
    async with AsyncClient(node.ipc) as operator:
        offences = (await operator.info()).offences
        for number, noise in enumerate((b"no key" * 50, b"x" * 300), 1):
            with connected(node.tcp) as stranger:
                stranger.sendall(GREETING)
                assert len(stranger.recv(len(GREETING), 0)) > 0
                stranger.sendall(noise)
                heard_out(stranger)
            async with asyncio.timeout(LONG):
                while (await operator.info()).offences < offences + number:
                    await asyncio.sleep(0.01)  # the node is told by ZeroMQ
        assert (await operator.info()).offences == offences + 2
