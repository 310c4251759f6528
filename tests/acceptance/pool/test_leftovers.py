"""A caller that is killed leaves no process and no file of its pool, whatever the pool was doing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.acceptance.pool.aftermath import processes_in
from tests.acceptance.pool.support import LONG

# Opens and closes sessions for ever, so that at any moment some workers start, some wait and some end.
CALLER = """
import asyncio
import sys
from capsule.settings.environments import EnvironmentConfig
from capsule.config import NodeConfig
from capsule.node.node import Node

async def main():
    environment = EnvironmentConfig(min_idle=3, start_method=sys.argv[1])
    async with Node(NodeConfig(environments={"default": environment})) as node:
        while True:
            sessions = [await node.open_session() for _ in range(3)]
            print("open", flush=True)
            await asyncio.gather(*(session.close() for session in sessions))

asyncio.run(main())
"""


TURNS = [*((turns, "fork") for turns in (1, 2, 3, 5, 8)), (1, "spawn"), (2, "spawn")]


@pytest.mark.parametrize(("turns", "start_method"), TURNS)
def test_a_caller_that_is_killed_while_its_pool_works_leaves_nothing(turns: int, start_method: str) -> None:
    directory = Path(tempfile.mkdtemp(prefix="caller-"))
    environment = {**os.environ, "TMPDIR": str(directory)}
    caller = subprocess.Popen([sys.executable, "-c", CALLER, start_method], env=environment, stdout=subprocess.PIPE)
    try:
        assert caller.stdout is not None
        for _ in range(turns):
            assert caller.stdout.readline() == b"open\n"
        started = psutil.Process(caller.pid).children(recursive=True)
        assert started
        caller.send_signal(signal.SIGKILL)
        caller.wait()
        _, alive = psutil.wait_procs(started, timeout=LONG)
        assert not alive
        assert not processes_in(directory)
        assert list(directory.iterdir()) == []
    finally:
        caller.kill()
        caller.wait()
        assert caller.stdout is not None
        caller.stdout.close()
        shutil.rmtree(directory, ignore_errors=True)
