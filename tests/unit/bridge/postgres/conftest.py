"""Stores of one schema, and somebody who looks into the database past them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from capsule_bridge.postgres import PostgresStore
from tests.unit.bridge.postgres.support import opened
from tests.unit.bridge.support import postgres, schema_of


@pytest.fixture
def place(tmp_path: Path) -> str:
    """The schema of this test's store."""
    return schema_of(tmp_path)


@pytest.fixture
async def pair(place: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    """The same store, opened by two nodes."""
    async with opened(place) as one, opened(place) as other:
        yield one, other


@pytest.fixture
async def database(place: str) -> AsyncIterator[Any]:
    """Somebody who looks into the database past the store."""
    connection = await asyncpg.connect(postgres().url(), server_settings={"search_path": place})
    yield connection
    await connection.close()
