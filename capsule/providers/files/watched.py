"""Directories under one watch, and the events that wait to be told."""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TYPE_CHECKING, Final

from capsule import beneath
from capsule.beneath import MAX_DEPTH, Astray
from capsule.providers.files import inotify
from capsule.providers.files.errors import explained, failed, too_many
from capsule.providers.files.inotify import Notices
from capsule.providers.files.names import NAMELESS
from capsule.providers.files.walking import scan

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from capsule.providers.files.inotify import Notice
    from capsule.providers.files.places import Place
    from capsule.providers.files.schemas import FilesScope

PAUSE: Final = 0.01
"""Seconds between two batches, so that a flood gets a small part of the loop's time and no more."""
_WORDS: Final = {inotify.CREATED: "created", inotify.MODIFIED: "modified", inotify.DELETED: "deleted"}
_UNFINISHED: Final = NAMELESS.encode()
Event = dict[str, "str | int"]


class Watched:
    """What `begin` and `enter` do belongs on a thread; they share only what one step of the interpreter changes."""

    def __init__(self, at: Place, scope: FilesScope, *, recursive: bool, on_event: Callable[[], None]) -> None:
        self.lost = 0
        self.gone = False
        self.entered: deque[str] = deque()
        """Directories that have come to be, and are not watched as yet."""
        self._at = at
        self._scope = scope
        self._recursive = recursive
        self._on_event = on_event
        self._waiting: deque[Event] = deque()
        self._untold = 0
        self._folders: dict[int, str] = {}
        self._source: tuple[int, str] | None = None
        self._notices = Notices()

    @property
    def descriptor(self) -> int:
        """Readable when `read` has something to do."""
        return self._notices.descriptor

    def begin(self) -> Generator[None, None, None]:
        """Watch the directory, and those below if they are wanted. Raises as all work on files."""
        with explained(self._at.path):
            yield from self._enter("", first=True)

    def enter(self, inner: str) -> Generator[None, None, None]:
        """Watch a directory that has come to be, and tell of what is in it already."""
        try:
            yield from self._enter(inner, first=False)
        except (OSError, Astray):  # gone again, or another thing by now
            return

    def read(self) -> None:
        """Take in a batch of what the system tells."""
        for notice in self._notices.read():
            self._take(notice)
        self._settle()
        self._on_event()

    def tell(self, most: int) -> list[Event]:
        """The oldest events, and how many were lost since."""
        events = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        if self._untold and len(events) < most:
            events.append({"event": "lost", "count": self._untold})
            self._untold = 0
        return events

    def close(self) -> None:
        """Watch nothing any more. Idempotent."""
        self._notices.close()

    def _enter(self, inner: str, *, first: bool) -> Generator[None, None, None]:
        parts = [*self._at.parts, *(inner.split("/") if inner else ())]
        folder = beneath.open_folder(self._at.top, parts, mounts=self._at.root.mounts)
        try:
            if not self._add(folder, inner, first=first) or not self._recursive:
                return
            deeper = []
            for seen in scan(folder):
                yield
                if seen is None:
                    self._lose(0 if first else 1)
                    continue
                below = f"{inner}/{seen.name}" if inner else seen.name
                if not first:
                    self._put({"event": "created", "path": self._path(below)})
                if seen.kind == "directory" and len(parts) + 1 < MAX_DEPTH:
                    deeper.append(below)
        finally:
            os.close(folder)
        for below in deeper:
            yield from self._enter(below, first=True) if first else self.enter(below)

    def _add(self, folder: int, inner: str, *, first: bool) -> bool:
        if len(self._folders) >= self._scope.max_watched:
            if first:
                raise too_many(self._at.path, "directories to be watched", self._scope.max_watched)
            self._put({"event": "unwatched", "path": self._path(inner)})
            return False
        try:
            self._folders[self._notices.add(folder)] = inner
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise failed(self._at.path, "cannot be watched: fs.inotify.max_user_watches is reached") from error
            raise
        return True

    def _take(self, notice: Notice) -> None:
        inner = self._folders.get(notice.watch)
        if notice.mask & inotify.OVERFLOW:
            self._lose(1)
        elif notice.mask & inotify.IGNORED:
            self._folders.pop(notice.watch, None)
        elif notice.mask & inotify.GONE:
            self.gone |= inner == ""
        elif inner is not None and not notice.name.startswith(_UNFINISHED):
            self._name(notice, inner)
        elif notice.mask & inotify.MOVED_FROM:  # a file that is whole now
            self._source = notice.cookie, ""

    def _name(self, notice: Notice, inner: str) -> None:
        try:
            name = notice.name.decode()
        except UnicodeDecodeError:
            self._lose(1)
            return
        below = f"{inner}/{name}" if inner else name
        is_folder = bool(notice.mask & inotify.IS_FOLDER)
        if notice.mask & inotify.MOVED_FROM:
            self._settle()
            self._source = notice.cookie, below
            if is_folder:
                self._leave(below)
        elif notice.mask & inotify.MOVED_TO:
            self._moved(notice.cookie, below)
        else:
            self._settle()
            self._put({"event": _WORDS[notice.mask & ~inotify.IS_FOLDER], "path": self._path(below)})
        if is_folder and self._recursive and notice.mask & (inotify.CREATED | inotify.MOVED_TO):
            self.entered.append(below)

    def _moved(self, cookie: int, below: str) -> None:
        path = self._path(below)
        if self._source is None or self._source[0] != cookie:
            self._settle()
            self._put({"event": "created", "path": path})
        elif source := self._source[1]:
            self._put({"event": "moved", "path": path, "source": self._path(source)})
        else:
            self._put({"event": "modified", "path": path})
        self._source = None

    def _settle(self) -> None:
        """What was moved away and did not arrive anywhere is gone."""
        if self._source is not None and self._source[1]:
            self._put({"event": "deleted", "path": self._path(self._source[1])})
        self._source = None

    def _leave(self, below: str) -> None:
        """It may be outside by now: what happens there is not ours to tell."""
        for watch, inner in list(self._folders.items()):
            if inner == below or inner.startswith(f"{below}/"):
                self._folders.pop(watch, None)
                try:
                    self._notices.remove(watch)
                except OSError:  # it has ended by itself
                    continue

    def _path(self, inner: str) -> str:
        return f"{self._at.path}/{inner}"

    def _put(self, event: Event) -> None:
        if len(self._waiting) < self._scope.max_waiting:
            self._waiting.append(event)
        else:
            self._lose(1)

    def _lose(self, count: int) -> None:
        self.lost += count
        self._untold += count
