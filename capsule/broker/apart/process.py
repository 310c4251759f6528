"""The process of a provider, from the node's side: started, heard what it is, and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from capsule_protocol.codec import decode
from capsule_protocol.errors import ArgumentError, RemoteProtocolError
from capsule_protocol.framing import NEED_DATA, FrameBuffer
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    from capsule_protocol.envelope import Envelope

START_SECONDS = 60.0
"""Until the process has said what its provider is, and until that has started."""
GRACE = 5.0
"""Seconds that a call may take to end when it is given up, and a process; then it is killed."""
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")
"""Variables of the node that the process gets: no others, for some may be secret."""


class Process:
    """One that runs. `described`: what it says of its provider, which nobody has looked at yet."""

    def __init__(self, origin: str) -> None:
        """Start it, and hear what its provider is; this blocks. Raises ArgumentError `provider_refused`."""
        self.sock, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "capsule.broker.apart.host", "--fd", str(theirs.fileno()), origin],
                stdin=subprocess.DEVNULL,
                cwd="/",
                env=_environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        try:
            self.described = _described(self.sock, origin)
        except BaseException:
            self.kill()
            self.end()
            raise

    def kill(self) -> None:
        """Have it end at once. Idempotent."""
        self._child.kill()

    def end(self) -> None:
        """It ends with its socket, or is killed; this blocks for as long. Idempotent."""
        self.sock.close()
        try:
            self._child.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.kill()
            self._child.wait()


def refused(origin: str, message: str) -> ArgumentError:
    """Why a provider is not used."""
    return ArgumentError(origin, message, code="provider_refused")


def _environment() -> dict[str, str]:
    """Its modules are found where the node finds them."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _described(sock: socket.socket, origin: str) -> dict[str, Any]:
    try:
        said = _first(sock, origin)
    except RemoteProtocolError as error:
        raise refused(origin, f"says nothing that is understood: {error.message}") from error
    if said.type != "provider":
        raise refused(origin, f"cannot be loaded: {said.body.get('error')}"[:2000])
    return said.body


def _first(sock: socket.socket, origin: str) -> Envelope:
    """The first message."""
    deadline = time.monotonic() + START_SECONDS
    buffer = FrameBuffer(DEFAULT_LIMITS)
    while (frames := buffer.next_message()) is NEED_DATA:
        try:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            data = sock.recv(2**16)
        except OSError:
            data = b""
        if not data:
            raise refused(origin, "its process has ended, or does not say what it is")
        buffer.feed(data)
    return decode(frames)
