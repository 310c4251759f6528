"""Subshells of a session as its clients ask for them. The worker has a thread for each that was used, no sooner.

It is told of each at once all the same, so that another node, which adopts it, hears from it which are open.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from capsule_protocol.errors import ArgumentError, CapsuleError, SessionError
from capsule_protocol.ids import SUBSHELL, new_id
from capsule_protocol.messages.base import MAX_SUBSHELL

if TYPE_CHECKING:
    from capsule.node.dispatch import Dispatch
    from capsule.node.lanes import Lanes

ACTIONS = ("open", "close", "list")


class Host(Protocol):
    """What they need of their session."""

    async def acquainted(self) -> None:
        """Wait until it is known which are open."""

    async def tell_subshell(self, action: str, name: str, timeout: float | None) -> None:
        """Have the worker do as much. Raises as a question does."""


class Subshells:
    """Answers the question `subshell`."""

    def __init__(self, lanes: Lanes, dispatch: Dispatch, host: Host) -> None:
        self._lanes = lanes
        self._dispatch = dispatch
        self._host = host
        self._opening: dict[str, set[object]] = {}
        """Who asks for one that was new when the first of them did, and of which nobody was told yet."""

    async def answer(self, body: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        """Open, close or list. Raises SessionError `subshell_unknown` and `too_many_subshells`, or as a question."""
        action, name = body.get("action"), ""
        if action not in ACTIONS:
            raise ArgumentError("action", f"is {action!r:.80}", allowed=ACTIONS)
        try:
            async with asyncio.timeout(timeout):
                await self._host.acquainted()
        except TimeoutError:
            message = f"subshell was not answered within {timeout:g} s"
            raise CapsuleError("request_timeout", message, retryable=True) from None  # nothing was done yet
        if action == "open":
            name = _named(body) or new_id(SUBSHELL)
            await self._open(name, timeout)
        elif action == "close":
            closed = str(body.get("subshell", ""))
            self._dispatch.end_subshell(closed)
            await self._host.tell_subshell("close", closed, timeout)
        return {"subshell": name, "subshells": self._lanes.names}

    async def _open(self, name: str, timeout: float | None) -> None:
        """The worker has heard of it when its name is told: it stays open whatever becomes of this node.

        One that is open is opened by whoever asks again, because an answer was lost: the worker is told again, too.
        """
        who = object()
        if name not in self._lanes.names:
            self._dispatch.open_subshell(name)
            self._opening[name] = set()
        openers = self._opening.get(name, set())
        openers.add(who)
        try:
            await self._host.tell_subshell("open", name, timeout)
        except BaseException:
            openers.discard(who)
            if not openers and self._opening.get(name) is openers:  # nobody waits for it any more
                del self._opening[name]
                await self._take_back(name)
            raise
        if self._opening.get(name) is openers:
            del self._opening[name]

    async def _take_back(self, name: str) -> None:
        """Nobody is told of it. The worker may hear of it later than its answer was waited for, and then of this."""
        with suppress(SessionError):  # it is gone with its worker already
            self._dispatch.end_subshell(name)
        with suppress(CapsuleError):
            await self._host.tell_subshell("close", name, 0.0)  # it is sent; the answer is not waited for


def _named(body: dict[str, Any]) -> str:
    """The name that the client has chosen, or ""."""
    name = body.get("subshell") or ""
    if not isinstance(name, str) or len(name) > MAX_SUBSHELL:
        raise ArgumentError("subshell", f"is {name!r:.80}", allowed=f"text of at most {MAX_SUBSHELL} characters")
    return name
