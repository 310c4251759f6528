"""What becomes of a box that its node has left: it waits, it is handed over once, or nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack
import psutil
import pytest

from capsule.node.adoption import RECORD_BYTES, Adoptable, Lingering, adoptable, take_over
from capsule.node.execution import ExecuteRequest
from capsule.node.heir import Heir
from capsule.node.node import Node
from capsule.node.resources import begun
from capsule_kernels.box import remove_tree
from capsule_protocol.adoption import SOCKET
from capsule_protocol.errors import NodeError, StoreError, WorkerLost
from tests.acceptance.linger.support import LONG, normal, written
from tests.acceptance.linger.victim import config
from tests.unit.kernels.forked import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from capsule.events import Event
    from capsule.node.execution import Execution
    from tests.acceptance.linger.support import Place

pytestmark = pytest.mark.anyio

DAEMON = """
import os, subprocess, time
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("pids", os.getpid(), child.pid, flush=True)
time.sleep(1000)
"""


async def left_alone(place: Place, *cells: str, **plan: object) -> Adoptable:
    """A box whose node has just been killed."""
    place.start(*(cells or ("kept = 1",)), **plan)
    await place.until_idle()
    place.kill()
    return place.box()


async def gone(box: Adoptable, *others: int) -> None:
    await Watch(box.box[0], box.worker[0], *others).ended()


async def test_nobody_comes_and_nothing_is_left(place: Place) -> None:
    place.start(DAEMON, seconds=0.5)
    await place.until_told(2)
    _, _, child = place.store.events()[1].text.split()  # type: ignore[attr-defined]  # it is an Output
    place.kill()
    box = place.box()
    assert psutil.pid_exists(box.worker[0])
    assert psutil.pid_exists(int(child))
    await gone(box, int(child))
    assert not Path(box.directory).exists()
    assert list(place.records.iterdir()) == []
    assert adoptable(place.records) == []


async def test_the_zygote_goes_with_its_node_and_the_worker_stays(place: Place) -> None:
    place.start("kept = 1; print('ready')")
    await place.until_idle()
    node = psutil.Process(place.store.lines("node")[0]["pid"])
    (zygote,) = node.children()
    place.kill()
    await Watch(zygote.pid).ended()
    async with place.adopted() as session, asyncio.timeout(LONG):
        assert (await session.submit(ExecuteRequest("kept")).finished()).text == "1"


async def test_a_zygote_that_starts_beside_it_removes_nothing_of_it(place: Place) -> None:
    box = await left_alone(place)
    async with Node(config(), lingering=Lingering(10.0, place.records)) as node:
        other = await node.open_session()
        assert Path(box.directory, "shell.sock").exists()
        await other.close()
    async with place.adopted() as session, asyncio.timeout(LONG):
        assert (await session.submit(ExecuteRequest("kept")).finished()).text == "1"


async def test_a_session_that_is_closed_does_not_linger(place: Place) -> None:
    await left_alone(place)
    async with place.adopted() as session, asyncio.timeout(LONG):
        box = place.box()
        await session.close()
        await gone(box)
        assert list(place.records.iterdir()) == []
        assert not Path(box.directory).exists()


async def test_a_worker_that_was_killed_meanwhile_is_told_with_its_reason(place: Place) -> None:
    place.start("import time\nprint('begun')\ntime.sleep(1000)")
    await place.until_written("begun")
    place.kill()
    box = place.box()
    os.kill(box.worker[0], signal.SIGSEGV)
    await Watch(box.worker[0]).ended()
    async with place.adopted() as session:
        (verdict,) = await place.finish(session)
        assert session.state == "dead"
    assert verdict.verdict == "crashed"
    assert verdict.error is not None
    assert verdict.error.details["signal_name"] == "SIGSEGV"
    assert normal(place.store.events()) == [("stdout", "begun\n"), ("crashed", "", 0)]
    await gone(box)


async def test_a_worker_that_dies_while_it_is_adopted_is_told_with_its_reason(place: Place) -> None:
    """The new node asks its store meanwhile; it came to no end and no start when the worker ended just then."""
    place.start("import time\nprint('begun', flush=True)\ntime.sleep(100)", fault=("mark", False, 1))
    await place.until(lambda: False)
    place.kill()
    (one,) = place.store.remembered()
    box = place.box()

    async def dies(number: int) -> Sequence[Event]:
        os.kill(box.worker[0], signal.SIGKILL)
        while Path(f"/proc/{box.box[0]}").exists():
            await asyncio.sleep(0.01)
        for _ in range(100):
            await asyncio.sleep(0)
        return await one.events_after(number)

    async with place.adopted([replace(one, events_after=dies)]) as session:
        (verdict,) = await place.finish(session)
    assert verdict.verdict == "crashed"
    assert written(place.store.events()) == "begun\n"


async def test_a_box_that_was_killed_cannot_be_adopted(place: Place) -> None:
    box = await left_alone(place)
    os.kill(box.box[0], signal.SIGKILL)
    await gone(box)
    assert adoptable(place.records) == []
    assert list(place.records.iterdir()) == []
    with pytest.raises(WorkerLost) as caught:
        await take_over(box, place.store.secret())
    assert caught.value.code == "adoption_refused"
    remove_tree(box.directory)  # what the next zygote to start would do, and may have done


async def test_of_two_nodes_that_come_at_once_exactly_one_gets_it(place: Place) -> None:
    box = await left_alone(place)
    secret = place.store.secret()
    results = await asyncio.gather(*(take_over(box, secret) for _ in range(4)), return_exceptions=True)
    (estate,) = [result for result in results if not isinstance(result, BaseException)]
    errors = [result for result in results if isinstance(result, BaseException)]
    assert [error.code for error in errors if isinstance(error, WorkerLost)] == ["adoption_refused"] * 3
    heir = Heir(estate)
    watching = asyncio.ensure_future(heir.watch())
    await heir.close()
    await watching


async def test_who_does_not_know_the_secret_gets_nothing_and_the_box_waits_on(place: Place) -> None:
    box = await left_alone(place)
    with pytest.raises(WorkerLost, match="secret"):
        await take_over(box, bytes(32))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:  # and says nothing
        silent.connect(f"{box.directory}/{SOCKET}")
        silent.send(b"\xff garbage")
        async with place.adopted() as session, asyncio.timeout(LONG):
            assert (await session.submit(ExecuteRequest("kept")).finished()).text == "1"


async def test_a_slow_node_may_take_its_time_to_prove_itself_while_nobody_waits_behind_it(place: Place) -> None:
    box = await left_alone(place)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as slow:
        slow.connect(f"{box.directory}/{SOCKET}")
        slow.send(msgpack.packb({"nonce": bytes(32)}))
        assert slow.recv(1000)
        waiting = select.poll()
        waiting.register(slow, select.POLLIN)
        assert waiting.poll(2500) == []  # it is not shown out
        async with place.adopted() as session, asyncio.timeout(LONG):  # until somebody comes who wants in
            assert slow.recv(1000) == b""
            assert (await session.submit(ExecuteRequest("kept")).finished()).text == "1"


async def test_what_sits_in_the_place_of_a_box_is_not_taken_for_one(place: Place) -> None:
    box = await left_alone(place)
    path = Path(box.directory, SOCKET)
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as impostor:
        impostor.bind(str(path))
        impostor.listen()
        with pytest.raises(WorkerLost, match="in its place"):
            await take_over(box, place.store.secret())
    os.kill(box.box[0], signal.SIGKILL)
    await gone(box)


async def test_a_box_that_does_not_know_the_secret_is_not_told_anything(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    me = os.getpid(), begun(os.getpid())
    box = Adoptable(session="s_1", epoch=1, directory=str(tmp_path), box=me, worker=me)
    said: list[dict[str, bytes]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as impostor:
        impostor.bind(str(tmp_path / SOCKET))
        impostor.listen()
        impostor.setblocking(False)  # noqa: FBT003 (the method takes it by position only)

        async def answer() -> None:
            loop = asyncio.get_running_loop()
            connection, _ = await loop.sock_accept(impostor)
            with connection:
                said.append(msgpack.unpackb(await loop.sock_recv(connection, 1000)))
                await loop.sock_sendall(connection, msgpack.packb({"nonce": bytes(32), "proof": bytes(32)}))
                assert await loop.sock_recv(connection, 1000) == b""

        answering = asyncio.ensure_future(answer())
        with pytest.raises(WorkerLost, match="secret"):
            await take_over(box, bytes(32))
        await answering
    assert [set(message) for message in said] == [{"nonce"}]


async def test_a_worker_of_another_epoch_does_not_let_itself_be_adopted(place: Place) -> None:
    box = await left_alone(place, "1")
    other = box.model_copy(update={"epoch": 2})
    async with Node(config(), lingering=Lingering(10.0, place.records)) as node, asyncio.timeout(LONG):
        session = await node.adopt_session(other, place.store.secret(), place.store.options())
        execution = session.submit(ExecuteRequest("1"))
        assert (await execution.finished()).verdict == "worker_lost"
        assert session.state == "dead"


@pytest.mark.parametrize("what", ["link", "file", "open"])
async def test_a_directory_of_records_that_somebody_else_prepared_is_refused(tmp_path: Path, what: str) -> None:
    records = tmp_path / "records"
    if what == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        records.symlink_to(tmp_path / "elsewhere")
    elif what == "file":
        records.write_text("")
    else:
        records.mkdir()
        records.chmod(0o777)
    with pytest.raises(NodeError) as caught:
        adoptable(records)
    assert caught.value.code == "address_refused"


async def test_records_that_are_none_are_passed_by(place: Place) -> None:
    box = await left_alone(place)
    (record,) = place.records.iterdir()
    text = record.read_text()
    (place.records / "garbage.json").write_bytes(b"\xff\x00")
    (place.records / "link.json").symlink_to(record)
    os.mkfifo(place.records / "fifo.json")
    (place.records / "large.json").write_text(text + " " * 100_000)
    (place.records / "open.json").write_text(text)
    (place.records / "open.json").chmod(0o644)
    other = place.directory / "elsewhere"
    other.mkdir()
    other.chmod(0o755)
    (place.records / "away.json").write_text(box.model_copy(update={"directory": str(other)}).model_dump_json())
    for name in ("garbage", "large", "away"):
        (place.records / f"{name}.json").chmod(0o600)
    assert adoptable(place.records) == [box]
    async with place.adopted() as session:
        await session.close()


async def test_a_record_is_for_its_owner_only(place: Place) -> None:
    await left_alone(place)
    (record,) = place.records.iterdir()
    assert record.stat().st_mode & 0o777 == 0o600
    assert place.store.secret().hex() not in record.read_text()
    async with place.adopted() as session:
        await session.close()


async def test_whose_code_cannot_be_written_down_has_none_run(place: Place) -> None:
    """Else the next node would let them approve what their code asks for."""
    async with Node(config(), lingering=Lingering(10.0, place.records)) as node, asyncio.timeout(LONG):
        session = await node.open_session(principal="alice")

        def run(code: str, submitter: str) -> Execution:
            return session.submit(ExecuteRequest(code, submitter=submitter))

        for submitter in ("", "alice", "bob", "bob"):
            assert [event async for event in run("kept = 1", submitter)]
        assert place.box().submitters == ("bob",)
        moved = place.records.rename(place.directory / "moved")
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                run("del kept", "carol")
            assert caught.value.code == "store_unavailable"
        moved.rename(place.records)
        assert normal([event async for event in run("kept", "bob")])[-1][1] == "1"
        assert place.box().submitters == ("bob",)


async def test_no_record_is_larger_than_what_is_read_of_one(place: Place) -> None:
    async with Node(config(), lingering=Lingering(10.0, place.records)) as node, asyncio.timeout(LONG):
        powers = (await node.open_session(principal="alice")).powers
        few = RECORD_BYTES // 250
        for number in range(few):
            powers.submitted(f"{number:0200}")
        with pytest.raises(StoreError):
            deque(map(powers.submitted, map("{:0200}".format, range(RECORD_BYTES))))
        assert few < len(place.box().submitters) < RECORD_BYTES // 200
