"""Clients that kill themselves at a given step: `python -m tests.acceptance.serve.victims`.

Reads an order a line, forks a client for each, and answers with how it ended. A step is a call or a return of any
function, Python's or C's, in the client's process: so every moment between two of them is one at which it may die.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from capsule import AsyncClient, InputRequest


def main() -> None:
    """Serve orders until the end of input."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _live(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _live(order: dict[str, Any]) -> None:
    """Be a client, up to the fatal step; without one, tell how many there were."""
    steps = 0

    def step(_frame: object, _event: str, _argument: object) -> None:
        nonlocal steps
        steps += 1
        if steps == order["fatal"]:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(step)
    asyncio.run(_use(order))
    sys.setprofile(None)
    Path(order["file"] + ".steps").write_text(str(steps))
    os._exit(0)


async def _use(order: dict[str, Any]) -> None:
    """Come back to the session, ask for the execution by its key, and write down each event."""
    descriptor = os.open(order["file"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    async with AsyncClient(order["address"]) as client:
        session = await client.attach(order["session"])
        async with session.stream(order["code"], key=order["key"], on_input=_answer) as events:
            async for event in events:
                os.write(descriptor, (repr(event) + "\n").encode())
        await session.detach()


def _answer(_request: InputRequest) -> str:
    return "Ada"


if __name__ == "__main__":
    main()
