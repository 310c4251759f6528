"""What `system` tells: the time, granted variables, and of the session that asks only what is its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

import pytest

from capsule.providers.system import provider
from capsule_protocol.errors import ArgumentError, CapabilityDenied
from tests.acceptance.providers.calls import ASKER, Caller

pytestmark = pytest.mark.anyio

TREE = """
import os, subprocess, sys, threading
kept = bytearray(b"x") * 30_000_000
child = subprocess.Popen(["sleep", "1000"])
threading.Thread(target=threading.Event().wait, daemon=True).start()
total = 0
while os.times().user < 0.2: total += 1
print(flush=True)
sys.stdin.read()
child.kill()
"""


@contextmanager
def tree() -> Iterator[int]:
    """A process with 30 MB, a second thread, and a child."""
    with subprocess.Popen([sys.executable, "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()


async def test_the_time_is_told() -> None:
    call = Caller(provider())
    before = time.time()
    value = (await call("time")).value
    assert before <= value.time <= time.time()
    assert datetime.fromisoformat(value.iso).timestamp() == pytest.approx(value.time, abs=1e-3)
    assert (await call("time")).value.monotonic >= value.monotonic


async def test_granted_variables_are_told_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANTED", "one")
    monkeypatch.setenv("SECRET", "two")
    call = Caller(provider(), {"variables": ["GRANTED", "NOT_THERE"]})
    assert (await call("env")).value.variables == {"GRANTED": "one"}
    assert (await call("env", names=["GRANTED"])).value.variables == {"GRANTED": "one"}
    assert (await call("env", names=["NOT_THERE"])).value.variables == {}
    for name in ("SECRET", "GRANTED ", "granted", ""):
        with pytest.raises(CapabilityDenied) as error:
            await call("env", names=[name])
        assert error.value.code == "capability_outside_grant"
        assert "GRANTED, NOT_THERE" in error.value.message


async def test_no_variable_is_told_without_a_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "two")
    assert (await Caller(provider())("env")).value.variables == {}


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
async def test_what_is_no_variable_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError) as error:
        Caller(provider(), {"variables": [name]})
    assert error.value.argument == "variables"


async def test_usage_is_that_of_the_tree_of_the_session() -> None:
    with tree() as pid:
        value = (await Caller(provider(), asker=replace(ASKER, pid=pid))("usage")).value
    assert value.processes == 2
    assert value.threads == 3
    assert value.open_files >= 6
    assert 30_000_000 < value.memory_bytes < 200_000_000
    assert 0.2 <= value.cpu_seconds < 30


async def test_a_session_whose_worker_is_gone_uses_nothing() -> None:
    with tree() as pid:
        pass
    for gone in (pid, 0):
        value = (await Caller(provider(), asker=replace(ASKER, pid=gone))("usage")).value
        assert (value.processes, value.memory_bytes, value.cpu_seconds) == (0, 0, 0.0)


async def test_a_session_is_told_who_it_is() -> None:
    value = (await Caller(provider(), asker=replace(ASKER, pid=os.getpid()))("session")).value
    assert value.model_dump() == {
        "session": ASKER.session,
        "name": ASKER.session_name,
        "principal": ASKER.principal,
        "environment": ASKER.environment,
        "execution": ASKER.execution,
        "pid": os.getpid(),
    }


async def test_nothing_of_it_has_effects() -> None:
    assert not any(operation.effects for operation in provider().descriptor.operations.values())
