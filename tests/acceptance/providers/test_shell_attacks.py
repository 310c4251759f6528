"""What programs, and the code that asks for them, must not get away with."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from capsule.providers.shell.scope import ShellScope
from capsule_protocol.errors import ArgumentError, CapabilityDenied, CapabilityError, CapabilityFailed
from tests.acceptance.providers.programs import LEVELS, PYTHON, SHELL, Shell, shell

pytestmark = pytest.mark.anyio

CONFINED = LEVELS[1:]
READABLE = [sys.base_prefix, sys.prefix]


def python(**more: Any) -> dict[str, Any]:
    """The interpreter, for any code; it is not where programs of the system are."""
    args = ["-I", "-c", "{text}", {"args": "{text}", "max": 9, "dash": True}]
    return {"python": {"path": PYTHON, "args": [args], "readable": READABLE, **more}}


async def code(run: Shell, source: str, *arguments: str, **fields: Any) -> str:
    """What the code prints; it must end well."""
    ran = await run.run(["python", "-I", "-c", source, *arguments], **fields)
    assert ran.value.returncode == 0, ran
    return ran.text


# Arguments


@pytest.mark.parametrize(
    "argument",
    ["--upload-pack=touch /tmp/x", "-oProxyCommand=touch /tmp/x", "-c", "--", "-", "--exec", "@/etc/shadow", "+cmd"],
)
@pytest.mark.parametrize("pattern", ["{path}", "{word}"])
async def test_no_option_gets_in_where_a_value_is_meant(argument: str, pattern: str) -> None:
    async with shell({"echo": {"path": "/bin/echo", "args": ["clone", pattern]}}) as run:
        assert (await run.run(["echo", "clone", "repository"])).text == "clone repository"
        with pytest.raises(CapabilityDenied) as error:
            await run.run(["echo", "clone", argument])
    assert error.value.code == "capability_outside_grant"


@pytest.mark.parametrize("argument", ["--upload-pack=touch /tmp/x", "-oProxyCommand=x", "-", "--", "-\n", "--é"])
async def test_no_option_gets_in_even_where_any_text_does(argument: str) -> None:
    async with shell({"echo": {"path": "/bin/echo", "args": [["clone", "{text}"], ["{|x}{text}"]]}}) as run:
        assert (await run.run(["echo", "clone", f"x{argument}"])).text == f"clone x{argument}".strip()
        for line in (["echo", "clone", argument], ["echo", argument]):
            with pytest.raises(CapabilityDenied):
                await run.run(line)


@pytest.mark.parametrize("argument", ["a\0b", "\0", "a\udc80", "\ud800"])
async def test_what_cannot_be_an_argument_is_invalid(argument: str) -> None:
    async with shell({"echo": {"path": "/bin/echo", "args": ["{text}"], "variables": {"NAME": "{text}"}}}) as run:
        for fields in ({"args": ["echo", argument]}, {"args": ["echo", "a"], "env": {"NAME": argument}}):
            with pytest.raises(CapabilityFailed) as error:
                await run.run(**fields)
            assert error.value.code == "capability_invalid"
    async with shell(SHELL) as run:
        with pytest.raises(CapabilityFailed):
            await run.run(f"echo {argument}")


async def test_arguments_beyond_the_size_of_the_grant_are_denied() -> None:
    programs = {
        "echo": {"path": "/bin/echo", "args": [{"args": "{text}", "max": 1000}], "limits": {"argument_bytes": 2**17}}
    }
    async with shell(programs) as run:
        assert len((await run.run(["echo", "x" * 100_000])).stdout) == 100_001
        for line in (["echo", "x" * 2**17], ["echo", *["x" * 1000] * 900]):
            with pytest.raises(CapabilityDenied) as error:
                await run.run(line)
            assert error.value.code == "capability_outside_grant"


@pytest.mark.parametrize("args", [[], ""])
async def test_nothing_is_no_command(args: list[str] | str) -> None:
    async with shell({"echo": {"path": "/bin/echo"}}) as run:
        with pytest.raises(CapabilityError):
            await run.run(args)


# Variables

HARMFUL = [
    *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PATH", "IFS"),
    *("BASH_ENV", "ENV", "BASH_FUNC_ls%%", "SHELLOPTS", "PS4", "PERL5OPT", "RUBYOPT", "NODE_OPTIONS"),
    *("JAVA_TOOL_OPTIONS", "GIT_SSH_COMMAND", "GIT_EXTERNAL_DIFF", "GIT_CONFIG_COUNT", "EDITOR", "PAGER", "LC_ALL"),
    *("LANG", "LANGUAGE", "LOCPATH", "NLSPATH", "GCONV_PATH", "GLIBC_TUNABLES", "MALLOC_CHECK_", "HOME", "TMPDIR"),
    *("https_proxy", "ld_preload", "A=B", "", "A B", "1A", "A\0"),
]


@pytest.mark.parametrize("name", HARMFUL)
def test_no_grant_lets_a_session_decide_what_runs(name: str) -> None:
    with pytest.raises(ValidationError):
        ShellScope.model_validate({"programs": {"x": {"path": "/bin/env", "variables": {name: "{text}"}}}})


@pytest.mark.parametrize("name", HARMFUL)
async def test_no_session_sets_what_it_was_not_given(name: str) -> None:
    async with shell({"env": {"path": "/usr/bin/env", "variables": {"NOTE": "{text}"}}}) as run:
        with pytest.raises(CapabilityError) as error:
            await run.run(["env"], env={name: "x"})
    assert error.value.code in {"capability_outside_grant", "capability_invalid"}


async def test_a_value_is_not_another_variable() -> None:
    async with shell({"env": {"path": "/usr/bin/env", "variables": {"NOTE": "{text}"}}}) as run:
        ran = await run.run(["env"], env={"NOTE": "x\nLD_PRELOAD=/tmp/x.so"})
        listed = await run.run(["env"], env={"NOTE": "LD_PRELOAD=/tmp/x.so"})
    assert ran.stderr == b""  # the loader says so when it cannot preload
    assert listed.text.count("LD_PRELOAD") == 1
    assert "NOTE=LD_PRELOAD=/tmp/x.so" in listed.text


# The program itself


async def test_a_program_that_was_replaced_does_not_run(tmp_path: Path) -> None:
    program, other = tmp_path / "program", tmp_path / "other"
    for path, word in ((program, "granted"), (other, "other")):
        path.write_text(f"#!/bin/sh\necho {word}\n")
        path.chmod(0o755)
    async with shell({"program": {"path": str(program)}}) as run:
        assert (await run.run(["program"])).text == "granted"
        other.rename(program)
        with pytest.raises(CapabilityFailed) as error:
            await run.run(["program"])
        assert error.value.code == "program_failed"
        assert "replaced" in error.value.message


async def test_a_policy_that_is_refused_grants_nothing_new(tmp_path: Path) -> None:
    program, other = tmp_path / "program", tmp_path / "other"
    for path in (program, other):
        path.write_text("#!/bin/sh\necho x\n")
        path.chmod(0o755)
    programs = {"program": {"path": str(program)}}
    async with shell(programs) as run:
        other.rename(program)
        with pytest.raises(ArgumentError):
            Shell(run.provider, {"programs": programs | {"none": {"path": "/no/such"}}, "sandbox": "none"})
        with pytest.raises(CapabilityFailed, match="replaced"):
            await run.run(["program"])
        again = Shell(run.provider, {"programs": programs, "sandbox": "none"})
        assert (await again.run(["program"])).text == "x"
        with pytest.raises(CapabilityFailed, match="replaced"):  # by the grant of before
            await run.run(["program"])


@pytest.mark.parametrize("change", ["echo other", "chmod"])
async def test_a_program_that_was_changed_does_not_run(tmp_path: Path, change: str) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho granted\n")
    program.chmod(0o755)
    times = program.stat()
    async with shell({"program": {"path": str(program)}}) as run:
        assert (await run.run(["program"])).text == "granted"
        if change == "chmod":
            program.chmod(0o4755)
        else:
            program.write_text("#!/bin/sh\necho replaced\n"[: times.st_size])
            os.utime(program, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(CapabilityFailed) as error:
            await run.run(["program"])
        assert error.value.code == "program_failed"


@pytest.mark.parametrize("level", LEVELS)
async def test_a_link_that_leads_elsewhere_by_now_changes_nothing(tmp_path: Path, level: str) -> None:
    link = tmp_path / "program"
    link.symlink_to("/bin/echo")
    async with shell({"program": {"path": str(link), "args": ["{word}"]}}, sandbox=level) as run:
        link.unlink()
        link.symlink_to("/bin/false")
        assert (await run.run(["program", "same"])).text == "same"


# Directories


OUT_OF_THE_ROOT = ["work/link", "work/../other", "work/..", "work//x", "work/./x", "work/link/x", "work/file"]


@pytest.mark.parametrize("cwd", OUT_OF_THE_ROOT)
async def test_no_name_leads_out_of_the_root(tmp_path: Path, cwd: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "other").mkdir()
    (work / "link").symlink_to(tmp_path)
    (work / "file").touch()
    async with shell(roots={"work": {"path": str(work)}}) as run:
        with pytest.raises(CapabilityDenied) as error:
            await run.run("pwd -P", cwd=cwd)
    assert error.value.code == "path_refused"


@pytest.mark.parametrize("level", LEVELS)
async def test_the_program_itself_goes_through_no_link(
    tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node looks first, for a good answer; who swaps a link in after that look gets no further."""
    monkeypatch.setattr(sys.modules["capsule.providers.shell.provider"], "_check_folder", lambda *_: None)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/link").symlink_to(tmp_path)
    async with shell(sandbox=level, roots={"work": {"path": str(tmp_path / "work")}}) as run:
        with pytest.raises(CapabilityFailed) as error:
            await run.run("pwd -P", cwd="work/link")
    assert error.value.code == "program_failed"


