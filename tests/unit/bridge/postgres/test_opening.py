"""What is opened, what is refused, which version the tables have, and that queries find their rows by an index."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from capsule_bridge import Leases, Watched, open_store
from capsule_bridge.places import POSTGRES
from capsule_bridge.postgres import PostgresStore, schema
from capsule_bridge.sql import Migration
from capsule_protocol.errors import ArgumentError, StoreError
from tests.unit.bridge.contract import refused
from tests.unit.bridge.postgres.support import cut_off, opened
from tests.unit.bridge.support import LARGE, new, postgres

pytestmark = pytest.mark.anyio

IN_PLACE = {"server", "tables", "schema_exists", "schema_version", "create_marker", "mark_version"}
IN_PLACE |= {"delete_leases", "lapsed_leases"}
"""Queries that look at the catalog, or at tables that stay small."""


async def test_a_url_opens_a_database(place: str) -> None:
    store = open_store("power", postgres().url())
    try:
        assert isinstance(store, PostgresStore)
        assert isinstance(store, Watched)
        assert isinstance(store, Leases)
    finally:
        await store.close()
    assert postgres().url().startswith(POSTGRES)
    with pytest.raises(ArgumentError, match="allowed: power"):
        open_store("process", postgres().url())


def test_without_the_driver_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("capsule_bridge.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(StoreError, match=r"capsule-exec\[postgres\]") as caught:
        open_store("power", "postgresql:///none")
    assert caught.value.code == "store_refused"


def test_a_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    with refused("store_unavailable"):
        PostgresStore(f"postgresql:///x?host={tmp_path}")
    with refused("store_unavailable"):
        PostgresStore("postgresql://localhost:none/x")


def test_a_database_that_is_not_there_is_refused() -> None:
    with pytest.raises(StoreError, match='"nothing" does not exist') as caught:
        PostgresStore(postgres().url("nothing"))
    assert caught.value.code == "store_refused"


@pytest.mark.parametrize("name", ["", "Upper", "a b", "x" * 41, 'a"; DROP'])
def test_a_schema_has_a_plain_name(name: str) -> None:
    with pytest.raises(ArgumentError, match="schema"):
        PostgresStore(postgres().url(), schema=name)


async def test_who_may_not_make_tables_is_refused(place: str, database: Any) -> None:
    await database.execute(f"CREATE ROLE {place} LOGIN")
    try:
        with pytest.raises(StoreError, match="permission denied") as caught:
            PostgresStore(postgres().url().replace("capsule@", f"{place}@"), schema=place)
        assert caught.value.code == "store_refused"
    finally:
        await database.execute(f"DROP ROLE {place}")


async def test_all_is_there_after_opening_again(place: str) -> None:
    async with opened(place) as store:
        await store.create(new("a", key="k", param=LARGE), now=1)
        await store.start("a", epoch=3, now=2)
        await store.append("a", [b"one", LARGE], after=0)
        await store.trim("a", 1)
        before, log = await store.get("a", now=3), await store.read("a", after=0)
    async with opened(place) as store:
        assert await store.get("a", now=4) == before
        assert await store.read("a", after=0) == log
        assert (await store.create(new("b", key="k"), now=5)) == (before, False)


# Versions


async def test_a_newer_schema_is_refused_with_a_hint(place: str, database: Any) -> None:
    async with opened(place):
        pass
    await database.execute("INSERT INTO capsule_schema VALUES (99)")
    with pytest.raises(StoreError, match="has schema 99") as caught:
        PostgresStore(postgres().url(), schema=place)
    assert (caught.value.code, caught.value.hint[:14]) == ("store_refused", "Update Capsule")


async def test_a_node_acknowledges_nothing_after_a_newer_one_has_changed_the_tables(place: str, database: Any) -> None:
    async with opened(place) as store:
        await store.create(new("a"), now=1)
        await database.execute("INSERT INTO capsule_schema VALUES (99)")
        await cut_off(database, store)
        with refused("store_unavailable"):
            await store.create(new("b"), now=2)


async def test_tables_of_another_program_are_refused_and_left_alone(place: str, database: Any) -> None:
    await database.execute(f"CREATE SCHEMA {place}; CREATE TABLE promises (mine int)")
    with pytest.raises(StoreError, match="not Capsule's") as caught:
        PostgresStore(postgres().url(), schema=place)
    assert caught.value.code == "store_refused"
    tables = await database.fetch(schema.queries()["tables"], place)
    assert [name for (name,) in tables] == ["promises"]


async def test_nodes_that_start_at_once_make_the_tables_once(place: str, database: Any) -> None:
    stores = await asyncio.gather(*(asyncio.to_thread(PostgresStore, postgres().url(), schema=place) for _ in range(5)))
    versions = [version for (version,) in await database.fetch("SELECT version FROM capsule_schema ORDER BY 1")]
    for store in stores:
        await store.close()
    assert versions == [step.version for step in schema.migrations()]


async def test_a_migration_that_fails_leaves_the_version_before(
    place: str, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = schema.migrations()
    bad = Migration(len(good) + 1, "CREATE TABLE more (x int); CREATE TABLE promises (x int)")
    monkeypatch.setattr(schema, "migrations", lambda: (*good, bad))
    with refused("store_unavailable"):
        PostgresStore(postgres().url(), schema=place)
    monkeypatch.undo()
    assert await database.fetchval(schema.queries()["schema_version"]) == len(good)
    assert "more" not in {name for (name,) in await database.fetch(schema.queries()["tables"], place)}


# SQL


@pytest.mark.parametrize("name", sorted(set(schema.queries()) - IN_PLACE))
async def test_no_query_looks_at_all_rows(place: str, database: Any, name: str) -> None:
    """Tables that are small now will not always be: everything has to find its rows by an index."""
    async with opened(place):
        pass
    asked = await database.prepare(schema.queries()[name])
    nothing = ", ".join("NULL" for _ in asked.get_parameters())
    await database.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
    await database.execute(f"PREPARE asked AS {schema.queries()[name]}")
    plan = [line for (line,) in await database.fetch(f"EXPLAIN EXECUTE asked{nothing and f'({nothing})'}")]
    assert [line for line in plan if "Seq Scan" in line] == []
