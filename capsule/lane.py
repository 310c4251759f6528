"""What is bulky on its way into a ZeroMQ socket: little at a time, so that all else is soon through."""

from __future__ import annotations

import os
import socket
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import zmq

from capsule.stream import PeerBusyError

if TYPE_CHECKING:
    import asyncio

    from capsule_protocol.envelope import Buffer

AHEAD = 2
"""Large frames that ZeroMQ may have before it has begun to send them: one to send, and one for when that is done."""
UNSENT = 2**18
"""Bytes that the system takes from ZeroMQ before it sends them."""

Send = Callable[["Sequence[Buffer]"], None]


class Lane:
    """The bulky messages of one connection, in order. `send` gives one to ZeroMQ at once, and raises what it says.

    When there is room for more, `on_room` is to call `go_on`, whose errors are its own affair.

    ZeroMQ keeps the order of what it has, and tells nobody how much that is. But a frame that it sends without copying
    it is let go of when it has been encrypted, and begins to travel: that is the moment for the next. What is no bulk
    does not come here, and so overtakes all that waits here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Send, on_room: Callable[[], None], max_held: int) -> None:
        self._loop = loop
        self._max_held = max_held
        self._send = send
        self._on_room = on_room
        self._waiting: deque[Sequence[Buffer]] = deque()
        self._away: dict[int, weakref.ref[memoryview]] = {}
        self._number = 0
        self.closed = False

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send in turn. Raises PeerBusyError when `max_held` messages wait, and what `send` raises."""
        if len(self._waiting) >= self._max_held:
            raise PeerBusyError
        self._waiting.append(frames)
        self.go_on()

    def close(self) -> None:
        """Forget what waits. Idempotent."""
        self.closed = True
        self._waiting.clear()

    def go_on(self) -> None:
        """Send what there is room for. Raises what `send` raises."""
        while self._waiting and len(self._away) < AHEAD:
            *small, last = self._waiting.popleft()
            self._send([*small, self._watched(last)])

    def _watched(self, frame: Buffer) -> Buffer:
        """The frame; if ZeroMQ does not copy it, in a form that tells when it is let go of."""
        if len(frame) < zmq.COPY_THRESHOLD:
            return frame
        view = memoryview(frame)
        self._number += 1
        number = self._number

        def let_go(_: object) -> None:
            """On whatever thread lets go of it."""
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._is_through, number)

        self._away[number] = weakref.ref(view, let_go)
        return view

    def _is_through(self, number: int) -> None:
        del self._away[number]
        if not self.closed:
            self._on_room()


def hold_little(descriptor: int) -> None:
    """Have the system hold no more of a connection of ZeroMQ's than it sends soon. Raises OSError."""
    with socket.socket(fileno=os.dup(descriptor)) as connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
