"""A store that fails for a while makes those wait who have to write something down."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, TypeVar

from capsule_protocol.errors import CapsuleError, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

logger = logging.getLogger("capsule.bridge")

FIRST_RETRY, LAST_RETRY = 0.05, 1.0
"""Seconds until a store that failed is tried again: at first, and after many failures."""


async def until_committed(who: str, attempt: Callable[[], Awaitable[T]], *over: str) -> T:
    """Try until the store has done it. Raises CapsuleError other than StoreError, and `store_closed`.

    With codes that are `over` as well, what has one of these is not tried again, but raised.
    What else a store may raise is a mistake of its own; it is told with its place, and may be over as well.
    Each kind of failure is logged once: a thousand who wait for room on a disk must not fill it with that.
    """
    wait, told = FIRST_RETRY, set[object]()
    while True:
        try:
            return await attempt()
        except StoreError as error:
            if error.code in {"store_closed", *over}:
                raise
            if error.code not in told:
                logger.warning("%s waits for the store: %s", who, error)
            told.add(error.code)
        except CapsuleError:
            raise
        except Exception as error:
            if type(error) not in told:
                logger.exception("%s waits for the store", who)
            told.add(type(error))
        await asyncio.sleep(wait)
        wait = min(2 * wait, LAST_RETRY)
