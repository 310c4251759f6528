"""Looking at a store, checking, compacting and exporting it: beside a node that uses it, and when it is damaged."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from capsule_bridge import Retention, Settlement, SqliteStore
from capsule_bridge.findings import EXAMPLES, StoreFinding
from capsule_bridge.sql import Migration
from capsule_bridge.sqlite import schema, tools
from capsule_bridge.sqlite.tools.check import BEING_WRITTEN
from capsule_bridge.store import PAGE, READ_BYTES
from capsule_protocol.errors import StoreError
from tests.unit.bridge.contract import refused
from tests.unit.bridge.support import LARGE, file_sizes_up_to, files_of, new, opened
from tests.unit.bridge.test_sqlite import lock_of, other_process

pytestmark = pytest.mark.anyio

TOOLS: dict[str, Callable[[Path], Any]] = {
    "info": lambda path: tools.info(path, now=0),
    "check": tools.check,
    "export": lambda path: list(tools.export(path, now=0)),
    "compact": lambda path: tools.compact(path, now=0, retention=Retention()),
}
LOOKING = ["info", "check", "export"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that nobody has open, with something of everything."""
    path = tmp_path / "node" / "store.db"
    asyncio.run(fill(path))
    return path


async def fill(path: Path) -> None:
    async with opened(path) as store:
        await store.create(new("old", key="k0"), now=1)
        await store.settle(Settlement("old", "resolve"), now=1)
        await store.expire(now=100, retention=Retention(results=10, tombstones=10**15))
        await store.create(new("a", key="k", param=LARGE, timeout_at=10**14), now=100)
        await store.create(new("a:input:1", parent="a"), now=200)
        await store.append("a", [b"one", LARGE, b"three"], after=0)
        await store.trim("a", 1)
        await store.create(new("b"), now=300)
        await store.append("b", [b"only"], after=0)
        await store.settle(Settlement("b", "reject", b"\xa2no"), now=301)


