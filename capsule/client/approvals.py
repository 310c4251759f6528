"""Approvals as a client sees them: of a node in this process, whose operator is the program itself, or of a service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from capsule.client.arguments import check_flag, check_text
from capsule.client.promises import MESSAGE_CHARACTERS
from capsule.client.remote.node import RemoteNode
from capsule.node.info import ApprovalSummary
from capsule_protocol.errors import ArgumentError, SessionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from capsule.broker.broker import Broker
    from capsule.client.portal import Portal
    from capsule.node.node import Node

OPERATOR = "operator"
"""Who approves in library mode: the program, whose sessions are those of `local`."""
KIND = "approval"
MAX_ID = 1000

list_of = list
"""The type, in classes that have a method of this name."""

Word: TypeAlias = Literal["once", "session"] | None
OnApproval: TypeAlias = "Callable[[ApprovalSummary], Word | Awaitable[Word]]"
"""Is asked for each call that needs an approval: for this one, for all of the session, or None: denied."""


class AsyncApprovals:
    """`client.approvals`. All of it raises SessionError `unsupported` where the node has no policy."""

    def __init__(self, node: Node | RemoteNode) -> None:
        self._node = node

    async def list(self) -> list[ApprovalSummary]:
        """Those that wait for somebody, oldest first, and that this client may see."""
        if isinstance(self._node, RemoteNode):
            return [await self.show(one.id) for one in await self._node.promises() if one.kind == KIND]
        return [ApprovalSummary(**one) for one in await self._broker().approvals.pending()]

    async def show(self, approval: str) -> ApprovalSummary:
        """One of them by its id, decided or not. Raises SessionError `promise_unknown`."""
        id_ = _check_id(approval)
        if not isinstance(self._node, RemoteNode):
            return ApprovalSummary(**await self._broker().approvals.show(id_))
        promise = await self._node.promise(id_)
        if promise.kind != KIND:
            raise SessionError("promise_unknown", f"{id_!r} is no approval")
        return ApprovalSummary(**promise.value)

    async def approve(
        self, approval: str, *, for_session: bool = False, reason: str = "", break_glass: bool = False
    ) -> bool:
        """Approve a call, or with `for_session` all that its session makes under the same grant; True if that counts.

        Nobody approves what they ask for themselves; an admin can `break_glass`, for a `reason`, which is recorded, and
        not often. In library mode the program approves what the code in its sessions asks for. Raises SessionError
        `promise_unknown`, `permission_denied`.
        """
        flags = {"for_session": for_session, "break_glass": break_glass}
        given = {name: True for name, flag in flags.items() if check_flag(flag, name)}
        return await self._decide(approval, reason, approve=True, given=given)

    async def deny(self, approval: str, *, reason: str = "") -> bool:
        """Do not approve a call; the code is told the `reason`. True if that counts."""
        return await self._decide(approval, reason, approve=False, given={})

    async def _decide(self, approval: str, reason: str, *, approve: bool, given: dict[str, bool]) -> bool:
        """The first word counts."""
        if len(check_text(reason, "reason")) > MESSAGE_CHARACTERS:
            raise ArgumentError("reason", f"has {len(reason)} characters", allowed=f"at most {MESSAGE_CHARACTERS}")
        id_ = _check_id(approval)
        if isinstance(self._node, RemoteNode):
            return (await self._node.settle(id_, "resolve" if approve else "reject", given, reason)).decided
        from capsule.broker.approvals import Decision

        return (await self._broker().decide(id_, Decision(approve, OPERATOR, reason, **given))).decided

    def _broker(self) -> Broker:
        assert not isinstance(self._node, RemoteNode)
        if self._node.broker is None:
            raise SessionError("unsupported", "this node has no policy, so nothing of it is approved")
        return self._node.broker


class Approvals:
    """`client.approvals`, for those who wait: each method is that of AsyncApprovals."""

    def __init__(self, inner: Callable[[], AsyncApprovals], portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    def list(self) -> list[ApprovalSummary]:
        """Those that wait for somebody, oldest first, and that this client may see."""

        async def call() -> list_of[ApprovalSummary]:
            return await self._inner().list()

        return self._portal.call(call)

    def show(self, approval: str) -> ApprovalSummary:
        """One of them by its id, decided or not. Raises SessionError `promise_unknown`."""

        async def call() -> ApprovalSummary:
            return await self._inner().show(approval)

        return self._portal.call(call)

    def approve(self, approval: str, *, for_session: bool = False, reason: str = "", break_glass: bool = False) -> bool:
        """Approve a call, or with `for_session` all that its session makes under the same grant."""

        async def call() -> bool:
            inner = self._inner()
            return await inner.approve(approval, for_session=for_session, reason=reason, break_glass=break_glass)

        return self._portal.call(call)

    def deny(self, approval: str, *, reason: str = "") -> bool:
        """Do not approve a call; the code is told the `reason`. True if that counts."""

        async def call() -> bool:
            return await self._inner().deny(approval, reason=reason)

        return self._portal.call(call)


def listen(node: Node, callback: OnApproval) -> None:
    """Have the callback asked from now on."""
    broker = node.broker
    if broker is None:
        return
    approvals = AsyncApprovals(node)

    async def ask(asked: dict[str, Any]) -> None:
        answer = callback(ApprovalSummary(**asked))
        word = answer if answer is None or isinstance(answer, str) else await answer
        if word is None:
            await approvals.deny(asked["id"])
        elif word in {"once", "session"}:
            await approvals.approve(asked["id"], for_session=word == "session")
        else:
            raise ArgumentError("on_approval", f"answered {word!r:.80}", allowed="'once', 'session' or None")

    broker.on_approval = ask


def _check_id(approval: str) -> str:
    if not 1 <= len(check_text(approval, "approval")) <= MAX_ID:
        raise ArgumentError("approval", f"has {len(approval)} characters", allowed=f"1 to {MAX_ID} characters")
    return approval
