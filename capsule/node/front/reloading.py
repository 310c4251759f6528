"""Reading the configuration again while the service runs: each SIGHUP asks for it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from capsule.node.front.notify import notify
from capsule.settings.reload import plan
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from capsule.broker.broker import Reloaded
    from capsule.config import NodeConfig
    from capsule.settings.reload import Reload

    Told = Reload | CapsuleError | OSError

logger = logging.getLogger("capsule.front")


class Reloading:
    """`load` reads the new configuration, `tell` gets what became of it: what changed, or why nothing did."""

    def __init__(self, load: Callable[[], NodeConfig], tell: Callable[[Told], None]) -> None:
        self._load = load
        self._tell = tell
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Do it, as soon as the service is ready."""
        self._asked.set()

    async def run(
        self, config: NodeConfig, apply: Callable[[NodeConfig], Coroutine[Any, Any, Reloaded | None]]
    ) -> None:
        """Reload whenever it is asked for, until cancelled, one after another; `config` is the one in force."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            # Both in one datagram, as systemd's Type=notify-reload wants it.
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            told: Told
            try:
                told = plan(config, self._load())
            except (CapsuleError, OSError) as error:
                told = error
            else:
                config = told.config
                told.policy = await apply(config)
            self._say(told)
            notify("READY=1")

    def _say(self, told: Told) -> None:
        try:
            self._tell(told)
        except OSError as error:  # nobody reads our output any more; the service goes on
            logger.warning("what became of a reload could not be told: %s", error)
