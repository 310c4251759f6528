"""Leases: sockets whose end is the end of the processes at the other side."""

from __future__ import annotations

import os
import socket
from weakref import WeakSet

_held: WeakSet[socket.socket] = WeakSet()


def lease_pair() -> tuple[socket.socket, socket.socket]:
    """A pair of connected sockets: the node's own, not blocking, and the one that it gives away."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(None)  # the program may have set another default
    hold(ours)
    return ours, theirs


def hold(lease: socket.socket) -> None:
    """Take care of a lease that came about otherwise."""
    lease.setblocking(False)  # noqa: FBT003 (the method takes it by position only)
    _held.add(lease)


def _let_go_in_child() -> None:
    """A program that forks (multiprocessing does) must not keep boxes alive in a child that knows nothing of them."""
    for lease in list(_held):
        lease.close()


os.register_at_fork(after_in_child=_let_go_in_child)
