"""Every operation, asked of one path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsule_protocol.errors import CapabilityError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.acceptance.providers.calls import Answer, Caller

READS = ["read", "list", "stat", "glob", "watch"]
WRITES = ["write", "append", "mkdir", "remove", "move from", "move to"]
EVERY = READS + WRITES


def ask(files: Caller, what: str, path: str) -> Awaitable[Answer]:
    """Call an operation with a path of an attacker's choice."""
    calls: dict[str, Callable[[], Awaitable[Answer]]] = {
        "write": lambda: files("write", b"attack", path=path),
        "append": lambda: files("append", b"attack", path=path),
        "glob": lambda: files("glob", path=path, pattern="**"),
        "watch": lambda: files("watch", path=path, recursive=True, seconds=0),
        "mkdir": lambda: files("mkdir", path=path, parents=True, exist_ok=True),
        "remove": lambda: files("remove", path=path, recursive=True),
        "move from": lambda: files("move", source=path, target="data/moved"),
        "move to": lambda: files("move", source="data/bait", target=path, overwrite=True),
    }
    return calls[what]() if what in calls else files(what, path=path)


async def outcome(files: Caller, what: str, path: str) -> str:
    """The code of the error, or "done"."""
    try:
        await ask(files, what, path)
    except CapabilityError as error:
        return error.code
    return "done"


async def outcomes(files: Caller, path: str) -> dict[str, str]:
    """What each operation says of it."""
    return {what: await outcome(files, what, path) for what in EVERY}


def all_refused(*_: object) -> dict[str, str]:
    """What they say of a path that leads astray."""
    return dict.fromkeys(EVERY, "path_refused")
