"""What the tests of transfers have in common."""

from __future__ import annotations

import ast
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from capsule import AsyncSession

MIB = 2**20


class Leave(Exception):
    """Raised by a test to interrupt a transfer."""


async def value(session: AsyncSession, code: str) -> Any:
    result = await session.run(code)
    result.raise_for_error()
    return ast.literal_eval(result.text)


async def directory(session: AsyncSession) -> Path:
    """The session's own, seen from here: tests run on the node's machine."""
    return Path(await value(session, "import os; os.environ['SESSION_FILES']"))


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def content(size: int) -> bytes:
    """Bytes that differ from one another, always the same."""
    return random.Random(size).randbytes(size)


def leave_at(limit: int, seen: list[int]) -> Callable[[int, int | None], None]:
    """A callback that notes how far a transfer is, and interrupts it there."""

    def progress(done: int, _total: int | None) -> None:
        seen.append(done)
        if done >= limit:
            raise Leave

    return progress
