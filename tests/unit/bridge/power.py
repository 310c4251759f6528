"""Rounds of cutting the power of a store, and what it has to have afterwards."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

from capsule_bridge import SqliteStore
from capsule_bridge.sqlite.connect import Level
from capsule_protocol.errors import StoreError
from tests.unit.bridge.disk import Disk, Lies, honest
from tests.unit.bridge.kills import Fact, amiss
from tests.unit.bridge.load import heard, load
from tests.unit.bridge.tally import Tally, Wrong

SHARES = (0.0, 0.5, 0.9)
"""How much of what was not synced outlives a cut."""
STEPS = 600
"""A cut comes before one of so many writes and syncs."""
CHAIN = 4
"""After so many cuts a store is replaced by a new one, lest the time go into looking at old facts."""
STORE = Path("node", "store.db")


async def power_rounds(folder: Path, rounds: int, seed: int, level: Level = "power", lies: Lies = honest) -> Tally:
    """Cut the power so many times, at places that chance chooses, and look after each cut."""
    chance, tally = Random(seed), Tally()
    root, known = folder / "new", list[Fact]()
    for number in range(rounds):
        if not known:
            root = folder / f"{number}-new"
            root.mkdir()
        left = folder / f"{number}"
        facts = await Cut(root, left, SHARES[number % len(SHARES)], chance, lies).happen(str(number), level)
        known += facts
        root = folder / f"{number}-again"
        shutil.copytree(left, root)
        tally.spoiled += not await asyncio.to_thread(sound, left / STORE)
        wrong = await looked(left / STORE, known)
        tally.add(len(facts), wrong)
        if wrong or number % CHAIN == CHAIN - 1:
            known = []
    return tally


async def looked(path: Path, facts: list[Fact]) -> list[Wrong]:
    """As `amiss`, also of a store that cannot be opened."""
    try:
        return await amiss(path, facts)
    except StoreError as error:
        return [Wrong("lost", f"all: {error}")]


class Cut:
    """One cut of the power of the disk at `root`; what it leaves is written to `left`."""

    def __init__(self, root: Path, left: Path, share: float, chance: Random, lies: Lies) -> None:
        self._left = left
        self._share = share
        self._chance = chance
        self._steps = iter(range(chance.randrange(STEPS)))
        self._disk = Disk(root, self._step, lies)
        self._path = root / STORE
        self._facts: list[Fact] = []
        self._gone = False
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def happen(self, turn: str, level: Level) -> list[Fact]:
        """Work until the cut, or cut when all is done; the facts that had been acknowledged by then."""
        with self._disk.mounted():
            # In another thread, as the power may go while it is opened, and then this one has to say what it heard.
            store = await asyncio.to_thread(SqliteStore, self._path, level, fault=lambda _: self._step())
            work = asyncio.create_task(load(store, turn, self._chance.randrange(2**30), self._tell))
            over = asyncio.create_task(self._over.wait())
            await asyncio.wait([work, over], return_when=asyncio.FIRST_COMPLETED)
            for task in (work, over):
                task.cancel()
            await asyncio.wait([work, over])
            await store.close()
            if not self._gone:
                self._cut()
        return self._facts

    def _tell(self, *fact: object) -> None:
        if not self._gone:
            self._facts.append(list(fact))

    def _step(self) -> None:
        if not self._gone and next(self._steps, None) is None:
            heard(self._loop)
            self._cut()

    def _cut(self) -> None:
        self._gone = True
        self._disk.after_a_cut(self._left, self._share, self._chance)
        self._loop.call_soon_threadsafe(self._over.set)


def sound(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with the file, if there is one."""
    if not path.exists():
        return True
    try:
        with closing(sqlite3.connect(path)) as connection:
            return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    except sqlite3.Error:
        return False
