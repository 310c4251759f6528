"""The members that a pool has, by what they are for: idle or in use. Each is in one place only."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Generic

from capsule_pool.assign import Idle
from capsule_pool.members import M


@dataclass(slots=True, eq=False)
class Entry(Generic[M]):
    """A member and what the pool knows of it; `since` is when it last became idle."""

    number: int
    member: M
    made: float
    since: float
    memory: int


class Roster(Generic[M]):
    """Idle members stand in the order in which they became idle."""

    def __init__(self) -> None:
        self.size = 0  # what the newest member holds
        self._numbers = itertools.count(1)
        self._idle: dict[int, Entry[M]] = {}
        self._in_use: dict[int, Entry[M]] = {}  # by the identity of the member: it may define equality

    @property
    def idle(self) -> int:
        """How many are idle."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """How many are in use."""
        return len(self._in_use)

    @property
    def idle_bytes(self) -> int:
        """What the idle ones hold."""
        return sum(entry.memory for entry in self._idle.values())

    def add(self, member: M, now: float, held: int) -> Entry[M]:
        """A new idle member, which holds so many bytes."""
        self.size = held
        entry = Entry(next(self._numbers), member, now, now, held)
        self._idle[entry.number] = entry
        return entry

    def view(self) -> list[Idle]:
        """The idle ones, as `assign` sees them."""
        return [Idle(entry.number, entry.made, entry.since, entry.memory) for entry in self._idle.values()]

    def use(self, number: int) -> M:
        """An idle member that is in use from here on."""
        entry = self._idle.pop(number)
        self._in_use[id(entry.member)] = entry
        return entry.member

    def return_unused(self, member: M, now: float) -> bool:
        """A member whom nobody has seen is idle again; False if the roster no longer has it."""
        entry = self._in_use.pop(id(member), None)
        if entry is None:
            return False
        entry.since = now
        self._idle[entry.number] = entry
        return True

    def remove_idle(self, number: int) -> M | None:
        """Strike an idle member; None if it is not idle."""
        entry = self._idle.pop(number, None)
        return None if entry is None else entry.member

    def remove_used(self, member: M) -> bool:
        """Strike a member that was in use; False if it was not."""
        return self._in_use.pop(id(member), None) is not None

    def is_used(self, entry: Entry[M]) -> bool:
        """Whether it is in use."""
        return self._in_use.get(id(entry.member)) is entry

    def remove_all(self) -> tuple[list[M], list[M]]:
        """Strike everything: the idle ones, and those in use."""
        idle, in_use = ([entry.member for entry in entries.values()] for entries in (self._idle, self._in_use))
        self._idle.clear()
        self._in_use.clear()
        return idle, in_use
