"""nbclient's own tests, with our kernel in the place of plain Python's; `make test` fetches them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.jupyter.support import Home

SUITE = Path(sys.prefix) / "nbclient-tests"
OPTIONS = ("-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=.", "-o", "markers=flaky", "--timeout=120")
LEFT_OUT = ("tests/test_client.py::test_run_all_notebooks[update-display-id.ipynb-opts14]",)
"""Its notebook writes to the socket of ipykernel itself, which a session does not have."""


@pytest.mark.skipif(not (SUITE / ".fetched").exists(), reason="nbclient's source distribution was not fetched")
@pytest.mark.timeout(900)
def test_all_tests_of_nbclient_pass(home: Home) -> None:
    command = [sys.executable, "-m", "pytest", *OPTIONS, "tests/test_client.py", "tests/test_cli.py"]
    for one in LEFT_OUT:
        command += ["--deselect", one]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=SUITE, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    found = re.search(r"(\d+) passed, 1 deselected", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) > 100
    assert home.nodes(), "plain kernels were not ours"
