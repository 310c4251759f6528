"""One server of each kind for all these tests, empty for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.bridge.resonate.support import KINDS, Server, running


@pytest.fixture(scope="session", params=KINDS)
def one_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(request.param) as server:
        yield server


@pytest.fixture
def server(one_server: Server) -> Server:
    one_server.forget()
    one_server.clock(0)
    return one_server
