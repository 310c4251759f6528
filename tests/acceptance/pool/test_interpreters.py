"""An environment may name the interpreter of another virtual environment; Capsule must be there too."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from capsule import Client, EnvironmentFailed

ROOT = Path(__file__).parents[3]
OURS = [ROOT, *(ROOT / floor for floor in ("protocol", "pool", "kernels"))]


def packages_of(folder: Path) -> Path:
    """Where the virtual environment in this folder keeps what is installed."""
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A virtual environment, with a module of its own and nothing else."""
    folder = tmp_path / "other"
    venv.create(folder, symlinks=True)
    (packages_of(folder) / "only_there.py").write_text("value = 42")
    return folder


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_session_runs_under_the_interpreter_of_another_virtual_environment(other: Path, start_method: str) -> None:
    """Capsule is installed there by a file of paths: there is no network in a test."""
    ours = [path for path in sys.path if path.endswith("-packages")]  # what Capsule needs, wherever that is
    (packages_of(other) / "capsule.pth").write_text("\n".join(map(str, [*OURS, *ours])))
    environment = {"python": str(other / "bin/python"), "preload": ["only_there"], "warmup": "import only_there"}
    environment["start_method"] = start_method
    with Client(environments={"default": environment}) as client, client.session() as session:
        assert session.run("import sys; sys.prefix").text == repr(str(other))
        assert session.run("only_there.value").text == "42"
        assert session.run("import subprocess; subprocess.check_output([sys.executable, '-c', 'print(1)'])").text
        session.restart()
        assert session.run("import sys; sys.executable").text == repr(str(other / "bin/python"))


def test_an_interpreter_without_capsule_is_told_with_what_to_do(other: Path) -> None:
    python = other / "bin/python"
    environments: dict[str, dict[str, Any]] = {"default": {"python": str(python)}, "own": {"min_idle": 0}}
    with Client(environments=environments) as client:
        with pytest.raises(EnvironmentFailed, match="No module named 'capsule_kernels'") as caught:
            client.session()
        error = caught.value
        assert error.code == "environment_failed"
        assert str(python) in error.message
        assert error.hint == f"{python} must be Python 3.11 or later with Capsule installed."
        assert "capsule_kernels" in error.details["traceback"]
        with client.session("own") as session:  # the others are not harmed
            assert session.run("import sys; sys.executable").text == repr(sys.executable)
