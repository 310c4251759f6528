"""The sessions of a front, by id and by name: opened once for each key, closed when nobody comes back for them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

from capsule.node.durable.sharing import find_elsewhere
from capsule.node.front.hosted import Hosted
from capsule.node.tasks import Tasks, result_of
from capsule_protocol.errors import ArgumentError, CapsuleError, SessionError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from capsule.config import SessionOptions
    from capsule.node.auth.gate import Gate
    from capsule.node.auth.principals import Principal
    from capsule.node.durable import Ledger
    from capsule.node.node import Node
    from capsule.node.session import Session

logger = logging.getLogger("capsule.front")

FEW = 10
"""Ids that an error lists at most."""


class Registry:
    """Which session belongs to whom. What belongs to somebody else does not exist for those who ask."""

    def __init__(self, node: Node, tasks: Tasks, gate: Gate, ledger: Ledger | None = None) -> None:
        self._node = node
        self._ledger = ledger
        self.tasks = tasks
        self._gate = gate
        self._endings = Tasks()  # that are awaited, and not cancelled, when the front closes
        self._under_way: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self._hosted: dict[str, Hosted] = {}
        self._names: dict[tuple[str, str], Hosted | None] = {}
        self._written: set[str] = set()  # that are written down, and not here yet
        self._opening: dict[tuple[str, str, str], asyncio.Task[Hosted]] = {}

    @property
    def ledger(self) -> Ledger | None:
        """Where sessions and executions are written down, if they are."""
        return self._ledger

    def __len__(self) -> int:
        return len(self._hosted)

    def __iter__(self) -> Iterator[Hosted]:
        return iter(list(self._hosted.values()))

    async def open(self, owner: str, client: str, options: SessionOptions, key: str | None) -> Hosted:
        """A session of this owner; the same one for the same key of the same client. Raises as `Node.open_session`."""
        if key is None:
            return await self._open(owner, options)
        task = self._opening.get((owner, client, key))
        if task is None:
            task = self._opening[owner, client, key] = self.tasks.start(self._open(owner, options))
        try:
            return await asyncio.shield(task)
        except CapsuleError:
            self._opening.pop((owner, client, key), None)  # the next attempt is one
            raise

    def get(self, principal: Principal, session: str) -> Hosted:
        """The session with this id. Raises SessionError `session_unknown`, also if it is none of the principal's."""
        hosted = self._hosted.get(session)
        if hosted is None or not (hosted.owner == principal.name or principal.sees_all):
            raise _unknown(session)
        return hosted

    def find(self, principal: Principal, name: str) -> Hosted:
        """The principal's session with this name, or the session with this id; else, for who sees all, by name too.

        Raises as `get`, and ArgumentError if several principals have a session of this name.
        """
        own = self._names.get((principal.name, name))
        if own is not None:
            return own
        others = [hosted for hosted in self if hosted.session.name == name] if principal.sees_all else []
        if name in self._hosted or not others:
            return self.get(principal, name)
        if len(others) > 1:
            ids = ", ".join(hosted.session.id for hosted in others[:FEW])
            message = f"{len(others)} principals have a session {name!r}"
            raise ArgumentError("name", message, allowed=f"an id, such as one of these: {ids}")
        return others[0]

    async def seek(self, principal: Principal, name: str) -> Hosted:
        """As `find`; if another node of the same store has it, SessionError `session_elsewhere` says which one."""
        try:
            return self.find(principal, name)
        except SessionError:
            await self._check_elsewhere(None if principal.sees_all else principal.name, name, "session_elsewhere")
            raise

    async def _check_elsewhere(self, owner: str | None, name: str, code: str) -> None:
        if self._ledger is not None and self._ledger.name:
            node = await find_elsewhere(self._ledger.bridge, self._ledger.name, owner, name)
            if node is not None:
                raise SessionError(code, f"the session {name!r} is at node {node!r}", details={"node": node})

    def expire(self, hosted: Hosted) -> None:
        """Nobody came back in time."""
        self.tasks.start(self.close(hosted))

    async def close(self, hosted: Hosted) -> None:
        """End a session; nobody finds it any more. Goes on to its end if the caller is cancelled."""
        await self._end(hosted, hosted.close())

    async def kill(self, hosted: Hosted) -> None:
        """End a session under whoever reads it. Goes on to its end if the caller is cancelled."""
        await self._end(hosted, hosted.kill())

    async def ended(self) -> None:
        """Wait until the sessions that are being ended are written off."""
        await self._endings.done()

    @property
    def ids(self) -> set[str]:
        """The ids of all sessions, those that are being opened too."""
        return self._hosted.keys() | self._written

    async def let_go(self) -> None:
        """All sessions are another node's: end what is left of them here, and write nothing of that down."""

        async def let_go(hosted: Hosted) -> None:
            text = f"the session {hosted.session.name!r} goes on at another node, in its next epoch"
            self._forget(hosted)
            try:
                await hosted.kill(SessionError("session_elsewhere", text))
            except Exception:  # the others are to be let go of all the same
                logger.exception("what is left of session %s here was not ended", hosted.session.id)

        if self._ledger is not None:
            self._ledger.claims.lose_all()
        await asyncio.gather(*map(let_go, self))

    async def close_all(self) -> None:
        """End all sessions with the node; where they are written down, the next one finds them."""
        await asyncio.gather(*(hosted.close() for hosted in self))
        if self._ledger is not None:  # what ended with them has its verdict, which is written down
            await asyncio.gather(*(hosted.hear_last_words() for hosted in self))
        for hosted in self:
            self._forget(hosted)

    def find_again(self, session: Session, owner: str) -> Hosted:
        """A session of an earlier node, which has lost its worker."""
        hosted = self._add(session, owner)
        # Nodes that share a store know only their own names: of two sessions with one name the first keeps it.
        if session.options.name is not None:
            self._names.setdefault((owner, session.name), hosted)
        return hosted

    async def wake(self, hosted: Hosted) -> None:
        """Give a session that was found again a worker, in its next epoch. Raises as `Session.restart`."""
        if not hosted.asleep:
            return
        if hosted.waking is None:
            hosted.waking = self.tasks.start(self.restart(hosted))
        waking = hosted.waking
        try:
            await asyncio.shield(waking)
        except CapsuleError:
            hosted.waking = None  # the next attempt is one
            raise

    async def restart(self, hosted: Hosted) -> None:
        """A new worker, and a new epoch, which is written down before anybody hears of it.

        What was asked for before is lined up first, and so belongs to the old one.
        """
        await hosted.lined_up()
        if self._ledger is not None:  # first: no epoch may be had by two workers, whatever fails in between
            await self._ledger.restarting(hosted.session)
        await hosted.session.restart()
        hosted.asleep = False

    async def _open(self, owner: str, options: SessionOptions) -> Hosted:
        self._gate.check_open(owner, self._under_way[owner])
        self._under_way[owner] += 1
        try:
            return await self._open_named(owner, options)
        finally:
            self._under_way[owner] -= 1
            if not self._under_way[owner]:
                del self._under_way[owner]

    async def _open_named(self, owner: str, options: SessionOptions) -> Hosted:
        name = options.name
        if name is not None:
            if (owner, name) in self._names:
                raise SessionError("name_taken", f"there is a session {name!r} already")
            self._names[owner, name] = None  # nobody else takes it meanwhile
        try:
            if name is not None:
                await self._check_elsewhere(owner, name, "name_taken")
            session = await self._node.open_session(options, owner)
        except BaseException:
            if name is not None:
                del self._names[owner, name]
            raise
        if self._ledger is not None:
            await self._write_down(self._ledger, session, owner)
        hosted = self._add(session, owner)
        self.opened[options.environment] += 1
        if name is not None:
            self._names[owner, name] = hosted
        return hosted

    async def _write_down(self, ledger: Ledger, session: Session, owner: str) -> None:
        self._written.add(session.id)
        try:
            await ledger.opened(session, owner)
        except BaseException:
            self._written.discard(session.id)
            self._names.pop((owner, session.name), None)
            self._endings.start(_take_back(ledger, session))
            raise

    async def _end(self, hosted: Hosted, work: Coroutine[None, None, None]) -> None:
        self._forget(hosted)
        await result_of(self._endings.start(self._write_off(hosted, work)))

    async def _write_off(self, hosted: Hosted, work: Coroutine[None, None, None]) -> None:
        await work
        if self._ledger is not None:
            await hosted.hear_last_words()
            await self._ledger.closed(hosted.session)

    def _add(self, session: Session, owner: str) -> Hosted:
        self._written.discard(session.id)
        hosted = self._hosted[session.id] = Hosted(session, owner, self.tasks, self.expire, self._ledger)
        hosted.on_verdict = self._count
        return hosted

    def _count(self, verdict: str) -> None:
        self.verdicts[verdict] += 1

    def _forget(self, hosted: Hosted) -> None:
        self._hosted.pop(hosted.session.id, None)
        if self._names.get((hosted.owner, hosted.session.name)) is hosted:
            del self._names[hosted.owner, hosted.session.name]
        for key, task in list(self._opening.items()):
            if task.done() and not task.cancelled() and task.exception() is None and task.result() is hosted:
                del self._opening[key]


async def _take_back(ledger: Ledger, session: Session) -> None:
    """End a session that nobody gets. That it is there may be written down by now, whatever was raised."""
    try:
        await session.close()
    finally:
        await ledger.closed(session)


def _unknown(session: str) -> SessionError:
    return SessionError("session_unknown", f"there is no session {session[:64]!r}")
