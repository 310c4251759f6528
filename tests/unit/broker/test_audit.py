"""The audit trail: what was appended is there, in order, however its node ended."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from capsule.broker.audit import NoAudit, Record, Trail, open_audit
from capsule.broker.audit.files import Appending, backwards, lines, numbers
from capsule.broker.audit.reading import Wanted, entries, newest
from capsule.broker.audit.verify import verify
from capsule.broker.packs import AuditSettings
from capsule_protocol.errors import CapabilityDenied, NodeError, StoreError
from tests.unit.kernels.forked import open_descriptors, opened_since

PROCESS = AuditSettings(level="process")
POWER = AuditSettings(level="power")
SMALL = AuditSettings(file_bytes=2**16, keep_files=3, anchor_every=10)


def call(number: int = 0, **values: Any) -> Record:
    return Record("call", "accepted", capability="files.read", arguments={"path": f"data/{number}"}, **values)


def told(folder: Path) -> list[str]:
    """Kind and outcome of all records."""
    return [f"{entry.record.kind} {entry.record.outcome}" for entry in entries(folder)]


def written(folder: Path, settings: AuditSettings, count: int, *, start: int = 0) -> None:
    """A trail that is opened, written and closed."""

    async def work() -> None:
        trail = open_audit(folder, settings)
        for number in range(start, start + count):
            await trail.append(call(number))
        await trail.close()

    asyncio.run(work())


@pytest.mark.parametrize("settings", [PROCESS, POWER], ids=["process", "power"])
def test_what_is_appended_can_be_read_in_order(tmp_path: Path, settings: AuditSettings) -> None:
    written(tmp_path / "audit", settings, 30)
    found = [entry for entry in entries(tmp_path / "audit") if entry.record.kind == "call"]
    assert [entry.record.arguments for entry in found] == [{"path": f"data/{number}"} for number in range(30)]
    assert [entry.sequence for entry in entries(tmp_path / "audit")] == list(range(1, 32))
    report = verify(tmp_path / "audit")
    assert report.findings == []
    assert (report.records, report.last, report.signed, report.closed) == (31, 31, 31, True)


def test_a_record_is_in_its_file_when_the_append_returns(tmp_path: Path) -> None:
    async def work() -> None:
        trail = open_audit(tmp_path / "audit", PROCESS)
        for number in range(3):
            await trail.append(call(number))
            assert told(tmp_path / "audit") == ["audit opened", *["call accepted"] * (number + 1)]
        await trail.close()

    asyncio.run(work())


def test_many_at_once_are_synced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the level `power`; the answer comes after the sync, and the syncs are fewer than the records."""
    synced: list[int] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        real(descriptor)
        synced.append(size)

    async def one(trail: Trail, number: int) -> None:
        await trail.append(call(number))
        assert synced[-1] >= 0

    async def work() -> None:
        trail = open_audit(tmp_path / "audit", POWER)
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        await asyncio.gather(*(one(trail, number) for number in range(500)))
        assert 0 < len(synced) < 50
        assert max(synced) == (tmp_path / "audit/audit-00000001.jsonl").stat().st_size
        await trail.close()

    asyncio.run(work())
    assert verify(tmp_path / "audit").findings == []


def test_a_trail_goes_on_where_it_ended(tmp_path: Path) -> None:
    for start in (0, 10, 20):
        written(tmp_path / "audit", PROCESS, 10, start=start)
    assert told(tmp_path / "audit") == ["audit opened", *["call accepted"] * 10] * 3
    assert verify(tmp_path / "audit").findings == []


@pytest.mark.parametrize("settings", [PROCESS, POWER], ids=["process", "power"])
def test_records_are_signed_after_a_while_without_more_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: AuditSettings
) -> None:
    monkeypatch.setattr("capsule.broker.audit.trail.ANCHOR_SECONDS", 0.05)

    async def work() -> None:
        trail = open_audit(tmp_path / "audit", settings)
        for number in range(2):
            await trail.append(call(number))
            assert verify(tmp_path / "audit").signed == number + 1
            async with asyncio.timeout(60):
                while verify(tmp_path / "audit").signed != number + 2:
                    await asyncio.sleep(0)
        await trail.close()

    asyncio.run(work())


