"""Callers that wait, in whatever event loop, for what the store's own loop does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from capsule_bridge.postgres.held import Held, Key


class Wants(NamedTuple):
    """The rows that an operation has to hold before it is run."""

    ids: Sequence[str]
    key: Key | None = None
    """An idempotency key, whose promise it needs too."""
    now: int | None = None
    """What is due at this time is settled, so that all below it is needed."""
    settles: bool = False
    """It settles the promises in any case."""
    logs: Sequence[tuple[str, int, int]] = ()
    """Of which promises it needs the log: behind which number, and how many events."""
    also: Sequence[str] = ()
    """Promises that it only looks at, and does not settle."""


class Sweep(NamedTuple):
    """What `expire` was asked for; it finds its rows itself."""

    now: int
    kept_since: int
    """What was settled before is forgotten."""
    remembered_until: int
    limit: int


@dataclass(slots=True, eq=False)
class Call:
    """A caller."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    answer: Any = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class Job:
    """An operation that waits for its transaction, for the commit, and then for its caller's loop."""

    call: Call
    size: int
    wants: Wants | Sweep
    run: Callable[[Held], Any] | None = None


def deliver(calls: Iterable[Call]) -> None:
    """Wake the callers, all of a loop at once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Call]] = {}
    for call in calls:
        by_loop.setdefault(call.loop, []).append(call)
    for loop, batch in by_loop.items():
        with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, batch)


def _resolve(batch: list[Call]) -> None:
    for call in batch:
        if call.future.done():  # its caller was canceled
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.answer)
