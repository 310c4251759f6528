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
PLACE = next(iter(discover([MEMORY]).places), None)
NODE = """
import json, os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
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

pytestmark = pytest.mark.skipif(PLACE is None, reason="this user can make no control group for memory here")


@pytest.fixture
def group() -> Iterator[Path]:
    """One for a node, with room for it and two sessions, and no more; with version 2 that is what is above it."""
    assert PLACE is not None
    group = Path(PLACE.folder, f"test-{os.getpid()}")
    group.mkdir()
    own = group if PLACE.version == 1 else group / "node"
    if PLACE.version == 1:
        (group / "memory.limit_in_bytes").write_text(str(400 * MIB))
    else:
        os.setxattr(group, "user.delegate", b"1")
        (group / "memory.max").write_text(str(400 * MIB))
        own.mkdir()
    try:
        yield own
    finally:
        wait_for_the_last(own)
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


def wait_for_the_last(group: Path) -> None:
    """Boxes end when their node has."""
    for pid in map(int, (group / "cgroup.procs").read_text().split()):
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            assert ended.poll(30_000)
            os.close(pidfd)


def test_when_the_node_s_own_group_has_no_memory_left_that_is_the_end_of_one_session(group: Path) -> None:
    """With version 1 all groups below are told of it by the system."""
    command = [sys.executable, "-c", NODE, str(group), CODE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    assert json.loads(done.stdout) == ["crashed", "42"]
    assert PLACE is not None
    assert not list((group if PLACE.version == 1 else group.parent).glob("capsule-*"))
