"""Callers whose answers are checked to have an order: `python caller.py URL SCHEMA SEED` is a process of them.

It goes on by a few promises for each line that it reads, so that no process is far ahead of another, and answers with a
line. At the end it writes each call as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from typing import Any

from capsule_bridge import PromiseStore, Settlement
from capsule_protocol.errors import CapsuleError
from tests.unit.bridge.linear import Call
from tests.unit.bridge.support import new

PROMISES = 80
CLIENTS = 5
STEP = 8


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


async def client(store: PromiseStore, who: str, chance: random.Random, numbers: range) -> list[tuple[str, list[Any]]]:
    """One call after another, each on the next promise, so that all clients of all processes meet at it."""
    calls = []
    for number in numbers:
        what, name = chance.choice(["create", "create", "settle", "settle", "start", "get"]), f"p{number}"
        begin = time.monotonic_ns()  # the same clock in all processes
        answer = await asked(store, what, name, who)
        calls.append((name, [what, who, answer, begin, time.monotonic_ns()]))
    return calls


def histories(url: str, schema: str, seeds: list[str]) -> dict[str, list[Call]]:
    """What a process for each seed heard of each promise, all of them at once."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    commands = [[sys.executable, "-P", __file__, url, schema, seed] for seed in seeds]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for command in commands
    ]
    for _ in range(1 + PROMISES // STEP):
        for each in processes:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        for each in processes:
            assert each.stdout is not None
            assert each.stdout.readline() == "there\n"
    outputs = [_rest(each) for each in processes]
    found: dict[str, list[Call]] = {}
    for output in outputs:
        for line in output.splitlines():
            name, (what, argument, answer, begin, end) = json.loads(line)
            heard = tuple(answer) if isinstance(answer, list) else answer
            found.setdefault(name, []).append(Call(what, argument, heard, begin, end))
    return found


def _rest(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.close()
        output = process.stdout.read()
    assert process.returncode == 0
    return output


async def main(url: str, schema: str, seed: str) -> None:
    from capsule_bridge.postgres import PostgresStore

    store = PostgresStore(url, schema=schema)
    chances = [random.Random(f"{seed}{n}") for n in range(CLIENTS)]
    calls: list[tuple[str, list[Any]]] = []
    sys.stdin.readline()
    print("there", flush=True)
    for first in range(0, PROMISES, STEP):
        sys.stdin.readline()
        numbers = range(first, first + STEP)
        clients = (client(store, f"{seed}.{n}", chance, numbers) for n, chance in enumerate(chances))
        for each in await asyncio.gather(*clients):
            calls += each
        print("there", flush=True)
    for call in calls:
        print(json.dumps(call))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
