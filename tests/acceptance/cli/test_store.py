"""`capsule store` on a real file: text and JSON, beside a process that uses it, and what its exit codes say."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from capsule_bridge import NewPromise, Settlement, SqliteStore
from capsule_bridge.sqlite import tools
from tests.acceptance.cli.support import CAPSULE, clean_environment
from tests.acceptance.cli.support import capsule as run
from tests.unit.bridge.test_sqlite import other_process

PAGE = (Path(__file__).parents[3] / "docs/reference/cli.md").read_text("utf-8")
EVENTS = 20_000
DAY = 86_400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with two promises of three days ago, one of them settled, and many events."""
    path = tmp_path / "promises.db"
    then = int(time.time() - 3 * DAY) * 1000

    async def fill() -> None:
        store = SqliteStore(path, "process")
        for name in ("exec:1", "exec:2"):
            await store.create(
                NewPromise(name, "execute", "s", b"\x01", param=b"\x81\xa4code\xa31+1", timeout_at=10**14), now=then
            )
        await store.append("exec:2", [b"\xa5event"] * EVENTS, after=0)
        await store.settle(Settlement("exec:1", "resolve", b"\x02"), now=then + 1)
        await store.close()

    asyncio.run(fill())
    return path


def asked(*arguments: str | Path, code: int = 0) -> Any:
    """What a command prints as JSON."""
    done = run("store", *arguments, "--json")
    assert (done.returncode, done.stderr) == (code, b"")
    return json.loads(done.stdout)


def test_info(path: Path) -> None:
    found = asked("info", path)
    assert found["promises"]["resolved"] == found["pending"] == 1
    assert found["events"] == EVENTS
    assert set(found) == {*tools.StoreInfo.__dataclass_fields__, "pending"}
    text = run("store", "info", path).stdout.decode()
    assert re.search(r"^  pending +1, the oldest for \d+d$", text, re.MULTILINE)
    assert re.search(r"^used by +nobody$", text, re.MULTILINE)


def test_a_store_that_is_used_can_be_looked_at_but_not_compacted(path: Path) -> None:
    with other_process(path) as other:
        assert asked("info", path)["process"] == str(other.pid)
        assert f"process {other.pid} (process)" in run("store", "info", path).stdout.decode()
        assert asked("check", path, "--thorough")["ok"]
        assert run("store", "export", path).returncode == 0
        error = asked("compact", path, code=3)["error"]
        assert error["code"] == "store_locked"
        assert str(other.pid) in error["message"]


def test_check_tells_by_its_exit_code(path: Path) -> None:
    found = asked("check", path)
    assert found["ok"]
    assert [finding["code"] for finding in found["findings"]] == list(tools.CHECKS)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DELETE FROM events WHERE sequence = 7")
    assert not asked("check", path, code=1)["ok"]
    done = run("store", "check", path)
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.decode().splitlines() if line.startswith("logs ")]
    assert "error" in line
    assert "exec:2" in line


@pytest.mark.parametrize("command", ["info", "check", "compact", "export"])
def test_a_resonate_server_is_looked_at_by_the_file_of_its_node(command: str) -> None:
    """It said that there was no such file."""
    done = run("store", command, "resonate+http://localhost:8001")
    assert (done.returncode, done.stdout) == (2, b"")
    told = done.stderr.decode()
    assert "'resonate+http://localhost:8001' is a Resonate server" in told
    assert "allowed: the PATH of that file" in told


def test_what_is_no_url_of_a_database_is_refused_by_its_name() -> None:
    done = run("store", "info", "mysql://me:secret@localhost/capsule")
    assert (done.returncode, done.stdout) == (2, b"")
    assert "is 'mysql://me:***@localhost/capsule'" in done.stderr.decode()


def test_compact(path: Path) -> None:
    done = asked("compact", path)
    assert (done["forgotten"], done["timed_out"]) == (1, 0)
    assert done["after"]["log"] == 0
    assert (
        run("store", "compact", path, "--results", "0").stdout.decode().endswith("0 promises forgotten, 0 timed out\n")
    )


def test_compact_keeps_what_is_younger_than_it_is_told(path: Path) -> None:
    assert asked("compact", path, "--results", "10000000")["forgotten"] == 0


def test_without_a_name_it_is_the_store_of_the_configuration(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'[store]\npath = "{path}"\nresults = {10 * DAY}\n')
    assert asked("info", "--config", file)["path"] == str(path)
    assert asked("check", "--config", file)["ok"]
    assert run("store", "export", "--config", file).stdout.endswith(b'"tombstones": 0}\n')
    # What the node would keep is not forgotten, unless it is said so.
    assert asked("compact", "--config", file)["forgotten"] == 0
    assert asked("compact", "--config", file, "--results", "1")["forgotten"] == 1


def test_without_any_configuration_it_is_that_of_this_users_node(tmp_path: Path) -> None:
    done = run("store", "info", cwd=tmp_path, env={"XDG_STATE_HOME": str(tmp_path)})
    assert done.returncode == 3
    assert f"there is no store {tmp_path}/capsule/store.db" in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


def test_export(path: Path) -> None:
    done = run("store", "export", path, "--decode")
    assert (done.returncode, done.stderr) == (0, b"")
    first, promise, *_, last = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["record"], last) == (
        "store",
        {"record": "end", "promises": 2, "events": EVENTS, "tombstones": 0},
    )
    assert promise["param"] == {"msgpack": {"code": "1+1"}}
    assert set(json.loads(run("store", "export", path).stdout.splitlines()[1])["param"]) == {"base64"}


def test_whoever_reads_an_export_may_leave(path: Path) -> None:
    with subprocess.Popen(
        [CAPSULE, "store", "export", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"record": "store"')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_what_can_be_read_of_a_damaged_store_is_written_out(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"exec:2") // 4096 * 4096  # the table of promises comes first
    data[at : at + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    assert asked("check", path, code=1)["findings"][0]["severity"] == "error"
    done = run("store", "export", path)
    assert done.returncode == 3
    records = [json.loads(line)["record"] for line in done.stdout.splitlines()]
    assert (records[0], set(records) - {"tombstone"}) == ("store", {"store", "lost"})
    assert b"The records `lost` say where they are." in done.stderr


@pytest.mark.parametrize("name", ["info", "check", "compact"])
def test_a_file_that_is_no_store(tmp_path: Path, name: str) -> None:
    assert asked(name, tmp_path / "nowhere.db", code=3)["error"]["code"] == "store_refused"
    assert asked(name, tmp_path, code=3)["error"]["code"] == "store_refused"
    done = run("store", name, tmp_path / "nowhere.db")
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.startswith(b"capsule store: there is no store")
    assert list(tmp_path.iterdir()) == []


def test_the_page_names_every_check_and_record(path: Path) -> None:
    told = PAGE.split("## What `capsule store check` finds")[1].split("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", told, re.MULTILINE)) == tools.CHECKS
    rows = PAGE.split("## Records of `capsule store export`")[1].split("\n## ")[0]
    records = {record["record"]: record for record in tools.export(path, now=1)}
    records["tombstone"] = dict.fromkeys(["record", "id", "principal", "session", "key", "until"])
    records["lost"] = dict.fromkeys(["record", "what", "promise", "after", "upto", "before"])
    for kind, fields in re.findall(r"^\| `(\w+)` \| (.*) \|$", rows, re.MULTILINE):
        assert set(re.findall(r"`(\w+)`", fields)) == set(records.pop(kind)) - {"record"}
    assert records == {}
