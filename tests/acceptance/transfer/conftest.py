from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient
from tests.acceptance.serve.support import Served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from capsule import AsyncSession


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A short folder: a socket's path may have no more than 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def served(place: Path) -> Iterator[Served]:
    with Served(place / "node") as running:
        yield running
        assert running.stop() == 0
        assert running.log.read_text() == ""


@pytest.fixture(params=["library", "service"])
async def session(request: pytest.FixtureRequest) -> AsyncIterator[AsyncSession]:
    """A session that works in its own directory: of a node in this process, and of one elsewhere."""
    address = request.getfixturevalue("served").address if request.param == "service" else None
    async with AsyncClient(address) as client, client.session(files={}) as session:
        yield session
