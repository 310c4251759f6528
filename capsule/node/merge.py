"""Puts two pipes and a stream of messages back into the order in which the worker made them. Pure: no I/O, no clock.

Each pipe is a lane. A fence is in both lanes; what lies before it in either comes before all that lies behind it in
either, so a lane that reaches a fence waits for the other. A fence that announces a message waits for the message too.
A message without a fence was sent when both pipes were empty: all that came before it has been read already, so it
takes its place behind what the lanes hold at that moment, unless that belongs to a later execution.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.marks import FENCE, FLUSHED, MARK_SIZE, MESSAGE, TOKEN_SIZE, Mark, Splitter

OnBytes = Callable[[int, int, bytes], None]
"""Called with owner, stream (0: stdout, 1: stderr) and a non-empty piece."""
OnMessage = Callable[[Any], None]

MAX_WAITING = 10_000
"""Messages that may wait for their fence at once; an honest worker has a handful."""


class _Gate:
    """A place in both lanes that is passed by both at once, together with its messages; `owner` as in the mark."""

    __slots__ = ("messages", "number", "open", "owner")

    def __init__(self, number: int, *, is_open: bool) -> None:
        self.number = number
        self.open = is_open
        self.owner = 0
        self.messages: list[Any] = []


class _Piece(NamedTuple):
    """Bytes that wait; `number` counts in the order of reading, over both pipes."""

    number: int
    owner: int
    data: bytes


class _Lane:
    """One pipe: its splitter, whose bytes come now, and what waits to be delivered."""

    __slots__ = ("fence", "flush", "held", "owner", "queue", "splitter")

    def __init__(self, token: bytes) -> None:
        self.splitter = Splitter(token)
        self.owner = 0
        self.fence = 0
        self.flush = -1
        self.queue: deque[_Gate | _Piece] = deque()
        self.held = 0


class Merge:
    """Feed it bytes and messages as they come; it calls back with both in order.

    `newest` is the highest serial that the worker was given: marks that name a later one are forged. Everything that
    contradicts the rules raises RemoteProtocolError.
    """

    __slots__ = (
        "_floor",
        "_gates",
        "_given_up",
        "_lanes",
        "_on_bytes",
        "_on_message",
        "_pieces",
        "_waiting",
        "newest",
        "passed",
    )

    def __init__(self, token: bytes, on_bytes: OnBytes, on_message: OnMessage) -> None:
        self._lanes = (_Lane(token), _Lane(token))
        self._on_bytes = on_bytes
        self._on_message = on_message
        self._gates: dict[int, _Gate] = {}
        self._waiting: dict[int, list[Any]] = {}
        self._floor = 0
        self._given_up = 0
        self._pieces = 0
        self.newest = 0
        self.passed = 0

    def held(self, stream: int) -> int:
        """Bytes of one pipe that wait for the other pipe or for a message."""
        return self._lanes[stream].held

    def flush(self, stream: int) -> int:
        """The number of the last flush that was seen in one pipe; -1: none."""
        return self._lanes[stream].flush

    @property
    def quiet(self) -> bool:
        """Whether nothing waits in it."""
        first, second = self._lanes
        return not (first.queue or second.queue or self._gates or self._waiting)

    def state(self) -> dict[str, Any]:
        """What another one needs to go on from here, while this one is quiet: plain values."""
        lanes = [[lane.owner, lane.fence, lane.flush, lane.splitter.held] for lane in self._lanes]
        return {"floor": self._floor, "passed": self.passed, "given_up": self._given_up, "lanes": lanes}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from that state, before anything has been fed."""
        self._floor, self.passed, self._given_up = state["floor"], state["passed"], state["given_up"]
        for lane, (owner, fence, flush, held) in zip(self._lanes, state["lanes"], strict=True):
            lane.owner, lane.fence, lane.flush = owner, fence, flush
            lane.splitter.feed(held)

    @property
    def newest_fence(self) -> int:
        """The highest number of a fence that either pipe has shown."""
        return max(lane.fence for lane in self._lanes)

    def feed(self, stream: int, data: bytes, floor: int = 0) -> None:
        """Take what was read from one pipe; `floor` is the page's FLOOR from before the read."""
        if floor > self._floor:
            self._raise_floor(floor)
        lane = self._lanes[stream]
        for part in lane.splitter.feed(data):
            if type(part) is Mark:
                self._mark(lane, part)
            elif lane.queue:
                self._hold(lane, part)  # type: ignore[arg-type]  # what is not a mark is bytes
            else:
                self._on_bytes(lane.owner, stream, part)  # type: ignore[arg-type]  # as above

    def message(self, fence: int, message: Any, serial: int = 0) -> None:
        """Take a message: it is delivered now, or when its fence is passed. `serial` is that of its execution."""
        if fence < 0 or fence > 0xFFFFFFFF:
            raise _forged(f"a message has fence {fence}")
        if fence == 0:
            self._untied(message, serial)
        elif fence <= self.passed:
            self._on_message(message)
        elif (gate := self._gates.get(fence)) is not None:
            gate.messages.append(message)
            gate.open = True
            self._advance()
        else:
            if len(self._waiting) >= MAX_WAITING:
                raise _forged("too many messages wait for fences that do not come")
            self._waiting.setdefault(fence, []).append(message)

    @property
    def unsettled(self) -> bool:
        """Whether bytes are kept back that may be the beginning of a mark."""
        return any(lane.splitter.held for lane in self._lanes)

    def settle(self) -> None:
        """Both pipes are empty: what may have been the beginning of a mark is none, for marks come in one piece."""
        self._flush_splitters(at_end=False)

    def give_up(self, fence: int) -> None:
        """Wait no more for messages that were announced up to a fence: an interrupt hit the code that would send them.

        One that comes all the same is delivered when it comes.
        """
        self._given_up = max(self._given_up, fence)
        for number, gate in self._gates.items():
            if number <= fence:
                gate.open = True
        self._advance()

    def finish(self) -> None:
        """The worker is dead and its pipes are read: deliver all that waits, whatever it waits for."""
        while True:
            self._drain()
            heads = [lane.queue[0] for lane in self._lanes if lane.queue]
            if not heads:
                break
            self._pass(min((gate for gate in heads if type(gate) is _Gate), key=lambda gate: gate.number))
        for fence in sorted(self._waiting):
            for message in self._waiting.pop(fence):
                self._on_message(message)
        self._flush_splitters(at_end=True)

    def append(self, stream: int, data: bytes, owner: int) -> None:
        """After `finish`: bytes that never reached the pipe."""
        self._on_bytes(owner, stream, data)

    def _raise_floor(self, floor: int) -> None:
        """Whoever raised it saw both pipes empty, so it holds for all that is read from now on, up to a mark."""
        if floor > self.newest:
            raise _forged(f"the floor {floor} is a serial that was never given out")
        self._flush_splitters(at_end=False)
        self._floor = floor
        for lane in self._lanes:
            lane.owner = floor

    def _mark(self, lane: _Lane, mark: Mark) -> None:
        if mark.flags & FENCE:
            if mark.fence <= lane.fence:
                raise _forged(f"fence {mark.fence} came after fence {lane.fence}")
            lane.fence = mark.fence
            gate = self._gates.get(mark.fence)
            if gate is None:
                gate = self._new_gate(mark.fence, announces=bool(mark.flags & MESSAGE))
            gate.owner = max(gate.owner, mark.owner)
            lane.queue.append(gate)
            lane.held += MARK_SIZE
            self._advance()
        elif mark.flags & FLUSHED:
            lane.flush = mark.fence
        if mark.owner > self.newest:
            raise _forged(f"output belongs to serial {mark.owner}, which was never given out")
        lane.owner = mark.owner

    def _new_gate(self, number: int, *, announces: bool) -> _Gate:
        gate = self._gates[number] = _Gate(number, is_open=not announces or number <= self._given_up)
        early = self._waiting.pop(number, None)
        if early is not None:
            gate.messages, gate.open = early, True
        return gate

    def _hold(self, lane: _Lane, data: bytes) -> None:
        self._pieces += 1
        lane.queue.append(_Piece(self._pieces, lane.owner, data))
        lane.held += len(data)

    def _untied(self, message: Any, serial: int) -> None:
        """A message without a fence: behind what is here, but not behind what belongs to a later execution.

        Pipes may be read before a message that was sent earlier, and bring what the next execution has written.
        """
        if not any(lane.queue for lane in self._lanes):
            self._on_message(message)
            return
        gate = _Gate(0, is_open=True)
        gate.messages.append(message)
        for lane in self._lanes:
            later = (at for at, entry in enumerate(lane.queue) if serial and entry.owner > serial)
            lane.queue.insert(next(later, len(lane.queue)), gate)
            lane.held += MARK_SIZE
        self._advance()

    def _flush_splitters(self, *, at_end: bool) -> None:
        for stream, lane in enumerate(self._lanes):
            rest = lane.splitter.rest()
            if rest and not (at_end and len(rest) >= TOKEN_SIZE):
                if lane.queue:
                    self._hold(lane, rest)
                else:
                    self._on_bytes(lane.owner, stream, rest)

    def _advance(self) -> None:
        """Deliver as far as the gates allow."""
        first, second = self._lanes
        while True:
            self._drain()
            if not first.queue or not second.queue:
                return
            left, right = first.queue[0], second.queue[0]
            assert type(left) is _Gate
            assert type(right) is _Gate
            gate = self._next_gate(left, right)
            if not gate.open:
                return
            self._pass(gate)

    def _next_gate(self, left: _Gate, right: _Gate) -> _Gate:
        """The gate to pass next. One without a number stands behind different gates when a fence was being written as
        the worker found its pipes empty; then it goes first.
        """
        if left is right or left.number == 0:
            return left
        if right.number == 0:
            return right
        raise _forged(f"fence {left.number} in one pipe meets fence {right.number} in the other")

    def _drain(self) -> None:
        """Deliver up to the next gate of each lane, in the order of reading.

        Where no fence stands between two streams, the worker had seen the one read before it wrote to the other.
        """
        while True:
            heads = [(lane.queue[0], stream) for stream, lane in enumerate(self._lanes) if lane.queue]
            pieces = [(head, stream) for head, stream in heads if type(head) is _Piece]
            if not pieces:
                return
            piece, stream = min(pieces)
            lane = self._lanes[stream]
            lane.queue.popleft()
            lane.held -= len(piece.data)
            self._on_bytes(piece.owner, stream, piece.data)

    def _pass(self, gate: _Gate) -> None:
        for lane in self._lanes:
            if gate in lane.queue:
                lane.queue.remove(gate)  # almost always its head
                lane.held -= MARK_SIZE
        if gate.number:
            self.passed = gate.number
            self._gates.pop(gate.number, None)
        for message in gate.messages:
            self._on_message(message)


def _forged(what: str) -> RemoteProtocolError:
    return RemoteProtocolError("unexpected_message", f"protocol violation: {what}")
