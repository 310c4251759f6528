"""Which sessions are this node's, among nodes that share a store: what it does with them is done under a claim.

A node that was silent for too long hears of that only when it renews its lease. Until then it would go on with sessions
that another one has taken over. So the transaction that accepts, begins or rules on something looks whose they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from capsule.node.durable.sharing import owner_of
from capsule_bridge import Claim, session_promise
from capsule_protocol.errors import SessionError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capsule_bridge import Bridge, Fence

T = TypeVar("T")


class Claims:
    """One for each ledger. Without a `name` nobody shares the store, and nothing has to be claimed."""

    def __init__(self, bridge: Bridge, name: str) -> None:
        self.lives: Callable[[], bool] = lambda: True
        """Whether it is certain that nobody has taken this node for dead."""
        self._bridge = bridge
        self._name = name
        self._fences: dict[str, Fence] = {}

    def own(self, session: str, fence: Fence) -> None:
        """The session is this node's as long as its promise has this fence."""
        self._fences[session] = fence

    def lose(self, session: str) -> Fence | None:
        """The fence that it had, if that is known; from now on it is not."""
        return self._fences.pop(session, None)

    def lose_all(self) -> None:
        """This node was taken for dead: nothing is its own any more."""
        self._fences.clear()

    def check_lives(self) -> None:
        """Raises StoreError `store_unavailable` if this node may have been taken for dead."""
        if not self.lives():
            text = f"node {self._name} did not renew its lease in time, and another one may have its sessions"
            raise StoreError("store_unavailable", text, details={"outcome": "not_done"})

    async def under(self, session: str, act: Callable[[Claim | None], Awaitable[T]]) -> T:
        """Do this if the session is this node's, as the same transaction finds it.

        Raises SessionError `session_elsewhere`, StoreError, and what `act` raises.
        """
        if not self._name:
            return await act(None)
        fence = self._fences.get(session)
        while True:
            fence = fence or await self._fence_now(session)
            try:
                return await act(Claim(session_promise(session), fence))
            except SessionError as error:
                before, fence = fence, await self._fence_now(session) if error.code == "promise_fenced" else fence
                if fence == before:
                    raise
                # It was being restarted, or had been by a call that is said to have failed.

    async def under_if_open(self, session: str, act: Callable[[Claim | None], Awaitable[T]]) -> T:
        """As `under`; but what a session has left that is closed, or forgotten, anybody may see to."""
        try:
            return await self.under(session, act)
        except SessionError:
            if not self._name or await self._is_open(session):
                raise
        return await act(None)

    async def _is_open(self, session: str) -> bool:
        try:
            return (await self._bridge.get(session_promise(session))).pending
        except SessionError:
            return False

    async def _fence_now(self, session: str) -> Fence:
        """That of a session whose log says that it is ours."""
        promise = await self._bridge.get(session_promise(session))
        owner, _ = await owner_of(self._bridge, session)  # in this order: who has the fence is in the log before
        if owner != self._name:
            raise elsewhere(session, owner)
        return promise.fence


def elsewhere(session: str, node: str = "") -> SessionError:
    """The refusal of what is asked of a session that another node has, which may be known."""
    text = f"the session {session!r} belongs to another node by now"
    return SessionError("session_elsewhere", text, details={"node": node} if node else None)
