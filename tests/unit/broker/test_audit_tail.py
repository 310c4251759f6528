"""What is behind the last anchor: a node leaves little there, and what is more was made by somebody else."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import shutil
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from capsule.broker.audit import Record, Trail, anchors, files, open_audit
from capsule.broker.audit.files import lines, name
from capsule.broker.audit.keys import signing_key
from capsule.broker.audit.reading import entries
from capsule.broker.audit.record import GENESIS, digest, encode
from capsule.broker.audit.tail import FACTOR, MAX_SECONDS, NOTES
from capsule.broker.audit.verify import Report, verify
from capsule.broker.packs import AuditSettings
from capsule_protocol.errors import CapabilityDenied, StoreError

EVERY_5 = AuditSettings(anchor_every=5)
PROCESS = AuditSettings(level="process")


async def _filled(trail: Trail, count: int, begin: float = 0.0, step: float = 0.0) -> None:
    for number in range(count):
        await trail.append(Record("call", "accepted", key=str(number), time=begin and begin + number * step))


def written(folder: Path, count: int, settings: AuditSettings = EVERY_5, **times: float) -> None:
    async def work() -> None:
        trail = open_audit(folder, settings)
        await _filled(trail, count, **times)
        await trail.close()

    asyncio.run(work())


def forged(folder: Path, count: int, *, begin: float, step: float = 0.0, kind: str = "call") -> None:
    """Behind what there is put so many records, as one can who has no key."""
    file = folder / name(1)
    *_, last = lines(file)
    sequence, before = json.loads(last)["sequence"], digest(last)
    with file.open("ab") as opened:
        for number in range(count):
            record = Record(kind, "accepted", key="forged", time=begin + number * step)
            line = encode(record, sequence + 1, before)
            sequence, before = sequence + 1, digest(line)
            opened.write(line + b"\n")


def rolled_back(folder: Path, count: int) -> None:
    """To the first anchors, which are so many, and the records that they sign."""
    kept = (folder / anchors.FILES[0]).read_bytes().splitlines(keepends=True)[:count]
    (folder / anchors.FILES[0]).write_bytes(b"".join(kept))
    signed = json.loads(kept[-1])["sequence"]
    found = (folder / name(1)).read_bytes().splitlines(keepends=True)
    (folder / name(1)).write_bytes(b"".join(found[:signed]))


def errors(report: Report) -> list[str]:
    return [finding.message for finding in report.findings if finding.severity == "error"]


@pytest.mark.parametrize(
    ("kept", "count", "step", "why"),
    [
        (2, FACTOR * 5 + NOTES + 1, 0.0, "more records behind record 1 are not signed"),
        (3, 10, MAX_SECONDS / 8, "behind record 6 are of a longer time"),
        (99, 1, 0.0, "it was closed after record 21"),
        (3, 3, float("nan"), "behind record 6 is a record without a time"),
    ],
)
def test_what_no_node_leaves_is_damage_and_is_never_signed_as_whole(
    tmp_path: Path, kept: int, count: int, step: float, why: str
) -> None:
    folder = tmp_path / "audit"
    written(folder, 20)
    rolled_back(folder, kept)
    forged(folder, count, begin=2e9, step=step)
    assert [why in message for message in errors(verify(folder))] == [True]
    written(folder, 1)
    found = [entry.record for entry in entries(folder)]
    assert [one.outcome for one in found[-3:]] == ["damaged", "opened", "accepted"]
    assert why in found[-3].why
    assert not verify(folder).whole


def test_all_records_made_anew_behind_the_first_anchor_are_damage(tmp_path: Path) -> None:
    """A hundred minutes of records, of which one is left out and all others are changed."""
    folder = tmp_path / "audit"
    written(folder, 100, begin=1.8e9, step=60.0)
    assert verify(folder).findings == []
    first = (folder / anchors.FILES[0]).read_bytes().splitlines(keepends=True)[0]
    (folder / anchors.FILES[0]).write_bytes(first)
    changed: list[bytes] = []
    before = GENESIS
    for entry in [one for one in entries(folder) if one.record.key != "50"]:
        line = encode(entry.record._replace(principal="nobody"), len(changed) + 1, before)
        changed.append(line + b"\n")
        before = digest(line)
    (folder / name(1)).write_bytes(b"".join(changed))
    assert not verify(folder).whole
    written(folder, 0)
    assert not verify(folder).whole


def test_how_much_was_adopted_is_told(tmp_path: Path) -> None:
    """Within the bound nobody can tell them from those of a node that was killed; so the trail says that there were."""
    folder = tmp_path / "audit"
    written(folder, 20)
    rolled_back(folder, 3)
    forged(folder, 4, begin=2e9, step=1.5)
    assert verify(folder).whole
    written(folder, 0)
    assert verify(folder).findings == []
    *_, opened = entries(folder)
    assert opened.record.details == {"adopted": {"records": 4, "seconds": 4.5}}


def test_a_start_after_an_orderly_end_adopts_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        written(tmp_path / "audit", 3)
    assert [entry.record.details for entry in entries(tmp_path / "audit")] == [None] * 8


def _gaps(folder: Path) -> list[int]:
    """By how many records each anchor is behind the one before, less what that one allows."""
    public = bytes.fromhex((folder / "signing.pub").read_text())
    found = anchors.read(folder, public).anchors
    return [two.sequence - one.sequence - one.unsigned for one, two in pairwise(found)]


@pytest.mark.parametrize("level", ["process", "power"])
@pytest.mark.parametrize("every", [1, 50])
def test_a_node_leaves_no_more_without_a_signature_than_its_anchors_say(tmp_path: Path, level: Any, every: int) -> None:
    """Also when many wait for one sync, and when the policy is switched to one that signs less often."""
    folder = tmp_path / "audit"

    async def work() -> None:
        trail = open_audit(folder, AuditSettings(level=level, anchor_every=every))
        await asyncio.gather(*(trail.append(Record("call")) for _ in range(700)))
        trail.configure(AuditSettings(level=level, anchor_every=200))
        await asyncio.gather(*(trail.append(Record("call")) for _ in range(700)))
        await trail.close()

    asyncio.run(work())
    assert max(_gaps(folder)) <= 0
    report = verify(folder)
    assert (report.findings, report.last) == ([], 1401)


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_clock_that_leaps_leaves_no_tail_of_hours(tmp_path: Path, step: float) -> None:
    """As that of a machine that slept: the timer knows nothing of it."""
    folder = tmp_path / "audit"

    async def work() -> None:
        trail = open_audit(folder, AuditSettings(anchor_every=1000))
        for number in range(10):
            await trail.append(Record("call", time=1.9e9 + number * step))
            assert errors(verify(folder)) == []
        await trail.close()

    asyncio.run(work())
    assert verify(folder).findings == []


def test_calls_stop_when_so_much_as_may_be_unsigned_cannot_be_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the next start would find a tail that it takes for damage."""
    folder, real = tmp_path / "audit", os.write

    def write(descriptor: int, data: bytes) -> int:
        if b'"signature"' in data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    async def work() -> None:
        trail = open_audit(folder, EVERY_5)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            for _ in range(5):
                await trail.append(Record("call"))
            for _ in range(3):
                with pytest.raises(CapabilityDenied, match="audit_unavailable"):
                    await trail.append(Record("call"))
            assert verify(folder).whole
        await trail.append(Record("call"))
        await trail.close()

    asyncio.run(work())
    assert verify(folder).findings == []
    assert [entry.record.details for entry in entries(folder) if entry.record.outcome == "resumed"] == [{"missed": 3}]


