"""The code of the README, the tutorial and the how-tos runs as it stands and does what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.docs.blocks import commands, examples, outputs, script
from tests.acceptance.jupyter.support import home

ROOT = Path(__file__).parents[3]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs/tutorial").glob("*.md")),
    *sorted((ROOT / "docs/how-to").glob("*.md")),
]
PIPES: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_its_code_does_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # keys are made there, not in a home
    found = examples(page)
    assert found, "a page of this kind shows code"
    program = tmp_path / f"{page.stem}.py"
    program.write_text(script(found), encoding="utf-8")
    with home():  # kernels are found and started there
        done = subprocess.run(
            [sys.executable, "-W", "error", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=140,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    printed = outputs(done.stdout)
    assert list(printed) == [example.code.line for example in found]
    for example in found:
        if example.printed is not None:
            assert printed[example.code.line] == example.printed, f"{page.name}, the block in line {example.code.line}"
    run_commands(page, tmp_path)


def run_commands(page: Path, folder: Path) -> None:
    """In the folder in which the Python code has left its files; the examples that ship are there too."""
    (folder / "docs").symlink_to(ROOT / "docs")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    expected = commands(page)
    running = {
        command: subprocess.Popen(["sh", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, **PIPES)
        for command in expected
    }
    for command, process in running.items():
        stdout, stderr = process.communicate(timeout=140)
        assert process.returncode == expected[command], f"{command}\n{stdout}{stderr}"
