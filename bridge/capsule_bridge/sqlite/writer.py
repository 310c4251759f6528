"""The thread that writes: group commit without a window.

Operations queue up while a commit runs, and the next transaction takes all of them. So a lone caller waits for one
commit only, and many callers share one. What is urgent does not wait for its turn: it has the next transaction, or the
one behind that, to itself. Answers go out after the commit, never before. If it fails, all of the batch hear
`store_unavailable`, the connection is dropped, and the next batch opens another: nothing is kept in memory that the
file does not have, so there is nothing to repair.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from capsule_bridge.sqlite.connect import LOG_BYTES
from capsule_bridge.sqlite.damage import store_error
from capsule_bridge.sqlite.deferred import TakenError
from capsule_bridge.sqlite.files import OF_A_VALUE
from capsule_protocol.errors import CapsuleError, StoreError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from capsule_bridge.sqlite.doorbell import Doorbell
    from capsule_bridge.sqlite.faults import Fault
    from capsule_bridge.sqlite.files import Blobs
    from capsule_bridge.sqlite.rows import Rows

BATCH_OPERATIONS = 512
BATCH_BYTES = 2**20
"""A transaction takes no more than these, so that the first of a batch does not wait long for the last."""
MAX_QUEUED = 65_536
"""Operations that may wait for the disk; more are refused with `store_unavailable`."""
CHECKPOINT_BYTES = LOG_BYTES
"""Once about so much has been written there is a checkpoint, after the answers have gone out."""
_COMMIT_BYTES, _JOB_BYTES = 20_000, 1_000
"""What a transaction, and each small operation in it, add to the log, about: it has pages, of which some are shared."""
_OF_THE_STORE = (OSError, sqlite3.Error, StoreError)
_OF_A_JOB = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    FileNotFoundError,
    *OF_A_VALUE,
)
"""Those of them that tell of what one job asked for, and not of the store."""


@dataclass(slots=True, eq=False)
class Job:
    """An operation that waits for its commit, and then for its caller's loop."""

    run: Callable[[Rows], Any]
    size: int
    bell: Doorbell
    future: asyncio.Future[Any]
    urgent: bool = False
    answer: Any = None
    error: Exception | None = None


