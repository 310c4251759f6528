"""Running programs: what a grant names, with its arguments, its variables, its directory; told as it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from capsule.providers.shell import provider
from capsule_protocol.errors import (
    ArgumentError,
    CapabilityDenied,
    CapabilityError,
    CapabilityFailed,
    CapabilityTimeout,
)
from tests.acceptance.providers.programs import LEVELS, PYTHON, SCRIPTS, SHELL, Shell, shell

pytestmark = pytest.mark.anyio

ECHO = {"echo": {"path": "/bin/echo", "args": [{"args": "{word}", "max": 3}]}}


def refused(error: pytest.ExceptionInfo[CapabilityError], code: str, *words: str) -> None:
    assert error.value.code == code
    for word in words:
        assert word in error.value.message


@pytest.mark.parametrize("level", LEVELS)
async def test_a_program_of_the_grant_runs(level: str) -> None:
    async with shell(ECHO, sandbox=level) as run:
        ran = await run.run(["echo", "a", "b"])
    assert ran.stdout == b"a b\n"
    assert ran.stderr == b""
    assert (ran.value.returncode, ran.value.signal, ran.value.exceeded) == (0, "", "")
    assert (ran.value.stdout_bytes, ran.value.stdout_dropped) == (4, 0)
    assert 0 < ran.value.duration < 30
    assert ran.value.max_rss_bytes > 0


async def test_a_program_that_is_not_granted_is_denied() -> None:
    async with shell(ECHO) as run:
        with pytest.raises(CapabilityDenied) as error:
            await run.run(["sh", "-c", "id"])
        refused(error, "capability_outside_grant", "'sh'", "echo")
        with pytest.raises(CapabilityDenied) as error:
            await run.run(["/bin/echo", "a"])
        refused(error, "capability_outside_grant", "'/bin/echo'")


async def test_arguments_that_fit_no_form_are_denied_and_the_forms_told() -> None:
    async with shell(ECHO) as run:
        for line in (["echo", "a b"], ["echo", "-n"], ["echo", "a", "b", "c", "d"]):
            with pytest.raises(CapabilityDenied) as error:
                await run.run(line)
            refused(error, "capability_outside_grant", "echo [{word}]")


async def test_a_string_is_denied_unless_the_grant_has_a_shell() -> None:
    async with shell(ECHO) as run:
        with pytest.raises(CapabilityDenied) as error:
            await run.run("echo a; id")
        refused(error, "capability_outside_grant", "no shell")


async def test_a_string_goes_to_the_shell_of_the_grant() -> None:
    async with shell(SHELL) as run:
        assert (await run.run("echo a | tr a b; exit 3")).text == "b"
        assert (await run.run("exit 3")).value.returncode == 3
        with pytest.raises(CapabilityDenied):  # its arguments are another thing
            await run.run(["sh", "-c", "id"])


async def test_a_string_is_never_an_option_of_the_shell() -> None:
    async with shell(SHELL) as run:
        ran = await run.run("-c")
    assert ran.value.returncode == 127
    assert b"not found" in ran.stderr


async def test_the_body_is_stdin() -> None:
    async with shell() as run:
        ran = await run.run("cat", [b"one ", b"two ", b"x" * 3_000_000])
    assert ran.stdout == b"one two " + b"x" * 3_000_000


async def test_no_body_is_an_empty_stdin() -> None:
    async with shell() as run:
        assert (await run.run("wc -c")).text == "0"


async def test_both_outputs_come_apart_and_whole() -> None:
    async with shell() as run:
        ran = await run.run(["python", "-c", "import os; [os.write(1 + i % 2, b'%d\\n' % i) for i in range(2000)]"])
    assert ran.stdout.split() == [b"%d" % i for i in range(0, 2000, 2)]
    assert ran.stderr.split() == [b"%d" % i for i in range(1, 2000, 2)]


async def test_output_comes_while_the_program_runs() -> None:
    """The program goes on when its first line has been seen: what was read is answered over stdin."""
    seen = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        await seen.wait()
        yield b"more\n"

    async def on_chunk(_: bytes) -> None:
        seen.set()

    async with shell() as run:
        run.call.on_chunk = on_chunk
        ran = await run.run("echo first; read line; echo $line", body())
    assert ran.stdout == b"first\nmore\n"


async def test_a_signal_is_told_by_its_name() -> None:
    async with shell() as run:
        ran = await run.run("kill -TERM $$")
    assert (ran.value.returncode, ran.value.signal) == (-15, "SIGTERM")


async def test_the_time_of_the_processor_is_told() -> None:
    async with shell() as run:
        ran = await run.run(["python", "-c", "import time\nwhile time.process_time() < 0.2: pass"])
    assert ran.value.cpu_seconds >= 0.2


async def test_a_timeout_is_an_error() -> None:
    async with shell() as run:
        with pytest.raises(CapabilityTimeout) as error:
            await run.run("sleep 60", timeout=0.2)
        refused(error, "capability_timeout", "0.2")
        assert (await run.run("echo next")).text == "next"


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nothing")
    broken.chmod(0o755)
    async with shell({"broken": {"path": str(broken)}}) as run:
        with pytest.raises(CapabilityFailed) as error:
            await run.run(["broken"])
        refused(error, "program_failed", "could not be started", "xec format")


async def test_a_script_runs_by_its_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho $# $1\n")
    script.chmod(0o755)
    async with shell({"script": {"path": str(script), "args": ["{word}"]}}) as run:
        assert (await run.run(["script", "x"])).text == "1 x"


# Where it runs


@pytest.mark.parametrize("level", LEVELS)
async def test_it_works_in_its_root_or_below(tmp_path: Path, level: str) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/file").write_text("here")
    async with shell(sandbox=level, roots={"work": {"path": str(tmp_path), "mode": "rw"}}) as run:
        assert (await run.run("pwd -P")).text == str(tmp_path)
        assert (await run.run("cat file", cwd="work/inner")).text == "here"
        await run.run("echo made > new", cwd="work")
    assert (tmp_path / "new").read_text() == "made\n"


async def test_without_a_root_it_works_in_a_directory_that_goes_with_it() -> None:
    async with shell() as run:
        ran = await run.run("pwd -P; echo x > file; echo $HOME; echo $TMPDIR")
        where, home, temporary = ran.text.splitlines()
        assert where == home == temporary
        assert not Path(where).exists()


async def test_a_root_that_is_not_granted_is_refused(tmp_path: Path) -> None:
    async with shell(roots={"work": {"path": str(tmp_path)}}) as run:
        for cwd in ("other", "/", "/etc", "..", "./work"):
            with pytest.raises(CapabilityDenied) as error:
                await run.run("pwd", cwd=cwd)
            refused(error, "path_refused", "work")


async def test_a_directory_that_does_not_exist_is_unknown(tmp_path: Path) -> None:
    async with shell(roots={"work": {"path": str(tmp_path)}}) as run:
        with pytest.raises(CapabilityFailed) as error:
            await run.run("pwd", cwd="work/none")
        refused(error, "path_unknown", "work/none")


# Variables


async def test_it_has_the_variables_of_the_grant_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_NODE", "x")
    programs = {"env": {"path": "/usr/bin/env", "env": {"NAME": "value", "LANG": "C"}}}
    async with shell(programs) as run:
        ran = await run.run(["env"])
    variables = dict(line.split("=", 1) for line in ran.text.splitlines())
    home = variables.pop("HOME")
    assert variables == {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C", "NAME": "value", "TMPDIR": home}


async def test_a_session_sets_the_variables_that_the_grant_lets_it() -> None:
    programs = {"env": {"path": "/usr/bin/env", "variables": {"LEVEL": "{a|b}", "NOTE": "{text}"}}}
    async with shell(programs) as run:
        ran = await run.run(["env"], env={"LEVEL": "b", "NOTE": "-x y"})
        assert {"LEVEL=b", "NOTE=-x y"} <= set(ran.text.splitlines())
        with pytest.raises(CapabilityDenied) as error:
            await run.run(["env"], env={"LEVEL": "c"})
        refused(error, "capability_outside_grant", "LEVEL")
        with pytest.raises(CapabilityDenied) as error:
            await run.run(["env"], env={"OTHER": "c"})
        refused(error, "capability_outside_grant", "OTHER", "LEVEL, NOTE")


# Grants that cannot be served


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("echo", "not absolute"),
        ("/no/such/program", "No such file"),
        ("/etc/passwd", "is no program"),
        ("/bin", "is no program"),
        ("/dev/null", "is no program"),
    ],
)
async def test_a_program_that_is_none_is_refused(path: str, word: str) -> None:
    with pytest.raises(ArgumentError, match=word) as error:
        Shell(provider(), {"programs": {"x": {"path": path}}})
    assert error.value.argument == "programs.x.path"


async def test_a_program_that_others_may_change_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    with pytest.raises(ArgumentError, match="others may change"):
        Shell(provider(), {"programs": {"x": {"path": str(program)}}})
    program.chmod(0o755)
    tmp_path.chmod(0o777)
    with pytest.raises(ArgumentError, match="others may replace"):
        Shell(provider(), {"programs": {"x": {"path": str(program)}}})
    tmp_path.chmod(0o700)
    Shell(provider(), {"programs": {"x": {"path": str(program)}}})


async def test_a_program_below_a_root_that_may_be_written_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    scope = {"programs": {"x": {"path": str(program)}}, "roots": {"work": {"path": str(tmp_path), "mode": "rw"}}}
    with pytest.raises(ArgumentError, match="is below"):
        Shell(provider(), scope)
    scope["roots"]["work"]["mode"] = "ro"
    Shell(provider(), scope)


@pytest.mark.parametrize("path", ["relative", "/no/such/folder", "/etc/passwd"])
async def test_a_root_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ArgumentError) as error:
        Shell(provider(), {"roots": {"work": {"path": path}}})
    assert error.value.argument == "roots.work.path"


# Life


async def test_a_provider_can_be_stopped_twice_and_before_its_first_call() -> None:
    made = provider()
    await made.stop()
    await made.stop()


async def test_a_launcher_that_was_killed_is_replaced() -> None:
    async with shell() as run:
        await run.run("true")
        first = run.provider._launcher.pid
        os.kill(first, 9)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
        assert (await run.run("echo again")).text == "again"
        assert run.provider._launcher.pid != first


@pytest.mark.parametrize("spare", range(0, 16, 2))
async def test_want_of_descriptors_fails_the_call_and_nothing_else(spare: int) -> None:
    async with shell() as run:
        await run.run("true")
        await want_of_descriptors(run, spare)
        assert (await run.run("echo next")).text == "next"


async def test_want_of_descriptors_at_the_first_call_fails_it_and_nothing_else() -> None:
    async with shell() as run:
        for spare in range(12):
            await want_of_descriptors(run, spare)
        assert (await run.run("echo next")).text == "next"


async def want_of_descriptors(run: Shell, spare: int) -> None:
    """Call it when the node may open no more than so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    highest = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        free = []
        with contextlib.suppress(OSError):
            while True:
                free.append(os.open("/dev/null", os.O_RDONLY))
        for descriptor in free[:spare]:
            os.close(descriptor)
        try:
            await run.run("true")
            assert spare
        except CapabilityFailed as error:
            assert error.code == "provider_unavailable"  # noqa: PT017
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in [*held, *free[spare:]]:
            os.close(descriptor)


def test_the_paths_of_the_tests_are_real() -> None:
    assert Path(PYTHON).exists()
    assert SCRIPTS["python"]["path"] == os.path.realpath(sys.executable)
