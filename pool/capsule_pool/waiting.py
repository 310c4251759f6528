"""Those who wait for a member. One that leaves, at whatever moment, leaves nothing behind."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping

    from capsule_pool.config import Priority

M = TypeVar("M")


class Waiter(Generic[M]):
    """One who waits: his answer is a member or an error."""

    __slots__ = ("answer", "number", "priority", "since")

    def __init__(self, number: int, priority: Priority, since: float, answer: asyncio.Future[M]) -> None:
        self.number = number
        self.priority = priority
        self.since = since
        self.answer = answer

    @property
    def wants(self) -> bool:
        """Whether a member would still be taken: a task that was cancelled has cancelled its answer."""
        return not self.answer.done()


class Waiting(Generic[M]):
    """The waiters by class, in order of arrival."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._numbers = itertools.count(1)
        self._queues: Mapping[Priority, dict[int, Waiter[M]]] = {"interactive": {}, "batch": {}}

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def add(self, priority: Priority, now: float) -> Waiter[M]:
        """A new one, at the end of his class."""
        waiter: Waiter[M] = Waiter(next(self._numbers), priority, now, self._loop.create_future())
        self._queues[priority][waiter.number] = waiter
        return waiter

    def numbers(self, priority: Priority) -> list[int]:
        """Those of a class who still want a member, in order of arrival."""
        return [waiter.number for waiter in self._queues[priority].values() if waiter.wants]

    def take(self, number: int) -> Waiter[M]:
        """One who is to be answered: he waits no more."""
        for queue in self._queues.values():
            if number in queue:
                return queue.pop(number)
        raise KeyError(number)

    def leave(self, waiter: Waiter[M]) -> M | None:
        """He goes. Answers the member that he had been given and has not seen, if there is one."""
        self._queues[waiter.priority].pop(waiter.number, None)
        if waiter.answer.cancel() or waiter.answer.cancelled() or waiter.answer.exception() is not None:
            return None
        return waiter.answer.result()

    def oldest(self) -> Waiter[M] | None:
        """The one who is served next, as far as classes go."""
        for queue in self._queues.values():
            for waiter in queue.values():
                if waiter.wants:
                    return waiter
        return None

    def take_all(self) -> Iterable[Waiter[M]]:
        """All who still want a member; nobody waits after it."""
        everybody = [waiter for queue in self._queues.values() for waiter in queue.values()]
        for queue in self._queues.values():
            queue.clear()
        return [waiter for waiter in everybody if waiter.wants]
