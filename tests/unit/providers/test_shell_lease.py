"""The node's end of one run: what its keeper says is heard to the last word."""

from __future__ import annotations

import socket

import msgpack
import pytest

from capsule.providers.shell.launcher import Lease

pytestmark = pytest.mark.anyio


async def test_a_result_is_heard_though_the_keeper_left_a_message_of_the_node_unread() -> None:
    """The program ended while the node asked for the rest of its output to be dropped: that is no killed keeper."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0.0)
    lease = Lease(ours)
    with theirs:
        theirs.send(msgpack.packb({"exit": 0}))
        lease.drop("stdout")
    assert await lease.receive() == {"exit": 0}
    assert await lease.receive() is None
    await lease.end()
