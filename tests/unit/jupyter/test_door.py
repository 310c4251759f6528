"""Who comes while a node leaves."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from capsule.config import NodeConfig
from capsule.jupyter.door import Door
from capsule.jupyter.lease import SOCKET
from capsule.node.node import Node

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.anyio
@pytest.mark.parametrize("turns", range(8))
async def test_who_comes_while_it_closes_is_sent_away_and_told_nothing(tmp_path: Path, turns: int) -> None:
    """The system has let them in, so they hear the end of the connection, and ask for a node again."""
    node = Node(NodeConfig())
    door = Door(node, tmp_path)
    await door.listen()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(tmp_path / SOCKET))
        caller.sendall(b'{"op": "start", "env": {}}\n')
        for _ in range(turns):  # of the loop: how far it has come with letting them in
            await asyncio.sleep(0)
        await door.close()
        await node.close()
        told = b"nothing yet"
        with suppress(ConnectionResetError):
            told = await asyncio.wait_for(_received(caller), 10)
        assert told in {b"", b"nothing yet"}
    assert door.kernels == 0


async def _received(caller: socket.socket) -> bytes:
    caller.settimeout(0)
    return await asyncio.get_running_loop().sock_recv(caller, 1000)
