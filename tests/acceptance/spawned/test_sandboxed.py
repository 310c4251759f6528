"""Interpreters of their own are held to the sandbox before they import what the environment names."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.sandbox.rig import LEVELS, USERS, Host, public_python
from tests.acceptance.spawned.support import write_restless

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBES = """
import ctypes, os, socket, subprocess

libc = ctypes.CDLL(None, use_errno=True)


def mount():
    if libc.mount(b"x", b"/tmp", b"tmpfs", 0, None):
        raise PermissionError


def attempts():
    found = []
    for attempt in (
        lambda: open("OUTSIDE/open.txt"),
        lambda: open(f"{os.path.dirname(__file__)}/open.txt", "a"),
        lambda: os.listdir(os.path.expanduser("~root")),
        lambda: socket.socket().connect(("127.0.0.1", 9)),
        mount,
    ):
        try:
            attempt()
            found.append("done")
        except OSError:
            found.append("held")
    return found


at_import = os.getuid(), attempts()
child = subprocess.run(["true"]).returncode
"""
"""A module that is not to be trusted: what it tries must be held when it is imported, and when its threads go on."""

SHADOW = """
import importlib, sys

try:
    with open(OUTSIDE, "a") as file:
        file.write(f"{__name__} ")
except OSError:
    pass
sys.path.remove(FOLDER)
del sys.modules[__name__]
importlib.import_module(__name__)
sys.path.insert(0, FOLDER)
"""
"""A module that has the name of another one, which it then lets be imported in its place."""

FINDER = """
import importlib.machinery, sys


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "spacious":
            return None
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [PLACE]
        return spec


sys.meta_path.append(Finder)
"""
"""What an editable install puts among the finders, for a package without an `__init__.py`."""


@pytest.fixture(scope="module")
def everybodys_python() -> Iterator[str]:
    with public_python() as python:
        if python is None:
            pytest.skip("no interpreter of this version, or not its packages, can be read by all users here")
        yield python


@pytest.fixture(scope="module", params=[(level, user) for level in LEVELS for user in USERS], ids="-".join)
def host(request: pytest.FixtureRequest, everybodys_python: str, private_tmp: Path) -> Iterator[Host]:
    level, user = request.param
    if user == "root" and os.geteuid() != 0:
        pytest.skip("the tests do not run as root")
    folder = private_tmp / f"{level}-{user}"
    folder.mkdir()
    write_restless(folder)
    (folder / "probes.py").write_text(PROBES.replace("OUTSIDE", str(private_tmp)))
    private_tmp.chmod(0o711)
    for place in (folder, private_tmp):
        (place / "open.txt").write_text("open to all")
        (place / "open.txt").chmod(0o666)
    environment: dict[str, Any] = {"preload": ["restless", "probes"], "path": [str(folder)], "start_method": "spawn"}
    one = Host(everybodys_python, level, user, **environment)
    try:
        yield one
    finally:
        one.close()


def test_modules_are_imported_in_the_sandbox_and_so_are_their_threads(host: Host) -> None:
    asked = "[probes.at_import, restless.ask(probes.attempts), os.getuid()]"
    code = f"import json, os, probes, restless; print(json.dumps({asked}))"
    (user, at_import), in_thread, now = json.loads(host.printed(code))
    assert set(at_import) == set(in_thread) == {"held"}
    assert user == now
    assert host.run("1")["info"]["sandbox"] == host.level


def test_no_thread_is_outside_of_the_sandbox(host: Host) -> None:
    """Rules that one thread has got do not hold for those that were there before."""
    code = """