def killed(folder: Path, count: int, settings: AuditSettings = EVERY_5, **times: float) -> None:
    """As `written`, and then the node is killed."""
    pid = os.fork()
    if pid == 0:

        async def work() -> None:
            await _filled(open_audit(folder, settings), count, **times)
            os._exit(0)

        try:
            asyncio.run(work())
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_starts_that_end_before_they_have_signed_are_no_longer_time_of_a_tail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes after a node was killed, on a disk that is full. How long it was is told all the same."""
    folder, real = tmp_path / "audit", os.write

    def write(descriptor: int, data: bytes) -> int:
        if b'"signature"' in data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    killed(folder, 1, begin=1.8e9)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        for _ in range(2):
            with pytest.raises(StoreError, match="No space left"):
                open_audit(folder, EVERY_5)
    assert errors(verify(folder)) == []
    written(folder, 1)
    assert verify(folder).findings == []
    told = [entry.record.details for entry in entries(folder) if entry.record.outcome == "opened"]
    assert told[0] is None
    assert [one["adopted"]["records"] for one in told if one] == [1, 2, 3]
    assert [one["adopted"]["seconds"] > MAX_SECONDS for one in told if one] == [False, True, True]


@pytest.mark.parametrize("ended", [written, killed])
def test_a_cut_of_the_power_takes_no_signature_of_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Callable[..., None]
) -> None:
    """It takes anchors that were not synced, and no records: no tail reaches from one end of a node beyond a start."""
    folder, disk, real = tmp_path / "audit", tmp_path / "disk", os.fdatasync
    file = folder / anchors.FILES[0]

    def fdatasync(descriptor: int) -> None:
        real(descriptor)
        if os.path.sameopenfile(descriptor, opened.fileno()):
            shutil.copy(file, disk)

    ended(folder, 1, PROCESS, begin=1.8e9)
    shutil.copy(file, disk)
    with monkeypatch.context() as patch, file.open("rb") as opened:
        patch.setattr(os, "fdatasync", fdatasync)
        killed(folder, 1, PROCESS)
    shutil.copy(disk, file)
    assert errors(verify(folder)) == []
    written(folder, 0)
    assert verify(folder).findings == []


def test_what_the_trail_says_of_itself_is_bounded_by_number(tmp_path: Path) -> None:
    """Or who has no key could put as many such records there as they like."""
    folder = tmp_path / "audit"
    written(folder, 20)
    rolled_back(folder, 2)
    forged(folder, FACTOR * 5 + NOTES + 1, begin=1.8e9, step=3600.0, kind="audit")
    assert errors(verify(folder)) == ["more records behind record 1 are not signed than a node leaves"]
    written(folder, 0)
    assert not verify(folder).whole


def test_a_node_that_is_killed_behind_an_anchor_has_signed_nothing_before_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many wait for one sync, and the first of them to go on have old files go before the others do."""
    folder, goes_on, write, fdatasync = tmp_path / "audit", threading.Event(), os.write, os.fdatasync
    left: list[Path] = []

    def writing(descriptor: int, data: bytes) -> int:
        written_ = write(descriptor, data)
        if b'"signature"' in data:
            left.append(shutil.copytree(folder, tmp_path / f"left-{len(left)}"))
        return written_

    def syncing(descriptor: int) -> None:
        assert goes_on.wait(60)
        fdatasync(descriptor)

    async def work() -> None:
        settings = AuditSettings(level="power", anchor_every=16, file_bytes=2**16, keep_files=1)
        trail, large = open_audit(folder, settings), Record("call", "accepted", details={"data": "x" * 3000})
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", writing)
            patch.setattr(os, "fdatasync", syncing)
            many = asyncio.gather(*(trail.append(large) for _ in range(400)))
            await asyncio.sleep(0)  # all of them have begun
            goes_on.set()
            await many
            await trail.close()

    asyncio.run(work())
    for copy in left:
        written(copy, 0)
        assert (copy.name, verify(copy).findings) == (copy.name, [])
    assert 1 < len(left) < 10  # nobody has signed again what another one had


