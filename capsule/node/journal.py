"""The journal of one worker: what the node has read of it and may have lost by its own death, in memory that its box
holds too.

It records what goes into the merge of pipes and messages, in order, so that another node can put the same things in
again and get the same events. Bytes are moved from a worker's pipe into a pipe of our own (the relay) and from there
into the journal; wherever a SIGKILL comes between the two, it can be told where they are. Messages are recorded by
their number alone: the worker keeps them until they are confirmed. A *mark* says how far all that was recorded has been
dealt with for good, and in which state the merge was there; what lies before it is forgotten.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import termios
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from capsule.node.clock import Reading
from capsule.node.resources import enlarge

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = 3
"""Of what is left for another node. Since 3, it says how the time of each execution stands."""

HEADER_BYTES: Final = 24 * 1024
RING_BYTES: Final = 8 * 2**20
"""What may have been read and not been dealt with; the pages are taken from the system when they are first used."""
KEPT_BYTES: Final = 2**21
"""An empty one through which so much has gone gives its memory back to the system."""
READ_BYTES: Final = 2**18
"""What is moved in one step: as much as the relay holds."""
_RECORD = struct.Struct("<IIQ")
HEADROOM: Final = 4 * (READ_BYTES + _RECORD.size)
"""Pipes are not read when there is less room than this: messages are recorded all the same."""

DATA, MESSAGE, SETTLED, GIVEN_UP, _PAD = range(1, 6)
"""Kinds of records. The value of DATA is the floor, of MESSAGE a number, of GIVEN_UP a fence."""

# Words of the header, by index.
_END, _ABANDONED, _MARK, _AT, _STREAM, _FLOOR, _SIZE = range(7)
_NOT_RECORDING, _RECORDING_AGAIN = 1, 2
_MARKS: Final = (16384, 20480)
_MARK_BYTES: Final = 4096
_PLACES: Final = 256
"""Dispatched executions that are remembered: all that the worker has, and as many as fit of those that have ended."""
_PLACES_AT: Final = 256
_NAME_BYTES: Final = 16
_PLACE = struct.Struct(f"<Q{_NAME_BYTES}s")
_TIMES_AT: Final = 8192
_TIME = struct.Struct("<dd")


class Record(NamedTuple):
    """One thing that went into the merge; `end` is the position behind it."""

    kind: int
    stream: int
    value: int
    data: bytes
    end: int


class Journal:
    """Owns its mapping and the relay. `abandoned`: more came than it holds, so no node can go on from it for now."""

    def __init__(self, memory: int, relay: tuple[int, int]) -> None:
        self._memory = memory
        self._relay = relay
        self._map = mmap.mmap(memory, HEADER_BYTES + RING_BYTES)
        self._bytes = memoryview(self._map)
        self._words = self._bytes[:HEADER_BYTES].cast("Q")
        self._numbers = self._bytes[:HEADER_BYTES].cast("d")
        self._ring = self._bytes[HEADER_BYTES:]
        self._start = 0
        self._given_back = 0
        self._state: dict[str, Any] = {}
        self._taken: dict[bytes, int] = {}  # the places of those that have not ended
        self._free: deque[int]  # the others, those first that have been free for the longest time
        self._load()

    @classmethod
    def create(cls) -> Journal:
        """An empty one. Raises OSError."""
        memory = os.memfd_create("capsule-journal", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, HEADER_BYTES + RING_BYTES)
            relay = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            enlarge(relay[0], READ_BYTES)
        except OSError:
            os.close(memory)
            raise
        return cls(memory, relay)

    @property
    def descriptors(self) -> list[int]:
        """What another node needs: the ends of the relay, and the memory."""
        return [*self._relay, self._memory]

    def release_memory(self) -> None:
        """The box has the memory: its mapping is enough here."""
        os.close(self._memory)
        self._memory = -1

    @property
    def abandoned(self) -> bool:
        """Whether something is missing in it."""
        return self._words[_ABANDONED] != 0

    @property
    def full(self) -> bool:
        """Whether the pipes have to wait until something has been dealt with."""
        return self._words[_ABANDONED] != _NOT_RECORDING and self._words[_END] - self._start > RING_BYTES - HEADROOM

    @property
    def end(self) -> int:
        """The position behind all that was recorded."""
        return self._words[_END]

    @property
    def state(self) -> dict[str, Any]:
        """What was said with the last mark; empty if there was none."""
        return self._state

    def read(self, stream: int, pipe: int, floor: int) -> bytes:
        """Read a pipe of the worker and record it; raises BlockingIOError, and returns b"" at the end, as `os.read`."""
        if self.full:  # only when the worker is dead: nothing waits any more
            self.abandon()
        words = self._words
        if words[_ABANDONED] == _NOT_RECORDING:
            return os.read(pipe, READ_BYTES)
        at = self._place(READ_BYTES)
        words[_STREAM], words[_SIZE], words[_FLOOR], words[_AT] = stream, 0, floor, at
        size = os.splice(pipe, self._relay[1], READ_BYTES, flags=os.SPLICE_F_NONBLOCK)
        if not size:
            return b""
        words[_SIZE] = size
        return self._take_over(at, stream, floor, size)

    def record(self, kind: int, value: int = 0) -> None:
        """Record something that has no bytes."""
        if self._words[_ABANDONED] == _NOT_RECORDING:
            return
        if self._words[_END] - self._start > RING_BYTES - 2 * _RECORD.size:
            self.abandon()  # no honest worker has so many messages under way
            return
        at = self._place(0)
        self._write(at, kind, 0, 0, value)
        self._words[_END] = at + _RECORD.size

    def mark(self, position: int, state: dict[str, Any]) -> None:
        """All before this position has been dealt with for good; `state` is what to go on with."""
        data = msgpack.packb({**state, "position": position})
        if len(data) + 4 > _MARK_BYTES:
            raise ValueError(f"the state of a merge has {len(data)} bytes")
        other = 1 - self._words[_MARK]
        slot = _MARKS[other]
        self._bytes[slot : slot + 4] = len(data).to_bytes(4, "little")
        self._bytes[slot + 4 : slot + 4 + len(data)] = data
        self._words[_MARK] = other  # in one step: a death before it leaves the mark that was there
        self._start, self._state = position, state
        if self._words[_ABANDONED] == _RECORDING_AGAIN:
            self._words[_ABANDONED] = 0

    def give_back(self) -> None:
        """Nothing comes for now: what was used of the memory is of no use, if all has been dealt with."""
        if self._start == self.end and self.end - self._given_back >= KEPT_BYTES:
            self._given_back = self.end
            self._map.madvise(mmap.MADV_REMOVE, HEADER_BYTES, RING_BYTES)

    def abandon(self) -> None:
        """More has come than it holds: record nothing more."""
        self._words[_ABANDONED] = _NOT_RECORDING

    def restart(self) -> bool:
        """If it was abandoned (True), record again from here on; it is whole when the next mark has been set."""
        if self._words[_ABANDONED] != _NOT_RECORDING:
            return False
        self._words[_ABANDONED] = _RECORDING_AGAIN
        self._start = self._words[_END]
        return True

    def dispatch(self, serial: int, execution: bytes) -> None:
        """An execution goes to the worker under this serial; `execution` names it. Idempotent."""
        if execution not in self._taken:
            place = self._taken[execution] = self._free.popleft()
            _TIME.pack_into(self._bytes, _TIMES_AT + place * _TIME.size, 0.0, 0.0)
            _PLACE.pack_into(self._bytes, _PLACES_AT + place * _PLACE.size, serial, execution)

    def set_time(self, execution: bytes, reading: Reading) -> None:
        """How the clock of an execution stands that was dispatched.

        What was computed first: a death between the two then changes nothing that would be looked at.
        """
        place = self._taken.get(execution)
        if place is not None:
            at = _TIMES_AT // 8 + 2 * place
            self._numbers[at + 1] = reading.seen
            self._numbers[at] = reading.at

    def time(self, execution: bytes) -> Reading | None:
        """How it stood last; None if it has no clock."""
        place = self._taken.get(execution)
        if place is None:
            return None
        reading = Reading(*_TIME.unpack_from(self._bytes, _TIMES_AT + place * _TIME.size))
        return reading if reading.at else None

    def release(self, execution: bytes) -> None:
        """It has ended: its place may be given to another one, but not soon."""
        if execution in self._taken:
            self._free.append(self._taken.pop(execution))

    def dispatched(self) -> dict[bytes, int]:
        """The serials of the last executions that went to the worker, by what names them."""
        return {name: serial for serial, name in sorted(map(self._place_at, range(_PLACES))) if serial}

    def _place_at(self, place: int) -> tuple[int, bytes]:
        serial, name = _PLACE.unpack_from(self._bytes, _PLACES_AT + place * _PLACE.size)
        return serial, name

    def records(self) -> Iterator[Record]:
        """What was recorded behind the mark, oldest first; grows no more while it is read."""
        at, end = self._start, self._words[_END]
        while at < end:
            left = RING_BYTES - at % RING_BYTES
            if left < _RECORD.size:
                at += left
                continue
            place = at % RING_BYTES
            head, size, value = _RECORD.unpack_from(self._ring, place)
            at += _RECORD.size + size
            if head & 0xFF != _PAD:
                data = bytes(self._ring[place + _RECORD.size : place + _RECORD.size + size])
                yield Record(head & 0xFF, head >> 8, value, data, at)

    def close(self) -> None:
        """Let go of it; the box's own descriptors keep it. Idempotent."""
        if not self._map.closed:
            self._words.release()
            self._numbers.release()
            self._ring.release()
            self._bytes.release()
            self._map.close()
            if self._memory >= 0:
                self.release_memory()
            for descriptor in self._relay:
                os.close(descriptor)

    def _load(self) -> None:
        """Go on from the mark, and with a reading that was under way when its node died."""
        slot = _MARKS[self._words[_MARK] & 1]
        size = int.from_bytes(self._bytes[slot : slot + 4], "little")
        if size:
            self._state = msgpack.unpackb(self._bytes[slot + 4 : slot + 4 + size], strict_map_key=False)
            self._start = self._state.pop("position")
        places = [self._place_at(place) for place in range(_PLACES)]
        self._taken = {name: place for place, (serial, name) in enumerate(places) if serial}
        self._free = deque(place for place, (serial, _) in enumerate(places) if not serial)
        words = self._words
        at, in_relay = words[_AT], _waiting(self._relay[0])
        if in_relay:
            self._take_over(at, words[_STREAM], words[_FLOOR], in_relay)
        elif at >= words[_END] and words[_SIZE]:  # it was read out of the relay, and not counted yet
            self._write(at, DATA, words[_STREAM], words[_SIZE], words[_FLOOR])
            words[_END] = at + _RECORD.size + words[_SIZE]
            words[_SIZE] = 0

    def _take_over(self, at: int, stream: int, floor: int, size: int) -> bytes:
        """Read the relay, which holds so many bytes, into the place that was made for them."""
        place = at % RING_BYTES + _RECORD.size
        os.readv(self._relay[0], [self._ring[place : place + size]])
        self._write(at, DATA, stream, size, floor)
        self._words[_END] = at + _RECORD.size + size
        return bytes(self._ring[place : place + size])

    def _place(self, size: int) -> int:
        """The position for a record with so many bytes, which has to lie in one piece."""
        end = self._words[_END]
        left = RING_BYTES - end % RING_BYTES
        if left >= _RECORD.size + size:
            return end
        if left >= _RECORD.size:
            self._write(end, _PAD, 0, left - _RECORD.size, 0)
        self._words[_END] = end + left
        return end + left

    def _write(self, at: int, kind: int, stream: int, size: int, value: int) -> None:
        _RECORD.pack_into(self._ring, at % RING_BYTES, kind | stream << 8, size, value)


def name_of(execution: str) -> bytes:
    """What names an execution in the table of those that were dispatched."""
    return hashlib.blake2b(execution.encode(), digest_size=_NAME_BYTES).digest()


def _waiting(pipe: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])
