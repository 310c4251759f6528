"""What holds for every test: an honest Ctrl-C, a private place for temporary files, and nothing left behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from capsule import AsyncClient, AsyncSession

# A suite that a shell starts in the background inherits "ignore SIGINT", and with it all its children would.
signal.signal(signal.SIGINT, signal.default_int_handler)

GONE_WITHIN = 45.0
"""Seconds in which processes that were told to end must have ended, on a busy machine."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, and fixtures of every scope may be asynchronous."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def private_tmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A TMPDIR of this run. Short, because a socket's path may have no more than 107 bytes."""
    tmp_path_factory.getbasetemp()  # pytest's own directories stay where it looks for them
    before = os.environ.get("TMPDIR")
    directory = Path(tempfile.mkdtemp(prefix="ct-"))
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    yield directory
    waiting = threading.Thread(target=_wait_for_boxes, args=(directory,), daemon=True)
    waiting.start()
    waiting.join(GONE_WITHIN)
    leftovers = sorted(path.name for path in directory.glob("capsule*"))
    tempfile.tempdir = None
    if before is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = before
    shutil.rmtree(directory, ignore_errors=True)
    assert not leftovers, f"left in the temporary directory: {leftovers}"


def _wait_for_boxes(directory: Path) -> None:
    """Until those have ended whose node was killed a moment ago: each holds a lock on its directory, and removes it."""
    for path in directory.glob("capsule-*"):
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.close(descriptor)


@pytest.fixture(scope="session", autouse=True)
def no_process_left(private_tmp: Path) -> Iterator[None]:
    """At the end of the run no child of it lives, nor any process that works in its temporary directory."""
    yield
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=GONE_WITHIN)
    for process in alive:
        process.kill()
    assert not alive, f"left running: {alive}"


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[AsyncClient]:
    """A client in library mode, one for a module of tests: the node lives in this process."""
    from capsule import AsyncClient

    async with AsyncClient() as client:
        yield client


@pytest.fixture
async def cold() -> AsyncIterator[AsyncClient]:
    """A client that makes no worker ahead: every process and file here belongs to a session of the test."""
    from capsule import AsyncClient

    async with AsyncClient(environments={"default": {"min_idle": 0}}) as client:
        yield client


@pytest.fixture
async def session(client: AsyncClient) -> AsyncIterator[AsyncSession]:
    """A session that no other test has seen, with more patience than a busy machine can use up."""
    async with client.session(interrupt_grace=10.0) as session:
        yield session
