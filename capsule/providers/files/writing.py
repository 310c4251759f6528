"""A file on its way from code: replaced as a whole, or added to."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from capsule.broker.sdk import CHUNK_BYTES
from capsule.providers.files.drafts import Draft
from capsule.providers.files.places import place
from capsule.providers.files.schemas import WriteResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from capsule.broker.sdk import Call
    from capsule.providers.files.means import Means
    from capsule.providers.files.places import Place
    from capsule.providers.files.schemas import AppendRequest, WriteRequest

Opened: TypeAlias = tuple[int, os.stat_result]


async def write(means: Means, call: Call) -> WriteResponse:
    """Put the body in the place of a file, or where there is none."""
    request: WriteRequest = call.request
    with place(means.roots, call.scope, request.path) as at:
        async with _gathered(means, call, at, replace=request.exist_ok) as draft:
            await means.threads.drive(draft.settle(replace=request.exist_ok, sync=request.sync))
            return WriteResponse(size=draft.size)


async def append(means: Means, call: Call) -> WriteResponse:
    """Add the body at the end of a file, which is made if there is none: all of it or nothing."""
    request: AppendRequest = call.request
    with place(means.roots, call.scope, request.path) as at:
        async with _gathered(means, call, at, replace=True) as draft:
            while True:
                opened: list[Opened] = []
                try:
                    await means.threads.run(partial(_open, at, opened))
                    async with means.alone(opened[0][1]):
                        size = await means.threads.drive(_add(draft, opened[0][0], sync=request.sync))
                    return WriteResponse(size=size)
                except FileNotFoundError:
                    if await _made(means, draft, sync=request.sync):
                        return WriteResponse(size=draft.size)
                finally:
                    for descriptor, _ in opened:
                        os.close(descriptor)


async def _made(means: Means, draft: Draft, *, sync: bool) -> bool:
    try:
        await means.threads.drive(draft.settle(replace=False, sync=sync))
    except FileExistsError:  # somebody has made it meanwhile
        return False
    return True


@asynccontextmanager
async def _gathered(means: Means, call: Call, at: Place, *, replace: bool) -> AsyncIterator[Draft]:
    """The body, with no name as yet; nothing is left of it unless it gets one."""
    draft = Draft(at)
    try:
        await means.threads.run(partial(draft.begin, replace=replace))
        pieces: list[bytes] = []
        size = 0
        async for chunk in call.body:
            pieces.append(chunk)
            size += len(chunk)
            if size >= CHUNK_BYTES:
                await means.threads.run(partial(draft.write, b"".join(pieces)))
                pieces, size = [], 0
        if size:
            await means.threads.run(partial(draft.write, b"".join(pieces)))
        yield draft
    finally:
        await means.threads.run(draft.discard, always=True)


def _open(at: Place, opened: list[Opened]) -> None:
    opened.append(at.open_file(os.O_WRONLY | os.O_APPEND))


def _add(draft: Draft, file: int, *, sync: bool) -> Generator[None, None, int]:
    """Copy it to the end of a file. What was added is taken off again if that is cancelled, or fails."""
    before = size = os.fstat(file).st_size
    try:
        for block in draft.blocks():
            left = memoryview(block)
            while left:
                written = os.write(file, left)
                size += written
                left = left[written:]
            yield
        if sync:
            os.fsync(file)
    except BaseException:
        if os.fstat(file).st_size == size:  # what somebody else added after it would go too
            os.ftruncate(file, before)
        raise
    return os.fstat(file).st_size
