from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.jupyter import support

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def home() -> Iterator[support.Home]:
    """Jupyter as a user has it, for a module of tests."""
    with support.home() as made:
        yield made
