"""Nodes that run as root and as an ordinary user, at each level, for tests of the sandbox.

The test's own interpreter may be where only root can read it. So nodes run in an interpreter that everybody can read,
with the packages of the test's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ORDINARY = 65_534
LEVELS = ("landlock", "namespaces")
USERS = ("root", "ordinary")
MANY_THREADS = """
import threading
stop, many = threading.Event(), []
try:
    for _ in range(400):
        many.append(threading.Thread(target=stop.wait))
        many[-1].start()
except RuntimeError:
    pass
"""
"""Code that begins as many as it gets, up to 400, which wait until they are told to `stop`."""


def held_in_sockets(size: int) -> str:
    """Code that sends so many bytes which nobody reads: they belong to the kernel, and no process maps them."""
    return f"""
import socket
kept, size = [], 0
while size < {size}:
    kept.append(socket.socketpair())
    kept[-1][0].settimeout(0)
    try:
        while True:
            size += kept[-1][0].send(bytes(65_536))
    except BlockingIOError:
        pass
"""


def readable_by_all(path: Path) -> bool:
    """Whether everybody can enter all folders on the way to it, and read it."""
    real = path.resolve()
    return all(parent.stat().st_mode & 0o001 for parent in real.parents) and bool(real.stat().st_mode & 0o004)


@contextmanager
def public_python() -> Iterator[str | None]:
    """An interpreter of this version that everybody can run, with what is installed here; None if there is none."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    candidates = [Path(sys.base_prefix, "bin", version), Path("/usr/bin", version), Path("/usr/local/bin", version)]
    found = next((path for path in candidates if path.exists() and readable_by_all(path)), None)
    packages = [Path(entry) for entry in sys.path if entry.endswith("-packages")]
    if found is None or not all(map(readable_by_all, [HERE, *packages])):
        yield None
        return
    home = Path(tempfile.mkdtemp(prefix="capsule-test-", dir="/tmp"))  # the tests have a private one
    try:
        home.chmod(0o755)
        subprocess.run([found, "-m", "venv", "--without-pip", home / "venv"], check=True, timeout=60)
        (site,) = (home / "venv/lib").glob("python*/site-packages")
        lines = ["import sys; sys.dont_write_bytecode = True"]
        lines += [f"import site; site.addsitedir({str(path)!r})" for path in packages]
        (site / "packages_of_the_tests.pth").write_text("\n".join(lines) + "\n")
        yield str(home / "venv/bin/python")
    finally:
        shutil.rmtree(home)


@cache
def control_groups() -> bool:
    """Whether this user can make control groups for memory and processes here."""
    command = [sys.executable, "-m", "capsule_kernels.sandbox.cgroups"]
    return not {"memory", "pids"} & json.loads(subprocess.check_output(command, timeout=60))["missing"].keys()


class Host:
    """A node in a process of its own; `run` has it run cells in a fresh session."""

    def __init__(self, python: str, level: str, user: str, **environment: Any) -> None:
        self.level = level
        command = [python, "-P", str(HERE / "host.py"), json.dumps({"sandbox": level, "min_idle": 0, **environment})]
        another = ORDINARY if user == "ordinary" and os.geteuid() == 0 else None
        self._home = Path(tempfile.mkdtemp(prefix="capsule-test-", dir="/tmp"))
        if another is not None:
            os.chown(self._home, another, another)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": os.defpath, "HOME": str(self._home), "SECRET_OF_THE_NODE": "do not tell"},
            user=another,
            group=another,
            extra_groups=None if another is None else [],
        )
        told = self._receive()
        self.pid: int = told["pid"]
        self.uid: int = told["uid"]

    def run(self, *cells: str, timeout: float | None = None, **options: Any) -> dict[str, Any]:
        """What the last cell said, or `refused`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"cells": cells, "options": options, "timeout": timeout}) + "\n")
        self._process.stdin.flush()
        return self._receive()

    @property
    def bounded_by_count(self) -> bool:
        """Whether nothing but the box's own counting bounds the number of processes."""
        return self.level == "landlock" and self.uid != 0 and not self.is_grouped

    @property
    def is_grouped(self) -> bool:
        """Whether the system counts what the session has: what the user of the tests can have, the node can too."""
        return self.uid == os.geteuid() and control_groups()

    def do(self, source: str) -> Any:
        """The value of `async def main(client)`, which the source defines and the node's process runs."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"source": source}) + "\n")
        self._process.stdin.flush()
        answer = self._receive()
        assert "value" in answer, answer["raised"]
        return answer["value"]

    def printed(self, *cells: str, **options: Any) -> str:
        """What the last cell printed; it must have ended well."""
        answer = self.run(*cells, **options)
        assert answer.get("verdict") == "ok", answer
        return str(answer["stdout"]).strip()

    def close(self) -> None:
        """Let it end, and see that it ends well."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(timeout=30) == 0
        shutil.rmtree(self._home)

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the node has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer
