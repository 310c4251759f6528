"""Descriptors that come over a Unix socket, as a node, its zygotes and its boxes pass them to each other."""

from __future__ import annotations

import socket
from array import array
from typing import NamedTuple


class Received(NamedTuple):
    """One message. If it is `short`, there were descriptors for which this process had no room."""

    data: bytes
    descriptors: list[int]
    short: bool


def receive(sock: socket.socket, size: int, most: int) -> Received:
    """A message of at most so many bytes, with at most so many descriptors. Raises OSError.

    No program that is run inherits them. `socket.recv_fds` leaves them to all: it ignores the flags it is given.
    """
    room = socket.CMSG_LEN(most * array("i").itemsize)
    data, ancillary, flags, _ = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return Received(data, list(descriptors), bool(flags & socket.MSG_CTRUNC))