SWAP = """
import os, sys
os.chdir(sys.argv[1])
print(flush=True)
while True:
    os.rename("folder", "kept"); os.rename("link", "folder")
    os.rename("folder", "link"); os.rename("kept", "folder")
"""


@pytest.mark.parametrize("level", ["none", "namespaces"])
async def test_no_swap_of_links_leads_out_of_the_root(tmp_path: Path, level: str) -> None:
    work = tmp_path / "work"
    (work / "folder/inner").mkdir(parents=True)
    (tmp_path / "out/inner").mkdir(parents=True)
    (work / "link").symlink_to(tmp_path / "out")
    seen = set()
    with subprocess.Popen([sys.executable, "-c", SWAP, str(work)], stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            async with shell(sandbox=level, roots={"work": {"path": str(work)}}) as run:
                for _ in range(40):
                    try:
                        ran = await run.run("pwd -P", cwd="work/folder/inner")
                    except CapabilityError as error:
                        seen.add(error.code)
                    else:
                        seen.add("in" if ran.text.startswith(str(work)) or not ran.stdout else ran.text)
                assert swapper.poll() is None  # it went on to the end
        finally:
            swapper.kill()
    assert seen <= {"in", "path_refused", "path_unknown", "program_failed"}


# Floods and silence


async def test_an_endless_output_is_cut_counted_and_costs_no_memory() -> None:
    limits = {"output_bytes": 100_000}
    async with shell({"sh": {**SHELL["sh"], "limits": limits}}) as run:
        ran = await run.run("head -c 50000000 /dev/zero | tee /dev/stderr; echo end")
    assert (len(ran.stdout), len(ran.stderr)) == (100_000, 100_000)
    assert (ran.value.stdout_bytes, ran.value.stderr_bytes) == (50_000_004, 50_000_000)
    assert (ran.value.stdout_dropped, ran.value.stderr_dropped) == (49_900_004, 49_900_000)


async def test_output_is_cut_before_it_is_too_large_to_answer() -> None:
    """Byte by byte, each frame has more header than content."""
    async with shell() as run:
        run.call.limits = {"response_bytes": 10_000}
        source = "import os\nfor _ in range(20000): os.write(1, b'x'); os.write(2, b'y')"
        ran = await run.run(["python", "-c", source])
    assert ran.value.stdout_bytes == ran.value.stderr_bytes == 20_000
    assert ran.value.stdout_dropped + len(ran.stdout) == 20_000
    assert ran.value.stdout_dropped > 0


async def test_an_endless_flood_ends_in_time() -> None:
    async with shell() as run:
        with pytest.raises(CapabilityError) as error:
            await run.run("cat /dev/zero", timeout=1.0)
    assert error.value.code == "capability_timeout"


async def test_the_node_goes_on_during_a_flood() -> None:
    """While a program writes as fast as it can, no turn of the loop takes much of its own thread's time."""
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)

    async with shell() as run:
        await run.run("true")
        looking = asyncio.create_task(look())
        await run.run("head -c 60000000 /dev/zero")
        looking.cancel()
    assert longest < 0.02


