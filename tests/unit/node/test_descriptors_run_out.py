"""Whichever descriptor is the one too many: that is told, nothing is left, and the next attempt may work."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgpack
import pytest

from capsule.node.box import Box
from capsule.node.launch import Zygote
from capsule.node.leases import lease_pair
from capsule.node.worker import Place, Preparation, Worker
from capsule_protocol.errors import SessionError
from tests.unit.kernels.forked import LONG, close, open_descriptors
from tests.unit.node.support import assert_nothing_more, state_of_this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

MANY = 40
"""More descriptors than three workers or a zygote take."""


@contextmanager
def only(spare: int) -> Iterator[None]:
    """So many more can be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + MANY + 1, hard))
    held = []
    try:
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        for _ in range(spare):
            os.close(held.pop())
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def until_nothing_more(before: set[str]) -> None:
    """Boxes that were forked in vain go by themselves."""
    async with asyncio.timeout(LONG):
        while state_of_this_process() - before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("at_once", [1, 3])
async def test_workers(at_once: int) -> None:
    before = state_of_this_process()
    zygote = await Zygote.start()
    begun = state_of_this_process()
    refused = made = spare = 0
    while made < at_once:
        with only(spare):
            attempts = [Worker.prepare(Place(zygote, None), Preparation()) for _ in range(at_once)]
            ended = await asyncio.gather(*attempts, return_exceptions=True)
        refusals = [str(one) for one in ended if not isinstance(one, Worker)]
        assert all("descriptors_exhausted" in one for one in refusals), (spare, refusals)
        refused, made, spare = refused + len(refusals), at_once - len(refusals), spare + 1
        for worker in ended:
            if isinstance(worker, Worker):
                await end(worker)
        await until_nothing_more(begun)
    assert refused > 5 * at_once
    assert spare < MANY
    await close(zygote)
    await until_nothing_more(before)


async def end(worker: Worker) -> None:
    worker.watching = asyncio.ensure_future(worker.watch())
    await worker.close()
    await worker.watching


async def test_a_zygote() -> None:
    before = state_of_this_process()
    zygote = None
    refusals = 0
    while zygote is None:
        try:
            with only(refusals):
                zygote = await Zygote.start()
        except SessionError as error:
            assert error.code == "descriptors_exhausted", (refusals, error)  # noqa: PT017 - the other way it has worked
            refusals += 1
            await until_nothing_more(before)
    assert 2 < refusals < MANY
    await close(zygote)
    await until_nothing_more(before)


async def test_the_one_that_a_box_sends(tmp_path: Path) -> None:
    """The system then leaves it out of the message."""
    before = state_of_this_process()
    ours, theirs = lease_pair()
    with theirs, only(0):
        socket.send_fds(theirs, [msgpack.packb({"worker": os.getpid()})], [theirs.fileno()])
        with pytest.raises(SessionError) as caught:
            await Box.open(os.getpid(), ours, str(tmp_path))
        assert caught.value.code == "descriptors_exhausted"
    assert_nothing_more(before)
