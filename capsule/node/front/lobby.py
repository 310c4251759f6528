"""Who has come to a TCP listener, and how much of what each of them has sent is no message yet.

ZeroMQ does not bound a message that does not end. So the node counts: what has arrived on a connection, by the system's
word, less what ZeroMQ has handed over. It looks only at connections that something has arrived on since it last looked;
the system tells of each of them once (EPOLLONESHOT). Who is idle costs nothing.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final, Protocol

from capsule.node.front.accepted import Accepted
from capsule_protocol.limits import DEFAULT_LIMITS

if TYPE_CHECKING:
    import asyncio

MIB: Final = 2**20
UNFINISHED: Final = DEFAULT_LIMITS.message_bytes + 16 * MIB
"""Bytes that ZeroMQ may hold of a client's message: the largest one, its covers, and what it works on at the moment."""
UNGREETED: Final = 128 * 1024
"""Bytes that may come before a client has greeted: a handshake and a `hello` are less than 2 KiB."""
PAUSE: Final = 0.1
"""Seconds between the arrival of something and the look at how much it is."""
SHORTEST: Final = 0.001
"""Seconds between two looks at least, and until the first at one that has not greeted."""
FASTEST: Final = 2**30
"""Bytes that a connection may bring in a second: who is near its bound is looked at as soon as it could be over it."""
_ONCE = select.EPOLLIN | select.EPOLLONESHOT


class House(Protocol):
    """What a lobby needs of its listener."""

    def catch_up(self) -> None:
        """Take what ZeroMQ has to hand over."""

    def left(self, accepted: Accepted, offends: bool) -> None:
        """A connection is over, and forgotten here. `offends`: ZeroMQ could not read what came."""

    def refused(self, name: str, code: str) -> None:
        """Somebody who never became a client sent what cannot be read."""

    def overfull(self, accepted: Accepted, limit: int) -> None:
        """More came than `limit` without an end."""

    def expired(self, accepted: Accepted) -> None:
        """It has not greeted in time."""


class Lobby:
    """The connections of one listener, by ZeroMQ's number for each."""

    def __init__(self, house: House, loop: asyncio.AbstractEventLoop, *, encrypted: bool) -> None:
        self._house = house
        self._loop = loop
        self._encrypted = encrypted
        self._here: dict[int, Accepted] = {}
        self._own: dict[int, Accepted] = {}
        self._missed: set[int] = set()
        self._busy: set[Accepted] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._epoll = select.epoll()
        loop.add_reader(self._epoll.fileno(), self._on_arrival)

    def add(self, number: int, patience: float) -> None:
        """ZeroMQ has taken a connection, which has so many seconds to greet."""
        self.lose(number)
        try:
            accepted = Accepted(number, encrypted=self._encrypted)
        except OSError:  # over already; or there is no descriptor left, and then ZeroMQ's own bounds have to do
            self._missed.add(number)
            return
        self._missed.discard(number)
        self._here[number] = self._own[accepted.fileno()] = accepted
        self._epoll.register(accepted, _ONCE)
        accepted.deadline = self._loop.call_later(patience, self._expire, accepted)

    def find(self, number: int) -> Accepted | None:
        """The connection that has this number now."""
        return self._here.get(number)

    def lose(self, number: int, *, early: bool = False) -> None:
        """ZeroMQ has ended this connection; what had come is heard first.

        `early`: the other end hung up in the handshake.
        """
        accepted = self._here.get(number)
        if accepted is not None:
            offends = not early and accepted.offends()
            self._forget(accepted)
            self._loop.call_soon(self._house.left, accepted, offends)
        elif number in self._missed:
            self._missed.discard(number)
            if not early:
                self._house.refused("unknown", "access_denied")

    def end(self, accepted: Accepted, *, reset: bool = False) -> None:
        """End this connection, if it is not over; `reset` as in `Accepted.cut`."""
        if not accepted.over:
            accepted.cut(reset=reset)
            self._forget(accepted)

    def close(self) -> None:
        """Forget all; the connections end when ZeroMQ does. Idempotent."""
        if not self._epoll.closed:
            for accepted in list(self._own.values()):
                self._forget(accepted)
            if self._timer is not None:
                self._timer.cancel()
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _forget(self, accepted: Accepted) -> None:
        if self._here.get(accepted.number) is accepted:
            del self._here[accepted.number]
        if self._own.pop(accepted.fileno(), None) is not None:
            self._epoll.unregister(accepted)
        self._busy.discard(accepted)
        accepted.close()

    def _expire(self, accepted: Accepted) -> None:
        if not accepted.greeted:
            self._house.expired(accepted)

    def _on_arrival(self) -> None:
        arrived = [self._own[number] for number, _ in self._epoll.poll(0)]
        self._busy.update(arrived)
        self._look_in(PAUSE if all(one.greeted for one in arrived) else SHORTEST)

    def _look_in(self, pause: float) -> None:
        at = self._loop.time() + pause
        if self._timer is None or self._timer.when() > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        pause = PAUSE
        for accepted in list(self._busy):
            limit = UNFINISHED if accepted.greeted else UNGREETED
            room = self._room(accepted, limit)
            if accepted.over:
                continue
            if room < 0:
                self._house.overfull(accepted, limit)
            elif room > limit // 2:  # so the next arrival is told by the system
                self._busy.discard(accepted)
                self._epoll.modify(accepted, _ONCE)
            else:
                pause = min(pause, max(SHORTEST, room / FASTEST))
        if self._busy:
            self._look_in(pause)

    def _room(self, accepted: Accepted, limit: int) -> int:
        """How many bytes it may still send without the end of a message."""
        try:
            held = accepted.received() - accepted.delivered
            if held <= limit // 2:
                return limit - held
            taken = accepted.received() - accepted.unread()
        except OSError:  # it was reset, which ZeroMQ is about to tell
            return limit
        self._house.catch_up()  # whole messages are no matter, however many: they are the node's to take
        return limit - (taken - accepted.delivered)