def change(path: Path, script: str) -> None:
    """What no part of ours does to a store."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


def contents(path: Path) -> dict[str, bytes]:
    """The files of a store that hold something of it."""
    files = [each for each in path.parent.rglob("*") if each.is_file() and not each.name.endswith("-shm")]
    return {str(each): each.read_bytes() for each in files if each.stat().st_size}


# What may be asked


@pytest.mark.parametrize("tool", TOOLS)
def test_a_link_leads_to_the_store_and_to_what_is_beside_it(path: Path, tmp_path: Path, tool: str) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    TOOLS[tool](link)
    assert {each.name for each in tmp_path.iterdir()} == {"link.db", path.parent.name}
    assert {finding.severity for finding in tools.check(link)} == {"ok"}
    with other_process(path) as other:
        assert tools.info(link, now=0).process == str(other.pid)
        with refused("store_locked"):
            TOOLS["compact"](link)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_store_with_several_names_is_refused(path: Path, tool: str) -> None:
    path.with_name("other.db").hardlink_to(path)
    with pytest.raises(StoreError, match="has several names") as caught:
        TOOLS[tool](path.with_name("other.db"))
    assert caught.value.code == "store_refused"


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("kind", ["nothing", "directory", "text", "database", "database with a log", "empty"])
def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path, tool: str, kind: str) -> None:
    path = tmp_path / "other"
    match kind:
        case "directory":
            path.mkdir()
        case "text":
            path.write_text("not a database\n" * 100)
        case "database":
            change(path, "CREATE TABLE mine (x)")
        case "database with a log":
            change(path, "PRAGMA journal_mode = WAL; CREATE TABLE mine (x)")
        case "empty":
            path.touch()
    before = contents(path)
    if kind == "empty" and tool == "compact":
        TOOLS[tool](path)  # as a node would make it
        return
    with refused("store_refused"):
        TOOLS[tool](path)
    assert path.exists() == (kind != "nothing")
    assert contents(path) == before
    assert [each.name for each in tmp_path.iterdir()] == ([] if kind == "nothing" else ["other"])


@pytest.mark.parametrize("tool", TOOLS)
def test_a_newer_schema_is_refused_with_a_hint_and_left_alone(path: Path, tool: str) -> None:
    change(path, "PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="has schema 99") as caught:
        TOOLS[tool](path)
    assert (caught.value.code, caught.value.hint[:14]) == ("store_refused", "Update Capsule")
    assert path.read_bytes() == before


@pytest.mark.parametrize("tool", LOOKING)
def test_an_older_schema_is_only_read_by_what_knows_it(path: Path, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = schema.migrations()
    newest = Migration(len(known) + 1, "CREATE TABLE more (x)")
    monkeypatch.setattr(schema, "migrations", lambda: (*known, newest))
    with pytest.raises(StoreError, match=f"has schema {len(known)}") as caught:
        TOOLS[tool](path)
    assert "compact" in caught.value.hint
    TOOLS["compact"](path)
    TOOLS[tool](path)


@pytest.mark.parametrize("tool", LOOKING)
def test_looking_changes_nothing(path: Path, tool: str) -> None:
    before = contents(path)
    TOOLS[tool](path)
    assert contents(path) == before


async def test_looking_and_writing_go_on_beside_each_other(path: Path) -> None:
    async with opened(path, "power") as store:

        async def write() -> None:
            for n in range(60):
                await store.create(new(f"w{n}", param=LARGE if n % 7 == 0 else b""), now=1000)
                await store.append(f"w{n}", [b"event", LARGE] * (n % 3), after=0)
                if n % 2:
                    await store.settle(Settlement(f"w{n}", "resolve"), now=1001)
                if n % 5 == 0:
                    await store.expire(now=2000 + n, retention=Retention(results=990))

        def look() -> None:
            while not writing.done():
                for tool in LOOKING:
                    found = TOOLS[tool](path)
                    assert tool != "check" or wrong(found) == {}

        writing = asyncio.ensure_future(write())
        await asyncio.to_thread(look)
        await writing
        assert store.failure is None
        assert wrong(tools.check(path, thorough=True)) == {}


# info


async def test_info_counts_all(path: Path) -> None:
    found = tools.info(path, now=1100)
    assert found.path == str(path)
    assert found.schema == len(schema.migrations())
    assert found.promises == {
        "pending": 2,
        "resolved": 0,
        "rejected": 1,
        "rejected_canceled": 0,
        "rejected_timedout": 0,
    }
    assert (found.pending, found.oldest_pending, found.events, found.tombstones) == (2, 1000, 3, 1)
    assert (found.process, found.use, found.sqlite) == ("", "", sqlite3.sqlite_version)
    assert (found.sizes.database, found.sizes.log) == (path.stat().st_size, 0)
    assert (found.sizes.values, found.sizes.value_files) == (2 * len(LARGE), 2)


@pytest.mark.parametrize("level", ["process", "power"])
async def test_info_tells_who_has_the_store_and_at_which_level(path: Path, level: Any) -> None:
    async with opened(path, level) as store:
        await store.create(new("more"), now=1)
        found = tools.info(path, now=0)
        assert (found.process, found.use) == (str(os.getpid()), level)
        assert found.sizes.log > 0
        assert found.oldest_pending == 0  # a clock that went back makes nothing younger than it can be
    assert tools.info(path, now=0).process == ""


async def test_a_dead_process_uses_nothing(path: Path) -> None:
    with other_process(path) as other:
        assert tools.info(path, now=0).process == str(other.pid)
        other.kill()
        other.wait()
        assert tools.info(path, now=0).process == ""


# check


def wrong(findings: list[StoreFinding]) -> dict[str, str]:
    """The severities of the findings that are not `ok`; all are there, in their order."""
    assert [finding.code for finding in findings] == list(tools.CHECKS)
    assert all(finding.message and (finding.severity == "ok") != bool(finding.hint) for finding in findings)
    return {finding.code: finding.severity for finding in findings if finding.severity != "ok"}


@pytest.mark.parametrize("thorough", [False, True])
def test_a_good_store_has_no_finding(path: Path, thorough: bool) -> None:
    assert wrong(tools.check(path, thorough=thorough)) == {}


@pytest.mark.parametrize(
    ("script", "code", "severity", "named"),
    [
        ("DROP INDEX promises_due", "schema", "error", "promises_due"),
        ("CREATE TABLE mine (x)", "schema", "error", "mine"),
        ("DELETE FROM events WHERE sequence = 2; DELETE FROM events WHERE sequence = 1", "logs", "error", "a"),
        ("UPDATE promises SET trimmed = 0", "logs", "error", "a"),
        ("INSERT INTO events SELECT promise, 9, data, NULL FROM events WHERE data = x'6f6e6c79'", "logs", "error", "b"),
        ("INSERT INTO events VALUES (99, 1, x'00', NULL)", "events", "error", "number 99"),
        (
            "UPDATE promises SET state = 'resolved', settled_at = 5 WHERE id = 'a'",
            "children",
            "error",
            "a:input:1",
        ),
        (
            "UPDATE promises SET parent = 'gone', state = 'resolved', settled_at = 5 WHERE id = 'a:input:1'",
            "parents",
            "warning",
            "a:input:1",
        ),
        ("UPDATE promises SET id = 'old' WHERE id = 'b'", "tombstones", "error", "old"),
    ],
)
def test_what_does_not_fit_is_found(path: Path, script: str, code: str, severity: str, named: str) -> None:
    change(path, script)
    findings = tools.check(path)
    assert wrong(findings).get(code) == severity
    (finding,) = [each for each in findings if each.code == code]
    assert named in finding.message


def test_a_parent_that_is_remembered_is_not_missed(path: Path) -> None:
    change(path, "UPDATE promises SET parent = 'old', state = 'resolved', settled_at = 5 WHERE id = 'a:input:1'")
    assert wrong(tools.check(path)) == {}


def test_of_many_alike_some_are_named(path: Path) -> None:
    values = ", ".join(f"({n}, 1, x'00', NULL)" for n in range(100, 140))
    change(path, f"INSERT INTO events VALUES {values}")
    (finding,) = [each for each in tools.check(path) if each.code == "events"]
    assert finding.message.count("number") == EXAMPLES
    assert finding.message.endswith(f"and {40 - EXAMPLES} more")


def test_large_values_that_are_lost_or_left_are_found(path: Path) -> None:
    folder = path.with_name("store.db.values")
    folder.joinpath(files_of(path)[0]).unlink()
    left = folder / ("0" * 32)
    left.write_bytes(b"left by a crash")
    assert wrong(tools.check(path)) == {"values": "error"}  # a node may be about to name what is so young
    os.utime(left, (left.stat().st_mtime - 2 * BEING_WRITTEN,) * 2)
    assert wrong(tools.check(path)) == {"values": "error", "files": "info"}


@pytest.mark.parametrize(("harm", "thorough"), [(b"less", False), (b"less", True), (LARGE[:-1] + b"x", True)])
def test_large_values_that_are_not_what_was_written_are_found_and_exported(
    path: Path, harm: bytes, thorough: bool
) -> None:
    folder = path.with_name("store.db.values")
    for name in files_of(path):
        folder.joinpath(name).write_bytes(harm)
    findings = tools.check(path, thorough=thorough)
    assert wrong(findings) == {"values": "error"}
    assert "2 large values are not what was written, of " in {one.code: one.message for one in findings}["values"]
    values = [one.get("param") or one.get("data") for one in TOOLS["export"](path)]
    found = [value for value in values if value and "damaged" in value]
    assert [base64.b64decode(value["base64"]) for value in found] == [harm] * 2
    assert {value["damaged"] for value in found} == set(files_of(path))


@pytest.mark.parametrize("thorough", [False, True])
def test_damaged_pages_are_found(path: Path, thorough: bool) -> None:
    with path.open("r+b") as file:
        for page in range(4, path.stat().st_size // 4096):  # behind the first pages of the tables
            file.seek(page * 4096)
            file.write(b"\xff" * 200)
    found = wrong(tools.check(path, thorough=thorough))
    assert found["database"] == "error"


def test_an_index_that_lies_is_found_if_one_looks_thoroughly(path: Path) -> None:
    change(
        path,
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_schema SET sql = replace(sql, 'promises (settled_at)', 'promises (created_at)')"
        " WHERE name = 'promises_settled'; PRAGMA writable_schema = RESET;",
    )
    assert wrong(tools.check(path, thorough=True))["database"] == "error"


# compact


async def test_compacting_forgets_what_is_old_and_gives_room_back(path: Path) -> None:
    async with opened(path) as store:
        for n in range(300):
            await store.create(new(f"big{n}", param=b"x" * 10_000), now=400)
            await store.settle(Settlement(f"big{n}", "resolve"), now=401)
        await store.create(new("large", param=LARGE), now=400)
        await store.settle(Settlement("large", "resolve"), now=401)
        await store.create(new("due", timeout_at=500), now=400)
    done = tools.compact(path, now=2000, retention=Retention(results=1000, tombstones=10))
    assert (done.timed_out, done.forgotten) == (1, 303)  # with `b`, and what timed out long ago
    assert done.before.database > 3_000_000
    assert done.after.database < 200_000
    assert (done.after.log, done.after.free, done.after.value_files) == (0, 0, 2)
    assert wrong(tools.check(path, thorough=True)) == {}
    async with opened(path) as store:
        assert (await store.get("a", now=2001)).param == LARGE
        with refused("promise_expired"):
            await store.get("b", now=2001)


async def test_compacting_is_refused_while_somebody_uses_the_store(path: Path) -> None:
    with other_process(path) as other:
        before = path.read_bytes()
        with pytest.raises(StoreError, match=rf"process {other.pid} uses the store {path} \(") as caught:
            tools.compact(path, now=10**15, retention=Retention(0, 0))
        assert caught.value.code == "store_locked"
        assert path.read_bytes() == before


async def test_without_room_compacting_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as store:
        for n in range(20):
            await store.create(new(f"big{n}", param=b"x" * 10_000), now=400)
            await store.settle(Settlement(f"big{n}", "resolve"), now=401)
    lock_of(path).unlink()  # it says who had it last
    before = contents(path)

    def with_room(size: int) -> None:
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_frsize=1, f_bavail=size))

    with_room(path.stat().st_size // 2)
    with pytest.raises(StoreError, match="cannot be compacted, and was left as it is") as caught:
        tools.compact(path, now=500, retention=Retention(0, 0))
    assert (caught.value.code, caught.value.hint[:9]) == ("store_unavailable", "Make room")
    lock_of(path).unlink()
    assert contents(path) == before
    with_room(10 * path.stat().st_size)
    assert tools.compact(path, now=500, retention=Retention(0, 0)).forgotten == 21


async def test_without_room_compacting_harms_nothing(path: Path) -> None:
    async with opened(path) as store:
        for n in range(100):
            await store.create(new(f"big{n}", param=b"x" * 10_000), now=400)
    with file_sizes_up_to(300_000), pytest.raises(StoreError, match="cannot be compacted") as caught:
        tools.compact(path, now=500, retention=Retention())
    assert caught.value.code == "store_unavailable"
    assert "compact it again" in caught.value.hint
    assert wrong(tools.check(path, thorough=True)) == {}
    async with opened(path) as store:
        assert len(await store.pending(now=500)) == 102


# export


def exported(path: Path, *, decode: bool = False) -> list[dict[str, Any]]:
    lines = [json.dumps(record, allow_nan=False) for record in tools.export(path, now=7, decode=decode)]
    return [json.loads(line) for line in lines]


def plain(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


async def test_an_export_holds_all_and_says_what_it_is(path: Path) -> None:
    first, *records, last = exported(path)
    assert first == {
        "record": "store",
        "format": 1,
        "schema": len(schema.migrations()),
        "path": str(path),
        "at": 7,
    }
    assert last == {"record": "end", "promises": 3, "events": 3, "tombstones": 1}
    kinds = [record["record"] for record in records]
    assert kinds == ["promise", "event", "event", "promise", "promise", "event", "tombstone"]
    promise, *events = records[:3]
    async with opened(path) as store:
        kept = await store.get("a", now=400)
    for field in ("id", "kind", "session", "principal", "key", "parent", "timeout_at"):
        assert promise[field] == getattr(kept, field)
    for field in ("state", "created_at", "epoch", "version", "started_at", "settled_at"):
        assert promise[field] == getattr(kept, field)
    assert (promise["param"], promise["fingerprint"]) == (plain(LARGE), plain(b"same"))
    assert (promise["first_event"], promise["last_event"]) == (2, 3)
    assert events == [
        {"record": "event", "promise": "a", "sequence": 2, "data": plain(LARGE)},
        {"record": "event", "promise": "a", "sequence": 3, "data": plain(b"three")},
    ]
    tombstone = {"principal": "", "session": "s", "key": "k0", "until": 100 + 10**15}
    assert records[-1] == {"record": "tombstone", "id": "old", **tombstone}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": [1, None, b"\xff", "\ud800"]}, {"msgpack": {"a": [1, None, plain(b"\xff"), "\ud800"]}}),
        ({1: 2}, None),
        ([float("nan")], None),
        (msgpack.Timestamp(5), None),
    ],
)
async def test_decoded_is_what_json_can_hold(tmp_path: Path, value: object, shown: object) -> None:
    packed = msgpack.packb(value, unicode_errors="surrogatepass")
    async with opened(tmp_path / "store.db") as store:
        await store.create(new("a", param=packed), now=1)
        await store.append("a", [b"\xc1 is no msgpack", b"\x01\x02"], after=0)
    _, promise, *events, _ = exported(tmp_path / "store.db", decode=True)
    assert promise["param"] == (shown or plain(packed))
    assert [event["data"] for event in events] == [plain(b"\xc1 is no msgpack"), plain(b"\x01\x02")]


async def test_what_is_left_of_a_store_can_be_taken_out(path: Path) -> None:
    for file in files_of(path):
        path.with_name("store.db.values").joinpath(file).unlink()
    _, *records, last = exported(path)
    assert (last["promises"], last["events"]) == (3, 3)
    assert set(records[0]["param"]) == set(records[1]["data"]) == {"missing"}


COUNT = 3_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with many pages, of which each part says what it is."""
    path = tmp_path_factory.mktemp("whole") / "store.db"

    async def fill_it() -> None:
        async with opened(path) as store:
            await asyncio.gather(
                *(store.create(new(f"p{n}", param=b"<param %d>" % n + b"." * 300), now=n + 1) for n in range(COUNT))
            )
            for n in range(0, COUNT, 7):
                await store.append(f"p{n}", [b"<event %d>" % n + b"." * 200] * 5, after=0)
            await asyncio.gather(*(store.create(new(f"old{n:04}{'.' * 60}"), now=1) for n in range(500)))
            await asyncio.gather(
                *(store.settle(Settlement(f"old{n:04}{'.' * 60}", "cancel"), now=1) for n in range(500))
            )
            await store.expire(now=100, retention=Retention(10, tombstones=10**15))

    asyncio.run(fill_it())
    return path


