"""A service does not start with a sandbox that cannot be had."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.cli.support import CAPSULE, clean_environment

if TYPE_CHECKING:
    from pathlib import Path


def test_a_service_whose_sandbox_cannot_be_had_does_not_start(tmp_path: Path) -> None:
    """Also if it is that of an environment that nobody has asked for yet."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    (tmp_path / "capsule.toml").write_text(
        f'[environments.boxed]\nsandbox = "landlock"\npython = "{python}"\n'
        f'[serve]\ndirectory = "{tmp_path / "run"}"\n[store]\ndurability = "none"\n'
    )
    command, env = [str(CAPSULE), "serve"], clean_environment()
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "environment 'boxed'" in done.stderr
    assert "sandbox_unavailable" in done.stderr


@pytest.mark.parametrize("line", ["cpus = 1.5", 'cgroups = "required"'])
def test_neither_does_one_whose_bounds_would_hold_nobody(tmp_path: Path, line: str) -> None:
    """Code without a sandbox would leave its control group."""
    (tmp_path / "capsule.toml").write_text(
        f'[environments.open]\n{line}\n[serve]\ndirectory = "{tmp_path / "run"}"\n[store]\ndurability = "none"\n'
    )
    command, env = [str(CAPSULE), "serve"], clean_environment()
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "environment 'open'" in done.stderr
    assert "bounds nothing without a sandbox" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only a node of root runs code as somebody else")
def test_a_directory_that_the_user_of_the_code_cannot_enter_is_named_with_what_to_do(tmp_path: Path) -> None:
    boxes = tmp_path / "closed/boxes"
    boxes.mkdir(parents=True)
    tmp_path.chmod(0o755)
    (tmp_path / "closed").chmod(0o700)

    code = (
        "import sys\nfrom capsule_kernels.sandbox.errors import SandboxError\n"
        "from capsule_kernels.sandbox.levels import Sandbox\nfrom capsule_kernels.sandbox.trial import try_out\n"
        "try: try_out(Sandbox({'level': 'landlock'}), sys.argv[1])\n"
        "except SandboxError as error: print(error.message, error.hint, sep='\\n')\n"
    )
    command = [sys.executable, "-P", "-c", code, str(boxes)]
    message, hint = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    closed = next(one for one in (*reversed(boxes.parents), boxes) if not one.stat().st_mode & stat.S_IXOTH)
    assert f"may not enter {closed}," in message
    assert f"chmod o+x {closed}" in hint
