"""Looking at a store in a database, checking and exporting it, beside the nodes that use it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import msgpack
import pytest

from capsule_bridge import Retention, Settlement, SqliteStore
from capsule_bridge.postgres import PostgresStore, tools
from capsule_bridge.sqlite import tools as file_tools
from tests.unit.bridge.contract import refused
from tests.unit.bridge.support import LARGE, new, postgres, schema_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[PostgresStore]:
    """One that is in use, with something of everything."""
    made = PostgresStore(postgres().url(), schema=schema_of(tmp_path))
    await fill(made)
    yield made
    await made.close()


async def fill(store: PostgresStore | SqliteStore) -> None:
    await store.create(new("old", key="k0"), now=1)
    await store.settle(Settlement("old", "resolve"), now=1)
    await store.expire(now=100, retention=Retention(results=10, tombstones=10**15))
    await store.create(new("a", key="k", param=LARGE, timeout_at=10**14), now=100)
    await store.create(new("a:input:1", parent="a"), now=200)
    await store.append("a", [b"one", LARGE, b"three"], after=0)
    await store.trim("a", 1)
    await store.create(new("b", param=msgpack.packb({"code": "1"})), now=300)
    await store.append("b", [b"only"], after=0)
    await store.settle(Settlement("b", "reject", b"\xa2no"), now=301)


async def change(tmp_path: Path, script: str) -> None:
    """What no part of ours does."""
    connection = await asyncpg.connect(postgres().url(), server_settings={"search_path": schema_of(tmp_path)})
    await connection.execute(script)
    await connection.close()


async def exported(tmp_path: Path, **options: Any) -> list[dict[str, Any]]:
    records = tools.export(postgres().url(), now=7, schema=schema_of(tmp_path), **options)
    return [record async for record in records]


async def test_info_tells_what_there_is_and_who_uses_it(store: PostgresStore, tmp_path: Path) -> None:
    await store.acquire("node:one", "one", seconds=60)
    await store.acquire("node:two", "two", seconds=0)
    found = await tools.info(postgres().url(), now=400, schema=schema_of(tmp_path))
    assert (found.pending, found.promises["rejected"], found.tombstones, found.events) == (2, 1, 1, 3)
    assert (found.oldest_pending, found.schema) == (300, 1)
    assert found.nodes == {"one": True, "two": False}
    assert found.size > len(LARGE) // 100  # it is compressed
    assert found.path == postgres().url()


async def test_an_export_is_that_of_a_file_with_the_same_in_it(store: PostgresStore, tmp_path: Path) -> None:
    file = SqliteStore(tmp_path / "store.db", "process")
    await fill(file)
    await file.close()
    for decode in (False, True):
        ours = await exported(tmp_path, decode=decode)
        theirs = list(file_tools.export(tmp_path / "store.db", now=7, decode=decode))
        assert ours[0].pop("path") == postgres().url()
        theirs[0].pop("path")
        assert ours == theirs
    assert base64.b64decode((await exported(tmp_path))[1]["param"]["base64"]) == LARGE


async def test_what_fits_together_is_found_to(store: PostgresStore, tmp_path: Path) -> None:
    findings = await tools.check(postgres().url(), schema=schema_of(tmp_path))
    assert {finding.severity for finding in findings} == {"ok"}
    assert [finding.code for finding in findings] == ["logs", "events", "children", "parents"]


@pytest.mark.parametrize(
    ("code", "script"),
    [
        ("logs", "DELETE FROM events WHERE sequence = 2"),
        ("events", "DELETE FROM promises WHERE id = 'b'"),
        ("children", "UPDATE promises SET state = 'resolved', settled_at = 1 WHERE id = 'a'"),
        ("parents", "UPDATE promises SET parent = 'gone', state = 'resolved', settled_at = 1 WHERE id = 'a:input:1'"),
    ],
)
async def test_what_is_wrong_is_found(store: PostgresStore, tmp_path: Path, code: str, script: str) -> None:
    await change(tmp_path, script)
    findings = await tools.check(postgres().url(), schema=schema_of(tmp_path))
    assert [finding.code for finding in findings if finding.severity != "ok"] == [code]


async def test_where_no_store_is_that_is_told_and_none_is_made(tmp_path: Path) -> None:
    url, schema = postgres().url(), schema_of(tmp_path)
    for look in (tools.info(url, now=1, schema=schema), tools.check(url, schema=schema), exported(tmp_path)):
        with refused("store_refused"):
            await look
    with refused("store_unavailable"):
        await tools.check(f"postgresql:///x?host={tmp_path}")
    connection = await asyncpg.connect(url)
    assert not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema)
    await connection.close()
