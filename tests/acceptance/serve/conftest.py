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


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Served]:
    """A service for a module of tests."""
    with Served(place / "node") as running:
        yield running
        assert running.stop() == 0
        assert running.log.read_text() == ""
        assert [path.name for path in running.directory.iterdir()] == ["node.lock"]


@pytest.fixture
async def remote(served: Served) -> AsyncIterator[AsyncClient]:
    async with served.client() as client:
        yield client
