"""Between the server, which decides, and the mirror, which has it written down."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from capsule_bridge.records import Settled
from capsule_bridge.resonate.wire import REQUEST, payload, tags_of, verdict_of
from capsule_bridge.states import CANCELED, PENDING, PROMISE
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from capsule_bridge.records import NewPromise, Promise, Settlement
    from capsule_bridge.resonate.client import ResonateClient
    from capsule_bridge.resonate.mirror import Mirror
    from capsule_bridge.resonate.wire import Record


class Judge:
    """Asks for verdicts, and gives them. What it answers is written down in the mirror, and told to `listeners`."""

    def __init__(self, remote: ResonateClient, mirror: Mirror) -> None:
        self.listeners: list[Callable[[Collection[str]], None]] = []
        self._remote = remote
        self._mirror = mirror

    async def hear(self, promise: Promise) -> Promise:
        """The promise, with its verdict if it has one by now."""
        if not promise.pending:
            return promise
        record = await self._remote.get(promise.id)
        record = await self._restore(promise) if record is None else _checked(promise, record)
        return promise if record.pending else await self.adopt(record)

    async def adopt(self, record: Record) -> Promise:
        """The promise, after the verdict of the record has been written down."""
        return (await self._conclude([record]))[record.id]

    async def settle(self, settlements: Sequence[tuple[Promise, Settlement]]) -> dict[str, Settled]:
        """Give verdicts to pending promises. If the server fails at some, the others have theirs all the same."""
        calls = (self._settle(promise, settlement) for promise, settlement in settlements)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        given = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        promises = await self._conclude([record for record, _ in given]) if given else {}
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return {record.id: Settled(promises[record.id], ours) for record, ours in given}

    async def abandon(self, new: NewPromise) -> None:
        """Cancel at the server what nobody was told of. If that fails it stays there, and harms nobody."""
        with suppress(StoreError):
            await self._cancel(new)

    async def _settle(self, promise: Promise, settlement: Settlement) -> tuple[Record, bool]:
        """What stands, and whether it is this call's."""
        call, state = _name(), PROMISE[PENDING][settlement.action]
        value = payload(settlement.value, call, settlement)
        record = await self._remote.settle(promise.id, state, value)
        if record is None:
            restored = await self._restore(promise)
            record = await self._remote.settle(promise.id, state, value) or restored
        if _checked(promise, record).pending:
            raise StoreError("store_unavailable", f"the Resonate server did not settle promise {promise.id!r}")
        return record, record.by == call

    async def _restore(self, promise: Promise) -> Record:
        """Make a promise again that the server has lost: here it is known, and somebody was told so."""
        return _checked(promise, await self._remote.create(promise))

    async def _conclude(self, records: Sequence[Record]) -> dict[str, Promise]:
        """Write the verdicts down, and cancel all below them: first at the server, where a child may have its own."""
        ids = [record.id for record in records]
        family = [child for child in await self._mirror.family(ids) if child.id not in ids]
        judged = [record for record in await self._cancel_all(family) if record is not None]
        verdicts = [verdict_of(record) for record in [*judged, *records]]
        try:
            promises, canceled = await self._mirror.conclude(verdicts)
        finally:
            # If this call is canceled it is written down all the same, and who listens will ask anyway.
            self._tell([*(each.id for each in verdicts), *(child.id for child in family)])
        known = {child.id for child in family}
        await self._cancel_all([child for child in canceled if child.id not in known])  # they were made meanwhile
        return promises

    def _tell(self, ids: Collection[str]) -> None:
        for listener in list(self.listeners):
            listener(ids)

    async def _cancel_all(self, promises: Sequence[Promise]) -> list[Record | None]:
        return await asyncio.gather(*(self._cancel(promise) for promise in promises))

    async def _cancel(self, promise: NewPromise | Promise) -> Record | None:
        """The verdict that stands, if it is another one."""
        call = _name()
        record = await self._remote.settle(promise.id, CANCELED, payload(b"", call))
        if record is None or record.pending or record.by == call or not same_request(promise, record):
            return None
        return record


def same_request(promise: NewPromise | Promise, record: Record) -> bool:
    """Whether the record was made for the same: the server gives out what it has, whatever was asked."""
    return record.tags.get(REQUEST) == tags_of(promise)[REQUEST]


def _checked(promise: Promise, record: Record) -> Record:
    """Raises StoreError, `store_refused`, if the server means another promise by the id."""
    if not same_request(promise, record):
        text = f"the Resonate server has another promise {promise.id!r} than the one that was made there"
        raise StoreError("store_refused", text, hint="Let nobody else make promises with ids of this store.")
    return record


def _name() -> str:
    """Tells a call from all others."""
    return os.urandom(16).hex()
