"""`capsule audit`: read a trail, and look whether it is as it was written."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from click.testing import CliRunner

from capsule.broker.audit import Record, open_audit
from capsule.broker.audit.record import OUTCOMES
from capsule.broker.budget import State
from capsule.broker.packs import AuditSettings
from capsule.cli.entry import cli
from capsule_protocol.errors import CapabilityDenied, CapabilityFailed, CapabilityTimeout

CAPSULE = Path(sys.executable).with_name("capsule")


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(command: str, *arguments: str | Path) -> Done:
    """The command in our process, as `capsule.cli.main` calls it."""
    result = CliRunner().invoke(cli, ["audit", command, *map(str, arguments)], standalone_mode=False)
    if isinstance(result.exception, click.ClickException):
        return Done(result.exception.exit_code, result.stdout, result.stderr + result.exception.format_message())
    assert result.exception is None, result.exception
    return Done(int(result.return_value or 0), result.stdout, result.stderr)


def told(command: str, *arguments: str | Path) -> list[Any]:
    done = run(command, *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def written(folder: Path, *records: Record) -> Path:
    async def work() -> None:
        audit = open_audit(folder, AuditSettings())
        for record in records:
            await audit.append(record)
        await audit.close()

    asyncio.run(work())
    return folder


CALL = Record(
    "call",
    "accepted",
    principal="alice",
    session="s-1",
    session_name="report",
    capability="files.read",
    arguments={"path": "data/x"},
    grant="data",
    line=12,
    duration=0.0015,
    time=1_900_000_000.25,
)


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    denied = CALL._replace(
        outcome="denied", code="capability_denied", principal="bob", grant="", why="no line", time=2e9
    )
    return written(tmp_path / "audit", CALL, denied, CALL._replace(session_name="evil\x1b[31m\n", time=2.1e9))


def test_records_are_told_in_a_line_each(trail: Path) -> None:
    done = run("query", trail, "--kind", "call")
    assert (done.returncode, done.stderr) == (0, "")
    first, second, third = done.stdout.splitlines()
    assert first == (
        "2 2030-03-17T17:46:40.250Z  files.read  accepted  alice in report  by data, line 12  1.5 ms  "
        '{"path": "data/x"}'
    )
    assert "denied (capability_denied)  bob in report" in second
    assert second.endswith("no line")
    assert "evil\\x1b[31m\\n" in third


def test_records_can_be_asked_for(trail: Path) -> None:
    def numbers(*wanted: str) -> list[int]:
        return [one["sequence"] for one in told("query", trail, *wanted)]

    assert numbers() == [1, 2, 3, 4]
    assert numbers("--principal", "b*") == numbers("--outcome", "denied") == numbers("--code", "capability_*") == [3]
    assert numbers("--session", "report") == [2, 3]
    assert numbers("--session", "s-1", "--grant", "data") == [2, 4]
    assert numbers("--since", "2031-01-01", "--until", "2035-01-01T00:00:00+01:00") == [3]
    assert numbers("--until", "1d") == []
    assert numbers("--kind", "call", "--limit", "2") == [3, 4]


def test_tail_tells_the_newest(trail: Path) -> None:
    assert [one["sequence"] for one in told("tail", trail, "--lines", "2")] == [3, 4]
    assert [one["sequence"] for one in told("tail", trail, "--lines", "2", "--principal", "alice")] == [2, 4]
    assert told("tail", trail, "--lines", "0") == []


def test_export_is_what_stands_in_the_files(trail: Path) -> None:
    found = (trail / "audit-00000001.jsonl").read_text().splitlines()
    assert run("export", trail).stdout.splitlines() == [json.dumps(json.loads(line)) for line in found]


def test_verify_tells_a_whole_trail(trail: Path) -> None:
    done = run("verify", trail)
    assert done.returncode == 0
    key = (trail / "signing.pub").read_text().strip()
    assert done.stdout == (
        "4 records in 1 files, 1 to 4: as it was written, signed up to 4, closed there\n"
        f"signed with {key}, which stands beside it: compare it with what you know, or give --key\n"
    )
    assert run("verify", trail, "--key", key).returncode == 0


def test_verify_tells_a_damaged_trail_with_the_place(trail: Path) -> None:
    file = trail / "audit-00000001.jsonl"
    file.write_text(file.read_text().replace('"bob"', '"rob"'))
    done = run("verify", trail)
    assert done.returncode == 1
    assert "audit-00000001.jsonl:4" in done.stdout
    assert "NOT as it was written" in done.stdout
    report = json.loads(run("verify", trail, "--json").stdout)
    assert not report["whole"]
    assert report["findings"][0]["severity"] == "error"


def test_verify_needs_the_key_that_is_known(trail: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other")
    done = run("verify", trail, "--key", (other / "signing.pub").read_text().strip())
    assert done.returncode == 1
    done = run("verify", trail, "--key", "abc")
    assert done.returncode == 2
    assert "64 hexadecimal digits" in done.stderr


@pytest.mark.parametrize("command", ["tail", "query", "export", "verify"])
def test_what_is_no_trail_is_told(tmp_path: Path, command: str) -> None:
    done = run(command, tmp_path / "none")
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot be read as an audit trail: No such file or directory (store_refused)" in done.stderr
    done = run(command, tmp_path / "none", "--json")
    assert json.loads(done.stdout)["error"]["code"] == "store_refused"


def test_a_time_that_is_none_is_told(trail: Path) -> None:
    done = run("query", trail, "--since", "yesterday")
    assert done.returncode == 2
    assert "neither like 15m nor like" in done.stderr


def test_follow_tells_records_as_they_are_written(tmp_path: Path) -> None:
    """Also in the next file, and until Ctrl-C."""
    folder = written(tmp_path / "audit", CALL)
    called = [str(CAPSULE), "audit", "tail", str(folder), "--follow", "--json", "--kind", "call"]
    with subprocess.Popen(called, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["sequence"] == 2

        async def work() -> None:
            audit = open_audit(folder, AuditSettings(file_bytes=2**16))
            for number in range(500):
                await audit.append(CALL._replace(key=str(number)))
            await audit.close()

        asyncio.run(work())
        assert [json.loads(process.stdout.readline())["key"] for _ in range(500)] == [str(n) for n in range(500)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_who_reads_may_leave(tmp_path: Path) -> None:
    folder = written(tmp_path / "audit", *[CALL] * 2000)
    called = f"{CAPSULE} audit export {folder} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", called], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 141
    assert done.stderr == ""


def test_without_a_directory_it_is_that_of_the_configuration(trail: Path, tmp_path: Path) -> None:
    file = tmp_path / "capsule.toml"
    file.write_text(f'[broker]\naudit = "{trail}"\n', encoding="utf-8")
    assert [one["sequence"] for one in told("query", "--config", file)] == [1, 2, 3, 4]
    done = run("verify", "--config", tmp_path / "none.toml")
    assert done.returncode == 2
    done = run("verify")
    assert done.returncode == 2
    assert "Name an audit trail: DIR, or `audit` in [broker]" in done.stderr
    file.write_text("[broker]\naudti = 1\n", encoding="utf-8")
    done = run("verify", "--config", file)
    assert done.returncode == 2
    assert "did you mean 'audit'" in done.stderr


@pytest.mark.parametrize("command", ["tail", "query", "export", "verify"])
def test_a_directory_without_a_trail_is_told(tmp_path: Path, command: str) -> None:
    """Else a slip in its name would read as: nothing has happened."""
    done = run(command, tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "there is no signing.pub in it" in done.stderr
    assert "`audit` in [broker]" in done.stderr


@pytest.mark.parametrize("command", ["tail", "query", "export"])
def test_lines_that_are_no_records_are_counted(trail: Path, command: str) -> None:
    file = trail / "audit-00000001.jsonl"
    file.write_bytes(b"\xff\n[1, 2\n" + file.read_bytes())
    done = run(command, trail)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 4
    assert "2 lines of the trail are no records, and were left out (audit_damaged)" in done.stderr


@pytest.mark.parametrize("wanted", [("--outcome", "allowed"), ("--kind", "calls")])
def test_who_asks_for_what_cannot_be_there_is_told(trail: Path, wanted: tuple[str, str]) -> None:
    done = run("query", trail, *wanted)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{wanted[1]!r} is none of" in done.stderr
    assert {"accepted" in done.stderr, "provider" in done.stderr} == {True, False}


def test_every_outcome_that_is_recorded_can_be_asked_for() -> None:
    calls = {outcome for each in (CapabilityDenied, CapabilityFailed, CapabilityTimeout) if (outcome := each.outcome)}
    assert calls | set(get_args(State)) <= set(OUTCOMES)


def test_an_approval_is_told_with_what_was_approved(tmp_path: Path) -> None:
    word = Record("approval", "approved", principal="bob", key="exec:x:approval:1")
    folder = written(tmp_path / "audit", word, word._replace(capability="files.write"))
    assert "approval  exec:x:approval:1  approved  bob" in run("query", folder).stdout
    assert "approval  exec:x:approval:1  files.write  approved  bob" in run("query", folder).stdout
