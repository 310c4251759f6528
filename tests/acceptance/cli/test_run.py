"""`capsule run` on pipes: what a script or a shell sees of it."""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from capsule.cli.entry import cli
from capsule.cli.exits import of_system_exit
from tests.acceptance.cli.support import HANG, Running, capsule, read_until

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import AsyncSession

ABOUT = """
import sys, os, sibling
print(__name__, sys.argv, sys.path[0], os.getcwd(), sibling.WORD)
try:
    print(__file__)
except NameError:
    print("no file")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A place for a script, with a module beside it."""
    (tmp_path / "sibling.py").write_text("WORD = 'beside'\n")
    return tmp_path / "script.py"


def python(*arguments: str, cwd: Path, stdin: bytes = b"") -> bytes:
    """What Python itself prints."""
    done = subprocess.run(
        [sys.executable, *arguments], input=stdin, capture_output=True, timeout=HANG, check=True, cwd=cwd
    )
    return done.stdout


def test_both_streams_arrive_as_they_were_written() -> None:
    code = "import sys\nsys.stdout.write('a\\rb\\x1b[31mc☃'); sys.stderr.write('d\\r\\ne')"
    done = capsule("run", "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\rb\x1b[31mc☃".encode(), b"d\r\ne")


def test_values_are_not_echoed_as_python_does_not() -> None:
    done = capsule("run", "-c", "1 + 1")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_display_is_shown_as_plain_text() -> None:
    code = "from IPython.display import *\nprint('x', end='')\ndisplay(Markdown('**b**'), {'a': 1}, HTML('<b>'))"
    done = capsule("run", "-c", code)
    assert done.stdout == b"x\n**b**\n{'a': 1}\n<b>\n"


@pytest.mark.parametrize("relative", [True, False])
def test_a_script_knows_of_itself_what_python_would_tell_it(script: Path, relative: bool) -> None:
    script.write_text(ABOUT)
    name = script.name if relative else str(script)
    done = capsule("run", name, "a", "--timeout", cwd=script.parent)
    assert done.stdout == python(name, "a", "--timeout", cwd=script.parent), done.stderr


@pytest.mark.parametrize("arguments", [("-c", ABOUT), ("-",)])
def test_code_without_a_file_knows_what_python_would_tell_it(script: Path, arguments: tuple[str, ...]) -> None:
    stdin = ABOUT.encode() if arguments == ("-",) else b""
    done = capsule("run", *arguments, "a", cwd=script.parent, stdin=stdin)
    assert done.stdout == python(*arguments, "a", cwd=script.parent, stdin=stdin), done.stderr