async def endless(stopped: asyncio.Event) -> AsyncIterator[bytes]:
    try:
        while True:
            yield b"x" * 65536
    finally:
        stopped.set()


@pytest.mark.parametrize("script", ["true", "head -c 1000000 > /dev/null", "exec <&-; echo a"])
async def test_a_stdin_that_never_ends_is_let_go_with_the_program(script: str) -> None:
    stopped = asyncio.Event()
    async with shell() as run:
        ran = await run.run(script, endless(stopped))
    assert ran.value.returncode == 0
    assert stopped.is_set()


async def test_a_stdin_that_never_comes_is_let_go_with_the_program() -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with shell() as run:
        assert (await run.run("echo done", never())).text == "done"


async def test_an_error_of_the_body_ends_the_program() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise CapabilityFailed("capability_too_large", "more than that")

    async with shell() as run:
        with pytest.raises(CapabilityFailed, match="more than that"):
            await run.run("sleep 1000", broken())


async def test_an_error_of_who_takes_the_output_ends_the_program() -> None:
    async def refuse(_: bytes) -> None:
        raise CapabilityFailed("capability_too_large", "more than that")

    async with shell() as run:
        run.call.on_chunk = refuse
        with pytest.raises(CapabilityFailed, match="more than that"):
            await run.run("echo x; sleep 1000")


