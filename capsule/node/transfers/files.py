"""The files of one session: listed, taken in and given out."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from capsule.node.transfers.attempts import Download, Transfer, Upload
from capsule.node.transfers.beneath import open_top, parts_of
from capsule.node.transfers.incoming import Incoming
from capsule.node.transfers.listing import list_files
from capsule.node.transfers.outgoing import Outgoing
from capsule.node.transfers.threads import made_on_thread, on_thread
from capsule_protocol.errors import SessionError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from capsule.node.info import FileInfo
    from capsule.node.scratch import Scratch

MAX_TRANSFERS: Final = 8
"""Uploads and downloads of a session at once."""
MAX_PARTS: Final = 8
"""Interrupted uploads of a session that may be gone on with; the oldest go first."""
SCRATCH: Final = "files"
"""The folder of a box's directory that belongs to the code; the worker makes it when its session opens."""
GATHERING: Final = "uploads"
"""The one beside it, where uploads are gathered."""


class SessionFiles:
    """Those of one worker in a folder of its box: the session's next worker has others."""

    def __init__(self, box: Path | Scratch, folder: str = SCRATCH) -> None:
        self.closed = False
        self._folder = folder
        self._box = box
        self._transfers: set[Transfer] = set()
        self._opening = 0
        self._parts: dict[str, Incoming] = {}
        self._ending: dict[asyncio.Task[None], str] = {}

    async def list(self) -> list[FileInfo]:
        """What files there are, also in folders. Raises SessionError."""
        self._check_open()
        return await on_thread(_list, self._box, self._folder)

    async def upload(self, name: str) -> Upload:
        """Begin to take in a file; one that was interrupted goes on. Raises SessionError."""
        parts_of(name)
        self._check_room()
        self._opening += 1
        try:
            # The connection of an earlier attempt may just have been lost.
            ending = [task for task, ends in self._ending.items() if ends == name]
            if ending:
                await asyncio.wait(ending)
            incoming = self._parts.pop(name, None)
            if incoming is None:
                incoming = await made_on_thread(lambda: _gather(self._box, self._folder, name), Incoming.discard)
        finally:
            self._opening -= 1
        upload = Upload(self, incoming)
        self._transfers.add(upload)
        return upload

    async def download(self, name: str, offset: int = 0, digest: str = "") -> Download:
        """Begin to give out a file, from `offset` on if what is before that has this digest. Raises SessionError."""
        parts_of(name)
        self._check_room()
        self._opening += 1
        try:
            outgoing = await made_on_thread(lambda: _give_out(self._box, self._folder, name), Outgoing.close)
            try:
                while not await on_thread(outgoing.catch_up, offset, digest):
                    self._check_open()
            except BaseException:
                outgoing.close()
                raise
        finally:
            self._opening -= 1
        download = Download(self, outgoing)
        self._transfers.add(download)
        return download

    async def close(self) -> None:
        """The worker has ended: nothing goes on. Idempotent."""
        self.closed = True
        for transfer in list(self._transfers):
            if transfer.on_closed is not None:
                transfer.on_closed()
        while self._ending:
            await asyncio.wait(list(self._ending))
        parts, self._parts = list(self._parts.values()), {}
        if parts:
            await on_thread(_discard, parts)

    # --- for the transfers ---

    def end(self, transfer: Transfer, last: Coroutine[None, None, None] | None = None, name: str = "") -> None:
        """It is over, but for this; who asks for the same name waits for it."""
        self._transfers.discard(transfer)
        if last is not None:
            task = asyncio.get_running_loop().create_task(last)
            self._ending[task] = name
            task.add_done_callback(self._ending.pop)

    async def keep(self, incoming: Incoming) -> None:
        """It was interrupted, and may be gone on with."""
        dropped = [incoming]
        if not self.closed and incoming.offset:
            dropped = [before] if (before := self._parts.pop(incoming.name, None)) is not None else []
            self._parts[incoming.name] = incoming
            if len(self._parts) > MAX_PARTS:
                dropped.append(self._parts.pop(next(iter(self._parts))))
        await on_thread(_discard, dropped)

    # --- inside ---

    def _check_open(self) -> None:
        if self.closed:
            raise SessionError("session_dead", "the session's worker has ended, and its files with it")

    def _check_room(self) -> None:
        self._check_open()
        if len(self._transfers) + self._opening >= MAX_TRANSFERS:
            raise SessionError("too_many_transfers", f"the session has {MAX_TRANSFERS} transfers under way already")


def make_folder(box: Path | Scratch, folder: str) -> None:
    """Make a folder of a box's directory, if it is not there; what is wrong with it is told when it is opened."""
    with suppress(OSError):
        if isinstance(box, Path):
            Path(box, folder).mkdir(mode=0o700)
        else:
            box.make(folder)


def _top(box: Path | Scratch, folder: str) -> int:
    try:
        return open_top(box, folder)
    except OSError as error:
        message = f"the session's directory has been removed, or replaced by something else: {error.strerror}"
        raise SessionError("file_refused", message) from error


def _list(box: Path | Scratch, folder: str) -> list[FileInfo]:
    top = _top(box, folder)
    try:
        return list_files(top)
    finally:
        os.close(top)


def _gather(box: Path | Scratch, folder: str, name: str) -> Incoming:
    if folder != SCRATCH:
        make_folder(box, folder)
    top = _top(box, folder)
    try:
        make_folder(box, GATHERING)
        gathering = _top(box, GATHERING)
    except OSError as error:
        os.close(top)
        raise SessionError("transfer_failed", f"there is no place for an upload: {error.strerror}") from error
    except BaseException:
        os.close(top)
        raise
    return Incoming(top, gathering, name)


def _discard(parts: Iterable[Incoming]) -> None:
    for part in parts:
        part.discard()


def _give_out(box: Path | Scratch, folder: str, name: str) -> Outgoing:
    return Outgoing(_top(box, folder), name)
