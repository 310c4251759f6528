"""What providers hold for the scopes of grants: it goes with the scope that it was made for, whatever else is checked.

A policy may be looked at and refused; so what is made when a scope is checked must not touch what is held for another
one, though both name the same. A scope is known by what it is, not by what it says: calls come with that of the grant
which allows them.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Held(Generic[T]):
    """One thing for each scope that is still there; `let_go` is called with it some time after the scope is gone."""

    def __init__(self, let_go: Callable[[T], object]) -> None:
        self._let_go = let_go
        self._things: dict[int, tuple[ref[Any], T]] = {}
        self._gone: deque[int] = deque()

    def put(self, scope: Any, thing: T) -> None:
        """From now on this is held for it."""
        self._sweep()
        key, gone = id(scope), self._gone
        before = self._things.get(key)
        # Memory may be found to be garbage in any thread; what follows from that is done in ours.
        self._things[key] = (ref(scope, lambda _: gone.append(key)), thing)
        if before is not None:
            self._let_go(before[1])

    def get(self, scope: Any) -> T | None:
        """What is held for it, if anything is."""
        self._sweep()
        found = self._things.get(id(scope))
        return None if found is None or found[0]() is not scope else found[1]

    def all(self) -> list[T]:
        """What is held."""
        return [thing for _, thing in list(self._things.values())]

    def close(self) -> None:
        """Let go of all. Idempotent."""
        while self._things:
            self._let_go(self._things.popitem()[1][1])

    def _sweep(self) -> None:
        while self._gone:
            key = self._gone.popleft()
            found = self._things.get(key)
            if found is not None and found[0]() is None:  # else another scope has got its place
                del self._things[key]
                self._let_go(found[1])


@dataclass(slots=True)
class Opened:
    """A descriptor of what was at a path; it is closed with the last of its `uses`."""

    path: str
    identity: tuple[int, ...]
    descriptor: int
    uses: int = 0


class Shared:
    """Descriptors of what several scopes name: one for each path, unless something else is there by now."""

    def __init__(self) -> None:
        self._newest: dict[str, Opened] = {}

    def take(self, path: str, descriptor: int, identity: tuple[int, ...]) -> Opened:
        """Use what has been opened there, which is closed if it was open already."""
        opened = self._newest.get(path)
        if opened is not None and opened.identity == identity:
            os.close(descriptor)
        else:
            opened = self._newest[path] = Opened(path, identity, descriptor)
        opened.uses += 1
        return opened

    def give(self, opened: Opened) -> None:
        """Use it no more."""
        opened.uses -= 1
        if not opened.uses:
            os.close(opened.descriptor)
            if self._newest.get(opened.path) is opened:
                del self._newest[opened.path]
