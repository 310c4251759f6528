"""Verdicts that this node has not given: what others have written down, and what is told where they said little."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgpack import UnpackException, unpackb

from capsule.events import Finished
from capsule.node.durable.records import epoch_of, execution_of
from capsule.node.verdicts import cancelled
from capsule.wire import unpack_event

if TYPE_CHECKING:
    from capsule.events import ErrorInfo, Event, Verdict
    from capsule_bridge import Bridge, Promise

TOLD = 1000
"""Characters that are passed on of what somebody else gave as the value of a promise."""


async def story(bridge: Bridge, promise: Promise, after: int) -> list[Event]:
    """All that is written down of a settled execution behind a number, and its verdict in any case."""
    execution = execution_of(promise)
    events: list[Event] = [unpack_event(data, execution, at) async for at, data in bridge.events(promise.id, after)]
    last = events[-1].sequence if events else after
    ending = foreign_ending(promise, last)
    return events if ending is None else [*events, ending]


def foreign_ending(promise: Promise, last: int) -> Finished | None:
    """The verdict for a log that ends at this number without one, because no node of ours has settled its promise."""
    if promise.pending or given_by_a_node(promise):
        return None
    verdict, error = _ruling(promise)
    return Finished(execution_of(promise), last + 1, verdict, error=error, epoch=epoch_of(promise))


def given_by_a_node(promise: Promise) -> bool:
    """Whether a settled execution has its verdict from a node, whose log ends with it."""
    value = unpacked(promise.value)
    return isinstance(value, dict) and "verdict" in value


def unpacked(value: bytes) -> object:
    """What a value of ours has in it; None for one that is somebody else's."""
    try:
        found: object = unpackb(value)
    except (ValueError, UnpackException):
        return None
    return found


def text_of(value: bytes) -> str:
    """What somebody else gave, for people to read."""
    found = unpacked(value)
    text = found if isinstance(found, str) else value.decode("utf-8", "replace")
    return text[:TOLD]


def _ruling(promise: Promise) -> tuple[Verdict, ErrorInfo | None]:
    if promise.state == "resolved":
        return "ok", None
    said = text_of(promise.value)
    ruling = cancelled(f"its promise was settled elsewhere, as {promise.state}{': ' if said else ''}{said}")
    return ruling._replace(error=replace(ruling.error, retryable=promise.started_at is None))