# Limits


@pytest.mark.parametrize("level", LEVELS)
async def test_a_fork_bomb_is_ended(level: str) -> None:
    async with shell(sandbox=level) as run:
        ran = await run.run("f() { f | f & f; }; f", timeout=60)
        assert ran.value.exceeded == "processes"
        assert (await run.run("echo next")).text == "next"


async def test_memory_beyond_the_grant_ends_the_program() -> None:
    async with shell(python(limits={"memory_bytes": 2**27})) as run:
        source = "import time; kept = b'x' * 10**9; time.sleep(1000)"
        ran = await run.run(["python", "-I", "-c", source], timeout=60)
    assert ran.value.exceeded == "memory"
    assert ran.value.signal == "SIGKILL"


async def test_processor_time_files_and_descriptors_are_bounded() -> None:
    limits = {"cpu_seconds": 1, "file_bytes": 10_000, "open_files": 20}
    async with shell({"sh": {**SHELL["sh"], "limits": limits}, **python(limits=limits)}) as run:
        ran = await run.run("while :; do :; done", timeout=60)
        assert ran.value.signal == "SIGKILL"
        assert 0.5 < ran.value.cpu_seconds < 5
        assert (await run.run("ulimit -H -c")).text == "0"
        ran = await run.run("head -c 1000000 /dev/zero > file; wc -c < file")
        assert ran.text == "10000"
        source = "import os\ntry:\n  while True: last = os.dup(0)\nexcept OSError: print(last)"
        assert await code(run, source) == "19"


async def test_no_limit_can_be_raised() -> None:
    async with shell(python(limits={"open_files": 20})) as run:
        raising = "resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))"
        source = f"import resource\ntry: {raising}\nexcept (OSError, ValueError): print('no')"
        assert await code(run, source) == "no"


# The sandbox


@pytest.mark.parametrize("level", LEVELS)
async def test_it_has_no_descriptor_but_its_three(level: str) -> None:
    async with shell(python(), sandbox=level) as run:
        assert await code(run, "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])") == "[0, 1, 2]"


PROBES = {
    "read /etc/shadow": "open('/etc/shadow').read()",
    "read a file of the node": "open(secret).read()",
    "write beside its directory": "open(os.path.dirname(os.getcwd()) + '/x', 'w')",
    "write to the system": "open('/usr/x', 'w')",
    "write to /tmp": "open('/tmp/x', 'w')",
    "write to /dev/shm": "open('/dev/shm/x', 'w')",
    "change a mode": "os.chmod('/usr', 0o755)",
    "environment of the node": "open(f'/proc/{node}/environ').read()",
    "memory of the node": "open(f'/proc/{node}/mem', 'rb').seek(0) and 1 / 0",
    "signal to the node": "os.kill(node, 0)",
    "signal to the keeper": "os.kill(os.getppid(), 9)",
    "tcp": "socket.create_connection(('127.0.0.1', port), 5)",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
    "listen": "socket.create_server(('127.0.0.1', 0))",
    "path socket": "socket.socket(socket.AF_UNIX).connect(path)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "vsock": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "device": "os.mknod('x', 0o20666, os.makedev(1, 1))",
    "mount": "check(libc.mount(b'none', b'/proc', b'tmpfs', 0, None))",
    "new namespaces": "check(libc.unshare(0x10000000))",
    "ptrace": "check(libc.ptrace(16, os.getppid(), 0, 0))",
}


