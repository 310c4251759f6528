"""The audit trail of a node: an append is answered when the record is as safe as the settings ask for."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from capsule.broker.audit.keys import KEY_FILE, PUBLIC_FILE, signing_key
from capsule.broker.audit.opening import recover
from capsule.broker.audit.record import Record
from capsule.broker.audit.tail import ANCHOR_SECONDS
from capsule.broker.audit.writer import Writer, sync
from capsule.runtime import make_directory
from capsule_protocol.errors import CapabilityDenied, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from nacl.signing import SigningKey

    from capsule.broker.audit.files import Appending
    from capsule.broker.audit.writer import Mark
    from capsule.broker.packs import AuditSettings

logger = logging.getLogger("capsule.audit")

LOCK_FILE = "lock"


class Trail:
    """In files. `missed`: records that could not be written since the last one that could."""

    def __init__(self, writer: Writer, settings: AuditSettings, lock: int) -> None:
        self.missed = 0
        self._writer, self._settings, self._lock = writer, settings, lock
        self._durable = writer.mark
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._syncing: asyncio.Future[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def configure(self, settings: AuditSettings) -> None:
        """Go on with other settings: the policy was switched."""
        self._settings = self._writer.settings = settings

    async def append(self, record: Record) -> None:
        """Write a record down. If that cannot be done, and calls stop then: CapabilityDenied `audit_unavailable`."""
        self._check_open()
        try:
            while self._writer.crowded(record.time or time.time()):
                await self._sign_first()
            self._write(record)
            if self._settings.level == "power":
                await self._until_durable(self._writer.mark.sequence)
            elif self._syncing is None:
                self._durable = self._writer.mark
                self._tidy()
        except OSError as error:
            self._miss(error)

    async def close(self) -> None:
        """Sign the end and let go. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._sign_the_end()
        except OSError as error:
            logger.warning("the end of the audit trail in %s is not signed: %s", self._writer.folder, error.strerror)
        finally:
            if self._thread is not None:
                self._thread.shutdown()  # waits for the sync that may be under way, if we were cancelled
            self._writer.close()
            os.close(self._lock)

    async def _sign_first(self) -> None:
        """Else there would be more without a signature than a node leaves. Raises OSError if it cannot be signed."""
        if self._durable.sequence < self._writer.mark.sequence:
            await self._until_durable(self._writer.mark.sequence)
            self._check_open()
        if self._writer.can_sign(self._durable):  # others that waited too may have signed it, and had old files go
            self._writer.sign(self._durable)

    def _check_open(self) -> None:
        if self._closed:
            raise CapabilityDenied("audit_unavailable", "the audit trail has been closed")

    def _write(self, record: Record) -> None:
        if self.missed:
            again = Record("audit", "resumed", "audit_unavailable", details={"missed": self.missed})
            self._writer.append(again, record)
            logger.warning("the audit trail is written again; %d records are missing", self.missed)
            self.missed = 0
        else:
            self._writer.append(record)
        self._sign_later()

    def _miss(self, error: OSError) -> None:
        folder, stop = self._writer.folder, self._settings.on_failure == "stop"
        text = f"the audit trail in {folder} cannot be written: {error.strerror}"
        if not self.missed:
            logger.error("%s; calls %s", text, "stop" if stop else "go on without a record")
        self.missed += 1
        if stop:
            raise CapabilityDenied("audit_unavailable", text) from error

    def _sign_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ANCHOR_SECONDS, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._closed:
            return
        self._tidy(sign=True)
        if self._writer.signed < self._writer.mark.sequence:  # it was not synced yet, or the disk is full
            self._sign_later()

    def _tidy(self, *, sign: bool = False) -> None:
        """What can be done later too: an anchor, and files that are not needed any more."""
        mark = self._durable
        try:
            if self._writer.due(mark) or (sign and self._writer.can_sign(mark)):
                self._writer.sign(mark)
            if self._syncing is None:
                self._writer.release()
        except OSError as error:
            logger.warning("the audit trail in %s is not signed now: %s", self._writer.folder, error.strerror)

    async def _until_durable(self, sequence: int) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((sequence, waiter))
        if self._syncing is None:
            self._sync()
        await waiter

    def _sync(self) -> None:
        """One thread syncs for all who wait; those who come meanwhile are the next round's."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "audit")
        files, mark = self._writer.unsynced(), self._writer.mark
        for file in files:
            file.unsynced = False
        self._syncing = asyncio.get_running_loop().run_in_executor(self._thread, sync, files)
        self._syncing.add_done_callback(partial(self._synced, files, mark))

    def _synced(self, files: list[Appending], mark: Mark, done: asyncio.Future[None]) -> None:
        self._syncing = None
        error = done.exception()
        for file in files:
            file.unsynced |= error is not None
            file.fresh &= error is not None
        if error is None:
            self._durable = mark
        while self._waiting and self._waiting[0][0] <= mark.sequence:
            _, waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None) if error is None else waiter.set_exception(_another(error))
        if self._waiting:
            self._sync()
        elif error is None and not self._closed:
            self._tidy()

    async def _sign_the_end(self) -> None:
        power = self._settings.level == "power"
        if self._syncing is not None or power:
            await self._until_durable(self._writer.mark.sequence)
        self._writer.sign(self._writer.mark, closed=True)
        if power:
            await self._until_durable(self._writer.mark.sequence)
        self._writer.release()


def open_audit(folder: Path, settings: AuditSettings, key: Path | None = None) -> Trail:
    """The trail in this directory, which only its user may be able to enter; made if there is none.

    `key`: the file of the key that signs it, made too; without it, one in the directory. Raises NodeError
    `address_refused`, and StoreError: `store_locked` if another node writes it, `store_unavailable` if it cannot be
    written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_directory(folder)
        lock = _locked(folder)
        try:
            writer = _begun(folder, settings, signing_key(key or folder / KEY_FILE))
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        text = f"the audit trail in {folder} cannot be written: {error.strerror}"
        raise StoreError("store_unavailable", text) from error
    return Trail(writer, settings, lock)


def _begun(folder: Path, settings: AuditSettings, key: SigningKey) -> Writer:
    """A writer that goes on with what there is, and has said so in the trail."""
    _tell_public(folder / PUBLIC_FILE, key)
    start, notes = recover(folder, key)
    writer = Writer(folder, settings, key, start)
    try:
        if not start.mark.sequence:
            writer.sign(start.mark)
        for note in notes:
            writer.append(note)
            if note.code:
                logger.error("the audit trail in %s is damaged: %s; it goes on in a new file", folder, note.why)
        writer.sign(writer.mark)
        sync(writer.unsynced())  # at every level: calls that lose this anchor would be behind the last node's end
    except BaseException:
        writer.close()
        raise
    return writer


def _tell_public(file: Path, key: SigningKey) -> None:
    text = key.verify_key.encode().hex() + "\n"
    if not file.exists() or file.read_text("ascii", "replace") != text:
        file.write_text(text, "ascii")


def _locked(folder: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.open(folder / LOCK_FILE, flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace")
        os.close(lock)
        raise StoreError("store_locked", f"process {holder} writes the audit trail in {folder}") from error
    except BaseException:
        os.close(lock)
        raise
    return lock


def _another(error: BaseException) -> BaseException:
    """The same error for one who waits: each raises one of its own."""
    return OSError(*error.args) if isinstance(error, OSError) else error
