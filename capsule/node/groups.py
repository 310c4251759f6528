"""Control groups that a zygote has made and no box has: they go when it has ended, however that came."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def remove_groups(folders: Iterable[str], zygote: int) -> None:
    """Remove those of this zygote in these folders in which there is no process. Never fails.

    `zygote` is its process id. Boxes outlive their zygotes: theirs have processes in them, and they remove them.
    """
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    for folder in folders:
        for path in Path(folder).glob(f"capsule-{namespace}-{zygote}-*"):
            with suppress(OSError):
                path.rmdir()
