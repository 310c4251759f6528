"""The node's side of zygote and box: clear errors, and nothing left behind whatever is cancelled or killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack
import pytest

from capsule.node.launch import Box, Zygote
from capsule.node.leases import lease_pair
from capsule_protocol.errors import EnvironmentFailed, WorkerLost
from tests.unit.kernels.forked import (
    CHILDREN,
    LONG,
    WAIT,
    WORKER,
    Watch,
    boxes_of,
    children_of,
    close,
    forked,
    open_descriptors,
    opened_since,
    running_zygote,
    spare_of,
    told,
)
from tests.unit.node.support import assert_nothing_more, state_of_this_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No descriptor, child process or directory more than before."""
    before = state_of_this_process()
    yield
    assert_nothing_more(before)


@pytest.fixture
async def zygote() -> AsyncIterator[Zygote]:
    async with running_zygote() as zygote:
        yield zygote


def box_spec(code: str = WAIT) -> dict[str, str]:
    return {"dir": tempfile.mkdtemp(prefix="capsule-"), "code": code}


@asynccontextmanager
async def stopped(zygote: Zygote) -> AsyncIterator[None]:
    """The zygote answers nothing inside the block."""
    os.kill(zygote.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(zygote.pid, signal.SIGCONT)


async def give_way() -> None:
    """Let the other tasks run until each of them waits for something outside."""
    for _ in range(10):
        await asyncio.sleep(0)


async def cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Starting a zygote


@pytest.mark.usefixtures("nothing_left")
async def test_a_missing_interpreter_is_named() -> None:
    with pytest.raises(EnvironmentFailed, match=r"/nowhere/python.*No such file"):
        await Zygote.start(python="/nowhere/python")


@pytest.mark.usefixtures("nothing_left")
async def test_an_interpreter_without_capsule_gets_a_hint(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: without its site-packages
    python.chmod(0o755)
    with pytest.raises(EnvironmentFailed, match="capsule_kernels") as caught:
        await Zygote.start(python=str(python))
    assert "Capsule installed" in str(caught.value)


@pytest.mark.usefixtures("nothing_left")
async def test_a_failed_preload_leaves_nothing() -> None:
    with pytest.raises(EnvironmentFailed):
        await Zygote.start(preload=["no_such_module"])


@pytest.mark.usefixtures("nothing_left")
async def test_a_relative_interpreter_is_found_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    async with running_zygote(python="./python") as zygote:
        assert os.getsid(zygote.pid) == zygote.pid  # a Ctrl-C at the terminal does not reach it


@pytest.mark.usefixtures("nothing_left")
async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """Also of what the import itself has started."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "endless.py").write_text(
        "import os, subprocess\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        f"open('{fifo}', 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "sum(range(10**12))\n"
    )
    start = asyncio.create_task(Zygote.start(preload=["endless"], path=[str(tmp_path)]))
    watch = Watch(*map(int, (await asyncio.to_thread(fifo.read_text)).split()))
    await cancel(start)
    await watch.ended()


# Forking


@pytest.mark.usefixtures("nothing_left")
async def test_a_box_gives_back_all_it_took() -> None:
    async with running_zygote() as zygote, forked(zygote, WAIT) as child:
        assert child.box.worker_pid in children_of(child.box.pid)
        assert child.box.pid in children_of(zygote.pid)
        await child.end()
        assert child.box.worker_pidfd == -1
        assert not child.box.signal_worker(signal.SIGINT)
        child.box.interrupt_children(0)
        child.box.close()


async def test_a_fork_cancelled_before_the_zygote_sees_it_leaves_nothing(zygote: Zygote) -> None:
    before = open_descriptors()
    spec = box_spec()
    async with stopped(zygote):
        fork = asyncio.create_task(zygote.fork(spec, [0, 0, 0]))
        await give_way()
        await cancel(fork)
    assert not opened_since(before)
    async with forked(zygote, WAIT) as later:  # the request before this one has been served
        await spare_of(zygote)  # until it has its name it looks like any box
        await Watch(*(boxes_of(zygote.pid) - {later.box.pid})).ended()
        assert not Path(spec["dir"]).exists()
    assert await told(zygote, "report('fine')") == "fine"


async def test_a_fork_cancelled_while_its_worker_starts_leaves_nothing(tmp_path: Path) -> None:
    before = open_descriptors()
    ours, theirs = lease_pair()
    with theirs:
        opening = asyncio.create_task(Box.open(1, ours, str(tmp_path)))
        await give_way()
        await cancel(opening)
        assert theirs.recv(1) == b""  # which ends the box
    assert not opened_since(before)


async def test_more_forks_than_the_socket_holds_are_served_or_cancelled(zygote: Zygote) -> None:
    before = open_descriptors()
    async with stopped(zygote):
        code = f"{WAIT}  # {'x' * 40_000}"
        forks = [asyncio.create_task(zygote.fork(box_spec(code), [0, 0, 0])) for _ in range(24)]
        await give_way()
        for fork in forks[::2]:
            await cancel(fork)
    async with asyncio.timeout(LONG):
        boxes = await asyncio.gather(*forks[1::2])
        for box in boxes:
            box.close()
        for box in boxes:
            await box.gone()
    assert len({box.worker_pid for box in boxes}) == 12
    assert not opened_since(before)


async def test_forks_fail_when_their_zygote_dies() -> None:
    specs = [box_spec("#" * 40_000) for _ in range(24)]
    async with running_zygote() as zygote:
        async with stopped(zygote):
            forks = [asyncio.create_task(zygote.fork(spec, [0, 0, 0])) for spec in specs]
            await give_way()
            os.kill(zygote.pid, signal.SIGKILL)
            async with asyncio.timeout(LONG):
                errors = await asyncio.gather(*forks, return_exceptions=True)
        assert {type(error) for error in errors} == {WorkerLost}
        assert not any(Path(spec["dir"]).exists() for spec in specs)
        async with asyncio.timeout(LONG):
            await zygote.died.wait()
        with pytest.raises(WorkerLost) as caught:
            await zygote.fork(box_spec(), [0, 0, 0])
        assert caught.value.code == "worker_start_failed"


async def test_closing_twice_is_harmless() -> None:
    zygote = await Zygote.start(path=[CHILDREN], worker=WORKER)
    await close(zygote)
    await close(zygote)


# A box, told of by something that is none


async def test_nonsense_over_the_lease_ends_the_box(zygote: Zygote) -> None:
    for nonsense in (
        b"\xc1",
        msgpack.packb(7),
        msgpack.packb({"exit": "x", "exceeded": ""}),
        msgpack.packb({"worker": 1}),
    ):
        ours, theirs = lease_pair()
        with theirs:
            theirs.send(nonsense)
            with pytest.raises(WorkerLost):
                await Box.open(1, ours, "/nonexistent")
            assert theirs.recv(1) == b""


async def test_a_worker_that_ends_before_it_listens_is_an_error() -> None:
    zygote = await Zygote.start(path=[CHILDREN], worker="box_worker:silent")
    box = await zygote.fork(box_spec(), [0, 0, 0])
    with pytest.raises(WorkerLost, match="exit code 5"):
        await box.bound()
    await box.gone()
    await close(zygote)


async def test_a_zygote_removes_the_directories_of_boxes_that_never_lived() -> None:
    """A node that is killed leaves one when it has just asked for a fork."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        zygote = await Zygote.start(path=[CHILDREN], worker=WORKER, directory=place)
        unborn, living, other = (
            place / name for name in (f"capsule-{zygote.pid}-a", f"capsule-{zygote.pid}-b", "capsule-1-c")
        )
        for directory in (unborn, living, other):
            directory.mkdir()
        (living / "shell.sock").touch()
        asyncio.get_running_loop().remove_reader(zygote._connection)  # a node that is dead kills no zygote
        await close(zygote)
        assert (unborn.exists(), living.exists(), other.exists()) == (False, True, True)


def test_a_time_limit_that_the_program_sets_for_its_sockets_is_not_the_leases() -> None:
    """A zygote and a box wait for as long as it takes, on descriptions that they are given."""
    socket.setdefaulttimeout(5)
    try:
        ours, theirs = lease_pair()
    finally:
        socket.setdefaulttimeout(None)
    with ours, theirs:
        assert not os.get_blocking(ours.fileno())
        assert os.get_blocking(theirs.fileno())


async def test_how_a_worker_ended_is_heard_though_its_box_left_a_message_of_the_node_unread(tmp_path: Path) -> None:
    ours, theirs = lease_pair()
    box = Box.adopted(os.getpid(), ours, str(tmp_path / "box"), (0, -1))
    with theirs:
        theirs.send(msgpack.packb({"exit": 7, "exceeded": ""}))
        theirs.send(msgpack.packb({"gone": True}))
        box.expect()
    async with asyncio.timeout(LONG):
        assert (await box.exited()).code == 7
        await box.gone()