def test_anchors_that_do_not_say_how_many_may_follow_count_as_before(tmp_path: Path) -> None:
    """Those of earlier versions: what a node of theirs left that was killed is whole, and goes on."""
    folder = tmp_path / "audit"
    written(folder, 0)
    key = signing_key(folder / "signing.key")
    one = json.loads((folder / anchors.FILES[0]).read_bytes().splitlines()[1])
    said = {field: one[field] for field in ("sequence", "hash", "first", "closed", "time")} | {"closed": False}
    signed = b"capsule audit anchor 1\n" + json.dumps(said, separators=(",", ":")).encode()
    said["signature"] = key.sign(signed).signature.hex()
    (folder / anchors.FILES[0]).write_text(json.dumps(said, separators=(",", ":")) + "\n")
    forged(folder, 3000, begin=2e9, step=0.001)
    report = verify(folder)
    assert (errors(report), report.signed, report.last) == ([], 1, 3001)
    written(folder, 1)
    assert verify(folder).findings == []


# While a node writes

SMALL = AuditSettings(file_bytes=2**16, keep_files=3, anchor_every=50)


@pytest.mark.parametrize("between", ["numbers", "lines"])
def test_a_node_that_removes_files_meanwhile_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    """Between the look at the anchors and that at the names, and between that and the look at what is in the files."""
    folder = tmp_path / "audit"

    async def work() -> None:
        trail, loop, turns = open_audit(folder, SMALL), asyncio.get_running_loop(), iter(range(3))
        await _filled(trail, 2500)
        real = getattr(files, between)

        def late(path: Path) -> Any:
            if next(turns, None) is not None:
                asyncio.run_coroutine_threadsafe(_filled(trail, 2500), loop).result()
            return real(path)

        monkeypatch.setattr(f"capsule.broker.audit.verify.{between}", late)
        report = await asyncio.to_thread(verify, folder)
        assert (errors(report), report.last) == ([], 10_001)
        await trail.close()

    asyncio.run(work())


