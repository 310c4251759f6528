"""A PostgreSQL server for the tests of a module, and a database of its own for each of them."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from capsule_bench.database import NoServerError, Server, server

_numbers = itertools.count(1)


@pytest.fixture
def place() -> Iterator[Path]:
    """A short folder: a socket's path may have no more than 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="d-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgres(no_process_left: None) -> Iterator[Server]:
    try:
        with server("max_connections=200") as one:
            yield one
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture
async def url(postgres: Server) -> str:
    """The URL of an empty database."""
    name = f"test{next(_numbers)}"
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return postgres.url(name)