def test_a_linked_script_finds_the_modules_beside_the_real_one(
    script: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script.write_text("import sibling; print(sibling.WORD)")
    link = tmp_path_factory.mktemp("links") / "link.py"
    link.symlink_to(script)
    assert capsule("run", link).stdout == b"beside\n"


def test_source_is_decoded_as_python_does(script: Path) -> None:
    script.write_bytes(
        "# -*- coding: latin-1 -*-\nprint(ascii('é'))\r\nprint('''a\r\nb'''.encode())\n".encode("latin-1")
    )
    assert capsule("run", script).stdout == python(str(script), cwd=script.parent)


@pytest.mark.anyio
async def test_sys_exit_asks_for_the_code_and_the_message_that_python_would_give(session: AsyncSession) -> None:
    cases = {
        "sys.exit()": (0, ""),
        "sys.exit(0)": (0, ""),
        "sys.exit(7)": (7, ""),
        "sys.exit(-1)": (255, ""),
        "sys.exit(True)": (1, ""),
        "sys.exit('that was it')": (1, "that was it"),
        "sys.exit([1])": (1, "[1]"),
        "raise SystemExit": (0, ""),
    }
    for code, expected in cases.items():
        error = (await session.run(f"import sys; {code}")).error
        assert error is not None
        assert (code, of_system_exit(error)) == (code, expected)


@pytest.mark.parametrize(("value", "expected", "stderr"), [("7", 7, b""), ("'that was it'", 1, b"that was it\n")])
def test_sys_exit_gives_the_exit_code(value: str, expected: int, stderr: bytes) -> None:
    done = capsule("run", "-c", f"import sys; sys.exit({value})")
    assert (done.returncode, done.stdout, done.stderr) == (expected, b"", stderr)


def test_code_that_raises_exits_1_with_its_traceback(script: Path) -> None:
    script.write_text("def halve(n):\n    return n / 0\n\n\nprint('before')\nhalve(2)\n")
    done = capsule("run", script)
    assert (done.returncode, done.stdout) == (1, b"before\n")
    text = done.stderr.decode()
    assert str(script) in text
    assert "return n / 0" in text
    assert text.endswith("ZeroDivisionError: division by zero\n")


def test_a_syntax_error_exits_1() -> None:
    done = capsule("run", "-c", "a b")
    assert done.returncode == 1
    assert b"SyntaxError" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("missing.py",),
        ("missing.ipynb",),
        ("--nope", "-c", "1"),
        ("--timeout", "0", "-c", "1"),
        ("--timeout", "soon", "-c", "1"),
        ("--env", "=1", "-c", "1"),
        ("--env", "CAPSULE_TEST_NOT_SET", "-c", "1"),
        ("--cwd", "missing", "-c", "1"),
        ("--output", "o.ipynb", "-c", "1"),
        ("--allow-errors", "-c", "1"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, ["run", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("arguments", [(), ("--environment", "nope", "-c", "1")])
def test_wrong_usage_of_the_real_program(arguments: tuple[str, ...]) -> None:
    done = capsule("run", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith((b"Error: ", b"capsule: "))


def test_a_worker_that_dies_exits_3_with_its_output_first() -> None:
    done = capsule("run", "-c", "import os; print('last words', flush=True); os.kill(os.getpid(), 9)")
    assert (done.returncode, done.stdout) == (3, b"last words\n")
    assert done.stderr.startswith(b"capsule: ")
    assert b"SIGKILL" in done.stderr


def test_a_timeout_exits_124() -> None:
    done = capsule("run", "--timeout", "2", "-c", "print('begun')\nwhile True: pass")
    assert (done.returncode, done.stdout) == (124, b"begun\n")


def test_a_timeout_holds_for_threads_that_are_left() -> None:
    code = "import threading; e = threading.Event(); threading.Thread(target=e.wait).start(); print('begun')"
    done = capsule("run", "--timeout", "2", "-c", code)
    assert (done.returncode, done.stdout) == (124, b"begun\n")


def test_the_end_waits_for_threads_and_runs_atexit_as_python_does(script: Path) -> None:
    script.write_text(
        "import atexit, threading, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "atexit.register(print, 'at exit')\n"
        "gate = threading.Event()\n"
        "threading.Thread(target=lambda: (gate.wait(), print('thread'))).start()\n"
        "pool = ThreadPoolExecutor(1)\n"
        "pool.submit(lambda: (print('main'), gate.set()))\n"
    )
    done = capsule("run", script)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == python(str(script), cwd=script.parent)


def test_await_and_ipython_work_in_a_script(script: Path) -> None:
    script.write_text("import asyncio\nprint(await asyncio.sleep(0, 'slept'))\n!echo shell\n")
    assert capsule("run", script).stdout == b"slept\nshell\n"


def test_output_comes_while_the_code_runs() -> None:
    with Running("run", "-c", "print('first')\nprint(input())") as running:
        running.until(b"first\n")
        running.type(b"second\n")
        assert running.end() == (0, b"second\n", b"")


def test_input_reads_our_stdin_line_by_line_until_it_ends() -> None:
    code = "a = input('? '); b = input()\nprint(a, b)\ntry: input()\nexcept EOFError: print('end')"
    done = capsule("run", "-c", code, stdin="eins\r\nzwei ☃".encode())
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, "? eins zwei ☃\nend\n", b"")


def test_a_line_that_is_no_answer_is_told_and_the_next_one_read() -> None:
    code = "print([capsule_ask('Deploy? ', choices=['yes', 'no'], timeout=60), capsule_ask('n? ', schema={})])"
    done = capsule("run", "-c", code, stdin=b"maybe\nno\n[1]\n")
    refusal = 'the answer is "maybe"; allowed: "yes", "no"\n'
    assert done.stdout.decode() == f"Deploy? (yes, no) {refusal}Deploy? (yes, no) n? ({{}}) ['no', [1]]\n"
    lines = capsule("run", "--json", "-c", code, stdin=b"maybe\nno\n[1]\n").stdout.splitlines()
    told = [event for event in map(json.loads, lines) if event["event"] == "input_request"]
    assert [(event["choices"], event["refused"]) for event in told] == [
        (["yes", "no"], ""),
        (["yes", "no"], refusal.rstrip("\n")),
        (None, ""),
    ]


def test_an_end_of_input_that_the_code_does_not_expect_is_its_error() -> None:
    done = capsule("run", "-c", "input()")
    assert done.returncode == 1
    assert b"EOFError" in done.stderr


def test_input_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("one\ntwo\n")
    with (
        (tmp_path / "lines").open("rb") as source,
        Running("run", "-c", "print(input(), input())", stdin=source) as run,
    ):
        assert run.end() == (0, b"one two\n", b"")


def test_env_and_cwd_reach_the_code(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), os.environ['A'], os.environ['B'], os.environ.get('C'))"
    done = capsule(
        "run", "--env", "A=1=2", "--env", "B", "--cwd", tmp_path, "-c", code, env={"B": "ours", "C": "not passed"}
    )
    assert done.stdout.decode() == f"{tmp_path} 1=2 ours None\n"


def test_ctrl_c_interrupts_the_code() -> None:
    with Running("run", "-c", "try:\n  print('begun')\n  while True: pass\nfinally: print('cleaned up')") as running:
        running.until(b"begun\n")
        running.interrupt()
        code, out, err = running.end()
    assert (code, out) == (130, b"cleaned up\n")
    assert b"KeyboardInterrupt" in err


def test_ctrl_c_ends_a_wait_for_input() -> None:
    with Running("run", "-c", "input('name? ')") as running:
        running.until(b"name? ")
        running.interrupt()
        running.process.wait(HANG)  # with its stdin open, whose end would be an answer too
        code, _, err = running.end()
    assert code == 130
    assert b"KeyboardInterrupt" in err


def test_code_that_goes_on_after_ctrl_c_has_its_own_exit_code() -> None:
    code = "import time\ntry:\n  print('begun')\n  time.sleep(1000)\nexcept KeyboardInterrupt: print('caught')"
    with Running("run", "-c", code) as running:
        running.until(b"begun\n")
        running.interrupt()
        assert running.end() == (0, b"caught\n", b"")


STUBBORN = """
while True:
    try:
        print("begun", flush=True)
        while True: pass
    except BaseException:
        print("caught", flush=True)
"""


def test_a_second_ctrl_c_quits() -> None:
    with Running("run", "-c", STUBBORN) as running:
        running.until(b"begun\n")
        running.interrupt()
        running.until(b"caught\n")
        running.interrupt()
        assert running.end()[0] == 130


def test_a_second_ctrl_c_quits_while_nobody_reads_our_output(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "told")
    reader = os.open(tmp_path / "told", os.O_RDONLY | os.O_NONBLOCK)
    code = "try:\n  print('begun', flush=True)\n  while True: print('x' * 1000)\n"
    code += f"except KeyboardInterrupt:\n  open({str(tmp_path / 'told')!r}, 'w').write('interrupted')\n"
    with Running("run", "-c", code) as running:
        running.until(b"begun\n")
        running.interrupt()
        read_until(reader, b"interrupted")
        running.interrupt()
        assert running.process.wait(HANG) == 130
    os.close(reader)


def test_ignored_interrupts_stay_ignored() -> None:
    shell = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    with Running("run", "-c", "print('begun', flush=True); print(input())", prefix=shell) as running:
        running.until(b"begun\n")
        running.interrupt()
        running.type(b"went on\n")
        assert running.end() == (0, b"went on\n", b"")


def test_a_reader_that_leaves_ends_the_run_quietly() -> None:
    with Running("run", "-c", "while True: print('y')") as running:
        assert running.stdout.readline() == b"y\n"
        running.stdout.close()
        assert running.process.stderr is not None
        assert running.process.stderr.read() == b""
        assert running.process.wait(HANG) == 141


def test_a_slow_reader_gets_everything() -> None:
    line = b"0123456789abcdef" * 8 + b"\n"
    with Running("run", "-c", f"for _ in range(100_000): print({line[:-1].decode()!r})") as running:
        digest, size = hashlib.sha256(), 0
        while data := os.read(running.stdout.fileno(), 16384):
            digest.update(data)
            size += len(data)
        assert running.end()[0] == 0
    assert size == 100_000 * len(line)
    assert digest.digest() == hashlib.sha256(line * 100_000).digest()


def test_closed_standard_descriptors_harm_nothing() -> None:
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    with Running("run", "-c", "import sys; print('lost'); sys.exit(5)", prefix=shell) as running:
        assert running.end() == (5, b"", b"")


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def merged(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events with the pieces of each stream put together: how a print is cut is nobody's promise."""
    whole: list[dict[str, Any]] = []
    for event in events:
        if whole and event["event"] == "output" and event["stream"] == whole[-1].get("stream"):
            whole[-1]["text"] += event["text"]
        else:
            whole.append(event)
    return whole


def test_json_prints_every_event_as_one_line() -> None:
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay({'a': 1})\nprint(input('? '))\n1/0"
    done = capsule("run", "--json", "-c", code, stdin=b"in\n")
    assert (done.returncode, done.stderr) == (1, b"")
    events = merged(lines(done.stdout))
    assert [event["event"] for event in events] == [
        *("started", "output", "output", "display", "input_request", "output", "finished"),
    ]
    assert [event["sequence"] for event in lines(done.stdout)] == list(range(1, len(lines(done.stdout)) + 1))
    assert len({event["execution_id"] for event in events}) == 1
    assert [(event["stream"], event["text"]) for event in events if event["event"] == "output"] == [
        *(("stdout", "out\n"), ("stderr", "err\n"), ("stdout", "in\n")),
    ]
    assert events[3]["data"] == {"text/plain": "{'a': 1}"}
    assert events[4]["prompt"] == "? "
    assert events[-1]["verdict"] == "error"
    assert events[-1]["error"]["name"] == "ZeroDivisionError"
    assert events[-1]["error"]["code"] == "execution_error"


def test_json_lines_come_as_they_happen() -> None:
    with Running("run", "--json", "-c", "print('first', flush=True)\ninput()") as running:
        assert json.loads(running.stdout.readline())["event"] == "started"
        assert json.loads(running.stdout.readline())["text"].startswith("first")
        running.type(b"\n")
        assert running.end()[0] == 0


def test_json_tells_an_error_of_capsule_as_an_object() -> None:
    done = capsule("run", "--json", "--environment", "nope", "-c", "1")
    assert (done.returncode, done.stderr) == (2, b"")
    (failure,) = lines(done.stdout)
    assert failure["event"] == "failure"
    assert failure["error"]["code"] == "environment_unknown"
    assert "nope" in failure["error"]["message"]


def test_an_error_of_capsule_is_one_line_with_its_code() -> None:
    done = capsule("run", "--environment", "nope", "-c", "1")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("capsule: ")
    assert "(environment_unknown)" in line


def test_nothing_is_left_when_the_program_is_killed(tmp_path: Path) -> None:
    code = f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); print('begun')\nwhile True: pass"
    with Running("run", "-c", code) as running:
        running.until(b"begun\n")
        descriptor = os.pidfd_open(int((tmp_path / "pid").read_text()))
        running.process.kill()
        assert select.select([descriptor], [], [], HANG)[0], "the worker lives on"
        os.close(descriptor)


def test_version_and_help() -> None:
    assert capsule("--version").stdout.startswith(b"capsule 0.")
    assert b"run" in capsule("--help").stdout
    assert capsule("nope").returncode == 2


def test_an_error_that_was_displayed_is_no_output_of_the_program() -> None:
    error = {"ename": "E", "evalue": "no", "traceback": ["E: no"]}
    shown = {"application/vnd.jupyter.error": error, "text/plain": "E: no"}
    code = f"from IPython.display import display\nprint('out', end='')\ndisplay({shown!r}, raw=True)\nprint('put')"
    done = capsule("run", "-", stdin=code.encode())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"output\n", b"E: no\n")
