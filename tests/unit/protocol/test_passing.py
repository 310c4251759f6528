"""Descriptors over a Unix socket."""

from __future__ import annotations

import os
import socket

import pytest

from capsule_protocol.passing import receive


@pytest.mark.parametrize("count", [0, 1, 4])
def test_no_program_inherits_what_has_come(count: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [b"data"], [theirs.fileno()] * count)
        data, given, short = receive(theirs, 100, 4)
    inheritable = [os.get_inheritable(descriptor) for descriptor in given]
    for descriptor in given:
        os.close(descriptor)
    assert (data, inheritable, short) == (b"data", [False] * count, False)


def test_more_than_there_is_room_for_is_told() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [b"data"], [theirs.fileno()] * 9)
        data, given, short = receive(theirs, 100, 4)
    for descriptor in given:
        os.close(descriptor)
    assert (data, short) == (b"data", True)
    assert len(given) >= 4
