"""A provider that nobody should trust."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from acme_caps import Acme, Greeted, Greeting  # type: ignore[import-not-found]  # found where a test puts it
from capsule.broker.sdk import Call, Empty, Limits, Operation


class Odd(Acme):  # type: ignore[misc]  # as above
    descriptor = replace(
        Acme.descriptor,
        name="odd",
        untrusted=True,
        operations={
            "greet": Acme.descriptor.operations["greet"],
            "where": Operation("Say in which process it is, and a variable", Greeting, Greeted, effects=False),
            "hold": Operation("Not be cancelled", Empty, Empty, effects=False, limits=Limits(timeout=0.2)),
            "die": Operation("End the process", Empty, Empty, effects=False),
        },
    )

    async def _where(self, call: Call) -> Greeted:
        return Greeted(value=f"{os.getpid()} {os.environ.get(call.request.name)}")

    async def _hold(self, call: Call) -> Empty:  # noqa: ARG002 (the interface)
        while True:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                continue

    async def _die(self, call: Call) -> Empty:  # noqa: ARG002 (the interface)
        os._exit(3)


def provider() -> Odd:
    return Odd()