def with_damage(whole: Path, tmp_path: Path, *marks: bytes) -> Path:
    """A copy in which the pages are overwritten that have these marks."""
    data = bytearray(whole.read_bytes())
    for mark in marks:
        at = data.index(mark) // 4096 * 4096
        data[at : at + 4096] = os.urandom(4096)
    path = tmp_path / "store.db"
    path.write_bytes(data)
    return path


def salvaged(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What an export tells of a damaged store: all that it could read, and what is lost."""
    records: list[dict[str, Any]] = []
    with pytest.raises(StoreError, match="all others were written out") as caught:
        records.extend(tools.export(path, now=1))
    assert (caught.value.code, caught.value.hint) == ("store_damaged", "The records `lost` say where they are.")
    assert records[0]["record"] == "store"
    return records, [record for record in records if record["record"] == "lost"]


def named(records: list[dict[str, Any]]) -> set[str]:
    return {record["id"] for record in records if record["record"] == "promise"}


def test_of_damaged_promises_all_others_are_exported(whole: Path, tmp_path: Path) -> None:
    path = with_damage(whole, tmp_path, b"<param 700>", b"<param 2000>", b"<param %d>" % (COUNT - 1))
    records, lost = salvaged(path)
    gaps = [(one["after"], one["upto"]) for one in lost if one["what"] == "promise"]
    missing = {f"p{n - 1}" for after, upto in gaps for n in range(after + 1, upto + 1)}
    assert {"p700", "p2000", f"p{COUNT - 1}"} <= missing
    assert len(gaps) == 3
    assert len(missing) < 60
    assert named(records) == {f"p{n}" for n in range(COUNT)} - missing
    assert len([one for one in records if one["record"] == "tombstone"]) == 500


def test_of_damaged_events_their_promises_and_all_others_are_exported(whole: Path, tmp_path: Path) -> None:
    path = with_damage(whole, tmp_path, b"<event 700>")
    records, lost = salvaged(path)
    assert named(records) == {f"p{n}" for n in range(COUNT)}
    assert {one["what"] for one in lost} == {"event"}
    assert "p700" in {one["promise"] for one in lost}
    events = sum(one["record"] == "event" for one in records)
    assert 5 * (COUNT // 7 + 1) - 30 < events < 5 * (COUNT // 7 + 1)


def test_of_damaged_tombstones_those_on_both_sides_are_exported(whole: Path, tmp_path: Path) -> None:
    path = with_damage(whole, tmp_path, b"old0250")
    records, lost = salvaged(path)
    (gap,) = [one for one in lost if one["what"] == "tombstone"]
    assert gap["after"] < "old0250" < gap["before"]
    assert len([one for one in records if one["record"] == "tombstone"]) > 400
    assert named(records) == {f"p{n}" for n in range(COUNT)}


def test_of_a_store_that_was_cut_short_is_exported_what_there_is(whole: Path, tmp_path: Path) -> None:
    path = with_damage(whole, tmp_path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 // 4096 * 4096)
    assert wrong(tools.check(path))["database"] == "error"
    records, lost = salvaged(path)
    assert lost
    assert len(named(records)) > COUNT // 4


def test_a_store_of_which_nothing_can_be_read_is_found_damaged_by_the_check(whole: Path, tmp_path: Path) -> None:
    path = with_damage(whole, tmp_path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    findings = wrong(tools.check(path))
    assert findings["database"] == "error"


async def test_an_export_goes_over_many_parts(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        calls = [store.create(new(f"a{n}"), now=1) for n in range(PAGE + 1)]
        await asyncio.gather(*calls)
        await store.append("a7", [b"%d" % n for n in range(PAGE + 1)], after=0)
        await asyncio.gather(*(store.settle(Settlement(f"a{n}", "cancel"), now=1) for n in range(PAGE + 1)))
        records = exported(path)
        await store.expire(now=10, retention=Retention(1), limit=PAGE + 1)
    assert (records[-1]["promises"], records[-1]["events"]) == (PAGE + 1, PAGE + 1)
    assert [record["id"] for record in records if record["record"] == "promise"] == [f"a{n}" for n in range(PAGE + 1)]
    assert exported(path)[-1]["tombstones"] == PAGE + 1


async def test_an_export_needs_little_memory_however_large_the_log(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.create(new("a"), now=1)
        for n in range(40):
            await store.append("a", [b"x" * (READ_BYTES // 8)], after=n)
    tracemalloc.start()
    try:
        assert sum(len(json.dumps(record)) for record in tools.export(path, now=1)) > 5 * READ_BYTES
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * READ_BYTES


async def test_who_reads_slowly_does_not_keep_a_node_from_cutting_down_its_log(path: Path) -> None:
    store = SqliteStore(path, "process")
    records: Iterator[object] = tools.export(path, now=1)
    assert [next(records) for _ in range(3)]
    await store.create(new("more"), now=1000)
    assert tools.info(path, now=1).sizes.log > 0
    await store.close()
    assert tools.info(path, now=1).sizes.log == 0
    assert list(records)[-1] == {"record": "end", "promises": 4, "events": 3, "tombstones": 1}
