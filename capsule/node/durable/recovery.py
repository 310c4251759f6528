"""What a node does with what an earlier one left in its store, before it takes its first client."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from capsule.node.durable.ledger import Entry
from capsule.node.durable.patience import until_committed
from capsule.node.durable.records import execution_of, unpack_request, unpack_session
from capsule.node.durable.sharing import claim, owner_of
from capsule.node.home import Identity
from capsule.node.verdicts import UNREADABLE
from capsule_bridge import Salvaging, Settlement
from capsule_protocol.errors import CapsuleError, SessionError, StoreError, WorkerLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from capsule.node.adoption import Adoptable
    from capsule.node.durable.ledger import Ledger
    from capsule.node.front.hosted import Hosted
    from capsule.node.front.registry import Registry
    from capsule.node.node import Node
    from capsule_bridge import Promise

logger = logging.getLogger("capsule.bridge")

AT_ONCE = 256
"""Verdicts that are written down side by side."""


class Recovery:
    """One at the start of a node; and of a node that shares its store, one for each dead node `of` which it inherits.

    `lifetime`: a session that has a name, and that nobody wants for so many seconds, is closed. One without a name is
    its client's, which has `reconnect_timeout`.
    """

    def __init__(
        self,
        ledger: Ledger,
        registry: Registry,
        node: Node,
        lifetime: float | None,
        reconnect_timeout: float,
        of: str | None = None,
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._node = node
        self._lifetime = lifetime
        self._reconnect_timeout = reconnect_timeout
        self._of = of
        self._sessions: dict[str, Promise] = {}
        self._started: dict[str, list[Promise]] = {}
        self._waiting: dict[str, list[Promise]] = {}
        self._hosted: dict[str, Hosted] = {}
        self._stopped: set[tuple[str, str, str]] = set()  # sessions, subshells and batches

    async def run(self, boxes: Sequence[Adoptable]) -> None:
        """Go on with the sessions whose boxes have waited; find the others again, and rule on what they had started.

        What had not been started is run, in its order. A store that can be read and not written to, because its disk is
        full, is waited for behind this, and so is all that hangs on it. Raises StoreError if it cannot be read.
        """
        found, unreadable = await self._pending()
        for promise in found:
            self._sort(promise)
        if self._of is not None:
            left = await self._leave_to_others(self._of)
            found = [promise for promise in found if promise.session not in left]
        if self._of in {None, self._ledger.name}:
            for promise in self._sessions.values():
                self._ledger.own(promise.session, promise.fence)
        else:  # they were claimed
            found += await self._came_late({promise.id for promise in found})
        for promise in found:
            self._ledger.bridge.stats.took_over(promise)
        mine = [box for box in boxes if box.session in self._sessions]
        adopted = sum(await asyncio.gather(*map(self._adopt, mine)))
        for session, promise in self._sessions.items():
            if session not in self._hosted:
                self._find_again(promise)
        lost = [promise for promises in self._started.values() for promise in promises]
        if self._sessions or lost:
            logger.warning(
                "found %d sessions of an earlier node, and %d of them alive; "
                "%d executions are lost, and %d wait to be run",
                len(self._sessions),
                adopted,
                len(lost),
                sum(map(len, self._waiting.values())),
            )
        for promise in unreadable:
            self._ledger.bridge.stats.took_over(promise)
            self._registry.tasks.start(self._settle(promise, partial(self._end_unreadable, promise)))
        await self._go_on(lost)

    async def _go_on(self, lost: list[Promise]) -> None:
        self._note_stopped(lost)
        with suppress(Exception):  # whatever the store raises is told below, where it is tried until it works
            await self._rule_on(lost)
        ruling = self._registry.tasks.start(until_committed("what was lost", lambda: self._rule_on(lost)))
        for session in self._waiting.keys() | self._started.keys():
            hosted = self._hosted.get(session)
            if hosted is not None:
                hosted.complete.clear()
            self._registry.tasks.start(self._run(hosted, self._waiting.get(session, []), ruling))

    async def _pending(self) -> tuple[list[Promise], list[Promise]]:
        """What has no verdict; and what of that cannot be read any more, for which the rest shall not suffer."""
        bridge = self._ledger.bridge
        try:
            return [promise async for promise in bridge.pending()], []
        except StoreError:
            if not isinstance(bridge.store, Salvaging):
                raise
            return await bridge.store.salvage(now=bridge.now())

    async def _end_unreadable(self, promise: Promise) -> None:
        """Nobody can do any more what it stands for: of an execution that is its verdict, all else is canceled."""
        logger.error("%s cannot be read: a large value of it is lost or damaged, and so it ends", promise.id)
        if promise.kind == "execute":
            error = StoreError("store_damaged", UNREADABLE)
            await self._ledger.give_up(promise, error, started=promise.started_at is not None)
        else:
            await self._ledger.bridge.settle(Settlement(promise.id, "cancel", fence=promise.fence))

    async def _came_late(self, known: set[str]) -> list[Promise]:
        """What the node that was silent accepted in its sessions behind the first look, until they were claimed."""
        pending, _ = await until_committed("what was accepted until a claim", self._pending)
        late = [promise for promise in pending if promise.session in self._sessions and promise.id not in known]
        for promise in late:
            self._sort(promise)
        return late

    def _sort(self, promise: Promise) -> None:
        if promise.kind == "session":
            self._sessions[promise.session] = promise
        elif promise.kind == "execute":
            group = self._waiting if promise.started_at is None else self._started
            group.setdefault(promise.session, []).append(promise)

    async def _leave_to_others(self, of: str) -> set[str]:
        """Have the sessions of this node in their next epoch, and leave the others alone: answers which those are.

        What belongs to a session that is forgotten is nobody's, and anybody may rule on it.
        """
        known = {*self._sessions, *self._started, *self._waiting}
        names = list(known - self._registry.ids)
        kept = set[str | None]()
        for at in range(0, len(names), AT_ONCE):
            kept.update(await asyncio.gather(*(self._is_ours(name, of) for name in names[at : at + AT_ONCE])))
        for group in (self._sessions, self._started, self._waiting):
            for name in group.keys() - kept:
                del group[name]
        return {name for name in known if name not in kept}

    async def _is_ours(self, session: str, of: str) -> str | None:
        """The session's name if what it has is to be seen to by this node."""
        bridge, me = self._ledger.bridge, self._ledger.name
        owner, last = await until_committed(session, lambda: owner_of(bridge, session))
        if owner not in {of, ""}:
            return None
        promise = self._sessions.get(session)
        if promise is not None and of != me:
            fence = await until_committed(session, lambda: claim(bridge, promise, me, last + 1))
            if fence is None:
                return None
            self._ledger.own(session, fence)
            # That epoch is of the worker which the session gets when somebody wants it.
            self._sessions[session] = promise._replace(epoch=last)
        return session

    def _note_stopped(self, lost: list[Promise]) -> None:
        """What is lost did not end in ok."""
        for promise in lost:
            request = unpack_request(promise.param)
            if request.stop_on_error:
                self._stopped.add((promise.session, request.subshell, request.batch))

    async def _adopt(self, box: Adoptable) -> bool:
        """Go on with a session, if its box is still there, and is the one that the store knows."""
        promise = self._sessions[box.session]
        if promise.epoch != box.epoch:
            return False
        options, secret = unpack_session(promise.param)
        started = self._started.get(box.session, [])
        remembered = [await until_committed(one.id, partial(self._ledger.remember, one)) for one in started]
        try:
            session = await self._node.adopt_session(box, secret, options, remembered, promise.principal)
        except CapsuleError as error:
            logger.warning("session %s does not go on: %s", box.session, error)
            return False
        hosted = self._hosted[box.session] = self._registry.find_again(session, promise.principal)
        if box.session in self._waiting:
            hosted.complete.clear()  # before anything that its executions tell is written down
        self._started.pop(box.session, None)
        for one, known in zip(started, remembered, strict=True):
            execution = session.recalled.get(execution_of(one))
            if execution is not None:
                hosted.go_on(self._ledger, one, execution)
            else:  # its start was written down, and then it was not sent: that the worker knows for certain
                entry = Entry(one, fresh=True, begun=known.last > 0)
                await until_committed(one.id, partial(hosted.line_up, self._ledger, entry, known.request))
        hosted.detach(self._patience(hosted))
        return True

    def _find_again(self, promise: Promise) -> None:
        options, secret = unpack_session(promise.param)
        identity = Identity(promise.session, promise.epoch, principal=promise.principal)
        session = self._node.find_again(options, identity, secret)
        hosted = self._hosted[promise.session] = self._registry.find_again(session, promise.principal)
        hosted.asleep = True
        hosted.detach(self._patience(hosted))

    def _patience(self, hosted: Hosted) -> float | None:
        return self._reconnect_timeout if hosted.session.options.name is None else self._lifetime

    async def _rule_on(self, lost: list[Promise]) -> None:
        """They had been started, so they are not run again, and nobody knows how far they came. Takes them out."""
        message = "the node ended while the code was at the worker, and the worker with it"
        hint = "The session gets a new worker, in its next epoch."
        error = WorkerLost("worker_lost", message, hint=hint, details={"reason": "node_ended"})
        while lost:
            await asyncio.gather(*(self._give_up(one, error, started=True) for one in lost[:AT_ONCE]))
            del lost[:AT_ONCE]

    async def _run(self, hosted: Hosted | None, promises: list[Promise], ruling: asyncio.Task[None]) -> None:
        """They had been accepted and not begun."""
        try:
            if hosted is None or hosted.asleep:  # what lives need not wait
                await asyncio.wait([ruling])
            if promises:
                await self._line_up(hosted, promises)
        finally:
            if hosted is not None:
                hosted.complete.set()

    async def _line_up(self, hosted: Hosted | None, promises: list[Promise]) -> None:
        try:
            if hosted is None:
                raise SessionError("session_closed", "the session had been closed")
            await until_committed(f"session {hosted.session.id}", lambda: self._registry.wake(hosted))
        except CapsuleError as error:
            if error.code == "session_elsewhere":
                return
            for promise in promises:
                await until_committed(promise.id, partial(self._give_up, promise, error, started=False))
            return
        for promise in promises:
            await self._settle(promise, partial(self._line_up_or_cancel, hosted, promise))

    async def _give_up(self, promise: Promise, error: CapsuleError, *, started: bool) -> None:
        """Raises StoreError only: a promise that is another node's meanwhile is left to it."""
        try:
            await self._ledger.give_up(promise, error, started=started)
        except StoreError:
            raise
        except CapsuleError as refusal:
            logger.warning("%s is left to whoever has it: %s", promise.id, refusal)

    async def _settle(self, promise: Promise, rule: Callable[[], Awaitable[object]]) -> None:
        """Do it as soon as the store can; if the promise is somebody else's meanwhile, leave it to him."""
        try:
            await until_committed(promise.id, rule)
        except CapsuleError as error:
            logger.warning("%s is left to whoever has it: %s", promise.id, error)

    async def _line_up_or_cancel(self, hosted: Hosted, promise: Promise) -> None:
        request = unpack_request(promise.param)
        batch = request.subshell, request.batch
        stopped = (promise.session, *batch) in self._stopped or batch in hosted.session.stopped
        if stopped or await hosted.followed.stopping(request):
            await self._ledger.cancel(promise, "an earlier one of the same batch did not end in ok")
        else:
            await hosted.line_up(self._ledger, Entry(promise, fresh=True, begun=False), request)
