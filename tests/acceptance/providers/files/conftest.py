"""A root with innocent files beside a directory with a secret, walked in both ways."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule import beneath
from capsule.providers.files import FilesProvider
from tests.acceptance.providers.calls import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(params=["in one call", "in steps"], autouse=True)
def walk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each promise holds for both: with openat2, and where that cannot be had."""
    way: str = request.param
    monkeypatch.setattr(beneath, "_HAS_OPENAT2", way == "in one call")
    if way == "in one call":  # a kernel or a filter that lacks it would have the steps tested twice
        monkeypatch.setattr(beneath, "_hold_in_steps", None)
    return way


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory that is granted as `data`, to be written, and as `look`, to be read."""
    root = tmp_path / "root"
    (root / "folder" / "inner").mkdir(parents=True)
    (root / "folder" / "file").write_text("inside")
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """One that is not."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    return outside


@pytest.fixture
async def files(unwatched: Caller, outside: Path) -> AsyncIterator[Caller]:
    """The provider under a grant; at the end what is outside is as it was."""
    yield unwatched
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"file": "secret"}


@pytest.fixture
async def unwatched(root: Path) -> AsyncIterator[Caller]:
    """The same for a test that looks after what is outside; at the end nothing is open."""
    provider = FilesProvider()
    yield Caller(provider, {"roots": {"data": {"path": root, "mode": "rw"}, "look": {"path": root}}})
    held = open_below(root.parent)
    await provider.stop()
    await provider.stop()
    assert set(held) <= {str(root)}, "a call has left a descriptor"
    assert len(held) <= 1
    assert open_below(root.parent) == []


def open_below(directory: Path) -> list[str]:
    """The paths below a directory that this process has open, those that are deleted too."""
    found = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            target = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        except FileNotFoundError:  # the one that listed them
            continue
        if Path(target).is_relative_to(directory):
            found.append(target)
    return found
