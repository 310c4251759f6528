"""The chaos of the ordinary suite for longer, and whole nodes killed. Run by `make chaos`, not by `make test`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.pool.aftermath import processes_in
from tests.acceptance.pool.chaos import STATES, Chaos, plan
from tests.acceptance.pool.support import warm
from tests.unit.kernels.forked import running_zygote

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

ROUNDS = 300
ROOT = Path(__file__).parents[2]


@pytest.fixture
def place() -> Iterator[Path]:
    """A TMPDIR for other nodes. Short, as sockets are in there."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("seed", [300])
async def test_300_kills_of_workers_boxes_and_zygotes_in_every_state(seed: int) -> None:
    async with warm(min_idle=3) as one:
        chaos = Chaos(one, plan(seed, ROUNDS), seed)
        await chaos.run(seconds=800)
        await chaos.check()
        print(f"\n{chaos!r}")


def run_node(place: Path, *arguments: object) -> None:
    """Run a node to its violent end."""
    command = [sys.executable, "-m", "tests.chaos.node", *map(str, arguments)]
    node = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "TMPDIR": str(place)}, capture_output=True, text=True, check=False
    )
    assert node.returncode == -signal.SIGKILL, node.stderr
    assert not processes_in(place)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("state", STATES)
def test_a_node_that_is_killed_leaves_nothing(state: str, seed: int, place: Path) -> None:
    run_node(place, state, seed, 0)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("state", STATES)
async def test_a_node_that_is_killed_after_its_boxes_leaves_no_process_and_the_next_start_sweeps(
    state: str, seed: int, place: Path
) -> None:
    run_node(place, state, seed, 5)
    async with running_zygote(directory=place):
        assert list(place.iterdir()) == []