def test_a_slow_sync_only_delays_the_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when nothing is written afterwards."""
    monkeypatch.setattr("capsule.broker.audit.trail.ANCHOR_SECONDS", 0.01)
    goes_on, real = threading.Event(), os.fdatasync

    def fdatasync(descriptor: int) -> None:
        assert goes_on.wait(60)
        real(descriptor)

    async def work() -> None:
        trail = open_audit(tmp_path / "audit", POWER)
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        append = asyncio.ensure_future(trail.append(call()))
        tried = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, tried.set)  # more than one attempt to sign
        await tried.wait()
        assert verify(tmp_path / "audit").signed == 1
        goes_on.set()
        await append
        async with asyncio.timeout(60):
            while verify(tmp_path / "audit").signed != 2:
                await asyncio.sleep(0)
        await trail.close()

    asyncio.run(work())


@pytest.mark.parametrize("keep", [1, 3])
def test_files_take_turns_and_the_oldest_go(tmp_path: Path, keep: int) -> None:
    written(tmp_path / "audit", SMALL.model_copy(update={"keep_files": keep}), 2000)
    kept = numbers(tmp_path / "audit")
    assert len(kept) == keep
    assert kept[0] > 1
    assert all((tmp_path / f"audit/audit-{number:08d}.jsonl").stat().st_size <= 2**16 for number in kept)
    report = verify(tmp_path / "audit")
    assert report.findings == []
    assert 1 < report.first < report.last == 2001


def test_files_take_turns_at_power_too(tmp_path: Path) -> None:
    async def work() -> None:
        trail = open_audit(tmp_path / "audit", SMALL.model_copy(update={"level": "power"}))
        for begin in range(0, 2000, 100):
            await asyncio.gather(*(trail.append(call(number)) for number in range(begin, begin + 100)))
        await trail.close()

    asyncio.run(work())
    assert len(numbers(tmp_path / "audit")) == 3
    assert verify(tmp_path / "audit").findings == []


def test_anchors_do_not_grow_without_bound(tmp_path: Path) -> None:
    written(tmp_path / "audit", AuditSettings(anchor_every=1), 2000)
    assert sum(path.stat().st_size for path in (tmp_path / "audit").glob("anchors-*")) <= 2 * 2**18
    assert verify(tmp_path / "audit").findings == []


def test_half_a_line_is_cut_off_and_that_is_recorded(tmp_path: Path) -> None:
    written(tmp_path / "audit", PROCESS, 3)
    file = tmp_path / "audit/audit-00000001.jsonl"
    with file.open("ab") as opened:
        opened.write(b'{"sequence":5,"ti')
    assert [finding.severity for finding in verify(tmp_path / "audit").findings] == ["warning"]
    written(tmp_path / "audit", PROCESS, 1)
    assert told(tmp_path / "audit")[4:] == ["audit cut", "audit opened", "call accepted"]
    assert newest(tmp_path / "audit", 3)[0].record.details == {"bytes": 17}
    assert verify(tmp_path / "audit").findings == []


def test_a_node_that_was_killed_leaves_a_trail_that_goes_on(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:

        async def work() -> None:
            trail = open_audit(tmp_path / "audit", PROCESS)
            for number in range(20):
                await trail.append(call(number))
            os._exit(0)

        try:
            asyncio.run(work())
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    report = verify(tmp_path / "audit")
    assert report.whole
    assert (report.last, report.signed, report.closed) == (21, 1, False)
    written(tmp_path / "audit", PROCESS, 1)
    assert told(tmp_path / "audit") == ["audit opened", *["call accepted"] * 20, "audit opened", "call accepted"]
    assert verify(tmp_path / "audit").findings == []


@pytest.mark.parametrize("cut", [1, 5, 10])
def test_an_end_that_is_missing_is_told_when_the_trail_goes_on(tmp_path: Path, cut: int) -> None:
    written(tmp_path / "audit", PROCESS, 10)
    file = tmp_path / "audit/audit-00000001.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-cut]))
    written(tmp_path / "audit", PROCESS, 1)
    assert told(tmp_path / "audit")[-3:] == ["audit damaged", "audit opened", "call accepted"]
    found = [f"{one.place} {one.message}" for one in verify(tmp_path / "audit").findings]
    assert f"audit-00000002.jsonl:1 has number 13, after {11 - cut}" in found


@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_changed_record_is_told_when_the_trail_goes_on(tmp_path: Path, at: int) -> None:
    """Of those after the last anchor, which are looked at when it is opened; nothing vouches for the newest of them."""
    folder = tmp_path / "audit"
    written(folder, PROCESS, 10)
    file = folder / "audit-00000001.jsonl"
    found = file.read_bytes().splitlines(keepends=True)
    found[at] = found[at].replace(b'"kind":"', b'"kind":"x')
    file.write_bytes(b"".join(found))
    for name in ("anchors-0.jsonl", "anchors-1.jsonl"):
        anchors = (folder / name).read_bytes().splitlines(keepends=True) if (folder / name).exists() else []
        (folder / name).write_bytes(b"".join(anchors[:1]))  # as if it had been killed before it signed more
    written(folder, PROCESS, 1)
    assert "audit damaged" in told(folder)
    assert not verify(folder).whole


def test_a_trail_without_its_files_is_told(tmp_path: Path) -> None:
    written(tmp_path / "audit", PROCESS, 10)
    (tmp_path / "audit/audit-00000001.jsonl").unlink()
    assert not verify(tmp_path / "audit").whole
    written(tmp_path / "audit", PROCESS, 1)
    assert told(tmp_path / "audit") == ["audit damaged", "audit opened", "call accepted"]
    assert not verify(tmp_path / "audit").whole


def test_two_nodes_never_write_one_trail(tmp_path: Path) -> None:
    async def work() -> None:
        trail = open_audit(tmp_path / "audit", PROCESS)
        with pytest.raises(StoreError, match=f"process {os.getpid()} writes") as caught:
            open_audit(tmp_path / "audit", PROCESS)
        assert caught.value.code == "store_locked"
        await trail.close()
        await open_audit(tmp_path / "audit", PROCESS).close()

    asyncio.run(work())


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir(mode=0o755)
    with pytest.raises(NodeError) as caught:
        open_audit(tmp_path / "audit", PROCESS)
    assert caught.value.code == "address_refused"


def test_a_place_where_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written: Not a directory") as caught:
        open_audit(tmp_path / "file/below/audit", PROCESS)
    assert caught.value.code == "store_unavailable"
    before = open_descriptors()
    written(tmp_path / "audit", PROCESS, 1)
    (tmp_path / "audit/anchors-0.jsonl").unlink()
    (tmp_path / "audit/anchors-0.jsonl").symlink_to("/dev/null")
    with pytest.raises(StoreError, match="Too many levels of symbolic links"):
        open_audit(tmp_path / "audit", PROCESS)
    assert not opened_since(before)


def test_a_disk_that_is_full_from_the_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "audit", PROCESS, 1)
    before = open_descriptors()
    with full_disk(monkeypatch), pytest.raises(StoreError, match="No space left"):
        open_audit(tmp_path / "audit", PROCESS)
    assert not opened_since(before)
    written(tmp_path / "audit", PROCESS, 1)
    assert verify(tmp_path / "audit").findings == []


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "audit", PROCESS, 1)
    (tmp_path / "audit/signing.key").chmod(0o640)
    with pytest.raises(NodeError, match="can be read by others"):
        open_audit(tmp_path / "audit", PROCESS)


def test_the_files_are_for_nobody_else(tmp_path: Path) -> None:
    written(tmp_path / "audit", PROCESS, 1)
    for path in (tmp_path / "audit").glob("*.jsonl"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "audit/signing.key").stat().st_mode & 0o777 == 0o600


# A full disk


@contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, room: int = 0) -> Iterator[None]:
    """Writes get so many bytes of room, then ENOSPC, as on a disk that is full."""
    left = room
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(descriptor, data[:left])
        left -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        yield


@pytest.mark.parametrize("level", ["process", "power"])
def test_a_full_disk_stops_calls_and_room_lets_them_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: Any
) -> None:
    async def work() -> None:
        trail = open_audit(tmp_path / "audit", AuditSettings(level=level))
        await trail.append(call(1))
        for room in (0, 1, 50):
            with full_disk(monkeypatch, room), pytest.raises(CapabilityDenied, match="No space left") as caught:
                await trail.append(call(2))
            assert caught.value.code == "audit_unavailable"
            assert caught.value.retryable
        await trail.append(call(3))
        await trail.close()

    asyncio.run(work())
    assert told(tmp_path / "audit") == ["audit opened", "call accepted", "audit resumed", "call accepted"]
    assert newest(tmp_path / "audit", 2)[0].record.details == {"missed": 3}
    assert verify(tmp_path / "audit").findings == []


def test_where_it_may_calls_go_on_and_what_is_missing_is_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        trail = open_audit(tmp_path / "audit", AuditSettings(on_failure="continue"))
        with full_disk(monkeypatch):
            for number in range(5):
                await trail.append(call(number))
        assert trail.missed == 5
        await trail.append(call(6))
        assert trail.missed == 0
        await trail.close()

    asyncio.run(work())
    assert told(tmp_path / "audit") == ["audit opened", "audit resumed", "call accepted"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "calls go on without a record" in caplog.text


def test_a_sync_that_fails_is_told_to_all_who_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def work() -> None:
        trail = open_audit(tmp_path / "audit", POWER)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fails)
            found = await asyncio.gather(*(trail.append(call(number)) for number in range(20)), return_exceptions=True)
        assert all(isinstance(one, CapabilityDenied) and one.code == "audit_unavailable" for one in found)
        await trail.append(call(21))
        await trail.close()

    asyncio.run(work())
    assert verify(tmp_path / "audit").findings == []


def test_an_append_that_is_given_up_leaves_the_trail_whole(tmp_path: Path) -> None:
    async def work() -> None:
        trail = open_audit(tmp_path / "audit", POWER)
        for number in range(50):
            task = asyncio.ensure_future(trail.append(call(number)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await trail.append(call(50))
        await trail.close()
        await trail.close()
        with pytest.raises(CapabilityDenied, match="has been closed"):
            await trail.append(call(51))

    asyncio.run(work())
    report = verify(tmp_path / "audit")
    assert report.findings == []
    assert report.last == 52


def test_closing_leaves_no_thread_and_no_file(tmp_path: Path) -> None:
    before = open_descriptors()
    written(tmp_path / "audit", POWER.model_copy(update={"file_bytes": 2**16}), 800)
    assert not opened_since(before)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("audit")]


# Reading


def test_records_can_be_asked_for(tmp_path: Path) -> None:
    async def work() -> None:
        trail = open_audit(tmp_path / "audit", PROCESS)
        await trail.append(call(1, principal="alice", session="s-1", session_name="report", time=100.0))
        await trail.append(call(2, principal="bob", session="s-2", time=200.0))
        await trail.append(Record("call", "denied", "capability_denied", principal="bob", time=300.0))
        await trail.close()

    asyncio.run(work())

    def times(**wanted: Any) -> list[float]:
        return [entry.record.time for entry in entries(tmp_path / "audit", Wanted(kind="call", **wanted))]

    assert times() == [100, 200, 300]
    assert times(principal="bob") == [200, 300]
    assert times(principal="b*", outcome="denied") == [300]
    assert times(session="s-1") == times(session="report") == [100]
    assert times(capability="files.*") == [100, 200]
    assert times(since=200, until=300) == [200]
    assert times(code="capability_denied") == [300]
    assert [entry.record.time for entry in newest(tmp_path / "audit", 2, Wanted(kind="call"))] == [200, 300]


def test_a_record_that_is_too_large_says_so(tmp_path: Path) -> None:
    async def work() -> None:
        trail = open_audit(tmp_path / "audit", PROCESS)
        await trail.append(Record("call", "x" * 10**6, arguments={"a": ["b" * 100] * 10_000}))
        await trail.close()

    asyncio.run(work())
    last = newest(tmp_path / "audit", 1)[0].record
    assert last.outcome == "x" * 500
    assert last.arguments is None
    assert last.details == {"left_out": {"arguments": 1_030_007, "details": 2}}
    assert verify(tmp_path / "audit").findings == []


def test_lines_are_read_from_both_ends(tmp_path: Path) -> None:
    for sizes in ([], [1], [0, 0, 3], [2**16, 1, 2**16 - 1], [2**17, 2**17], [100] * 5000):
        found = [b"%d" % number + b"x" * size for number, size in enumerate(sizes)]
        (tmp_path / "f").write_bytes(b"".join(line + b"\n" for line in found) + b"half")
        assert list(lines(tmp_path / "f")) == found
        assert list(backwards(tmp_path / "f")) == found[::-1]
        file = Appending(tmp_path / "f")
        assert file.cut() == 4
        assert file.cut() == 0
        file.close()


def test_each_line_is_plain_json_with_the_hash_of_the_one_before(tmp_path: Path) -> None:
    written(tmp_path / "audit", PROCESS, 2)
    first, second, _ = (tmp_path / "audit/audit-00000001.jsonl").read_text().splitlines()
    assert json.loads(first) | {"time": 0} == {
        "sequence": 1,
        "time": 0,
        "kind": "audit",
        "outcome": "opened",
        "previous": "0" * 64,
    }
    assert json.loads(second)["capability"] == "files.read"
    assert json.loads(second)["previous"] != "0" * 64


def test_without_files_the_newest_records_are_kept() -> None:
    async def work() -> None:
        audit = NoAudit(kept=3)
        for number in range(5):
            await audit.append(call(number))
        await audit.close()
        assert [record.arguments for record in audit.records] == [{"path": f"data/{number}"} for number in (2, 3, 4)]

    asyncio.run(work())
