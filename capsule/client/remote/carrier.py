"""What carries the messages between a client and its node: the socket that an address stands for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from capsule.runtime import check_socket
from capsule.stream import NO_BOUNDS, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule_protocol.envelope import Buffer
    from capsule_protocol.errors import RemoteProtocolError
    from capsule_protocol.limits import Limits

UNIX, TCP = "ipc://", "tcp://"

OnFrames = Callable[[list[bytes]], None]
OnBroken = Callable[["RemoteProtocolError"], None]
OnEnded = Callable[[], None]


class Carrier(Protocol):
    """One connection, from the client's side. `on_ended` is told, once, that nothing more will come."""

    def send(self, frames: Sequence[Buffer], *, bulk: bool = False) -> None:
        """Send soon, without waiting; what is no bulk may overtake what is."""

    def close(self) -> None:
        """Say what was to be said, as far as that needs no waiting, and hang up. Idempotent."""


class UnixCarrier:
    """The socket of a node on the same machine."""

    def __init__(self, address: str, limits: Limits, on_frames: OnFrames, on_broken: OnBroken, ended: OnEnded) -> None:
        """Raises NodeError for a place that is not safe."""
        path = address.removeprefix(UNIX)
        check_socket(Path(path))
        # What waits for a node that is busy is what the program has asked for: it is not for us to refuse some of it.
        self._stream = Stream(
            asyncio.get_running_loop(),
            socket.socket(socket.AF_UNIX),
            limits,
            on_frames,
            on_broken,
            NO_BOUNDS,
        )
        self._stream.disconnected.add_done_callback(lambda _: ended())
        self._stream.connect(path)

    def send(self, frames: Sequence[Buffer], *, bulk: bool = False) -> None:
        """Send together with what else is sent in this turn of the loop."""
        self._stream.post(frames, bulk=bulk)

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
