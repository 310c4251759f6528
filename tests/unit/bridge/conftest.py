"""The end of what the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.bridge.support import UNTIL_THE_END


@pytest.fixture(scope="session", autouse=True)
def shared(no_process_left: None) -> Iterator[None]:
    """Ends before it is looked for processes that were left."""
    with UNTIL_THE_END:
        yield
