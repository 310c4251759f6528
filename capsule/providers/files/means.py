"""What operations work with."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from capsule.providers.files.roots import Roots
from capsule.providers.files.threads import Threads
from capsule_protocol.errors import CapabilityFailed

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Iterator

MOST_WATCHES: Final = 64
"""Of all sessions. The system allows a user 128, and the node has other uses for them."""


class Means:
    """The roots that are open, the threads, and who adds to which file."""

    def __init__(self) -> None:
        self.roots = Roots()
        self.threads = Threads()
        self._watches = 0
        self._adding: WeakValueDictionary[tuple[int, int], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def alone(self, status: os.stat_result) -> AsyncIterator[None]:
        """One at a time adds to a file, whatever the path by which it is found."""
        key = (status.st_dev, status.st_ino)
        lock = self._adding.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    @contextmanager
    def watching(self) -> Iterator[None]:
        """One more watch. Raises CapabilityFailed `provider_unavailable` if there are too many."""
        if self._watches >= MOST_WATCHES:
            raise CapabilityFailed("provider_unavailable", f"{MOST_WATCHES} watches are under way on this node already")
        self._watches += 1
        try:
            yield
        finally:
            self._watches -= 1

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        self.threads.close()
        self.roots.close()
