"""The clock of the machine is set while a node runs: its log, the doctor and the lists of promises know of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from capsule import AsyncClient
from capsule.config import NodeConfig
from capsule.doctor.node import examine
from capsule.node.durable.clocks import Clocks
from capsule.node.front.front import Front
from capsule.node.node import Node
from capsule.settings.service import ServeConfig
from capsule_bridge import Bridge, MemoryStore, NewPromise
from capsule_bridge.bridge import steady_clock, wall_clock

pytestmark = pytest.mark.anyio

HOUR = 3600


class Shifted:
    """A clock that is so many seconds beside the machine's."""

    def __init__(self, by: float) -> None:
        self.by = by
        self._steady = steady_clock()

    def __call__(self) -> int:
        return self._steady() + round(self.by * 1000)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: a socket's path may have no more than 107 bytes."""
    with TemporaryDirectory(prefix="c-") as made:
        yield Path(made)


@asynccontextmanager
async def listening(bridge: Bridge, folder: Path) -> AsyncIterator[str]:
    async with Node() as node:
        front = Front(node, ServeConfig(), bridge)
        try:
            front.listen(f"ipc://{folder}/node.sock")
            yield front.addresses[0]
        finally:
            await front.close()


def test_the_log_tells_once_that_the_clocks_went_apart_and_once_that_they_met(caplog: pytest.LogCaptureFixture) -> None:
    clock = Shifted(0)
    bridge = Bridge(MemoryStore(), clock)
    clocks = Clocks(lambda: bridge.clock_ahead)
    told = []
    for by in (0, 0.1, HOUR, HOUR, HOUR + 0.2, -2 * HOUR, 0.2, 0):
        clock.by = by
        clocks.look()
        told += [record.message for record in caplog.records]
        caplog.clear()
    assert len(told) == 3
    assert "3600 s ahead of that of the machine" in told[0]
    assert "7200 s behind that of the machine" in told[1]
    assert told[2] == "what this node writes down has the right time again"


@pytest.mark.parametrize("by", [0, HOUR, -HOUR])
async def test_the_doctor_warns_of_a_node_whose_clock_is_not_the_machines(folder: Path, by: int) -> None:
    async with listening(Bridge(MemoryStore(), Shifted(by)), folder) as address:
        finding = await examine(address, NodeConfig())
        async with AsyncClient(address) as client:
            info = (await client.info()).bridge
    assert info is not None
    assert abs(info.clock_ahead - by) < HOUR / 2
    assert finding.severity == ("warning" if by else "ok")
    assert ("the clock that this node dates promises with" in finding.message) is bool(by)


async def test_how_old_a_promise_is_and_how_long_it_has_left_is_by_the_nodes_clock(folder: Path) -> None:
    clock = Shifted(0)
    bridge = Bridge(MemoryStore(), clock)
    async with listening(bridge, folder) as address, AsyncClient(address) as client:
        me = (await client.session()).id
        (owner,) = [promise.principal async for promise in bridge.pending() if promise.session == me]
        due = wall_clock() + 10 * HOUR * 1000
        await bridge.accept(NewPromise("exec:x", "execute", me, b"", principal=owner, timeout_at=due))
        clock.by = HOUR
        (found,) = await client.promises()
        assert found.left is not None
        assert HOUR <= found.age < 2 * HOUR
        assert 8 * HOUR < found.left <= 9 * HOUR
        assert (await client.promise("exec:x")).age >= found.age
