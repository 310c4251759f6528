"""A file on its way to code, in large pieces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from capsule.broker.sdk import CHUNK_BYTES
from capsule.providers.files.errors import explained
from capsule.providers.files.places import place
from capsule.providers.files.schemas import ReadResponse

if TYPE_CHECKING:
    from capsule.broker.sdk import Call
    from capsule.providers.files.means import Means
    from capsule.providers.files.places import Place
    from capsule.providers.files.schemas import ReadRequest

BLOCK: Final = 2 * CHUNK_BYTES
"""Bytes that a thread reads in one go."""


async def read(means: Means, call: Call) -> ReadResponse:
    """Send part of a file. No more than it had when it was opened, so one that grows has an end."""
    request: ReadRequest = call.request
    with place(means.roots, call.scope, request.path) as at:
        source = _Source(at, request)
        try:
            block = await means.threads.run(source.begin)
            while block:
                for start in range(0, len(block), CHUNK_BYTES):
                    await call.send(memoryview(block)[start : start + CHUNK_BYTES])
                block = await means.threads.run(source.next) if source.left else b""
            return ReadResponse(size=source.status.st_size, modified=source.status.st_mtime)
        finally:
            source.close()


class _Source:
    """An open file and where in it we are. `begin` and `next` block."""

    status: os.stat_result

    def __init__(self, at: Place, request: ReadRequest) -> None:
        self._at = at
        self._wanted = request.length
        self._offset = request.offset
        self._file = -1
        self.left = 0

    def begin(self) -> bytes:
        """Open it, and read the first bytes: of a small file, all."""
        self._file, self.status = self._at.open_file(os.O_RDONLY)
        self.left = max(0, self.status.st_size - self._offset)
        if self._wanted is not None:
            self.left = min(self.left, self._wanted)
        return self.next() if self.left else b""

    def next(self) -> bytes:
        """The next bytes; b"" at the end, which comes early if the file has become shorter."""
        with explained(self._at.path):
            data = os.pread(self._file, min(BLOCK, self.left), self._offset)
        self._offset += len(data)
        self.left = self.left - len(data) if data else 0
        return data

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
