"""One synchronous client for each module of tests, a new session for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capsule import Client, Session

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def sync_client() -> Iterator[Client]:
    """A client in library mode: the node lives in this process."""
    with Client() as client:
        yield client


@pytest.fixture
def sync_session(sync_client: Client) -> Iterator[Session]:
    """A session that no other test has seen."""
    with sync_client.session() as session:
        yield session
