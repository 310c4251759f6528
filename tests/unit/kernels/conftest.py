"""The process that forks a child for each test that wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.kernels.alone import Children


@pytest.fixture(scope="session")
def alone_children() -> Iterator[Children]:
    """One for all tests of the run."""
    children = Children()
    yield children
    children.close()
