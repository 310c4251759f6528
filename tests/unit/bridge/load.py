"""What a node does to its store, with several executions at once: the load of tests that kill it or cut its power."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable
from hashlib import blake2b
from typing import Any, Protocol

from capsule_bridge import NewPromise, PromiseStore, Retention, Settlement
from capsule_bridge.states import Action

WRITERS = 6
EXECUTIONS = 200
ACTIONS: tuple[Action, ...] = ("resolve", "reject", "cancel")
LARGE = "large" * 20_000


class Tell(Protocol):
    """Takes a fact after it has been acknowledged: what it is, and then its parts."""

    def __call__(self, *fact: Any) -> None: ...


async def load(store: PromiseStore, turn: str, seed: int, tell: Tell) -> None:
    """Several writers at once, each with executions of its own, and keys that two of them share."""
    await asyncio.gather(*(_writes(store, turn, number, seed, tell) for number in range(WRITERS)))


def digest(data: bytes) -> str:
    """What stands for a value among the facts."""
    return blake2b(data, digest_size=8).hexdigest()


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


async def _writes(store: PromiseStore, turn: str, number: int, seed: int, tell: Tell) -> None:
    """Executions one after another, from acceptance to verdict."""
    chance = random.Random(seed * WRITERS + number)
    for count in range(EXECUTIONS):
        await _execution(store, f"{turn}.{number}.{count}", f"{turn}.{number // 2}.{count}", chance, tell)
        if chance.random() < 0.1:
            await store.expire(now=2, retention=Retention())


async def _execution(store: PromiseStore, name: str, key: str, chance: random.Random, tell: Tell) -> None:
    """Accept, start, log and settle; some wait for a child, are never settled, or have large values."""
    param = (LARGE if chance.random() < 0.1 else "small") + key
    at_once = chance.random() < 0.5
    new = NewPromise(name, "execute", "s", key.encode(), param.encode(), key=key)
    if at_once:
        new = new._replace(epoch=1, log=(_event(name, 1),))
    promise, fresh = await store.create(new, now=1)
    tell("created", key, promise.id, digest(promise.param))
    first = fresh if at_once else (await store.start(promise.id, epoch=1, now=1)).first
    last = 0
    if first:
        tell("started", promise.id)
        last = await _log(store, promise.id, int(at_once), chance, tell)
    if chance.random() < 0.3:
        child = f"{name}:input:1"
        await _known(store.create(NewPromise(child, "input", "s", b"", parent=promise.id), now=1))
    if chance.random() < 0.8:
        value = (LARGE if chance.random() < 0.1 else "") + name
        # Only who has started it knows the end of its log.
        log = (_event(promise.id, last + 1),) if first else ()
        verdict = Settlement(promise.id, chance.choice(ACTIONS), value.encode(), log=log, after=last)
        ((settled, decided),) = await store.settle(verdict, now=2)
        tell("settled", promise.id, settled.state, digest(settled.value))
        if decided and log:
            tell("logged", promise.id, last + 1)


async def _log(store: PromiseStore, name: str, last: int, chance: random.Random, tell: Tell) -> int:
    """The number of the last event."""
    if last:
        tell("logged", name, last)
    for _ in range(chance.randrange(4)):
        events = [_event(name, last + n) for n in range(1, chance.randrange(2, 5))]
        if not await _known(store.append(name, events, after=last)):
            break
        last += len(events)
        tell("logged", name, last)
    return last


def _event(name: str, number: int) -> bytes:
    return f"{name}/{number}".encode()


async def _known(call: Awaitable[object]) -> bool:
    """Two writers share a promise, so the other one may have settled it meanwhile; nothing else may go wrong."""
    try:
        await call
        return True
    except Exception as error:
        if getattr(error, "code", "") != "promise_settled":
            raise
        return False
