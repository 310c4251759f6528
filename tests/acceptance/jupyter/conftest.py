from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.jupyter import support

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.manager import KernelManager


@pytest.fixture(scope="module")
def home() -> Iterator[support.Home]:
    """Jupyter as a user has it, for a module of tests."""
    with support.home() as made:
        yield made


@pytest.fixture(scope="module", params=support.ROUTES)
def manager(home: support.Home, request: pytest.FixtureRequest) -> Iterator[KernelManager]:
    with support.managed(request.param) as made:
        yield made


@pytest.fixture
def client(manager: KernelManager) -> Iterator[BlockingKernelClient]:
    with support.connected(manager) as made:
        yield made
