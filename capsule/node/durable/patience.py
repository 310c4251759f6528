"""A store that fails for a while makes those wait who have to write something down."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

logger = logging.getLogger("capsule.bridge")

FIRST_RETRY, LAST_RETRY = 0.05, 1.0
"""Seconds until a store that failed is tried again: at first, and after many failures."""


async def until_committed(who: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Try until the store has done it. Raises all but StoreError, and that when the store has been closed."""
    wait = FIRST_RETRY
    while True:
        try:
            return await attempt()
        except StoreError as error:
            if error.code == "store_closed":
                raise
            logger.warning("%s waits for the store: %s", who, error)
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_RETRY)
