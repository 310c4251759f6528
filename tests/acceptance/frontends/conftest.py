"""Sessions of a node in this process, and of a service that writes all down or nothing: they do the same."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient
from tests.acceptance.serve.conftest import FORGETFUL
from tests.acceptance.serve.support import Served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from capsule import AsyncSession

SERVICES = {"durable": "", "forgetful": FORGETFUL}


@contextmanager
def service(config: str) -> Iterator[Served]:
    """A service, which has to leave without a word."""
    folder = Path(tempfile.mkdtemp(prefix="s-"))
    try:
        with Served(folder / "node", config) as served:
            yield served
            assert served.stop() == 0
            assert served.log.read_text() == ""
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["library", *SERVICES])
def address(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Where the node is; None: in this process."""
    if request.param == "library":
        yield None
        return
    with service(SERVICES[request.param]) as served:
        yield served.address


@pytest.fixture
async def durable() -> AsyncIterator[AsyncClient]:
    """A client of a service that writes all down."""
    with service(SERVICES["durable"]) as served:
        async with served.client() as client:
            yield client


@pytest.fixture(scope="module")
async def anywhere(address: str | None) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address) as client:
        yield client


@pytest.fixture
async def session(anywhere: AsyncClient) -> AsyncIterator[AsyncSession]:
    async with anywhere.session() as session:
        yield session
