from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule import AsyncClient
from tests.acceptance.auth.support import Guarded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from capsule import AsyncSession

LARGEST = 2**25
"""What the nodes of these tests allow a checkpoint to have, in bytes."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A short folder: a socket's path may have no more than 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="s-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module", autouse=True)
def state(place: Path) -> Iterator[Path]:
    """Where library mode has its key: not in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(place / "own"))
        yield place / "own"


@pytest.fixture(scope="module")
def node(place: Path) -> Iterator[Guarded]:
    """A service with a listener of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPSULE_MAX_CHECKPOINT_BYTES", str(LARGEST))
        running = Guarded(place)
    with running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def key(node: Guarded) -> str:
    return node.new("alice", "--role", "user")


@pytest.fixture(scope="module", params=["library", "ipc", "tcp"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    """One with a node in this process, and ones of a node elsewhere."""
    address = secret = None
    if request.param != "library":
        node: Guarded = request.getfixturevalue("node")
        address = getattr(node, request.param)
        secret = request.getfixturevalue("key") if request.param == "tcp" else None
    made = AsyncClient(address, key=secret) if address else AsyncClient(max_checkpoint_bytes=LARGEST)
    async with made as client:
        yield client


@pytest.fixture
async def session(client: AsyncClient) -> AsyncIterator[AsyncSession]:
    async with client.session(files={}, interrupt_grace=10.0) as session:
        yield session


@pytest.fixture
async def other(client: AsyncClient) -> AsyncIterator[AsyncSession]:
    """Another session of the same client, to restore into."""
    async with client.session(files={}) as session:
        yield session
