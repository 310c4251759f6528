"""The bounded buffer between a worker and the one consumer of an execution, with four ways to act at its bound.

Entries become events only when they are taken: until then neighbouring output of one stream grows together, old output
can still be dropped, and the numbers of what remains have no gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from capsule.events import Output

if TYPE_CHECKING:
    import asyncio

    from capsule.config import Backpressure
    from capsule.events import Event

E = TypeVar("E", bound="Event")

CHUNK_BYTES = 65_536
"""No output event is larger."""

MARGIN_BYTES = 4 * 2**20
"""What a channel that no longer waits for its reader takes beyond its bound: the pipes and more."""

EventFactory = Callable[[int], "Event"]
"""Makes the event once its number is known."""

STREAMS: tuple[Literal["stdout", "stderr"], ...] = ("stdout", "stderr")


class _Text:
    """Output of one stream that has not been taken yet."""

    __slots__ = ("dropped", "parts", "size", "stream")

    def __init__(self, stream: int, text: str, size: int, dropped: int) -> None:
        self.stream = stream
        self.parts = [text]
        self.size = size
        self.dropped = dropped

    def gather(self) -> str:
        """All of it in one piece: many short ones take ten times the memory that is counted."""
        if len(self.parts) > 1:
            self.parts = ["".join(self.parts)]
        return self.parts[0]


class _Sealed(_Text):
    """Output that does not grow any more: something else came behind it."""

    __slots__ = ()


class _Other(NamedTuple):
    """Any other event."""

    size: int
    make: EventFactory
    droppable: bool
    outcome: bool = False


class Channel:
    """One producer (the node), one consumer. `on_full` and `on_room` are called when the bound is crossed.

    Modes: `block` keeps everything and relies on the node to stop reading; `drop_newest` and `drop_oldest` drop output
    and count it; `error` drops like `drop_newest` and relies on the node to end the execution. `discard` drops all
    output: nobody is going to read it.
    """

    __slots__ = (
        "_bound",
        "_closed",
        "_entries",
        "_execution_id",
        "_full",
        "_mode",
        "_number",
        "_on_full",
        "_on_ready",
        "_on_room",
        "_outcomes",
        "_patient_bound",
        "_pending_drop",
        "_size",
        "_waiter",
        "dropped",
        "torn",
    )

    def __init__(
        self,
        execution_id: str,
        mode: Backpressure,
        bound: int,
        on_full: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        self._execution_id = execution_id
        self._mode: str = mode
        self._bound = bound
        self._patient_bound = 0  # what it is again, if the execution is not ended after all
        self._on_full = on_full
        self._on_room = on_room
        self._entries: deque[_Text | _Other] = deque()
        self._size = 0
        self._number = 0
        self._pending_drop = 0
        self._full = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._on_ready: Callable[[], object] | None = None
        self._outcomes = 0  # those that wait here
        self.dropped = 0
        self.torn = False
        """Whether something was dropped since the last outcome (a value or an error) that stays."""

    @property
    def full(self) -> bool:
        """Whether the node should stop reading on behalf of this execution."""
        return self._full

    @property
    def discarding(self) -> bool:
        """Whether nobody is going to read."""
        return self._mode == "discard"

    @property
    def pending(self) -> bool:
        """Whether there is an event that somebody is going to take."""
        return bool(self._entries) and self._mode != "discard"

    @property
    def number(self) -> int:
        """That of the event that was taken last."""
        return self._number

    def go_on(self, number: int) -> None:
        """The events up to this number are not here: another node has told them."""
        self._number = number

    @property
    def ended(self) -> bool:
        """Whether the last event has been taken."""
        return self._closed and not self._entries

    def put_text(self, stream: int, text: str, size: int) -> None:
        """Add output; `size` is how many bytes it was in the pipe."""
        if self._mode == "discard":
            return
        if self._size + size > self._bound and not self._has_room(size):
            return
        last = self._entries[-1] if self._entries else None
        if type(last) is _Text and last.stream == stream and last.size + size <= CHUNK_BYTES and not self._pending_drop:
            last.parts.append(text)
            last.size += size
        else:
            if isinstance(last, _Text):
                last.gather()
            self._entries.append(_Text(stream, text, size, self._pending_drop))
            self._pending_drop = 0
        self._size += size
        self._wake()

    def put_event(self, make: EventFactory, size: int = 256, *, droppable: bool = False, outcome: bool = False) -> None:
        """Add another event; what shows something counts as output, what asks or tells is never dropped.

        `outcome`: it shows a value or an error. Code can have as many as it likes, so that they are dropped, too.
        """
        if self._mode == "discard":
            return
        if droppable and self._size + size > self._bound and not self._has_room(size):
            return
        self._entries.append(_Other(size, make, droppable, outcome))
        if outcome:
            self._outcomes += 1
            self.torn = False
        self._size += size
        self._wake()

    def mark(self) -> int:
        """The number of the newest event so far, taken or not: what is added from here on gets a later one.

        It may not be reached, if older output is dropped.
        """
        last = self._entries[-1] if self._entries else None
        if type(last) is _Text:
            sealed = self._entries[-1] = _Sealed(last.stream, "", last.size, last.dropped)
            sealed.parts = last.parts
        return self._number + len(self._entries)

    def close(self, make: Callable[[int], E]) -> E:
        """Add the last event and return it: from here on the numbers of all events are settled."""
        event = make(self._number + len(self._entries) + 1)
        self._entries.append(_Other(0, lambda _number: event, droppable=False))
        self._closed = True
        self._wake()
        return event

    def discard(self) -> None:
        """Nobody will read: forget what is here and what comes, except the last event."""
        self._mode = "discard"
        last = self._entries.pop() if self._closed and self._entries else None
        self._number += len(self._entries)
        self._entries.clear()
        self._outcomes = 0
        self.torn = True
        if last is not None:
            self._entries.append(last)
        self._size = 0
        self._make_room()

    def hurry(self) -> None:
        """The execution is being ended and its verdict may not wait for a slow reader: from here on, drop output
        beyond the bound and a margin for what is under way.
        """
        if self._mode == "block":
            self._mode, self._patient_bound = "drop_newest", self._bound
            self._bound = max(self._size, self._bound) + MARGIN_BYTES
            self._make_room()

    def calm(self) -> None:
        """The execution goes on, whatever was done to end it: wait for a slow reader again, if it did."""
        if self._patient_bound:
            self._bound, self._patient_bound = self._patient_bound, 0
            if self._mode == "drop_newest":  # and nobody has left
                self._mode = "block"

    def take(self) -> Event | None:
        """The next event, or None when there is none now."""
        if not self._entries:
            return None
        entry = self._entries.popleft()
        self._number += 1
        if isinstance(entry, _Text):
            self._size -= entry.size
            text = entry.gather()
            event: Event = Output(self._execution_id, self._number, STREAMS[entry.stream], text, entry.dropped)
        else:
            self._size -= entry.size
            self._outcomes -= entry.outcome
            event = entry.make(self._number)
        if self._full and self._size <= self._bound // 2:
            self._make_room()
        return event

    def wait(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """A future that is done when there is something to take; only one consumer may wait."""
        if self._waiter is not None and not self._waiter.done():
            raise RuntimeError("an execution has one consumer, and it is waiting already")
        self._waiter = loop.create_future()
        return self._waiter

    def listen(self, on_ready: Callable[[], object]) -> None:
        """Call this whenever something is added: a consumer that does not wait, but takes."""
        self._on_ready = on_ready

    def _wake(self) -> None:
        if self._on_ready is not None:
            self._on_ready()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._waiter = None
            waiter.set_result(None)

    def _has_room(self, size: int) -> bool:
        """Act at the bound; False: the new output is dropped."""
        if self._mode == "block":
            self._fill()
            return True
        if self._mode == "drop_oldest":
            self._drop_oldest(size)
            return True
        self._pending_drop += size
        self.dropped += size
        self.torn = True
        if self._mode == "error":
            self._fill()
        return False

    def _drop_oldest(self, size: int) -> None:
        """Drop the oldest output until `size` more bytes have room; what follows it tells how much is missing."""
        kept: list[_Other] = []
        missing = 0
        while self._entries and self._size + size > self._bound:
            entry = self._entries.popleft()
            if isinstance(entry, _Other) and not entry.droppable:
                kept.append(entry)
                continue
            self._size -= entry.size
            self.dropped += entry.size
            if isinstance(entry, _Text):
                missing += entry.size + entry.dropped
            else:
                missing += entry.size
                self._outcomes -= entry.outcome
        if missing:
            self.torn = not self._outcomes
        self._entries.extendleft(reversed(kept))
        following = next((entry for entry in self._entries if isinstance(entry, _Text)), None)
        if following is not None:
            following.dropped += missing
        else:
            self._pending_drop += missing

    def _fill(self) -> None:
        if not self._full:
            self._full = True
            self._on_full()

    def _make_room(self) -> None:
        if self._full:
            self._full = False
            self._on_room()
