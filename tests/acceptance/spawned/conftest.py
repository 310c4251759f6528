"""An environment whose modules do not survive a fork, and one node for a module of tests with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncClient
from tests.acceptance.spawned.support import write_restless

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(scope="module")
def restless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An environment with a module that leaves a thread running, where workers are no forks."""
    folder: Path = tmp_path_factory.mktemp("modules")
    write_restless(folder)
    return {"preload": ["restless"], "path": [str(folder)], "start_method": "spawn"}


@pytest.fixture(scope="module")
async def client(restless: dict[str, Any]) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(environments={"default": restless}) as client:
        yield client
