"""Files into a synchronous session and out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from capsule.client.sync_questions import Questions

if TYPE_CHECKING:
    import os

    from capsule.client.sources import Source
    from capsule.client.transfers import OnProgress
    from capsule.node.info import FileInfo


class Transfers(Questions):
    """Uploads and downloads. They go on after a lost connection, and go on also while code runs.

    `progress` is called on the client's own thread.
    """

    def upload(self, source: Source, name: str | None = None, *, progress: OnProgress | None = None) -> FileInfo:
        """Bring a file into the session's directory: code finds it when it is whole.

        `source` is a path, bytes or a binary file; `name` may have folders, and is the source's own by default. A
        file of this name is replaced. Raises ArgumentError, SessionError `file_refused`, `file_changed`,
        `checksum_mismatch`, `transfer_failed`, `too_many_transfers`.
        """
        return self._portal.call(self._inner.upload, source, name, progress=progress)

    @overload
    def download(self, name: str, to: None = None, *, progress: OnProgress | None = None) -> bytes: ...

    @overload
    def download(self, name: str, to: str | os.PathLike[str], *, progress: OnProgress | None = None) -> None: ...

    def download(
        self, name: str, to: str | os.PathLike[str] | None = None, *, progress: OnProgress | None = None
    ) -> bytes | None:
        """The content of a file in the session's directory; with `to` it becomes that file, when it is whole.

        An interrupted download leaves `.NAME.part` beside it, from which the next one goes on. Raises as `upload`
        does, and SessionError `file_unknown`.
        """
        if to is None:
            return self._portal.call(self._inner.download, name, progress=progress)
        self._portal.call(self._inner.download, name, to, progress=progress)
        return None

    def files(self) -> list[FileInfo]:
        """The files in the session's directory and its folders, by name."""
        return self._portal.call(self._inner.files)
