"""Messages and descriptors over a socket: what was sent is received, however the peer went."""

from __future__ import annotations

import os
import socket

from capsule_kernels import descriptors


def test_what_a_peer_has_said_is_received_though_it_left_something_unread() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        descriptors.send(ours, {"op": "nobody reads this"})
        with theirs:
            descriptors.send(theirs, {"op": "first"}, [theirs.fileno()])
            descriptors.send(theirs, {"op": "last"})
        message, given = descriptors.receive(ours)
        assert (message, len(given)) == ({"op": "first"}, 1)
        os.close(given[0])
        assert descriptors.receive(ours) == ({"op": "last"}, [])
        assert descriptors.receive(ours) == (None, [])
        assert descriptors.receive(ours) == (None, [])


def test_a_peer_that_left_something_unread_and_said_nothing_has_gone() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        descriptors.send(ours, {"op": "nobody reads this"})
        theirs.close()
        assert descriptors.receive(ours) == (None, [])
