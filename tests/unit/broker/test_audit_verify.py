"""Whatever is done to the files of a trail without its key, `verify` tells."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from capsule.broker.audit import Record, open_audit
from capsule.broker.audit.files import name, numbers
from capsule.broker.audit.verify import verify
from capsule.broker.packs import AuditSettings
from capsule_protocol.errors import ArgumentError, StoreError


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trail of three files out of which the oldest have gone already, closed."""
    folder = tmp_path_factory.mktemp("trail") / "audit"

    async def work() -> None:
        audit = open_audit(folder, AuditSettings(file_bytes=2**16, keep_files=3, anchor_every=50))
        for number in range(1400):
            await audit.append(Record("call", "accepted", capability="files.read", arguments={"path": f"d/{number}"}))
        await audit.close()

    asyncio.run(work())
    assert numbers(folder)[0] > 1
    assert verify(folder).findings == []
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another node's."""
    folder = tmp_path_factory.mktemp("other") / "audit"
    asyncio.run(open_audit(folder, AuditSettings()).close())
    return folder


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def copied(trail: Path, scratch: Path) -> Path:
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(trail, scratch)
    return scratch


def file_of(folder: Path, index: int) -> Path:
    return folder / name(numbers(folder)[index])


def found_in(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines(keepends=True)


POSITION = st.floats(0, 1, exclude_max=True)
FILE = st.integers(0, 2)
EVERY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@EVERY
@given(FILE, POSITION, st.integers(1, 255))
def test_a_changed_byte(trail: Path, scratch: Path, which: int, at: float, mask: int) -> None:
    file = file_of(copied(trail, scratch), which)
    data = bytearray(file.read_bytes())
    data[int(at * len(data))] ^= mask
    file.write_bytes(data)
    assert not verify(scratch).whole


@EVERY
@given(FILE, POSITION, st.integers(1, 5))
def test_removed_records(trail: Path, scratch: Path, which: int, at: float, count: int) -> None:
    file = file_of(copied(trail, scratch), which)
    lines = found_in(file)
    begin = int(at * len(lines))
    file.write_bytes(b"".join(lines[:begin] + lines[begin + count :]))
    assert not verify(scratch).whole


@EVERY
@given(FILE, FILE, POSITION, POSITION)
def test_records_in_another_order(trail: Path, scratch: Path, one: int, two: int, at: float, to: float) -> None:
    folder = copied(trail, scratch)
    first, second = file_of(folder, one), file_of(folder, two)
    lines = {file: found_in(file) for file in (first, second)}
    i, j = int(at * len(lines[first])), int(to * len(lines[second]))
    assume((one, i) != (two, j))
    lines[first][i], lines[second][j] = lines[second][j], lines[first][i]
    for file, found in lines.items():
        file.write_bytes(b"".join(found))
    assert not verify(scratch).whole


@EVERY
@given(FILE, POSITION)
def test_a_record_twice(trail: Path, scratch: Path, which: int, at: float) -> None:
    file = file_of(copied(trail, scratch), which)
    lines = found_in(file)
    i = int(at * len(lines))
    file.write_bytes(b"".join([*lines[: i + 1], *lines[i:]]))
    assert not verify(scratch).whole


@EVERY
@given(FILE, POSITION)
def test_a_file_that_ends_earlier(trail: Path, scratch: Path, which: int, at: float) -> None:
    file = file_of(copied(trail, scratch), which)
    file.write_bytes(file.read_bytes()[: int(at * file.stat().st_size)])
    assert not verify(scratch).whole


@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_files_that_are_gone(trail: Path, scratch: Path, gone: tuple[int, ...]) -> None:
    folder = copied(trail, scratch)
    for file in [file_of(folder, which) for which in gone]:
        file.unlink()
    report = verify(folder)
    assert not report.whole
    told = " ".join(f"{one.place} {one.message}" for one in report.findings)
    first = numbers(trail)[0]
    assert (f"{name(first)} is missing: it was signed that the trail begins there" in told) == (0 in gone)
    assert (f"there is no {name(first + 1)} before it" in told) == (gone == (1,))


def test_files_that_have_changed_places(trail: Path, scratch: Path) -> None:
    folder = copied(trail, scratch)
    one, two = file_of(folder, 0), file_of(folder, 1)
    held = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(held)
    assert not verify(folder).whole


@EVERY
@given(POSITION)
def test_a_chain_that_was_made_anew_without_the_key(trail: Path, scratch: Path, at: float) -> None:
    """As somebody would who knows how it is made: change a record, and give all that follow their new hashes."""
    from capsule.broker.audit.reading import entries
    from capsule.broker.audit.record import digest, encode, links

    folder = copied(trail, scratch)
    every = list(entries(folder))
    begin = int(at * len(every))
    changed, before = [], every[0].previous
    for index, entry in enumerate(every):
        record = entry.record._replace(principal="nobody") if index == begin else entry.record
        line = encode(record, entry.sequence, before)
        assert links(line) is not None
        changed.append(line)
        before = digest(line)
    sizes = [len(found_in(file_of(folder, which))) for which in range(3)]
    for which, size in enumerate(sizes):
        file_of(folder, which).write_bytes(b"".join(line + b"\n" for line in changed[:size]))
        changed = changed[size:]
    assert not verify(folder).whole


@EVERY
@given(POSITION, st.integers(1, 255))
def test_a_changed_anchor(trail: Path, scratch: Path, at: float, mask: int) -> None:
    file = copied(trail, scratch) / "anchors-0.jsonl"
    data = bytearray(file.read_bytes())
    data[int(at * len(data))] ^= mask
    file.write_bytes(data)
    report = verify(scratch)
    assert not report.whole or not report.closed  # half an anchor at the end is like one that was not written


def test_anchors_of_another_key(trail: Path, other: Path, scratch: Path) -> None:
    folder = copied(trail, scratch)
    shutil.copy(other / "anchors-0.jsonl", folder)
    assert not verify(folder).whole


def test_no_anchors(trail: Path, scratch: Path) -> None:
    folder = copied(trail, scratch)
    (folder / "anchors-0.jsonl").unlink()
    assert not verify(folder).whole


def test_another_key_than_the_one_that_is_known(trail: Path, other: Path, scratch: Path) -> None:
    """One who can write the directory can put a key of his own there, and sign all anew: hence the key is told."""
    folder = copied(trail, scratch)
    known = bytes.fromhex((trail / "signing.pub").read_text())
    assert verify(folder, known).whole
    assert not verify(folder, bytes.fromhex((other / "signing.pub").read_text())).whole


def test_what_an_earlier_state_as_a_whole_looks_like_is_known(tmp_path: Path) -> None:
    """The residual risk: all files as they were before, anchors included, are a whole trail, which was not closed."""
    folder = tmp_path / "audit"

    async def work() -> None:
        audit = open_audit(folder, AuditSettings(anchor_every=1))
        await audit.append(Record("call"))
        shutil.copytree(folder, tmp_path / "before")
        await audit.append(Record("call"))
        await audit.close()

    asyncio.run(work())
    report = verify(tmp_path / "before")
    assert report.whole
    assert not report.closed
    assert report.last == 2


def test_what_is_no_trail_is_said_to_be_none(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(StoreError, match="cannot be read as an audit trail"):
            verify(folder)
    (tmp_path / "signing.pub").write_text("xyz")
    with pytest.raises(StoreError, match="64 hexadecimal digits") as caught:
        verify(tmp_path)
    assert isinstance(caught.value.__cause__, ArgumentError)
