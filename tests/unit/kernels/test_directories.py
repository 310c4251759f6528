"""What crashes left is removed at the next start; what belongs to anybody who lives is never touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule.node.resources import box_directory
from capsule_kernels.directories import sweep
from tests.unit.kernels.forked import LONG, WAIT, forked, open_descriptors, running_zygote

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

# Prints the processes of its zygote and its boxes, and goes on for ever.
NODE = """
import asyncio
from pathlib import Path
from capsule.config import NodeConfig
from capsule.node.node import Node
from capsule_kernels import system

async def main(directory):
    async with Node(NodeConfig(directory=Path(directory))) as node:
        sessions = [await node.open_session() for _ in range(3)]
        zygote = (await node._environments.zygote("default")).pid
        print(zygote, *system.children(zygote), flush=True)
        await asyncio.Event().wait()

asyncio.run(main({directory!r}))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: sockets are in there."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def crash(place: Path) -> None:
    """A node, its zygote and its boxes end without a chance to clean up, as when the machine loses power."""
    node = subprocess.Popen([sys.executable, "-c", NODE.format(directory=str(place))], stdout=subprocess.PIPE)
    assert node.stdout is not None
    with node.stdout:
        keepers = [psutil.Process(int(pid)) for pid in node.stdout.readline().split()]
    workers = psutil.Process(node.pid).children(recursive=True)
    for process in keepers:
        process.suspend()
    node.kill()
    node.wait()
    for process in keepers:
        process.kill()
    assert not psutil.wait_procs(workers, timeout=LONG)[1]


async def test_the_next_start_removes_what_a_crash_left(place: Path) -> None:
    crash(place)
    assert any((directory / "shell.sock").exists() for directory in place.iterdir())
    async with running_zygote(directory=place):
        assert names(place) == set()


async def test_what_a_living_zygote_has_stays_whether_its_box_lives_yet_or_not(place: Path) -> None:
    async with running_zygote(directory=place) as living, forked(living, WAIT, place) as child:
        unborn = box_directory(place, living.pid)
        async with running_zygote(directory=place):
            assert names(place) == {unborn.name, Path(child.directory).name}


async def test_a_living_box_keeps_its_directory_when_its_zygote_was_killed(place: Path) -> None:
    async with running_zygote(directory=place) as killed, forked(killed, WAIT, place) as child:
        unborn = box_directory(place, killed.pid)
        os.kill(killed.pid, signal.SIGKILL)
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has reaped it
        sweep(str(place))
        assert names(place) == {Path(child.directory).name}
        assert not unborn.exists()
        assert child.box.has_worker()


async def test_the_lock_is_the_boxes_and_not_the_workers(place: Path) -> None:
    """Else a descendant of the worker that got away would keep the directory."""
    async with running_zygote(directory=place) as zygote, forked(zygote, "report(0); " + WAIT, place) as child:
        await child.report()
        assert child.directory in open_descriptors(child.box.pid).values()
        assert child.directory not in open_descriptors(child.box.worker_pid).values()
        assert child.directory not in open_descriptors(zygote.pid).values()


def ended_pid() -> int:
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def test_other_names_and_links_and_files_stay(place: Path) -> None:
    pid = ended_pid()
    outside = place / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (place / f"capsule-{pid}-link1234").symlink_to(outside)
    (place / f"capsule-{pid}-file1234").touch()
    for name in ("capsule", "capsule-", f"capsule-{pid}", f"capsule-{pid}-short", f"capsule-{pid}-12345678.bak"):
        (place / name).mkdir()
    for name in ("capsule-abc-12345678", f"xcapsule-{pid}-12345678", f"capsule--{pid}-12345678"):
        (place / name).mkdir()
    before = names(place)
    leftover = box_directory(place, pid)
    sweep(str(place))
    assert not leftover.exists()
    assert names(place) == before
    assert (outside / "file").exists()


def test_a_name_with_the_number_of_another_program_is_a_leftover(place: Path) -> None:
    box_directory(place, os.getpid())
    sweep(str(place))
    assert names(place) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_what_belongs_to_another_user_stays(place: Path) -> None:
    foreign = box_directory(place, ended_pid())
    os.chown(foreign, 65534, 65534)
    sweep(str(place))
    assert foreign.exists()


async def test_a_place_that_cannot_be_read_fails_no_start(place: Path) -> None:
    sweep(str(place / "nothing"))
    async with running_zygote(directory=place / "nothing"):
        pass
