"""What sessions promise holds in a sandbox too: interrupts, bounds, files, checkpoints, and nothing left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.acceptance.sandbox.rig import LEVELS, Host, control_groups, held_in_sockets

MIB = 2**20


def test_tells_its_level(host: Host) -> None:
    assert host.run("1")["info"]["sandbox"] == host.level


def test_the_worker_is_known_by_its_number_here(host: Host) -> None:
    info = host.run("1")["info"]
    assert info["pid"] > 2
    assert info["memory"] > MIB


def test_an_interrupt_ends_a_cell_and_nothing_else(host: Host) -> None:
    source = """
import asyncio
async def main(client):
    async with client.session() as session:
        await session.run("kept = 5")
        told = []
        child = "import subprocess; subprocess.run(['sleep', '1000'])"
        async def when_it_runs(event):
            if getattr(event, "text", "").startswith("on"):
                await session.interrupt()
        for code in ("while True: pass", "import time; time.sleep(1000)", child):
            running = session.submit("print('on', flush=True)\\n" + code)
            told.append((await running.result(on_event=when_it_runs)).verdict)
        return told, (await session.run("kept")).text
"""
    assert host.do(source) == [["interrupted"] * 3, "5"]


def test_a_time_out_ends_what_the_cell_has_started(host: Host) -> None:
    answer = host.run("import subprocess; subprocess.run(['sleep', '1000'])", timeout=0.5)
    assert answer["verdict"] == "timeout"


def test_too_much_memory_is_the_end_of_the_session_alone(host: Host) -> None:
    answer = host.run("import numpy; numpy.ones(2**30)", memory_bytes=200 * MIB)
    assert answer["verdict"] == "oom"
    assert host.printed("print(1)") == "1"


def test_memory_that_no_process_maps_counts_where_there_are_control_groups(host: Host) -> None:
    """What is sent and not read belongs to the kernel."""
    answer = host.run(held_in_sockets(200 * MIB), memory_bytes=100 * MIB)
    assert (answer["verdict"], answer["code"]) == (("oom", "execution_oom") if host.is_grouped else ("ok", None))


def test_files_in_memory_count_where_there_are_control_groups(host: Host) -> None:
    """Also those in `/dev/shm`, when the process that made them has ended."""
    code = """
import os, subprocess, sys
path = f"/dev/shm/capsule-test-{os.getpid()}"
file = os.open(path, os.O_CREAT | os.O_RDWR)
os.unlink(path)
write = f"import os; os.write({file}, bytes(70 * 2**20)) + os.write({file}, bytes(70 * 2**20))"
print(subprocess.run([sys.executable, "-c", write], pass_fds=[file]).returncode, os.fstat(file).st_size)
"""
    answer = host.run(code, memory_bytes=100 * MIB)
    assert (answer["verdict"], answer["code"]) == (("oom", "execution_oom") if host.is_grouped else ("ok", None))


def test_too_many_processes_are_the_end_of_the_session_alone(host: Host) -> None:
    code = (
        "import os, time\nfor _ in range(100):\n    if os.fork() == 0: time.sleep(1000)\nimport time; time.sleep(1000)"
    )
    answer = host.run(code, max_processes=20)
    assert (answer["verdict"], answer["code"]) == ("killed", "process_limit_exceeded")


def test_what_multiplies_meets_a_bound_that_nobody_has_set(host: Host) -> None:
    """Threads count like processes, and are made sooner."""
    code = """
import threading
gate, many = threading.Event(), []
try:
    for _ in range(1000):
        many.append(threading.Thread(target=gate.wait))
        many[-1].start()
except RuntimeError:
    print(len(many) < 300)
gate.set()
"""
    if host.bounded_by_count:
        code = "import os, time\nfor _ in range(400):\n    if os.fork() == 0: time.sleep(1000)\ntime.sleep(1000)"
        assert host.run(code)["code"] == "process_limit_exceeded"
    else:
        assert host.printed(code) == "True"


@pytest.mark.skipif(os.geteuid() != 0, reason="only a node of root can have its code run as root")
@pytest.mark.parametrize("cgroups", ["auto", "off"])
@pytest.mark.parametrize("level", LEVELS)
def test_what_multiplies_as_root_meets_a_bound_too(everybodys_python: str, level: str, cgroups: str) -> None:
    """The system counts root's processes for nobody, also of one without powers, unless there is a control group."""
    host = Host(everybodys_python, level, "root", uid=0, cgroups=cgroups)
    try:
        assert host.printed("import os; print(os.getuid())") == "0"
        code = "import os, time\nfor _ in range(400):\n    if os.fork() == 0: time.sleep(1000)\ntime.sleep(1000)"
        if cgroups == "auto" and control_groups():
            told = host.run(code, timeout=60.0)
            assert (told["code"], "BlockingIOError" in str(told)) == ("execution_error", True)
        else:
            assert host.run(code, timeout=60.0)["code"] == "process_limit_exceeded"
    finally:
        host.close()