@pytest.mark.parametrize("level", CONFINED)
@pytest.mark.parametrize("probe", PROBES)
async def test_the_sandbox_keeps_it_in(tmp_path: Path, level: str, probe: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the node")
    secret.chmod(0o644)
    preface = (
        "import ctypes, os, socket, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def check(answer):\n    if answer < 0: raise OSError(ctypes.get_errno(), 'no')\n"
        "node, secret, path, port = int(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])\n"
    )
    source = f"{preface}try:\n    {PROBES[probe]}\nexcept OSError:\n    print('kept in')\nelse:\n    print('OUT')"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        arguments = [str(os.getpid()), str(secret), str(tmp_path / "socket"), str(server.getsockname()[1])]
        async with shell(python(), sandbox=level) as run:
            assert await code(run, source, *arguments) == "kept in"


ON_THE_NETWORK = """
import socket, sys
def tried(do):
    try: do()
    except OSError: return "no"
    return "yes"
port, path = int(sys.argv[1]), sys.argv[2]
print(tried(lambda: socket.create_connection(("127.0.0.1", port), 5)))
print(tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port))))
print(tried(lambda: socket.create_server(("127.0.0.1", 0))))
print(tried(lambda: socket.socket(socket.AF_UNIX).connect(path)))
print(tried(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect(path)))
print(tried(lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)))
"""


@pytest.mark.parametrize("level", CONFINED)
async def test_a_grant_of_the_network_is_one_of_networks_only(tmp_path: Path, level: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        arguments = [str(server.getsockname()[1]), str(tmp_path / "socket")]
        for network, answers in ((True, ["yes"] * 3 + ["no"] * 3), (False, ["no"] * 6)):
            async with shell(python(network=network), sandbox=level) as run:
                assert (await code(run, ON_THE_NETWORK, *arguments)).split() == answers


async def test_the_same_is_done_where_no_sandbox_is(tmp_path: Path) -> None:
    """The probes probe: without a sandbox the file of the node is read and its socket answers."""
    secret = tmp_path / "secret"
    secret.write_text("of the node")
    async with shell(python()) as run:
        assert await code(run, f"print(open({str(secret)!r}).read())") == "of the node"
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            source = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('answered')"
            assert await code(run, source) == "answered"


@pytest.mark.parametrize("level", CONFINED)
async def test_a_root_is_read_or_written_as_its_mode_says(tmp_path: Path, level: str) -> None:
    for name in ("ro", "rw"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    roots = {name: {"path": str(tmp_path / name), "mode": name} for name in ("ro", "rw")}
    async with shell(sandbox=level, roots=roots) as run:
        assert (await run.run("cat file", cwd="ro")).text == "ro"
        assert (await run.run("cat file; echo new > other; mkdir d; mv other d", cwd="rw")).text == "rw"
        link = f"ln {tmp_path}/rw/file new"
        for attempt in ("echo x > file", "echo x > new", "rm file", "mkdir new", link, "mv file x"):
            assert (await run.run(attempt, cwd="ro")).value.returncode != 0, attempt
        assert (await run.run(f"cat {tmp_path}/ro/file", cwd="rw")).text == "ro"
    assert sorted(path.name for path in (tmp_path / "ro").iterdir()) == ["file"]
    assert (tmp_path / "ro/file").read_text() == "ro"
    assert (tmp_path / "rw/d/other").read_text() == "new\n"


async def test_processes_of_others_are_not_seen_in_namespaces() -> None:
    async with shell(sandbox="namespaces") as run:
        seen = (await run.run("echo /proc/[0-9]*")).text.split()
    assert {int(path.removeprefix("/proc/")) for path in seen} <= set(range(1, 10))


async def test_its_own_directory_is_bounded_in_namespaces() -> None:
    limits = {"scratch_bytes": 2**20}
    async with shell({"sh": {**SHELL["sh"], "limits": limits}}, sandbox="namespaces") as run:
        ran = await run.run("head -c 5000000 /dev/zero > file; wc -c < file")
    assert 0 < int(ran.text) <= 2**20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run programs as another user")
@pytest.mark.parametrize("level", LEVELS)
async def test_a_program_runs_as_the_user_of_the_grant(level: str) -> None:
    async with shell(sandbox=level, uid=54321) as run:
        assert (await run.run("id -u; id -g; id -G; echo x > file && cat file")).text.split() == ["54321"] * 3 + ["x"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a program that makes root")
@pytest.mark.parametrize("level", LEVELS)
async def test_a_program_that_would_become_root_does_not(tmp_path: Path, level: str) -> None:
    program = tmp_path / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    for above in (tmp_path, *tmp_path.parents[:-1]):
        above.chmod(above.stat().st_mode | 0o011)
    programs = {"id": {"path": str(program), "args": ["-u"]}}
    assert subprocess.run([str(program), "-u"], user=54321, capture_output=True, text=True).stdout == "0\n"
    async with shell(programs, sandbox=level, uid=54321) as run:
        assert (await run.run(["id", "-u"])).text == "54321"
