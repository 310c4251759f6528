"""What an answer is worth: the levels of durability, and the store of each."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from capsule_bridge.memory import MemoryStore
from capsule_bridge.places import RESONATE, kind_of
from capsule_bridge.sqlite import SqliteStore
from capsule_protocol.errors import ArgumentError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsule_bridge.sqlite.connect import Level
    from capsule_bridge.store import PromiseStore

Durability = Literal["power", "process", "none"]
"""What an acknowledged fact outlives: a power cut; the death of the node's process; nothing."""


def open_store(
    durability: Durability, place: str | Path | None = None, *, beside: Path | None = None, token: str | None = None
) -> PromiseStore:
    """The store of this level; `place` is its file, or the URL of a database or a server, and only `none` has none.

    `beside`: the file that the store at a Resonate server keeps on this machine; `token`: what lets it in there.

    Raises ArgumentError for what does not go together, and StoreError: `store_locked`, `store_refused`,
    `store_unavailable`.
    """
    if durability not in get_args(Durability):
        raise ArgumentError("durability", f"no such level: {durability!r}", allowed=", ".join(get_args(Durability)))
    if durability == "none":
        return MemoryStore()
    if place is None:
        raise ArgumentError("path", f"level {durability!r} keeps promises in a file or a database, and none was named")
    if isinstance(place, Path) or "://" not in place:
        return SqliteStore(Path(place), durability)
    if kind_of(place) == "postgres":
        return _open_database(durability, place)
    if beside is None:
        raise ArgumentError("path", "what a Resonate server does not keep is in a file, and none was named")
    return _open_at_server(durability, place, beside, token)


def _open_database(durability: Durability, url: str) -> PromiseStore:
    if durability != "power":
        raise ArgumentError("durability", f"a database has no level {durability!r}", allowed="power")
    with needs("asyncpg", "postgres", "a store in PostgreSQL"):
        from capsule_bridge.postgres import PostgresStore
    return PostgresStore(url)


def _open_at_server(durability: Level, url: str, beside: Path, token: str | None) -> PromiseStore:
    with needs("aiohttp", "resonate", "a store at a Resonate server"):
        from capsule_bridge.resonate import ResonateStore
    return ResonateStore(url.removeprefix(RESONATE), beside, durability, token=token)


@contextmanager
def needs(package: str, extra: str, what: str) -> Iterator[None]:
    """Around imports that need a package of an extra. Raises StoreError, `store_refused`, if it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        hint = f'Install it: pip install "capsule-exec[{extra}]".'
        raise StoreError("store_refused", f"{what} needs the package {package}", hint=hint) from error
