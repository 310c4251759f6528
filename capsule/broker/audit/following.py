"""Reading a trail while it is written: new records as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule.broker.audit.reading import Wanted, newest, since
from capsule_protocol.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from capsule.broker.audit.record import Entry


def following(folder: Path, count: int, wanted: Wanted | None = None) -> Iterator[list[Entry]]:
    """The newest records, then those that are written, as they come; never ends. Raises StoreError."""
    from asyncinotify import Inotify, Mask

    with Inotify() as inotify:
        try:
            inotify.add_watch(folder, Mask.MODIFY | Mask.CREATE)
        except OSError as error:
            text = f"{folder} cannot be read as an audit trail: {error.strerror}"
            raise StoreError("store_refused", text) from error
        last = newest(folder, 1)
        position = last[0].sequence if last else 0
        yield [entry for entry in newest(folder, count, wanted) if entry.sequence <= position]
        for _ in inotify:
            found = since(folder, position)
            if found:
                position = found[-1].sequence
                yield [entry for entry in found if (wanted or Wanted()).fits(entry)]
