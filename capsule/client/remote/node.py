"""A node elsewhere, with the face of `capsule.node.node.Node`."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from capsule.client.remote.checkpoints import RemoteCheckpoints
from capsule.client.remote.link import Link
from capsule.client.remote.logs import Logs
from capsule.client.remote.session import PATIENCE, REQUEST_TIMEOUT, RemoteSession
from capsule.client.remote.shared import SharedSession
from capsule.client.remote.watch import RemoteWatch
from capsule.node.info import NodeInfo, PromiseSummary, SessionSummary, SettledPromise
from capsule.node.tasks import Tasks
from capsule_pool import PoolInfo
from capsule_pool.breaker import BreakerInfo
from capsule_pool.stats import StatsInfo
from capsule_protocol.errors import SessionError
from capsule_protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from capsule.client.remote.logs import LogPart
    from capsule.config import SessionOptions
    from capsule.keys import Credentials
    from capsule_bridge import BridgeInfo

FOR_EVER = 86_400.0 * 366
"""Seconds that whoever waits for the end of a node waits at most."""

_QUESTIONS = frozenset({"sessions", "promises", "promise"})
"""What is asked again on a new connection: it changes nothing."""


class RemoteNode:
    """Made for one client; connects when it is first used."""

    def __init__(self, address: str, credentials: Credentials | None = None) -> None:
        self._link = Link(address, credentials)
        self._logs = Logs(self._link)
        self._tasks = Tasks()
        self._sessions: dict[str, RemoteSession] = {}
        self._closed = False

    @property
    def sessions(self) -> Mapping[str, RemoteSession]:
        """The sessions of this client by id."""
        return {name: session for name, session in self._sessions.items() if session.state != "closed"}

    async def open_session(self, options: SessionOptions) -> RemoteSession:
        """A ready session. Raises what the node says, or NodeError; a caller that is cancelled leaves none behind."""
        return await self._tasks.run_or_undo(self._open(options), RemoteSession.close)

    async def attach(self, name: str, *, watch: bool = False, share: bool = False) -> RemoteSession:
        """A session that is there already, by name or id. Raises SessionError `session_unknown`."""
        await self._link.connect()
        if watch:
            return await self._watch(name)
        reply = await self._link.request("attach", {"name": name, "share": share}, timeout=REQUEST_TIMEOUT)
        return self._adopt(reply, REQUEST_TIMEOUT, share=share)

    async def _watch(self, name: str) -> RemoteSession:
        made: list[RemoteWatch] = []

        def adopt(reply: dict[str, Any]) -> None:
            """At once: its events come right behind the answer."""
            made.append(RemoteWatch(self._link, reply["session"], reply["name"], reply["epoch"]))
            self._sessions[made[0].id] = made[0]
            self._link.adopt(made[0])

        try:
            await self._link.request("attach", {"name": name, "watch": True}, timeout=REQUEST_TIMEOUT, on_answer=adopt)
        except BaseException:
            for session in made:  # the caller left when it was there already
                self._tasks.start(session.close())
            raise
        return made[0]

    async def info(self) -> NodeInfo:
        """The node as it is now."""
        await self._link.connect()
        info = (await self._link.request("info", {}, timeout=REQUEST_TIMEOUT))["info"]
        pools = {name: _pool(pool) for name, pool in info["pools"].items()}
        bridge = info.get("bridge")
        return NodeInfo(info["sessions"], pools, info.get("clients", 0), info.get("offences", 0), _bridge(bridge))

    async def summaries(self) -> list[SessionSummary]:
        """The sessions that there are, whoever has them."""
        return [SessionSummary(**row) for row in (await self._operate("sessions", {}))["sessions"]]

    async def interrupt(self, name: str) -> bool:
        """Interrupt what a session runs; False if nothing does. Raises SessionError `session_unknown`."""
        return bool((await self._operate("interrupt_session", {"name": name}))["done"])

    async def kill(self, name: str) -> None:
        """End a session. Raises SessionError `session_unknown`."""
        await self._operate("kill_session", {"name": name})

    async def promises(self) -> list[PromiseSummary]:
        """What waits for a verdict, as far as this client may see it."""
        found: list[PromiseSummary] = []
        after = ""
        while True:
            page = await self._operate("promises", {"after": after})
            found += (PromiseSummary(**row) for row in page["promises"])
            after = page["after"]
            if not after:
                return found

    async def promise(self, promise: str) -> PromiseSummary:
        """One of them, settled or not. Raises SessionError `promise_unknown`."""
        return PromiseSummary(**(await self._operate("promise", {"promise": promise}))["promise"])

    async def settle(self, promise: str, action: str, value: Any, message: str) -> SettledPromise:
        """Settle a promise. Raises SessionError `promise_unknown`, `answer_refused`."""
        body = {"promise": promise, "action": action, "value": value, "message": message}
        settled = await self._operate("settle", body)
        return SettledPromise(PromiseSummary(**settled["promise"]), settled["decided"])

    async def read_log(self, execution: str, after: int) -> LogPart:
        """What an execution told behind an event, once there is something. Raises SessionError `execution_unknown`."""
        return await self._logs.part(execution, after)

    async def cancel(self, execution: str) -> bool:
        """Interrupt an execution, or take it out of the queue; False if it has ended."""
        return bool((await self._operate("cancel_execution", {"execution": execution}))["done"])

    def checkpoints(self, name: str) -> RemoteCheckpoints:
        """Those of a session, by name or id, whoever has it."""
        return RemoteCheckpoints(self._link.streams, name, partial(self._request, name))

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it in the background, at most until the client is closed."""
        self._tasks.start(work)

    async def drain(self, *, wait: bool) -> None:
        """Have the node end when what runs has ended; `wait` for that."""
        try:
            await self._operate("drain", {"wait": wait}, FOR_EVER if wait else REQUEST_TIMEOUT)
        except SessionError as error:
            if not wait or error.code != "node_closed":
                raise

    async def close(self) -> None:
        """Close the sessions of this client that it has not detached from, and hang up."""
        if self._closed:
            return
        self._closed = True
        await self._tasks.close()
        for session in list(self.sessions.values()):
            await session.close()
        await self._link.close()

    async def _operate(self, kind: str, body: dict[str, Any], timeout: float = REQUEST_TIMEOUT) -> dict[str, Any]:
        await self._link.connect()
        info: dict[str, Any] = (await self._link.request(kind, body, timeout=timeout, again=kind in _QUESTIONS))["info"]
        return info

    async def _request(self, session: str, kind: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        await self._link.connect()
        return await self._link.request(kind, body, session, timeout=timeout, again=False)

    async def _open(self, options: SessionOptions) -> RemoteSession:
        await self._link.connect()
        given = options.model_dump(exclude_unset=True)
        named: dict[str, Any] = {name: given.pop(name) for name in ("environment", "env", "cwd") if name in given}
        lists: dict[str, Any] = {name: list(given.pop(name)) for name in ("argv", "path") if name in given}
        files: dict[str, bytes] = given.pop("files", {})
        lists["files"] = list(files)
        body = {**named, **lists, "name": given.pop("name", None) or "", "options": given, "key": new_id("k_")}
        limit = options.start_timeout
        return self._adopt(
            await self._link.request("open", body, timeout=limit + PATIENCE, buffers=tuple(files.values())), limit
        )

    def _adopt(self, reply: dict[str, Any], start_timeout: float, *, share: bool = False) -> RemoteSession:
        kind = SharedSession if share else RemoteSession
        session = kind(self._link, reply["session"], reply["name"], reply["epoch"], start_timeout)
        self._sessions[session.id] = session
        self._link.adopt(session)
        return session


def _bridge(info: dict[str, Any] | None) -> BridgeInfo | None:
    if info is None:
        return None
    from capsule_bridge import BridgeInfo  # late: a client has no other need of it

    known = {field.name for field in fields(BridgeInfo)}
    return BridgeInfo(**{name: value for name, value in info.items() if name in known})  # a newer node tells more


def _pool(info: dict[str, Any]) -> PoolInfo:
    parts: dict[str, Any] = {"breaker": BreakerInfo(**info["breaker"]), "stats": StatsInfo(**info["stats"])}
    return PoolInfo(**{**info, **parts})