class Writer:
    """Runs jobs in transactions on a thread of its own; `connect` opens the database, at first and after failures."""

    def __init__(self, connect: Callable[[], Rows], usable: Callable[[], None], blobs: Blobs, fault: Fault) -> None:
        self.failure: Exception | None = None
        self._connect = connect
        self._usable = usable
        self._blobs = blobs
        self._fault = fault
        self._rows: Rows | None = connect()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._urgent: list[Job] = []
        self._hurries = self._stopping = self._committing = False
        self._unchecked = 0
        self._thread = threading.Thread(target=self._serve, name="capsule-store", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job, from any thread. Raises StoreError, `store_unavailable`, if too many wait."""
        if self._queue.qsize() + len(self._waiting) >= MAX_QUEUED:
            raise StoreError(
                "store_unavailable",
                f"{MAX_QUEUED:,} operations wait for the disk: this one was not begun",
                details={"outcome": "not_done"},
            )
        self._queue.put(job)

    def stop(self) -> None:
        """Finish what is queued, then let go of the database. Blocks."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        last = False
        while not last:
            batch, last = self._take()
            if batch:
                self._fault("taken")
                self._commit(batch)
                _answer(batch)
                self._fault("answered")
            if self._unchecked >= CHECKPOINT_BYTES or last:
                self._checkpoint(wholly=last)
        self._drop()

    def _take(self) -> tuple[list[Job], bool]:
        """What waits, up to the bounds, and whether it is the last; what is urgent by itself, if there is any."""
        if not (self._waiting or self._urgent):
            self._sort(self._queue.get())
        with suppress(Empty):
            while True:
                self._sort(self._queue.get_nowait())
        self._hurries = bool(self._urgent) and not (self._hurries and self._waiting)  # the others wait for one at most
        batch = self._take_urgent() if self._hurries else self._take_waiting()
        return batch, self._stopping and not (self._waiting or self._urgent)

    def _sort(self, job: Job | None) -> None:
        if job is None:
            self._stopping = True
        elif job.urgent:
            self._urgent.append(job)
        else:
            self._waiting.append(job)

    def _take_urgent(self) -> list[Job]:
        batch, self._urgent = self._urgent, []
        return batch

    def _take_waiting(self) -> list[Job]:
        batch: list[Job] = []
        size = 0
        while self._waiting and len(batch) < BATCH_OPERATIONS and size < BATCH_BYTES:
            job = self._waiting.popleft()
            batch.append(job)
            size += job.size
        return batch

    def _commit(self, batch: list[Job], *, careful: bool = False) -> None:
        try:
            self._transact(batch, careful)
        except Exception as error:  # noqa: BLE001  whatever it is, each caller has to hear of it
            self._roll_back()
            if isinstance(error, TakenError):  # one of them asks for what is there: all at once once more, and look
                self._commit(batch, careful=True)
            elif isinstance(error, _OF_THE_STORE) and not isinstance(error, _OF_A_JOB):
                self._fail(batch, error)
            elif len(batch) > 1:
                # One of them is at fault, and the others shall not suffer for it.
                for job in batch:
                    self._commit([job])
            elif isinstance(error, OF_A_VALUE):
                batch[0].error = _told(error, "not_done")
            elif isinstance(error, FileNotFoundError):  # the directory for large values is gone
                self._fail(batch, error)
            else:  # a value that no row can hold, or a mistake of ours
                batch[0].error = error

    def _transact(self, batch: list[Job], careful: bool) -> None:
        self._committing = False
        self._usable()
        if self._rows is None:
            self._rows = self._connect()
            self._checkpoint(wholly=False)  # if its log could not grow, it may be able to begin again
        rows = self._rows
        rows.careful = careful
        rows.connection.execute("BEGIN IMMEDIATE")
        self._fault("begun")
        written = _COMMIT_BYTES
        for job in batch:
            written += job.size + _JOB_BYTES
            try:
                job.answer, job.error = job.run(rows), None
            except CapsuleError as refusal:
                job.answer, job.error = None, refusal
            self._fault("executed")
        rows.write()
        self._fault("before_commit")
        # If the commit fails nobody knows yet whether the next start will find it: only that one may remove its files.
        rows.written.clear()
        self._committing = True
        rows.connection.execute("COMMIT")
        self._fault("committed")
        self.failure = None
        self._unchecked += written
        if rows.dropped:
            self._remove(rows.dropped)

    def _fail(self, batch: list[Job], error: Exception) -> None:
        self.failure = error
        self._drop()
        for job in batch:
            job.answer = None
            job.error = _told(error, "unknown" if self._committing else "not_done")

    def _roll_back(self) -> None:
        if self._rows is not None:
            with suppress(sqlite3.Error):  # the connection is dropped, or the transaction is gone already
                self._rows.connection.rollback()
            self._rows.forget()
            self._remove(self._rows.written)

    def _remove(self, names: list[str]) -> None:
        with suppress(OSError):  # files that no row names are removed at the next start
            self._blobs.remove(names)
        names.clear()

    def _drop(self) -> None:
        if self._rows is not None:
            with suppress(sqlite3.Error):
                self._rows.connection.close()
            self._rows = None

    def _checkpoint(self, *, wholly: bool) -> None:
        if self._rows is None:
            return
        self._fault("before_checkpoint")
        try:
            self._rows.connection.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if wholly else 'PASSIVE'})").fetchone()
        except sqlite3.Error as error:  # what was acknowledged is in the log
            self.failure = error
            self._unchecked = CHECKPOINT_BYTES  # after the next commit again, lest the log take all room that is made
        else:
            self._unchecked = 0
        self._fault("checkpointed")


def _told(error: Exception, outcome: Literal["unknown", "not_done"]) -> StoreError:
    told = store_error(error, "the store cannot commit")
    told.details["outcome"] = outcome
    told.__cause__ = error
    return told


def _answer(batch: list[Job]) -> None:
    """Wake the callers, all of a loop at once."""
    for bell in {job.bell for job in batch}:
        bell.ring(partial(_resolve, [job for job in batch if job.bell is bell]))


def _resolve(batch: list[Job]) -> None:
    for job in batch:
        if job.future.done():  # its caller was canceled
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.answer)
