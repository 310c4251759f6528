"""What every store is asked for in area `bridge`: the promise of an execution, and its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_bench.model import WrongResultError
from capsule_bridge import NewPromise, Settlement, fingerprint, promise_id

if TYPE_CHECKING:
    from capsule_bridge import PromiseStore

CALLERS = 64
CODE = "for number in range(100):\n    print(number, 'of', 100)\n" * 3
VALUE = b"v" * 200
MARK = fingerprint("execute", CODE, {"timeout": 30.0})
NOW = 1


async def accept(store: PromiseStore, name: str) -> str:
    """Create the promise of an execution with a key."""
    new = NewPromise(promise_id(name), "execute", "s", MARK, CODE.encode(), principal="p", key=name)
    created = await store.create(new, now=NOW)
    if not created.fresh:
        raise WrongResultError(f"{name} was there already")
    return new.id


async def settle(store: PromiseStore, name: str) -> None:
    """Give the verdict."""
    ((_, decided),) = await store.settle(Settlement(name, "resolve", VALUE), now=NOW)
    if not decided:
        raise WrongResultError(f"{name} had a verdict already")
