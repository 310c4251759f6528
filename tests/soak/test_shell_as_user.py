"""What holds for programs of a node that runs as root holds for those of an ordinary user's: the same tests, as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.sandbox.as_user import command, own_home

ROOT = Path(__file__).parents[2]
CHOSEN = (
    "grant_runs or works_in_its_root or keeps_it_in or read_or_written or are_not_seen or bounded_in_namespaces"
    " or fork_bomb or outlives_its_program or networks_only or its_three"
)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests do it")
@pytest.mark.timeout(600)
def test_the_same_holds_for_an_ordinary_user() -> None:
    here = ROOT / "tests/acceptance/providers"
    files = [str(here / f"test_shell{name}.py") for name in ("", "_attacks", "_leftovers")]
    with own_home() as home:
        pytest_of_user = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={home}/pytest"]
        done = subprocess.run(
            command(home, *pytest_of_user, "-k", CHOSEN, *files), cwd=ROOT, capture_output=True, text=True, timeout=580
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
