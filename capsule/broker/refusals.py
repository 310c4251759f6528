"""Calls that are refused before they are looked at, since a session asks for more at once than it may.

They are recorded as all others are, but together: the first at once, and how many there have been since after a while.
So code that asks without end fills neither the node's memory nor the trail.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from capsule_protocol.errors import CapabilityDenied

if TYPE_CHECKING:
    from capsule.broker.checkpoint import Checkpoint
    from capsule.broker.sdk import Asker
    from capsule.node.tasks import Tasks

logger = logging.getLogger("capsule.broker")

PAUSE = 1.0
"""Seconds between two records of one session's."""


class Refusals:
    """Those of one session."""

    def __init__(self, checkpoint: Checkpoint, tasks: Tasks) -> None:
        self._checkpoint = checkpoint
        self._tasks = tasks
        self._counts: Counter[str] = Counter()
        self._writer: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    def add(self, asker: Asker, code: str, why: str) -> None:
        """One more; `why` it was, is told of the first."""
        self._counts[code] += 1
        if self._writer is None or self._writer.done():
            self._writer = self._tasks.start(self._write(asker, why))

    async def end(self) -> None:
        """Record what has not been recorded yet. Idempotent."""
        self._over.set()
        if self._writer is not None:
            await asyncio.wait([self._writer])
        self._over.clear()

    async def _write(self, asker: Asker, why: str) -> None:
        checkpoint = self._checkpoint
        while self._counts:
            counts, self._counts = self._counts, Counter()
            for code, count in counts.items():
                try:
                    await checkpoint.recorder.refused(asker, code, why, count, checkpoint.policy)
                except CapabilityDenied as error:  # nothing was allowed, so nothing has to be taken back
                    logger.warning("%d refusals of session %s were not recorded: %s", count, asker.session, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE):
                    await self._over.wait()
