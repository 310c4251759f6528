"""Systems on which there is no node, or no client: each way in says so and leaves nothing. The system is only named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from capsule.cli.exits import Exit

NAMED = """
import os, platform, sys
platform.system = lambda: {system!r}
os.uname = lambda: os.uname_result(({system!r}, "host", "1", "1", "x86_64"))
"""
COMMAND = NAMED + "sys.argv[0] = 'capsule'\nfrom capsule.cli import main\nmain()"


def on(system: str, code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code.format(system=system), *arguments]
    env = None if cwd is None else {**os.environ, "HOME": str(cwd), "JUPYTER_DATA_DIR": str(cwd / "jupyter")}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=cwd, env=env)


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve", "--directory", "{place}/node"),
        ("kernels", "install", "--user"),
        ("jupyter",),
        ("run", "-c", "1"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_that_needs_a_node_says_that_there_can_be_none(arguments: tuple[str, ...], tmp_path: Path) -> None:
    given = [argument.format(place=tmp_path) for argument in arguments]
    done = on("Darwin", COMMAND, *given, cwd=tmp_path)
    assert done.returncode != 0
    assert "a node runs on Linux only, and this is Darwin" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_node_in_the_callers_process_is_refused_with_a_stable_code() -> None:
    code = (
        NAMED + "import capsule\ntry: capsule.Client().session()\nexcept capsule.NodeError as error: print(error.code)"
    )
    assert on("Darwin", code).stdout == "unsupported\n"


def test_a_kernel_is_refused_before_anything_is_started() -> None:
    code = NAMED + "from capsule.jupyter.lease import LeaseError, open_kernel\n"
    code += "try: open_kernel(sys.executable, {{}})\nexcept LeaseError as error: print(error.code, error)"
    told = on("Darwin", code).stdout
    assert told.startswith("unsupported a node runs on Linux only, and this is Darwin")


def test_where_there_is_no_client_either_the_command_and_the_import_say_so() -> None:
    done = on("Windows", COMMAND, "--help")
    assert (done.returncode, done.stdout) == (Exit.FAILED, "")
    assert done.stderr.startswith("capsule: ")
    assert "this is Windows" in done.stderr
    told = on("Windows", NAMED + "import capsule\ntry: capsule.Client\nexcept capsule.NodeError as error: print(error)")
    assert "this is Windows" in told.stdout
