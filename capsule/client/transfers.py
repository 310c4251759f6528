"""Files into a session and out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, overload

from capsule.client.arguments import check_callback, check_text
from capsule.client.questions import AsyncQuestions
from capsule.client.sources import Reader, Source, check_file_name, name_for
from capsule.client.targets import FileTarget, Target
from capsule.node.transfers.threads import made_on_thread, on_thread
from capsule_protocol.errors import CapsuleError, NodeError

if TYPE_CHECKING:
    import os

    from capsule.client.inner import AnyFiles
    from capsule.client.remote.streams import RemoteDownload, RemoteUpload
    from capsule.node.info import FileInfo
    from capsule.node.transfers import Download, Upload

OnProgress = Callable[[int, int | None], object]
"""Gets how many bytes there are, of how many; None: the source does not tell. What it raises ends the transfer."""


class AsyncTransfers(AsyncQuestions):
    """Uploads and downloads. They go on after a lost connection, and go on also while code runs."""

    async def upload(self, source: Source, name: str | None = None, *, progress: OnProgress | None = None) -> FileInfo:
        """Bring a file into the session's directory: code finds it when it is whole.

        `source` is a path, bytes or a binary file; `name` may have folders, and is the source's own by default. A
        file of this name is replaced. Raises ArgumentError, SessionError `file_refused`, `file_changed`,
        `checksum_mismatch`, `transfer_failed`, `too_many_transfers`.
        """
        self.check_open()
        check_callback(progress, "progress")
        name = name_for(source, name)
        return await send(self._inner.files, source, name, progress, self._is_closed)

    @overload
    async def download(self, name: str, to: None = None, *, progress: OnProgress | None = None) -> bytes: ...

    @overload
    async def download(self, name: str, to: str | os.PathLike[str], *, progress: OnProgress | None = None) -> None: ...

    async def download(
        self, name: str, to: str | os.PathLike[str] | None = None, *, progress: OnProgress | None = None
    ) -> bytes | None:
        """The content of a file in the session's directory; with `to` it becomes that file, when it is whole.

        An interrupted download leaves `.NAME.part` beside it, from which the next one goes on. Raises as `upload`
        does, and SessionError `file_unknown`.
        """
        self.check_open()
        check_callback(progress, "progress")
        check_file_name(name)
        path = None if to is None else Path(check_text(to, "to"))
        target = await made_on_thread(lambda: Target() if path is None else FileTarget(path), Target.suspend)
        return await receive(self._inner.files, name, target, progress, self._is_closed)

    async def files(self) -> list[FileInfo]:
        """The files in the session's directory and its folders, by name."""
        self.check_open()
        return await self._inner.files.list()

    def _is_closed(self) -> bool:
        return self.state == "closed"


async def send(
    files: AnyFiles, source: Source, name: str, progress: OnProgress | None, is_over: Callable[[], bool]
) -> FileInfo:
    """Upload to a place where files are, and go on after a lost connection, unless it `is_over`."""
    reader = await made_on_thread(lambda: Reader(source), Reader.close)
    try:
        while True:
            try:
                return await _send(await files.upload(name), reader, progress)
            except NodeError as error:
                _raise_unless_lost(error, again=reader.again and not is_over())
    finally:
        await on_thread(reader.close)


async def receive(
    files: AnyFiles, name: str, target: Target, progress: OnProgress | None, is_over: Callable[[], bool]
) -> bytes | None:
    """Download from a place where files are, in the same way."""
    try:
        while True:
            try:
                return await _receive(await files.download(name, target.offset, target.digest), target, progress)
            except NodeError as error:
                _raise_unless_lost(error, again=not is_over())
    except BaseException as error:
        leave = target.discard if isinstance(error, CapsuleError) and not _is_lost(error) else target.suspend
        await on_thread(leave)
        raise


def _raise_unless_lost(error: NodeError, *, again: bool) -> None:
    """A transfer begins again on the next connection, at the offset that both ends agree on."""
    if not _is_lost(error) or not again:
        raise error


async def _send(upload: Upload | RemoteUpload, reader: Reader, progress: OnProgress | None) -> FileInfo:
    """What comes next is read while this is on its way."""
    reading: asyncio.Task[bytes] | None = None
    try:
        await upload.begin(await on_thread(reader.seek, upload.offset, upload.digest))
        done = reader.offset
        reading = asyncio.ensure_future(on_thread(reader.read))
        while data := await reading:
            done += len(data)
            reading = asyncio.ensure_future(on_thread(reader.read))
            await upload.write([data])
            if progress is not None:
                progress(done, reader.size)
        return await upload.finish(reader.digest)
    finally:
        upload.abandon()
        if reading is not None:  # it uses the file, which the caller closes; what it raises is of no interest any more
            await asyncio.gather(reading, return_exceptions=True)


async def _receive(download: Download | RemoteDownload, target: Target, progress: OnProgress | None) -> bytes | None:
    try:
        target.check(download.size)
        if download.offset != target.offset:
            await on_thread(target.restart)
        while data := await download.read():
            await on_thread(target.write, data)
            if progress is not None:
                progress(target.offset, download.size)
        return await on_thread(target.finish, download.digest)
    finally:
        download.close()


def _is_lost(error: CapsuleError) -> bool:
    return error.code == "connection_lost"
