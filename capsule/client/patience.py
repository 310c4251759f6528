"""For how long somebody waits for an execution, which does not end with that."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def at_most(seconds: float | None, execution_id: str, without: str) -> AsyncIterator[None]:
    """Raise TimeoutError, which says what it is `without`, if what is done in here takes more than so many seconds."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():  # it is somebody else's
            raise
        raise TimeoutError(f"the execution {execution_id} {without} after {seconds:g} s, and goes on") from None
