"""A worker that does not start says why, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule.node.launch import Zygote
from capsule.node.worker import LAST_WORDS_BYTES, Place, Preparation, Worker
from capsule_protocol.errors import WorkerLost
from tests.unit.kernels.forked import CHILDREN, LONG, Watch, boxes_of, close
from tests.unit.node.support import assert_nothing_more, state_of_this_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """Where workers start that run this function; nothing is left in the end."""
    before = state_of_this_process()
    zygote = await Zygote.start(path=[CHILDREN], worker=request.param)
    yield Place(zygote, None)
    await close(zygote)
    assert_nothing_more(before)


async def start_of(place: Place, warmup: str = "") -> WorkerLost:
    """Why it did not start."""
    with pytest.raises(WorkerLost) as caught:
        await Worker.prepare(place, Preparation(warmup=warmup))
    assert caught.value.code == "worker_start_failed"
    return caught.value


@pytest.mark.parametrize("place", ["box_worker:failing"], indirect=True)
async def test_a_worker_that_raises_while_it_starts_is_told_with_the_end_of_what_it_said(place: Place) -> None:
    error = await start_of(place)
    assert "ended while it started: exit code 70: LookupError: no such späm" in error.message
    traceback = error.details["traceback"]
    assert "xxx\nTraceback (most recent call last)" in traceback
    assert traceback.endswith("LookupError: no such späm")
    assert len(traceback.encode()) <= LAST_WORDS_BYTES


@pytest.mark.parametrize("place", ["box_worker:silent"], indirect=True)
async def test_a_worker_that_ends_without_a_word_is_told_without_one(place: Place) -> None:
    error = await start_of(place)
    assert error.message.endswith("exit code 5")
    assert error.details == {}


@pytest.mark.parametrize("place", ["capsule_kernels.worker:main"], indirect=True)
async def test_a_worker_that_its_warm_up_code_ends_is_told_with_what_it_said(place: Place) -> None:
    """Also what was written by `print`, which the worker holds in the page for a moment."""
    error = await start_of(place, "import os, sys\nprint('no licence', file=sys.stderr)\nprint('out')\nos._exit(3)")
    assert error.message.endswith("exit code 3: no licence")
    assert error.details["traceback"] == "no licence"


@pytest.mark.parametrize("place", ["capsule_kernels.worker:main"], indirect=True)
async def test_what_a_worker_says_before_it_is_ready_is_not_kept(place: Place) -> None:
    worker = await Worker.prepare(place, Preparation(warmup="import os; os.write(2, b'a warning')"))
    try:
        assert worker._hearing.last_words == b""
    finally:
        worker._box.close()  # type: ignore[union-attr]  # it has one: it has started
        await worker.watch()


@pytest.mark.parametrize("place", ["capsule_kernels.worker:main"], indirect=True)
async def test_a_start_that_is_cancelled_again_does_not_wait_for_its_box(place: Place, tmp_path: Path) -> None:
    """As by whoever has no more time to wait: what it has here is given back, and the box ends by itself."""
    begun = tmp_path / "begun"
    warmup = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(1000)"
    start = asyncio.ensure_future(Worker.prepare(place, Preparation(warmup=warmup)))
    async with asyncio.timeout(LONG):
        while not begun.exists():
            await asyncio.sleep(0.01)
        (box,) = boxes_of(place.zygote.pid)
        watch = Watch(box)
        for pid in (place.zygote.pid, box):
            os.kill(pid, signal.SIGSTOP)
        for _ in range(2):
            start.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await start
        for pid in (box, place.zygote.pid):
            os.kill(pid, signal.SIGCONT)
        await watch.ended()
