"""One node for each level and user, shared by the tests of a module."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.sandbox.rig import LEVELS, USERS, Host, public_python

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def everybodys_python() -> Iterator[str]:
    """An interpreter that an ordinary user can run too."""
    with public_python() as python:
        if python is None:
            pytest.skip("no interpreter of this version, or not its packages, can be read by all users here")
        yield python


@pytest.fixture(scope="module", params=[(level, user) for level in LEVELS for user in USERS], ids="-".join)
def host(request: pytest.FixtureRequest, everybodys_python: str) -> Iterator[Host]:
    """A node at one of the levels, as root or as an ordinary user."""
    level, user = request.param
    if user == "root" and os.geteuid() != 0:
        pytest.skip("the tests do not run as root")
    one = Host(everybodys_python, level, user, preload=["numpy", "pandas", "matplotlib"])
    try:
        yield one
    finally:
        one.close()