def test_all_but_the_scratch_is_mounted_to_be_read_and_gives_no_rights(host: Host) -> None:
    """Landlock alone would hold too: this is what is left if it does not."""
    if host.level != "namespaces":
        pytest.skip("the mounts are the machine's own")
    lines = json.loads(host.printed("import json; print(json.dumps(open('/proc/self/mountinfo').readlines()))"))
    mounts = {line.split()[4]: set(line.split()[5].split(",")) for line in lines}
    assert {"/", "/usr", "/proc"} <= mounts.keys()
    assert {place for place, options in mounts.items() if "rw" in options} == {"/tmp", "/dev/shm"}
    assert [place for place, options in mounts.items() if "nosuid" not in options] == []


def test_the_box_is_hidden_from_others_of_its_user(host: Host) -> None:
    """What is in `/proc` of a process that hides belongs to root."""
    if host.uid == 0 or host.level == "namespaces":
        pytest.skip("the code is another user than its box, or root has no number there")
    owner = "import os; print(os.stat(f'/proc/{os.getppid()}/environ').st_uid == os.getuid())"
    assert host.printed(owner) == "False"
    assert host.printed(owner.replace("getppid", "getpid")) == "True"


def test_files_of_a_session_come_and_go(host: Host) -> None:
    source = """
async def main(client):
    async with client.session(files={"given.txt": b"given"}) as session:
        seen = (await session.run("open('given.txt').read() + open('given.txt', 'a').mode")).text
        await session.upload(b"sent", "folder/sent.txt")
        await session.run("open('folder/sent.txt', 'a').write(' back'); open('made', 'w').write('made')")
        names = sorted(file.name for file in await session.files())
        back = [(await session.download(name)).decode() for name in ("folder/sent.txt", "made")]
        return seen, names, *back
"""
    assert host.do(source) == [
        "'givena'",
        ["folder/sent.txt", "given.txt", "made"],
        "sent back",
        "made",
    ]


def test_a_session_is_saved_and_restored(host: Host) -> None:
    source = """
import os, tempfile
async def main(client):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "saved")
        async with client.session() as session:
            await session.run("number, names = 41, ['a']\\ndef more(): return number + 1")
            await session.save(path)
        async with client.session() as session:
            await session.restore(path)
            return (await session.run("more(), names")).text
"""
    assert host.do(source) == "(42, ['a'])"


def test_variables_and_arguments_of_a_session(host: Host) -> None:
    code = "import os, sys; print(os.environ['GIVEN'], os.getcwd() == os.environ['SESSION_FILES'], sys.argv)"
    assert host.printed(code, env={"GIVEN": "yes"}, argv=["a"]) == "yes True ['a']"


def test_a_directory_that_cannot_be_read_is_refused(host: Host) -> None:
    refused = host.run("1", cwd="/var/tmp")["refused"]
    assert refused["code"] == "invalid_argument"
    assert "/var/tmp" in refused["message"]


def test_a_directory_that_can_be_read_is_not(host: Host) -> None:
    assert host.printed("import os; print(os.getcwd())", cwd="/usr") == "/usr"


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


def test_nothing_is_left_of_a_session(host: Host) -> None:
    source = """
import os
async def main(client):
    async with client.session() as session:
        code = "import os, subprocess, sys; subprocess.Popen(['sleep', '1000'], start_new_session=True)"
        await session.run(code + "; open('x', 'w').write('x'); os.chmod('.', 0) if os.getuid() else None")
        folder = (await session.run("print(os.environ['SESSION_FILES'])")).stdout.strip()
        pid = (await session.info()).pid
    return os.path.dirname(folder), pid
"""
    folder, pid = host.do(source)
    assert not Path(folder).exists()
    assert not Path(f"/proc/{pid}").exists()
