"""`capsule jupyter` starts JupyterLab. Here something else has that name; tests/e2e has the real one."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.cli.support import CAPSULE, HANG, clean_environment

if TYPE_CHECKING:
    from pathlib import Path

LAB = """
import json, os, sys
from jupyter_core.application import JupyterApp
from jupyter_client.multikernelmanager import MultiKernelManager

app = JupyterApp(name="lab")
app.initialize([one for one in sys.argv[1:] if one.startswith("--Capsule")])
kernels = MultiKernelManager(parent=app)
kernels.start_kernel(kernel_name="python3")
(name,) = kernels.list_kernel_ids()
provisioner = kernels.get_kernel(name).provisioner
print(json.dumps([type(provisioner).__name__, provisioner.environment, sys.argv[1:]]))
kernels.shutdown_all(now=True)
sys.exit(7)
"""
CONFIG = "[environments.other]\nmin_idle = 0\n"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    package = tmp_path / "on-path" / "jupyterlab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(LAB)
    return package.parent


def start(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CAPSULE, "jupyter", *arguments],
        env=clean_environment(PYTHONPATH=str(path)),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


@pytest.mark.usefixtures("home")
def test_plain_kernels_are_sessions_of_the_environment_and_the_exit_code_is_jupyterlabs(lab: Path) -> None:
    (lab / "capsule.toml").write_text(CONFIG)
    done = start(lab, "--environment", "other", "--config", str(lab / "capsule.toml"), "--", "--no-browser", "a.ipynb")
    assert done.returncode == 7, done.stderr
    kind, environment, arguments = json.loads(done.stdout)
    assert (kind, environment) == ("CapsuleProvisioner", "other")
    assert arguments[-2:] == ["--no-browser", "a.ipynb"]


@pytest.mark.usefixtures("home")
def test_arguments_without_a_separator_are_jupyterlabs_too(lab: Path) -> None:
    done = start(lab, "--no-browser")
    assert json.loads(done.stdout)[1:] == ["default", ["--CapsuleProvisioner.environment=default", "--no-browser"]]


def test_an_environment_that_is_in_no_configuration_is_refused(lab: Path) -> None:
    done = start(lab, "--environment", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "environment_unknown" in done.stderr
    assert "default" in done.stderr


def test_who_has_no_jupyterlab_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['jupyterlab'] = None\n")
    done = start(tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "pip install 'capsule-exec[jupyter]'" in done.stderr
