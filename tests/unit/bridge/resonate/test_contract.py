"""The contract of all stores, with Resonate's own server as the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from capsule_bridge import PromiseStore
from tests.unit.bridge.contract import StoreContract
from tests.unit.bridge.resonate.support import Server, Timed


@pytest.fixture
async def store(server: Server, tmp_path: Path) -> AsyncIterator[PromiseStore]:
    store = Timed(server, tmp_path / "store.db")
    yield store
    await store.close()


class TestResonateStore(StoreContract):
    """All of the contract."""
