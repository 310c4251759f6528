from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.serve.support import Served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from capsule import AsyncClient


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A short folder: a socket's path may have no more than 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="s-"))
    yield folder
    shutil.rmtree(folder)


FORGETFUL = '[store]\ndurability = "none"\n'


@pytest.fixture(scope="module", params=["", FORGETFUL], ids=["durable", "forgetful"])
def served(place: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """A service for a module of tests, which writes all down, or nothing."""
    directory = Path(tempfile.mkdtemp(dir=place)) / "node"
    with Served(directory, request.param) as running:
        yield running
        assert running.stop() == 0
        assert running.log.read_text() == ""
        left = {path.name for path in directory.iterdir()} - {"node.lock"}
        assert left == (set() if request.param else {"store.db", "store.db.lock", "store.db.values"})


@pytest.fixture
def forgetful(place: Path) -> Iterator[Served]:
    """A service that writes nothing down."""
    with Served(place / "forgetful", FORGETFUL) as running:
        yield running


@pytest.fixture
async def remote(served: Served) -> AsyncIterator[AsyncClient]:
    async with served.client() as client:
        yield client
