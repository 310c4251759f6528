"""What holds for every test of `http`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def no_socket_left() -> Iterator[None]:
    """Each test closes what it has opened, and so does the provider."""
    before = sockets()
    yield
    assert sockets() <= before


def sockets() -> set[str]:
    """The sockets of this process."""
    found = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
        except FileNotFoundError:  # the one that listed them
            continue
    return {path for path in found if path.startswith("socket:")}
