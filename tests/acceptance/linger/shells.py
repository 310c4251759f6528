"""One session of a service that is killed, and of those which come after it; and what runs in its subshells."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from capsule.events import Finished, Output
from capsule.node.execution import ExecuteRequest
from capsule_protocol.errors import CapsuleError
from tests.acceptance.linger.test_service import killed, lingering
from tests.acceptance.serve.support import LONG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from capsule import AsyncClient, AsyncSession
    from capsule.client.inner import AnyExecution, AnySession
    from capsule.events import Event

WAITS = "import threading\ngo = threading.Event()\nprint('waits', flush=True)\ngo.wait()\nprint('went on')"


class Succession:
    """Services that take their turns in one place."""

    client: AsyncClient
    session: AsyncSession

    def __init__(self, home: Path) -> None:
        self._home = home
        self.node = lingering(home)

    @property
    def inner(self) -> AnySession:
        """The session, for what only front ends ask."""
        return self.session._inner

    def kill(self) -> None:
        """End the one that is there as a crash would."""
        killed(self.node)
        self.node.close()

    def start(self) -> None:
        """The next one, which finds what the last one has left."""
        self.node = lingering(self._home)

    def restart(self) -> None:
        """Both."""
        self.kill()
        self.start()


@asynccontextmanager
async def succession(home: Path, name: str | None = None) -> AsyncIterator[Succession]:
    """With a session, which the last of them closes."""
    nodes = Succession(home)
    try:
        async with nodes.node.client() as nodes.client, asyncio.timeout(LONG):
            nodes.session = await nodes.client.session(name=name)
            yield nodes
            await nodes.session.close()
    finally:
        nodes.node.close()


async def opened(inner: AnySession) -> str:
    """A new subshell."""
    name: str = (await inner.ask("subshell", {"action": "open"}))["subshell"]
    return name


async def names(inner: AnySession) -> list[str]:
    """Those that are open."""
    found: list[str] = (await inner.ask("subshell", {"action": "list"}))["subshells"]
    return found


async def queued(nodes: Succession, number: int) -> None:
    """Wait until so many executions are behind those that run."""
    while (await nodes.session.info()).queue < number:
        await asyncio.sleep(0.005)


async def until(execution: AnyExecution, text: str, told: list[Event] | None = None) -> list[Event]:
    """Its events, until it has written this."""
    told = [] if told is None else told
    while text not in written(told):
        told.append(await execution.next_event())
    return told


async def verdict(execution: AnyExecution, told: list[Event] | None = None) -> Finished:
    """Its last event; `told` has those that came before, and then all of them."""
    told = [] if told is None else told
    while not told or not isinstance(told[-1], Finished):
        told.append(await execution.next_event())
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    last = told[-1]
    assert isinstance(last, Finished)
    return last


async def run(inner: AnySession, code: str, **options: Any) -> Finished:
    """Run it to its end."""
    return await verdict(inner.submit(ExecuteRequest(code, **options)))


async def code_of(inner: AnySession, name: str) -> str:
    """Why code is refused there: at once, or by its verdict, where the node had to ask the worker first."""
    try:
        refused = await run(inner, "1", subshell=name)
    except CapsuleError as error:
        return error.code
    assert refused.error is not None
    return refused.error.code


def written(told: list[Event]) -> str:
    """What they say that was written."""
    return "".join(event.text for event in told if isinstance(event, Output))
