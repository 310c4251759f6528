"""What a box keeps for another node while its own is gone, and the door at which it hands that over.

While a node owns the box this only holds descriptors, the read ends of the worker's pipes among them, so that what the
worker writes waits in the pipes and breaks nothing. When the node has gone, a process that proves to know the session's
secret becomes the new owner; its connection is the lease from then on. The box runs on one thread and never waits for a
peer, so who connects and says nothing holds up nothing but the door, and that not for long.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from capsule_kernels import descriptors
from capsule_protocol import adoption

if TYPE_CHECKING:
    from collections.abc import Sequence

_BACKLOG: Final = 8
_PATIENCE: Final = 1.0
"""Seconds that a connection has to prove itself if others wait behind it; one at a time is heard."""
_CREDENTIALS = struct.Struct("3i")


class Heritage:
    """Made when the node says for how long the box may outlive it: `message` is what it said, `given` came with it."""

    def __init__(self, directory: str, message: dict[str, Any], given: Sequence[int], poll: select.poll) -> None:
        self._poll = poll
        self._seconds = float(message["seconds"])
        self._secret: bytes = message["secret"]
        self._told: dict[str, Any] = message["told"]
        self._record = str(message["record"])
        self._given = list(given)
        self._guest: _Guest | None = None
        self._deadline = 0.0
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.settimeout(0)
        self._door.bind(f"{directory}/{adoption.SOCKET}")
        self._door.listen(_BACKLOG)

    def open(self) -> None:
        """The node has gone: from here on another one may come."""
        self._deadline = time.monotonic() + self._seconds
        self._poll.register(self._door, select.POLLIN)

    def milliseconds(self) -> int:
        """Until something has to be done although nobody comes."""
        until = self._deadline if self._guest is None else min(self._deadline, self._guest.until)
        return max(0, round((until - time.monotonic()) * 1000) + 1)

    def is_over(self) -> bool:
        """Whether it has waited long enough. A guest who has had his time is shown out, if somebody waits behind him.

        Else he may stay: the next node of a busy machine, which has many boxes to adopt, is it also if it is slow.
        """
        now = time.monotonic()
        if self._guest is not None and now >= self._guest.until:
            if self._is_waited_for():
                self._show_out(self._guest)
            else:
                self._guest.until = now + _PATIENCE
        return now >= self._deadline

    def hear(self, descriptor: int) -> socket.socket | None:
        """Something has come at the door, or from who stands there: the new lease, if that makes it one."""
        guest = self._guest
        if guest is None:
            if descriptor == self._door.fileno():
                self._let_in()
        elif descriptor == guest.connection.fileno():
            proved = guest.hear(self._secret)
            if proved:
                self._poll.unregister(guest.connection)
                self._guest = None
                return self._hand_over(guest.connection)
            if proved is not None:
                self._show_out(guest)
        return None

    def close(self) -> None:
        """Keep nothing any more. Idempotent."""
        self._door.close()
        if self._guest is not None:
            self._guest.connection.close()
        descriptors.close_all(self._given)
        self._given = []
        with suppress(OSError):
            Path(self._record).unlink()

    def _let_in(self) -> None:
        try:
            connection, _ = self._door.accept()
        except OSError:  # it has left already
            return
        connection.settimeout(0)
        self._poll.unregister(self._door)
        self._poll.register(connection, select.POLLIN)
        self._guest = _Guest(connection, time.monotonic() + _PATIENCE)
        if _user_of(connection) != os.geteuid():
            self._show_out(self._guest)

    def _is_waited_for(self) -> bool:
        waiting = select.poll()
        waiting.register(self._door, select.POLLIN)
        return bool(waiting.poll(0))

    def _show_out(self, guest: _Guest) -> None:
        self._poll.unregister(guest.connection)
        guest.connection.close()
        self._guest = None
        self._poll.register(self._door, select.POLLIN)

    def _hand_over(self, heir: socket.socket) -> socket.socket:
        """Give it all that is kept; whoever came at the same time was too late."""
        with suppress(OSError):
            while True:
                self._door.accept()[0].close()
        heir.settimeout(None)
        descriptors.send(heir, {"heritage": self._told}, self._given)
        return heir


class _Guest:
    """Who stands at the door and has not proved yet that he knows the secret."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self.connection = connection
        self.until = until
        self._nonces: tuple[bytes, bytes] | None = None

    def hear(self, secret: bytes) -> bool | None:
        """Take one message: True if it is the proof, None if that is still to come."""
        message = _message(self.connection)
        if self._nonces is not None:
            return adoption.proves(message.get("proof"), secret, adoption.NODE, *self._nonces)
        of_node = message.get("nonce")
        if not isinstance(of_node, bytes) or len(of_node) != adoption.NONCE_SIZE:
            return False
        self._nonces = of_node, adoption.nonce()
        mine = adoption.proof(secret, adoption.BOX, *self._nonces)
        descriptors.send(self.connection, {"nonce": self._nonces[1], "proof": mine})
        return None


def _message(connection: socket.socket) -> dict[str, Any]:
    """What a stranger says; empty if that is nothing."""
    try:
        message, given = descriptors.receive(connection)
    except Exception:  # noqa: BLE001  # whatever msgpack has to say against it
        return {}
    descriptors.close_all(given)
    return message if isinstance(message, dict) else {}


def _user_of(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])
