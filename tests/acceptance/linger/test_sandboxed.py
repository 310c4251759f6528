"""A box outlives its node in a sandbox too, and the next node reaches its files, its processes and its bounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from capsule.events import Finished
from capsule.node.execution import ExecuteRequest
from capsule_kernels.sandbox.cgroups import candidates
from tests.acceptance.linger.support import written
from tests.acceptance.sandbox.rig import control_groups, held_in_sockets

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
        groups = [path for folder in candidates() for path in Path(folder).glob("capsule-*")]
        own = [group for group in groups if str(session.info().pid) in (group / "cgroup.procs").read_text().split()]
        assert len(own) == 2
        (verdict,) = await place.finish(session)
        assert verdict.verdict == "ok"
        greedy = session.submit(ExecuteRequest(held_in_sockets(400 * 2**20)))
        ended = await greedy.finished()
        assert ended.verdict == "oom"
    assert not any(group.exists() for group in own)