def test_damage_is_told_though_a_node_removes_files_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends, too."""
    folder = tmp_path / "audit"

    async def work() -> None:
        trail, loop = open_audit(folder, SMALL), asyncio.get_running_loop()
        await _filled(trail, 2500)
        (folder / "anchors-1.jsonl").write_bytes(b"nonsense\n")
        real = anchors.read

        def late(*args: Any) -> Any:
            asyncio.run_coroutine_threadsafe(_filled(trail, 400), loop).result()
            return real(*args)

        monkeypatch.setattr(anchors, "read", late)
        assert "1 anchors are not signed with the key" in errors(await asyncio.to_thread(verify, folder))
        await trail.close()

    asyncio.run(work())


class Growing(io.RawIOBase):
    """A file to which the second half of a line is added just after its end was read."""

    def __init__(self) -> None:
        self._reads = iter([b"one\ntw", b"", b"o\nthree\n", b""])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = next(self._reads)
        buffer[: len(data)] = data
        return len(data)

    def open(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(self)


def test_the_end_of_a_line_that_is_being_written_is_no_line() -> None:
    assert list(lines(Growing())) == [b"one"]  # type: ignore[arg-type]  # of a path only `open` is used


def test_what_is_written_and_signed_meanwhile_is_no_excess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "audit"

    async def work() -> None:
        trail, loop = open_audit(folder, EVERY_5), asyncio.get_running_loop()

        def late(path: Path) -> list[int]:
            asyncio.run_coroutine_threadsafe(_filled(trail, 100, begin=1.9e9, step=60.0), loop).result()
            return files.numbers(path)

        monkeypatch.setattr("capsule.broker.audit.verify.numbers", late)
        report = await asyncio.to_thread(verify, folder)
        assert (errors(report), report.last) == ([], 101)
        await trail.close()

    asyncio.run(work())
