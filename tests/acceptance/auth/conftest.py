from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.auth.support import Guarded

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short folder: a socket's path may have no more than 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="a-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def node() -> Iterator[Guarded]:
    """A service for a module of tests."""
    made = Path(tempfile.mkdtemp(prefix="a-"))
    with Guarded(made) as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text(encoding="utf-8")
    shutil.rmtree(made)
