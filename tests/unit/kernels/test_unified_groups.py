"""Control groups of version 2: where a node can have them, and that who looks for them changes nothing elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule_kernels.sandbox.cgroups import CONTROLLERS, discover

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = [place for place in discover().places if place.version == 2]
FIND = "import json\nfrom capsule_kernels.sandbox import cgroups, seccomp\n"
TELL = "found = cgroups.discover(); print(json.dumps([[place.folder for place in found.places], found.missing]))"
JOIN = "import os, sys\nopen(sys.argv[1] + '/cgroup.procs', 'w').write('0')\nos.execvp(sys.argv[2], sys.argv[2:])"
CONTAINER = """
cd /sys/fs && umount --lazy cgroup && mount -t cgroup2 cgroup2 cgroup
echo 0 > "cgroup$1/cgroup.procs" && shift && exec "$@"
"""

pytestmark = pytest.mark.skipif(
    {place.controller for place in PLACES} != set(CONTROLLERS),
    reason="this user can make no control groups of version 2 here",
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what containers have")


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A group as systemd delegates it to a unit: nothing is enabled in it; and one below it for the node."""
    group = Path(PLACES[0].folder, f"test-{os.getpid()}")
    (group / "node").mkdir(parents=True)
    os.setxattr(group, "user.delegate", b"1")
    try:
        yield group
    finally:
        for folder, _, _ in os.walk(group, topdown=False):
            Path(folder).rmdir()


def told(group: Path, *words: str) -> str:
    """What this says that runs in the group."""
    command = [sys.executable, "-c", JOIN, str(group), *words]
    return subprocess.check_output(command, text=True, timeout=120)


def found(group: Path, code: str = TELL) -> tuple[list[str], dict[str, str]]:
    """Where a node that is in the group would make its own, and what it misses."""
    places, missing = json.loads(told(group, sys.executable, "-c", FIND + code))
    return places, missing


def found_in_container(group: Path, below: str = "") -> tuple[list[str], dict[str, str]]:
    """The same, where nothing above this group can be seen, and nothing marks it; its node is in the one `below` it."""
    os.removexattr(group, "user.delegate")
    words = ["unshare", "--cgroup", "--mount", "sh", "-ec", CONTAINER, "sh", below]
    places, missing = json.loads(told(group, *words, sys.executable, "-c", FIND + TELL))
    return places, missing


def enabled(group: Path) -> set[str]:
    return set((group / "cgroup.subtree_control").read_text().split())


def test_they_are_beside_the_node_in_what_was_delegated(delegated: Path) -> None:
    assert found(delegated / "node") == ([str(delegated)] * 3, {})
    assert enabled(delegated) == set(CONTROLLERS)
    assert [path.name for path in delegated.iterdir() if path.is_dir()] == ["node"]


def test_there_are_none_in_what_was_not_delegated(delegated: Path) -> None:
    (delegated / "node/inner").mkdir()
    places, missing = found(delegated / "node/inner")
    assert (places, set(missing.values())) == ([], {f"the group {delegated}/node was not delegated to the node"})
    assert not enabled(delegated / "node")


def test_a_group_with_processes_of_its_own_stays_as_it_is(delegated: Path) -> None:
    """The kernel would enable the controllers of processes and time there, and nobody could join a group below it."""
    command = [sys.executable, "-c", JOIN, str(delegated), "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("in it\n")
        process.stdin.flush()
        assert process.stdout.readline()
        places, missing = found(delegated / "node")
        process.stdin.close()
    assert places == []
    assert set(missing.values()) == {
        f"the group {delegated} has processes of its own, and so can have no others below it"
    }
    assert not enabled(delegated)
    assert found(delegated / "node")[1] == {}


def test_what_those_above_have_not_given_is_told(delegated: Path) -> None:
    (delegated / "inner/node").mkdir(parents=True)
    os.setxattr(delegated / "inner", "user.delegate", b"1")
    places, missing = found(delegated / "inner/node")
    assert (places, set(missing.values())) == ([], {f"the group {delegated}/inner was not given it by those above"})


def test_to_look_for_what_was_left_enables_nothing(delegated: Path) -> None:
    code = "print(json.dumps([sorted(cgroups.candidates()), {}]))"
    assert found(delegated / "node", code)[0] == [str(delegated)]
    assert not enabled(delegated)


def test_where_no_process_can_be_cloned_into_one_there_are_none(delegated: Path) -> None:
    """As in containers whose filter of system calls does not know `clone3`; it was tried as a box would do it."""
    places, missing = found(delegated / "node", "seccomp.install(seccomp.program())\n" + TELL)
    told = "no process could be made in one to try it: clone3: Function not implemented"
    assert (places, set(missing.values())) == ([], {told})


@as_root
def test_in_a_container_a_node_that_is_in_its_topmost_group_has_none_and_changes_nothing(delegated: Path) -> None:
    places, missing = found_in_container(delegated)
    told = "the group /sys/fs/cgroup has processes of its own, and so can have no others below it"
    assert (places, set(missing.values())) == ([], {told})
    assert not enabled(delegated)


@as_root
def test_in_a_container_a_node_that_is_in_one_below_has_them_beside_it(delegated: Path) -> None:
    assert found_in_container(delegated, "/node") == (["/sys/fs/cgroup"] * 3, {})
