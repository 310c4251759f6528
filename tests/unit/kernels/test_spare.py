"""The box that a zygote keeps ahead: it is the next worker's, holds nothing of others, and nobody depends on it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule_kernels.directories import sweep
from tests.unit.kernels.forked import (
    LONG,
    WAIT,
    Watch,
    boxes_of,
    close,
    forked,
    open_descriptors,
    running_zygote,
    spare_of,
    told,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from capsule.node.launch import Zygote

pytestmark = pytest.mark.anyio


@pytest.fixture
async def zygote() -> AsyncIterator[Zygote]:
    async with running_zygote() as zygote:
        yield zygote


async def test_it_is_the_box_of_the_next_worker(zygote: Zygote) -> None:
    seen = set()
    for _ in range(3):
        seen.add(spare := await spare_of(zygote))
        async with forked(zygote, "import os; report(os.getppid()); " + WAIT) as child:
            assert await child.report() == child.box.pid == spare
            assert spare in boxes_of(zygote.pid)
    assert len(seen) == 3


async def test_it_holds_nothing_of_the_zygote_and_belongs_to_a_session_of_its_own(zygote: Zygote) -> None:
    """The end of the zygote's connection would not be seen while somebody else has it."""
    spare = await spare_of(zygote)
    kinds = sorted(target.split(":")[0] for target in open_descriptors(spare).values())
    assert kinds.count("socket") == 1
    assert set(kinds) == {"/dev/null", "socket"}
    assert os.getsid(spare) == os.getpgid(spare) == spare


async def test_requests_that_come_at_once_do_not_wait_for_one(zygote: Zygote) -> None:
    spare = await spare_of(zygote)
    numbers = await asyncio.gather(*(told(zygote, "import os; report(os.getppid())") for _ in range(5)))
    assert spare in numbers
    assert len(set(numbers)) == 5


async def test_its_box_has_locked_the_directory(zygote: Zygote, tmp_path: Path) -> None:
    """Or the next zygote would take it for one that a crash has left."""
    spare = await spare_of(zygote)
    async with forked(zygote, "import os; os.read(page, 1); report('alive')", tmp_path) as child:
        assert child.box.pid == spare
        await child.box.bound()
        await close(zygote)
        sweep(str(tmp_path))
        assert Path(child.directory).is_dir()
        os.write(child.page, b"x")
        assert await child.report() == "alive"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_one_that_is_killed_or_stopped_costs_nobody_a_worker(zygote: Zygote, number: signal.Signals) -> None:
    spare = await spare_of(zygote)
    watch = Watch(spare)
    os.kill(spare, number)
    await watch.ended()
    assert await told(zygote, "import os; report(os.getppid())") != spare
    assert await spare_of(zygote) != spare


async def test_one_that_was_killed_a_moment_ago_costs_nobody_a_worker(zygote: Zygote) -> None:
    """The zygote has not heard of it yet."""
    spare = await spare_of(zygote)
    os.kill(zygote.pid, signal.SIGSTOP)
    try:
        fork = asyncio.create_task(told(zygote, "import os; report(os.getppid())"))
        watch = Watch(spare)
        os.kill(spare, signal.SIGKILL)
        await watch.ended()
    finally:
        os.kill(zygote.pid, signal.SIGCONT)
    async with asyncio.timeout(LONG):
        assert await fork != spare


@pytest.mark.parametrize("killed", [False, True])
async def test_it_ends_with_its_zygote(killed: bool) -> None:
    async with running_zygote() as zygote:
        watch = Watch(await spare_of(zygote))
        if killed:
            os.kill(zygote.pid, signal.SIGKILL)
        else:
            await close(zygote)
        await watch.ended()
