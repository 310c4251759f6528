"""Clients of the same machine: they come over a Unix socket, and the system says who they are."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from capsule.node.auth.principals import group_id
from capsule.runtime import check_place
from capsule.stream import Bounds, Stream
from capsule_protocol.errors import NodeError
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    import asyncio

    from capsule.node.auth.gate import Gate
    from capsule.node.auth.principals import Principal
    from capsule.node.front.carrier import Carrier
    from capsule.node.front.peer import Peer
    from capsule.settings.service import ServeConfig
    from capsule_protocol.envelope import Frames
    from capsule_protocol.errors import RemoteProtocolError

logger = logging.getLogger("capsule.front")

SCHEME: Final = "ipc://"
BACKLOG = 1024
"""Clients that may wait to be taken; the system may allow fewer."""
UNREAD = 10_000
"""Messages that may wait for one client; who lets more pile up is dropped, and may come back."""
UNREAD_MOST = 128 * 2**20
"""Bytes that may wait for it: twice the largest message. They come of windows that the client itself has opened."""
UNREAD_BYTES = 4 * 2**20
"""Bytes that may wait for one client before the node listens to it no more, until it has read half of them."""
NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
PAUSE = 0.5
"""Seconds that new clients wait when the process has no descriptor left for them."""
_CREDENTIALS = struct.Struct("iII")


class Hall(Protocol):
    """What a listener needs of the front."""

    gate: Gate
    config: ServeConfig

    def meet(self, principal: Principal, carrier: Carrier) -> Peer:
        """A connection has been made."""

    def take(self, peer: Peer, frames: list[bytes]) -> None:
        """A message came."""

    def broken(self, peer: Peer, error: RemoteProtocolError) -> None:
        """Something came that is no message."""

    def drop(self, peer: Peer) -> None:
        """The connection is over."""


class UnixListener:
    """Takes clients at one address until `close`. Raises NodeError if it cannot."""

    def __init__(self, hall: Hall, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self._hall = hall
        self._loop = loop
        self._path = Path(address.removeprefix(SCHEME))
        self._resumed: asyncio.TimerHandle | None = None
        check_place(self._path.parent)
        try:
            self._socket = _bound(self._path)
            if hall.config.group is not None:
                self._open_to(hall.config.group)
        except OSError as error:
            raise NodeError("address_refused", f"cannot listen at {address}: {error.strerror}") from error
        self._loop.add_reader(self._socket, self._accept)

    def _open_to(self, group: str) -> None:
        """Let its members open the socket, if they can enter its directory; who they are is looked at later."""
        try:
            os.chown(self._path, -1, group_id(group))
            self._path.chmod(0o660)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Take nobody any more."""
        if self._resumed is not None:
            self._resumed.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        for _ in range(BACKLOG):
            try:
                connected, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:  # the client may have left again; or it is our own fault
                if error.errno in NO_DESCRIPTORS:
                    self._rest(error)
                    return
                continue
            self._welcome(connected)

    def _welcome(self, connected: socket.socket) -> None:
        pid, uid, gid = _CREDENTIALS.unpack(
            connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        principal = self._hall.gate.local(uid, gid)
        if principal is None:
            logger.warning("process %d of user %d was refused: the node is another user's", pid, uid)
            connected.close()
            return
        UnixConnection(self._hall, connected, principal, self._loop)

    def _rest(self, error: OSError) -> None:
        """Whoever waits would wake the loop without end."""
        logger.error("no client can be taken: %s", error.strerror)
        self._loop.remove_reader(self._socket)
        self._resumed = self._loop.call_later(PAUSE, self._loop.add_reader, self._socket, self._accept)


class UnixConnection:
    """One client's connection: a carrier of the front's."""

    def __init__(
        self, hall: Hall, connected: socket.socket, principal: Principal, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._hall = hall
        bounds = Bounds(UNREAD, UNREAD_MOST, UNREAD_BYTES)
        self._stream = Stream(loop, connected, DEFAULT_LIMITS, self._take, self._broken, bounds)
        self._peer = hall.meet(principal, self)
        self._stream.disconnected.add_done_callback(lambda _: hall.drop(self._peer))
        self._stream.start()

    def send(self, frames: Frames, *, bulk: bool = False) -> None:
        """Send soon. Raises PeerBusyError."""
        self._stream.post(frames, bulk=bulk)

    async def flushed(self) -> None:
        """Wait until the system has taken all that was to be said, or the client is gone."""
        await self._stream.flushed()

    def close(self) -> None:
        """Hang up, after what was said."""
        self._stream.close()

    def _take(self, frames: list[bytes]) -> None:
        self._hall.take(self._peer, frames)

    def _broken(self, error: RemoteProtocolError) -> None:
        self._hall.broken(self._peer, error)


def _bound(path: Path) -> socket.socket:
    """A listening socket that only its user can open; what a node that was killed left there is replaced."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if path.is_socket():
            _refuse_living(path)
            path.unlink()
        made.bind(str(path))
        path.chmod(0o600)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _refuse_living(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except BlockingIOError:  # so many wait there that it must live
            pass
    raise NodeError("address_in_use", f"another node listens at {SCHEME}{path}")
