"""An execution by its id: what it told and how it ended, from any process and at any later time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.client.arguments import check_timeout
from capsule.client.patience import at_most
from capsule.client.results import Collector, Result
from capsule.seen import Seen
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from capsule.client.portal import Portal
    from capsule.client.remote.logs import LogPart
    from capsule.client.remote.node import RemoteNode
    from capsule.events import Event


class AsyncExecutionHandle:
    """Made by `AsyncClient.execution`. Nothing is asked before one of its methods is called.

    They raise SessionError: `execution_unknown`, `promise_expired`, and `unsupported` where nothing is written down.
    """

    __slots__ = ("_node", "execution_id")

    def __init__(self, node: RemoteNode, execution_id: str) -> None:
        self._node = node
        self.execution_id = execution_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.execution_id}>"

    async def events(self, after: int = 0) -> AsyncIterator[Event]:
        """Its events behind a number, those to come too, up to `Finished`; leaving it leaves the code running."""
        seen = Seen()
        while True:
            events, ended = await self.part(after)
            for event in events:
                yield seen.told(event, self.execution_id)
                after = event.sequence
            if ended:
                return

    async def result(self, timeout: float | None = None) -> Result:
        """Wait for its verdict, at most so many seconds: then TimeoutError, and it goes on."""
        collector = Collector()
        async with at_most(check_timeout(timeout), self.execution_id, "has no verdict"):
            async for event in self.events():
                collector.feed(event)
        assert collector.result is not None
        return collector.result

    async def cancel(self) -> bool:
        """Interrupt it, or take it out of the queue; False if it had ended."""
        return await self._node.cancel(self.execution_id)

    async def part(self, after: int) -> LogPart:
        """The next events behind a number, and whether they go to the verdict."""
        if type(after) is not int or after < 0:
            raise ArgumentError("after", f"is {after!r:.80}", allowed="the number of an event, or 0")
        return await self._node.read_log(self.execution_id, after)


class ExecutionHandle:
    """AsyncExecutionHandle without `await`. Made by `Client.execution`."""

    __slots__ = ("_inner", "_portal")

    def __init__(self, portal: Portal, inner: AsyncExecutionHandle) -> None:
        self._portal = portal
        self._inner = inner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.execution_id}>"

    @property
    def execution_id(self) -> str:
        """Which execution it is."""
        return self._inner.execution_id

    def events(self, after: int = 0) -> Iterator[Event]:
        """Its events behind a number, those to come too, up to `Finished`; leaving it leaves the code running."""
        seen = Seen()
        while True:
            events, ended = self._portal.call(self._inner.part, after)
            for event in events:
                yield seen.told(event, self.execution_id)
                after = event.sequence
            if ended:
                return

    def result(self, timeout: float | None = None) -> Result:
        """Wait for its verdict, at most so many seconds: then TimeoutError, and it goes on."""
        return self._portal.call(self._inner.result, timeout)

    def cancel(self) -> bool:
        """Interrupt it, or take it out of the queue; False if it had ended."""
        return self._portal.call(self._inner.cancel)
