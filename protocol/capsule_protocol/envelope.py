"""The envelope: one message as it lies between codec and meaning, its body not yet validated."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | memoryview
Frames: TypeAlias = list[Buffer]


class Envelope(NamedTuple):
    """A message: its type and body, what it belongs to, and raw buffers that travel uncopied.

    `sequence` numbers the events of one execution from 1; 0 means that the message is not numbered. `time` is the
    sender's clock in seconds since 1970, 0.0 when it says nothing. `epoch` is that of the session if a node sends it to
    one of the session's clients, so that they know at once that its state is gone; 0 when nothing is said of it.
    """

    type: str
    body: dict[str, Any]
    id: str = ""
    session: str = ""
    execution: str = ""
    sequence: int = 0
    time: float = 0.0
    buffers: tuple[Buffer, ...] = ()
    epoch: int = 0
