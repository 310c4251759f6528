"""A node that is killed, and a disk that is really full."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from capsule.broker.audit.reading import entries
from capsule.broker.audit.verify import verify

WRITER = """
import asyncio, sys
from pathlib import Path
from capsule.broker.audit import Record, open_audit
from capsule.broker.packs import AuditSettings

async def main(folder, level, begin):
    trail = open_audit(Path(folder), AuditSettings(level=level, file_bytes=2**16, anchor_every=20))
    async def write(worker):
        for number in range(10_000):
            key = f"{begin}-{worker}-{number}"
            await trail.append(Record("call", "accepted", key=key, arguments={"data": "x" * 100}))
            print(key, flush=True)
            await asyncio.sleep(0)
    await asyncio.gather(*map(write, range(4)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("level", ["process", "power"])
def test_what_was_answered_is_there_however_often_the_node_is_killed(tmp_path: Path, level: str) -> None:
    """In order, once, and with the trail whole; what was written without an answer may be there too."""
    chance, answered = Random(5), []
    for round_ in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "audit"), level, str(round_)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            answered += [process.stdout.readline().strip() for _ in range(chance.randint(1, 400))]
            process.kill()
            answered += process.stdout.read().split("\n")[:-1]
        assert verify(tmp_path / "audit").whole
    keys = [entry.record.key for entry in entries(tmp_path / "audit") if entry.record.kind == "call"]
    assert len(set(keys)) == len(keys)
    assert set(answered) <= set(keys)
    assert [key for key in keys if key in set(answered)] == answered
    outcomes = [entry.record.outcome for entry in entries(tmp_path / "audit") if entry.record.kind == "audit"]
    assert outcomes.count("opened") == 4
    assert "damaged" not in outcomes


FILLER = """
import asyncio, os, sys
from pathlib import Path
from capsule.broker.audit import Record, open_audit
from capsule.broker.audit.reading import entries
from capsule.broker.audit.verify import verify
from capsule.broker.packs import AuditSettings
from capsule_protocol.errors import CapabilityDenied

async def main(disk, level):
    folder, ballast = Path(disk, "audit"), Path(disk, "ballast")
    trail = open_audit(folder, AuditSettings(level=level, anchor_every=3))
    record = Record("call", "accepted", arguments={"data": "x" * 900})
    await trail.append(record)
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"b" * 512)

        except OSError:
            pass
    refused = written = 0
    while refused < 5:
        try:
            await trail.append(record)
            written += 1
        except CapabilityDenied as error:
            assert error.code == "audit_unavailable", error
            assert "No space left on device" in error.message, error
            refused += 1
        assert written < 1000
    ballast.unlink()
    for _ in range(10):
        await trail.append(record)
    await trail.close()
    report = verify(folder)
    assert report.findings == [] and report.closed, report
    found = [entry.record for entry in entries(folder)]
    assert [one.details for one in found if one.outcome == "resumed"] == [{"missed": 5}]
    assert sum(one.kind == "call" for one in found) == 1 + written + 10
    print("done")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("level", ["process", "power"])
def test_a_disk_that_is_full_stops_calls_until_there_is_room(tmp_path: Path, level: str) -> None:
    """A file system of 256 KiB, in a mount namespace of its own."""
    mount = 'mount -t tmpfs -o size=256k,mode=700 none "$0" && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(tmp_path)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*inside, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this machine lets us mount nothing")
    command = [*inside, sys.executable, "-c", FILLER, str(tmp_path), level]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
