"""What was lost with a connection is sent again, and run, in its order, also where a store answers in another one."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from capsule import AsyncClient
from capsule.node.front.front import Front
from capsule.node.node import Node
from capsule.settings.service import ServeConfig
from capsule_bridge import Bridge, MemoryStore, Promise
from tests.acceptance.serve.support import LONG, Proxy

pytestmark = pytest.mark.anyio

SOME = 20


class Uneven(MemoryStore):
    """A store that takes longer for every second look than for the next one."""

    def __init__(self) -> None:
        super().__init__()
        self._looks = itertools.count()

    async def get(self, id: str, *, now: int) -> Promise:
        if next(self._looks) % 2 == 0:
            for _ in range(SOME):
                await asyncio.sleep(0)
        return await super().get(id, now=now)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("arrived", [1500, 2500])
async def test_pieces_that_were_lost_with_the_connection_run_in_their_order(
    tmp_path: Path, arrived: int, batch: bool
) -> None:
    """So many bytes have arrived at the node before."""
    address, codes = f"ipc://{tmp_path}/node.sock", [f"seen.append({number})" for number in range(SOME)]
    async with AsyncExitStack() as undo, asyncio.timeout(LONG):
        front = Front(await undo.enter_async_context(Node()), ServeConfig(), Bridge(Uneven()))
        undo.push_async_callback(front.close)
        front.listen(address)
        proxy = await undo.enter_async_context(Proxy(tmp_path, address))
        proxy.before = arrived
        client = await undo.enter_async_context(AsyncClient(proxy.address))
        session = await undo.enter_async_context(client.session())
        proxy.before = None
        await session.run("seen = []")
        if batch:
            results = await session.run_all(codes)
        else:
            results = await asyncio.gather(*[execution.result() for execution in map(session.submit, codes)])
        assert {result.verdict for result in results} == {"ok"}
        assert (await session.run(f"seen == [*range({SOME})]")).text == "True"
        assert proxy.connections == 2
