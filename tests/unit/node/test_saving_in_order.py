"""A session that is saved while something asked of it before is still being written down."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient
from capsule.node.front.front import Front
from capsule.node.node import Node
from capsule.settings.service import ServeConfig
from capsule_bridge import Bridge, MemoryStore, NewPromise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule_bridge import Created

pytestmark = pytest.mark.anyio

LONG = 60.0


class SlowStore(MemoryStore):
    """A store that writes down no execution until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may, self.asked = asyncio.Event(), asyncio.Event()
        self.may.set()

    async def create(self, new: NewPromise, *, now: int) -> Created:
        if new.kind == "execute" and not self.may.is_set():
            self.asked.set()
            await self.may.wait()
        return await super().create(new, now=now)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder that is ours alone; the key of the node is there, too."""
    folder = Path(tempfile.mkdtemp(prefix="o-"))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    yield folder
    shutil.rmtree(folder)


async def test_a_save_holds_what_was_asked_for_before_it_and_was_not_lined_up_yet(place: Path) -> None:
    store = SlowStore()
    async with Node() as node, AsyncClient(f"ipc://{place}/node.sock") as client, asyncio.timeout(LONG):
        front = Front(node, ServeConfig(), Bridge(store))
        front.listen(f"ipc://{place}/node.sock")
        try:
            session = await client.session()
            await session.run("x = 'before'")
            await session.save()  # so that all that is made for the first one is there
            store.may.clear()
            execution = session.submit("x = 'asked for'")
            await store.asked.wait()
            saving = asyncio.create_task(session.save(names=["x"]))
            for _ in range(200):  # meanwhile one that waits for nothing would have come to its end
                await client.info()
                assert not saving.done()
            store.may.set()
            report = await saving
            assert (await execution.result()).verdict == "ok"
            await session.run("x = 'later'")
            await session.restore(report.data or b"")
            assert (await session.run("x")).text == "'asked for'"
        finally:
            await front.close()
