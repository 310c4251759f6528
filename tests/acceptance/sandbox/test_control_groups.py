"""A node that is in a control group itself: its sessions are within it, and each answers for itself alone."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule_kernels.sandbox.cgroups import MEMORY, discover

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20
PLACE = next((place for place in discover([MEMORY]).places if place.version == 1), None)
NODE = """
import json, os, sys
with open(sys.argv[1] + "/tasks", "w") as file:
    file.write("0")
from capsule import Client
environments = {"default": {"sandbox": "landlock", "uid": 0 if os.geteuid() == 0 else None, "min_idle": 0}}
with Client(environments=environments) as client:
    with client.session(memory_bytes=2**30) as greedy, client.session(memory_bytes=2**30) as neighbour:
        neighbour.run("kept = 42")
        hog = greedy.run(sys.argv[2])
        print(json.dumps([hog.verdict, neighbour.run("kept").text]))
"""
CODE = "import os\nkept = []\nwhile True: kept.append(os.urandom(2**20))"

pytestmark = pytest.mark.skipif(PLACE is None, reason="this user can make no control group of version 1 here")


@pytest.fixture
def group() -> Iterator[Path]:
    """One with room for a node and two sessions, and no more."""
    assert PLACE is not None
    group = Path(PLACE.folder, f"test-{os.getpid()}")
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(400 * MIB))
    try:
        yield group
    finally:
        for below in group.glob("capsule-*"):
            below.rmdir()
        wait_for_the_last(group)
        group.rmdir()


def wait_for_the_last(group: Path) -> None:
    """Boxes end when their node has."""
    for pid in map(int, (group / "tasks").read_text().split()):
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            assert ended.poll(30_000)
            os.close(pidfd)


def test_when_the_node_s_own_group_has_no_memory_left_that_is_the_end_of_one_session(group: Path) -> None:
    """All groups below are told of it by the system."""
    command = [sys.executable, "-c", NODE, str(group), CODE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    assert json.loads(done.stdout) == ["crashed", "42"]
    assert not list(group.glob("capsule-*"))
