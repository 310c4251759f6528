"""One server for all these tests, empty for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.bridge.resonate.support import Server, running


@pytest.fixture(scope="session")
def one_server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.forget()
    one_server.clock(0)
    return one_server
