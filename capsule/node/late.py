"""What an execution still says after its verdict: threads, tasks and children that went on. Bounded memory of names."""

from __future__ import annotations

from codecs import utf_8_decode
from collections import OrderedDict

from capsule.events import Output
from capsule.node.channel import CHUNK_BYTES, STREAMS

REMEMBERED = 4096
"""Executions whose late output still finds their name; the output of older ones belongs to the session."""


class Late:
    """Names of ended executions by their serials, and the decoders of what they write."""

    def __init__(self, *, inherited: bool = False) -> None:
        self._inherited = inherited  # what ended before this node came is not known by name
        self._names: OrderedDict[int, str] = OrderedDict()
        self._ids: set[str] = set()
        self._rests: dict[tuple[int, int], bytes] = {}

    def remember(self, serial: int, execution_id: str) -> None:
        """An execution has ended."""
        self._names[serial] = execution_id
        self._ids.add(execution_id)
        if len(self._names) > REMEMBERED:
            oldest, name = self._names.popitem(last=False)
            self._ids.discard(name)
            self._rests.pop((oldest, 0), None)
            self._rests.pop((oldest, 1), None)

    def knows(self, execution_id: str) -> bool:
        """Whether an event may name it: an ended execution, or none."""
        return self._inherited or execution_id == "" or execution_id in self._ids

    def output(self, serial: int, stream: int, data: bytes) -> list[Output]:
        """Bytes of a pipe as background events."""
        name = self._names.get(serial, "")
        key = (serial if name else 0, stream)
        events = []
        for start in range(0, len(data), CHUNK_BYTES):
            piece = self._rests.pop(key, b"") + data[start : start + CHUNK_BYTES]
            text, used = utf_8_decode(piece, "replace", False)  # noqa: FBT003 - positional only
            if used < len(piece):
                self._rests[key] = piece[used:]
            if text:
                events.append(Output(name, 0, STREAMS[stream], text))
        return events
