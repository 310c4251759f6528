"""The one connection that writes: group commit without a window.

Operations queue up while a transaction runs, and the next one takes all of them. So a lone caller waits for one commit
only, and many callers share one. Answers go out after the commit, never before. If it fails, all of the batch hear
`store_unavailable`, the connection is dropped, and the next batch opens another: nothing is kept in memory that the
database does not have, so there is nothing to repair.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import asyncpg

from capsule_bridge.postgres import transaction
from capsule_bridge.postgres.connect import FAILURES, let_go
from capsule_bridge.postgres.jobs import Sweep, deliver
from capsule_bridge.postgres.transaction import OvertakenError
from capsule_protocol.errors import ArgumentError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from asyncpg import Connection, Record

    from capsule_bridge.postgres.connect import Database
    from capsule_bridge.postgres.jobs import Job

BATCH_OPERATIONS = 512
BATCH_BYTES = 2**20
"""A transaction takes no more than these, so that the first of a batch does not wait long for the last."""
MAX_QUEUED = 65_536
"""Operations that may wait for the database; more are refused with `store_unavailable`."""
ATTEMPTS = 10
"""How often a batch is begun that other nodes undo or overtake; each time one of them got on."""

OF_A_VALUE = (asyncpg.DataError, asyncpg.ProgramLimitExceededError, ValueError, OverflowError)
"""What one job asked for cannot be written down; that does not tell of the database. (The driver's are ValueErrors.)"""
_OF_THE_STORE = (StoreError, *FAILURES)
_OF_OTHERS = (OvertakenError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class Writer:
    """Runs jobs in transactions; `told` is called with the ids of each one that others may wait for, once committed."""

    def __init__(self, database: Database, told: Callable[[Collection[str]], None]) -> None:
        self.failure: Exception | None = None
        self.process: int | None = None
        """The database's process on the other end, so that we know our own notifications."""
        self._database = database
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Job] = deque()
        self._more = asyncio.Event()
        self._waits = False
        self._last = False
        self._connection: Connection[Record] | None = None
        self._committing = False
        self._task = self._loop.create_task(self._serve())

    def submit(self, job: Job) -> None:
        """Queue a job, from any thread. Raises StoreError, `store_unavailable`, if too many wait."""
        if len(self._queue) >= MAX_QUEUED:
            text = f"{MAX_QUEUED:,} operations wait for the database: this one was not begun"
            raise StoreError("store_unavailable", text, details={"outcome": "not_done"})
        self._queue.append(job)
        # In this order, and the other way round in `_take`: one of the two sees what the other has done.
        if self._waits:
            self._loop.call_soon_threadsafe(self._more.set)

    async def stop(self) -> None:
        """Finish what is queued, then let go of the database."""
        self._last = True
        self._more.set()
        await self._task
        if self._connection is not None:
            await let_go(self._connection)
            self._connection = None

    async def _serve(self) -> None:
        while batch := await self._take():
            try:
                await self._commit(batch)
            except Exception as error:  # noqa: BLE001  a mistake of ours: nobody shall wait for ever because of it
                self._fail(batch, error)
            deliver(job.call for job in batch)

    async def _take(self) -> list[Job]:
        """All that waits, up to the bounds; none after the last. A sweep, which takes rows by itself, goes alone."""
        while not self._queue:
            self._more.clear()
            self._waits = True
            if not self._queue:
                if self._last:
                    return []
                await self._more.wait()
            self._waits = False
        batch = [self._queue.popleft()]
        size = batch[0].size
        while self._queue and len(batch) < BATCH_OPERATIONS and size < BATCH_BYTES:
            if isinstance(batch[0].wants, Sweep) or isinstance(self._queue[0].wants, Sweep):
                break
            batch.append(self._queue.popleft())
            size += batch[-1].size
        return batch

    async def _commit(self, batch: Sequence[Job]) -> None:
        for left in reversed(range(ATTEMPTS)):
            try:
                await self._transact(batch)
            except _OF_OTHERS as error:
                await self._roll_back()
                if left:
                    continue
                self._fail(batch, error)
            except Exception as error:  # noqa: BLE001  whatever it is, each caller has to hear of it
                await self._blame(batch, error)
            return

    async def _transact(self, batch: Sequence[Job]) -> None:
        self._committing = False
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.connect()
            self.process = self._connection.get_server_pid()
        await self._connection.execute("BEGIN")
        told = await transaction.run(self._connection, self._database.channel, batch)
        self._committing = True
        await self._connection.execute("COMMIT")
        self.failure = None
        if told:
            self._told(told)

    async def _blame(self, batch: Sequence[Job], error: Exception) -> None:
        of_a_value = isinstance(error, OF_A_VALUE)
        if self._committing or (isinstance(error, _OF_THE_STORE) and not of_a_value):
            self._fail(batch, error)
            return
        await self._roll_back()
        if len(batch) > 1:
            # One of them is at fault, and the others shall not suffer for it.
            for job in batch:
                await self._commit([job])
        else:
            batch[0].call.error = unfit(error) if of_a_value else error

    def _fail(self, batch: Sequence[Job], error: Exception) -> None:
        self.failure = error
        self._drop()
        outcome = "whether it was done is not known" if self._committing else "nothing of it was done"
        details = {"outcome": "unknown" if self._committing else "not_done"}
        for job in batch:
            text = f"the store cannot commit: {error or repr(error)}; {outcome}"
            job.call.answer, job.call.error = None, StoreError("store_unavailable", text, details=details)
            job.call.error.__cause__ = error

    async def _roll_back(self) -> None:
        try:
            if self._connection is not None:
                await self._connection.execute("ROLLBACK")
        except FAILURES:
            self._drop()  # it ends the transaction too

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def unfit(error: Exception) -> ArgumentError:
    """The refusal of what the database has no room for, such as text with a null character."""
    refusal = ArgumentError("promise", f"it has a value that PostgreSQL cannot keep: {error}")
    refusal.__cause__ = error
    return refusal
