"""Sends events for the execution that the calling code belongs to."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from capsule_kernels.attribution import owner
from capsule_protocol.envelope import Envelope

if TYPE_CHECKING:
    from capsule_kernels.capture import Outlet
    from capsule_kernels.link import Link
    from capsule_protocol.envelope import Buffer

REMEMBERED = 1000
"""Executions whose late events (of tasks and threads) still find their name; later ones belong to the session."""

_LARGEST_FENCE = 2**32 - 1


class Publisher:
    """Knows the names of the executions by their serials and puts a fence before what must keep its place."""

    def __init__(self, link: Link, outlet: Outlet) -> None:
        self._link = link
        self._outlet = outlet
        self._names: OrderedDict[int, str] = OrderedDict()
        self.serial = 0
        self.session = ""

    def begin(self, serial: int, execution: str) -> None:
        """From here on, events that nobody claims belong to this execution."""
        self.serial = serial
        self.name(serial, execution)

    def name(self, serial: int, execution: str) -> None:
        """Events of this serial belong to this execution."""
        self._names[serial] = execution
        if len(self._names) > REMEMBERED:
            self._names.popitem(last=False)

    def current(self) -> str:
        """The id of the execution that the calling code belongs to, or ""."""
        return self._names.get(owner() or self.serial, "")

    def publish(self, kind: str, body: dict[str, Any], *, fenced: bool = True, buffers: tuple[Buffer, ...] = ()) -> int:
        """Send an event; with `fenced` it keeps its place among what the code writes. A fork sends nothing.

        Returns the number under which it is kept for another node, or 0.
        """
        if self._outlet.detached:
            return 0
        envelope = Envelope(kind, body, session=self.session, execution=self.current(), buffers=buffers)
        if fenced and not self._outlet.in_step:
            body["fence"] = _LARGEST_FENCE
            self._link.check(envelope)  # the node waits for what a fence has announced, so nothing may fail behind it
            body["fence"] = self._outlet.fence(message=True)
        return self._link.tell(envelope)
