"""Every store, held to the one contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from capsule_bridge import PromiseStore
from tests.unit.bridge.contract import StoreContract, test_the_table_lets_every_settled_state_stay
from tests.unit.bridge.support import KINDS, open_kind

__all__ = ["test_the_table_lets_every_settled_state_stay"]


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PromiseStore]:
    store = open_kind(request.param, tmp_path)
    yield store
    await store.close()


class TestStores(StoreContract):
    """All of the contract, for each kind of store."""
