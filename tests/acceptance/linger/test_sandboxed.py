"""A box outlives its node in a sandbox too, and the next node reaches its files, its processes and its bounds."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from capsule.events import Finished
from capsule.node.execution import ExecuteRequest
from capsule_kernels.sandbox.cgroups import candidates
from tests.acceptance.linger.support import LONG, written
from tests.acceptance.sandbox.rig import control_groups, held_in_sockets
from tests.unit.kernels.forked import Watch

if TYPE_CHECKING:
    from tests.acceptance.linger.support import Place

pytestmark = pytest.mark.anyio

CELL = """
import time
open("made", "w").write("before")
for number in range(100):
    print("line", number, flush=True)
    time.sleep(0.01)
"""


def groups_of(worker: int | None) -> list[Path]:
    """Those that it is in; with version 1 one for each controller."""
    groups = [path for folder in candidates() for path in Path(folder).glob("capsule-*")]
    return [group for group in groups if str(worker) in (group / "cgroup.procs").read_text().split()]


@pytest.mark.parametrize(
    "environment",
    # Where the tests run as root their interpreter may be where only root can read it.
    [{"sandbox": "namespaces"}, {"sandbox": "landlock", "uid": 0}],
    ids=["namespaces", "landlock"],
)
async def test_a_session_goes_on_in_its_sandbox(place: Place, environment: dict[str, Any]) -> None:
    place.start(CELL, environment=environment)
    await place.until_written("line 10")
    place.kill()
    async with place.adopted() as session:
        (verdict,) = await place.finish(session)
        assert verdict.verdict == "ok"
        assert "line 99" in written(place.store.events())
        assert session.info().sandbox == environment["sandbox"]
        assert [file.name for file in await session.files.list()] == ["made"]
        again = session.submit(ExecuteRequest("open('made').read()"))
        assert (await again.finished()).text == "'before'"
        endless = session.submit(ExecuteRequest("print('on', flush=True)\nwhile True: pass"))
        async for event in endless:
            if getattr(event, "text", "") == "on\n":
                await session.interrupt()
        assert isinstance(event, Finished)
        assert event.verdict == "interrupted"


@pytest.mark.skipif(not control_groups(), reason="this user can make no control groups here")
async def test_its_control_group_bounds_it_for_the_next_node_too_and_goes_with_it(place: Place) -> None:
    environment = {"sandbox": "landlock", "uid": 0 if os.geteuid() == 0 else None}
    place.start(CELL, environment=environment, options={"memory_bytes": 200 * 2**20})
    await place.until_written("line 10")
    place.kill()
    async with place.adopted() as session:
        own = groups_of(session.info().pid)
        assert own
        (verdict,) = await place.finish(session)
        assert verdict.verdict == "ok"
        greedy = session.submit(ExecuteRequest(held_in_sockets(400 * 2**20)))
        ended = await greedy.finished()
        assert ended.verdict == "oom"
    assert not any(group.exists() for group in own)


@pytest.mark.skipif(not control_groups(), reason="this user can make no control groups here")
async def test_a_box_whose_empty_group_was_swept_sleeps_until_the_next_node_comes(place: Place) -> None:
    environment = {"sandbox": "landlock", "uid": 0 if os.geteuid() == 0 else None}
    place.start("1", environment=environment, options={"memory_bytes": 200 * 2**20})
    await place.until_idle()
    record = place.box()
    own = groups_of(record.worker[0])
    assert own
    place.kill()
    os.kill(record.worker[0], signal.SIGKILL)
    async with asyncio.timeout(LONG):
        while any(group.exists() for group in own):
            for group in own:
                with suppress(OSError):  # it is still ending
                    group.rmdir()
            await asyncio.sleep(0)
        while psutil.Process(record.box[0]).status() != psutil.STATUS_SLEEPING:
            await asyncio.sleep(0)
    async with place.adopted():
        pass
    await Watch(record.box[0]).ended()  # the next node came, and closed it