import os, restless
for thread in os.listdir("/proc/self/task"):
    with open(f"/proc/self/task/{thread}/status") as status:
        told = dict(line.split(":", 1) for line in status)
    print(*(told[name].strip() for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp", "Uid")))
"""
    lines = host.printed(code).splitlines()
    assert len(lines) >= 3
    assert len(set(lines)) == 1
    none = "0" * 16
    assert lines[0].startswith(f"{none} {none} {none} {none} 1 2 ")


def test_no_variable_of_the_node_is_in_the_worker(host: Host) -> None:
    code = """
import os
print("SECRET_OF_THE_NODE" in os.environ, b"do not tell" in open("/proc/self/environ", "rb").read())
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        if line.rstrip().endswith("[stack]"):
            first, last = (int(number, 16) for number in line.split()[0].split("-"))
            memory.seek(first)
            print(b"do not tell" in memory.read(last - first))
"""
    assert host.printed(code) == "False False\nFalse"


def test_an_interrupt_a_time_out_and_a_bound_hold(host: Host) -> None:
    source = """
async def main(client):
    async with client.session(memory_bytes=256 * 2**20) as session:
        await session.run("kept = 5")
        async def when_it_runs(event):
            if getattr(event, "text", "").startswith("on"):
                await session.interrupt()
        running = session.submit("print('on', flush=True)\\nimport time; time.sleep(1000)")
        told = [(await running.result(on_event=when_it_runs)).verdict]
        told.append((await session.run("import subprocess; subprocess.run(['sleep', '1000'])", timeout=0.5)).verdict)
        told.append((await session.run("kept")).text)
        told.append((await session.run("much = bytearray(b'x') * 400 * 2**20")).verdict)
        return told
"""
    assert host.do(source) == ["interrupted", "timeout", "5", "oom"]


def test_nothing_is_left_of_a_session(host: Host) -> None:
    source = """
import os
async def main(client):
    async with client.session() as session:
        await session.run("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
        folder = (await session.run("import os; print(os.environ['SESSION_FILES'])")).stdout.strip()
        pid = (await session.info()).pid
    return os.path.dirname(folder), pid
"""
    folder, pid = host.do(source)
    assert not Path(folder).exists()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("level", LEVELS)
def test_threads_that_begin_before_the_sandbox_are_refused(everybodys_python: str, tmp_path: Path, level: str) -> None:
    """No module of the environment can start them, but what an interpreter always imports can."""
    tmp_path.chmod(0o755)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, threading\n"
        "if b'capsule_kernels.spawned' in open('/proc/self/cmdline', 'rb').read():\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    host = Host(everybodys_python, level, "root", start_method="spawn", env={"PYTHONPATH": str(tmp_path)})
    try:
        refused = host.run("1")["refused"]
    finally:
        host.close()
    assert refused["code"] == "sandbox_unavailable"
    assert "sitecustomize" in refused["hint"]


@pytest.mark.parametrize("level", LEVELS)
def test_no_file_of_the_path_runs_outside_whatever_its_name(
    everybodys_python: str, private_tmp: Path, level: str
) -> None:
    """What a zygote and a worker need themselves they find where the interpreter has it, also what they import late."""
    outside, folder = private_tmp / f"outside-{level}.txt", private_tmp / f"path-{level}"
    folder.mkdir(mode=0o755)
    outside.touch()
    outside.chmod(0o666)
    private_tmp.chmod(0o711)
    shadow = SHADOW.replace("OUTSIDE", repr(str(outside))).replace("FOLDER", repr(str(folder)))
    for name in {*sys.stdlib_module_names, "IPython", "msgpack", "traitlets"}:
        (folder / f"{name}.py").write_text(shadow)
    (folder / "found.py").write_text("place = __file__")
    host = Host(everybodys_python, level, "root", path=[str(folder)], start_method="spawn")
    try:
        assert host.printed("import found; print(found.place)") == str(folder / "found.py")
    finally:
        host.close()
    assert outside.read_text() == ""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_namespace_package_of_an_editable_install_can_be_read(
    everybodys_python: str, private_tmp: Path, level: str, start_method: str
) -> None:
    """It has no file of its own, and a finder alone knows where it is."""
    private_tmp.chmod(0o711)
    place = private_tmp / f"editable-{level}-{start_method}"
    (place / "finder").mkdir(parents=True)
    (place / "source" / "spacious").mkdir(parents=True)
    (place / "source" / "spacious" / "inner.py").write_text("value = 'read'")
    (place / "finder" / "sitecustomize.py").write_text(FINDER.replace("PLACE", repr(str(place / "source/spacious"))))
    environment: dict[str, Any] = {"preload": ["spacious"], "env": {"PYTHONPATH": str(place / "finder")}}
    host = Host(everybodys_python, level, "root", start_method=start_method, **environment)
    try:
        assert host.printed("import spacious.inner; print(spacious.inner.value)") == "read"
    finally:
        host.close()
