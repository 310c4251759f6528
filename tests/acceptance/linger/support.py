"""Nodes that are killed and those that come after them, and how their events are compared."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsule.events import ClearOutput, CommMessage, Display, Finished, InputRequest, Output
from capsule.node.adoption import Adoptable, Lingering, adoptable
from capsule.node.execution import ExecuteRequest
from capsule.node.node import Node
from tests.acceptance.linger.store import Store
from tests.acceptance.linger.victim import Plan, config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from capsule.events import Event
    from capsule.node.inheritance import InheritedSession, Remembered

ROOT = Path(__file__).parents[3]
LONG = 60.0


class Place:
    """The directory of one test: the store, the records, and the nodes that are there one after another."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.records = directory / "records"
        self.records.mkdir(mode=0o700)
        self.store = Store(directory / "store")
        self.node: subprocess.Popen[bytes] | None = None

    def start(self, *cells: str, **plan: Any) -> None:
        """A node that runs these cells, or that adopts what there is."""
        asked = Plan(directory=self.directory, cells=list(cells), **plan)
        command = [sys.executable, "-m", "tests.acceptance.linger.victim", asked.model_dump_json()]
        self.node = subprocess.Popen(command, cwd=ROOT)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until this is so, or the node has ended by itself."""
        assert self.node is not None
        async with asyncio.timeout(LONG):
            while self.node.poll() is None and not condition():
                await asyncio.sleep(0.002)

    async def until_told(self, number: int, execution: str = "x_0") -> None:
        """Wait until so many events have been written down, or all there are: where this process gets little time, the
        cells may end before it has seen that many.
        """
        await self.until(lambda: self.store.told(execution) >= number or bool(self.store.lines("idle")))

    async def until_written(self, text: str) -> None:
        """Wait until the first cell has printed this."""
        await self.until(lambda: text in written(self.store.events()))

    async def until_idle(self) -> None:
        """Wait until all has its verdict."""
        await self.until(lambda: bool(self.store.lines("idle")))

    def kill(self) -> None:
        """Kill the node, if it has not died by itself."""
        if self.node is not None:
            self.node.kill()
            self.node.wait()
            self.node = None

    def box(self) -> Adoptable:
        """The one box that there is."""
        (box,) = adoptable(self.records)
        return box

    @asynccontextmanager
    async def adopted(self, remembered: list[Remembered] | None = None) -> AsyncIterator[InheritedSession]:
        """The session, in a node of this process."""
        async with Node(config(), lingering=Lingering(10.0, self.records)) as node:
            known = self.store.remembered() if remembered is None else remembered
            session = await node.adopt_session(self.box(), self.store.secret(), self.store.options(), known)
            for each in session.unsent:
                session.recalled[each.id] = session.submit(each.request, each.id)
            yield session

    async def finish(self, session: InheritedSession) -> list[Finished]:
        """The verdicts of all that was left."""
        async with asyncio.timeout(LONG):
            return list(await asyncio.gather(*map(self.store.follow, session.recalled.values())))


def written(events: list[Event], stream: str = "stdout") -> str:
    return "".join(event.text for event in events if isinstance(event, Output) and event.stream == stream)


def normal(events: list[Event]) -> list[tuple[Any, ...]]:
    """What the events say, however the output was cut; their numbers have to be 1, 2, 3 …"""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    said: list[tuple[Any, ...]] = []
    for event in events:
        if isinstance(event, Output):
            assert not event.dropped
            if said and said[-1][0] == event.stream:
                said[-1] = (event.stream, said[-1][1] + event.text)
            else:
                said.append((event.stream, event.text))
        elif isinstance(event, Display):
            said.append(("display", event.data, event.display_id, event.update))
        elif isinstance(event, CommMessage):
            said.append((event.action, event.comm, event.target, event.data))
        elif isinstance(event, ClearOutput):
            said.append(("clear_output", event.wait))
        elif isinstance(event, InputRequest):
            said.append(("input", event.prompt))
        elif isinstance(event, Finished):
            said.append((event.verdict, event.text, event.execution_count))
    return said


async def undisturbed(*cells: str) -> list[list[tuple[Any, ...]]]:
    """What these cells say in one session that nobody disturbs."""
    async with Node(config()) as node, asyncio.timeout(LONG):
        session = await node.open_session()
        executions = [session.submit(ExecuteRequest(code)) for code in cells]
        return [normal([event async for event in execution]) for execution in executions]
