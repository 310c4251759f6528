"""A process that writes to a store and is killed at a place of its writer: `python victim.py FILE`.

Each line of its input is a round as JSON. For each it forks a child, which works on the store, tells each fact after it
has been acknowledged, and kills itself. The round ends with `["end", SIGNAL]`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from capsule_bridge import NewPromise, Retention, Settlement, SqliteStore
from capsule_bridge.sqlite import writer
from capsule_bridge.sqlite.faults import FaultPoint
from capsule_bridge.states import Action

WRITERS = 6
EXECUTIONS = 200
ACTIONS: tuple[Action, ...] = ("resolve", "reject", "cancel")
LARGE = "large" * 20_000


def main() -> None:
    """Serve rounds until the input ends."""
    path = Path(sys.argv[1])
    # Often enough to be killed there.
    writer.CHECKPOINT_BYTES = 40_000
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            # A process that survives has done all its work, and says so by its end.
            asyncio.run(work(path, json.loads(line)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        tell("end", os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status))


def tell(*fact: Any) -> None:
    """One write, so that a line is there wholly or not at all."""
    os.write(1, (json.dumps(fact) + "\n").encode())


def killer(point: str, hits: int) -> Callable[[FaultPoint], None]:
    """Ends the process when its writer comes by a point for the so manieth time."""
    loop = asyncio.get_running_loop()
    passed: Counter[str] = Counter()

    def fault(at: FaultPoint) -> None:
        passed[at] += 1
        if at == point and passed[at] == hits:
            heard(loop)
            os.kill(os.getpid(), signal.SIGKILL)

    return fault


def heard(loop: asyncio.AbstractEventLoop) -> None:
    """Wait until the loop has told all that was answered so far: an answer that nobody hears cannot be a wrong one."""
    done = threading.Event()
    turns = iter(range(5))

    def turn() -> None:
        if next(turns, None) is None:
            done.set()
        else:
            loop.call_soon(turn)

    loop.call_soon_threadsafe(turn)
    done.wait()


async def work(path: Path, order: dict[str, Any]) -> None:
    """Several writers at once, each with executions of its own, and keys that two of them share."""
    store = SqliteStore(path, order["level"], fault=killer(order["point"], order["hits"]))
    await asyncio.gather(*(writes(store, order["round"], number, order["seed"]) for number in range(WRITERS)))
    await store.close()


async def writes(store: SqliteStore, turn: int, number: int, seed: int) -> None:
    """Executions one after another, from acceptance to verdict."""
    chance = random.Random(seed * WRITERS + number)
    for count in range(EXECUTIONS):
        await execution(store, f"{turn}.{number}.{count}", f"{turn}.{number // 2}.{count}", chance)
        if chance.random() < 0.1:
            await store.expire(now=2, retention=Retention())


async def execution(store: SqliteStore, name: str, key: str, chance: random.Random) -> None:
    """Accept, start, log and settle; some wait for a child, are never settled, or have large values."""
    param = (LARGE if chance.random() < 0.1 else "small") + key
    new = NewPromise(name, "execute", "s", key.encode(), param.encode(), key=key)
    promise = (await store.create(new, now=1)).promise
    tell("created", key, promise.id, len(promise.param))
    started = await store.start(promise.id, epoch=1, now=1)
    if started.first:
        tell("started", promise.id)
        await log(store, promise.id, chance)
    if chance.random() < 0.3:
        child = f"{name}:input:1"
        await known(store.create(NewPromise(child, "input", "s", b"", parent=promise.id), now=1))
    if chance.random() < 0.8:
        value = (LARGE if chance.random() < 0.1 else "") + name
        ((settled, _),) = await store.settle(Settlement(promise.id, chance.choice(ACTIONS), value.encode()), now=2)
        tell("settled", promise.id, settled.state, settled.value[-40:].decode(), len(settled.value))


async def log(store: SqliteStore, name: str, chance: random.Random) -> None:
    last = 0
    for _ in range(chance.randrange(4)):
        events = [f"{name}/{last + n}".encode() for n in range(1, chance.randrange(2, 5))]
        if not await known(store.append(name, events, after=last)):
            return
        last += len(events)
        tell("logged", name, last)


async def known(call: Awaitable[object]) -> bool:
    """Two writers share a promise, so the other one may have settled it meanwhile; nothing else may go wrong."""
    try:
        await call
        return True
    except Exception as error:
        if getattr(error, "code", "") != "promise_settled":
            raise
        return False


if __name__ == "__main__":
    main()
