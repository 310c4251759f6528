"""The keys that the node knows at this moment: the store in memory, read again whenever it changes.

The system tells of changes in the directory (inotify). Because not every file system does, the file is looked at before
each decision too, which is one call of `stat`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from asyncinotify import Inotify, Mask

from capsule.node.auth.keystore import FILE
from capsule.node.auth.principals import Principal
from capsule_protocol.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule.node.auth.keystore import KeyKind, KeyRecord, KeyStore
    from capsule.node.tasks import Tasks

logger = logging.getLogger("capsule.auth")

LONGEST = 3600.0
"""Seconds after which the next expiry is looked for again: clocks are set, and timers do not follow."""

Version = tuple[int, int, int]


class Keyring:
    """`on_change` is told when a key may have become invalid: the store has changed, or a time has come."""

    def __init__(self, store: KeyStore, tasks: Tasks, on_change: Callable[[], None]) -> None:
        self._store = store
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._records: dict[str, KeyRecord] = {}
        self._version: Version | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.secret = store.server_secret()
        self._load()
        tasks.start(self._watch())

    def find(self, mark: str, kind: KeyKind) -> Principal | None:
        """Who has the key or token with this fingerprint, if it is valid."""
        self._refresh()
        record = self._records.get(mark)
        if record is None or record.kind != kind or record.state(time.time()) != "valid":
            return None
        return Principal(record.principal, record.role, mark)

    def valid(self, mark: str) -> bool:
        """Whether the key or token with this fingerprint still lets somebody in."""
        record = self._records.get(mark)
        return record is not None and record.state(time.time()) == "valid"

    def knows(self, mark: str) -> bool:
        """Whether it is in the store, valid or not."""
        return mark in self._records

    @property
    def has_tokens(self) -> bool:
        """Whether somebody without a key may have something to say."""
        self._refresh()
        now = time.time()
        return any(record.kind == "token" and record.state(now) == "valid" for record in self._records.values())

    def close(self) -> None:
        """Wait for no expiry any more."""
        if self._timer is not None:
            self._timer.cancel()

    async def _watch(self) -> None:
        with Inotify() as inotify:
            inotify.add_watch(self._store.directory, Mask.MOVED_TO | Mask.CLOSE_WRITE | Mask.DELETE)
            self._refresh()  # it may have changed before the watch was there
            async for event in inotify:
                if event.name is not None and event.name.name == FILE:
                    self._refresh()

    def _refresh(self) -> None:
        if self._look() != self._version:
            self._load()
            self._on_change()

    def _load(self) -> None:
        """Read the store; one that cannot be read lets nobody in."""
        self._version = self._look()
        try:
            self._records = {record.fingerprint: record for record in self._store.records()}
        except NodeError as error:
            logger.error("no key is accepted: %s", error)  # noqa: TRY400 - the message says it all
            self._records = {}
        self._await_expiry()

    def _look(self) -> Version | None:
        try:
            found = (self._store.directory / FILE).stat()
        except OSError:  # there is none
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _await_expiry(self) -> None:
        self.close()
        now = time.time()
        coming = [record.expires - now for record in self._records.values() if record.expires and record.expires > now]
        self._timer = self._loop.call_later(min([*coming, LONGEST]), self._expired) if coming else None

    def _expired(self) -> None:
        self._on_change()
        self._await_expiry()
