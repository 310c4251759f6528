"""Callers whose answers are checked to have an order: `python caller.py URL SCHEMA SEED` is a process of them.

It tells when it is ready, begins when its input ends, and writes the history of each promise as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

from capsule_bridge import PromiseStore, Settlement
from capsule_protocol.errors import CapsuleError
from tests.unit.bridge.support import new

PROMISES = 80
CLIENTS = 5


async def asked(store: PromiseStore, what: str, name: str, argument: str) -> Any:
    """The answer in the words of `linear`."""
    try:
        if what == "create":
            return (await store.create(new(name), now=1)).fresh
        if what == "start":
            return (await store.start(name, epoch=1, now=1)).first
        if what == "get":
            promise = await store.get(name, now=1)
            return promise.value.decode() if promise.settled_at is not None else "pending"
        ((promise, decided),) = await store.settle(Settlement(name, "resolve", argument.encode()), now=1)
        return decided, promise.value.decode()
    except CapsuleError as error:
        return error.code


async def client(store: PromiseStore, who: str, chance: random.Random) -> list[tuple[str, list[Any]]]:
    """One call after another, each on the next promise, so that all clients of all processes meet at it."""
    calls = []
    for number in range(PROMISES):
        what, name = chance.choice(["create", "create", "settle", "settle", "start", "get"]), f"p{number}"
        begin = time.monotonic_ns()  # the same clock in all processes
        answer = await asked(store, what, name, who)
        calls.append((name, [what, who, answer, begin, time.monotonic_ns()]))
    return calls


async def main(url: str, schema: str, seed: str) -> None:
    from capsule_bridge.postgres import PostgresStore

    store = PostgresStore(url, schema=schema)
    print("ready", flush=True)
    sys.stdin.read()
    chances = [random.Random(f"{seed}{n}") for n in range(CLIENTS)]
    calls = await asyncio.gather(*(client(store, f"{seed}.{n}", chance) for n, chance in enumerate(chances)))
    for each in calls:
        for call in each:
            print(json.dumps(call))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
