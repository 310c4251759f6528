"""The synchronous client: the same, for callers without an event loop, from any thread."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule import (
    ArgumentError,
    Client,
    EnvironmentFailed,
    Event,
    ExecutionError,
    Finished,
    InputRequest,
    Output,
    Session,
    SessionError,
)
from capsule.events import Started

if TYPE_CHECKING:
    from pathlib import Path

PRINT_LATE = """import threading
go = threading.Event()
threading.Thread(target=lambda: go.wait() and print('late')).start()"""

PRESS = f"import os, signal, time\nkept = 1\nos.kill({os.getpid()}, signal.SIGINT)"
"""Code that presses Ctrl-C in the process of its caller."""

OUTLIVING = """import capsule, threading, capsule.client.portal as portal
client = capsule.Client()
events = client.session().stream("while True: pass")
next(events)
threading.kept = (events, portal)
"""
"""Its events are dropped when what their module refers to is gone already."""

NEVER_WHOLE = """import capsule
for kind in (capsule.Events, capsule.AsyncEvents):
    try:
        kind()
    except TypeError:
        pass
    else:
        raise AssertionError(kind)
"""

INTERRUPT_CALLER = f"{PRESS}\nwhile True: time.sleep(100)"


def test_run_gives_value_output_and_keeps_state(sync_session: Session) -> None:
    first = sync_session.run("x = 20\nprint('hello')\nx + 1")
    assert (first.verdict, first.text, first.stdout) == ("ok", "21", "hello\n")
    assert sync_session.run("x + 2").text == "22"


def test_errors_are_results_until_they_are_asked_to_raise(sync_session: Session) -> None:
    with pytest.raises(ExecutionError, match="ZeroDivisionError"):
        sync_session.run("1/0").raise_for_error()


def test_a_result_that_does_not_come_in_time_is_a_timeout_and_the_code_goes_on(
    sync_session: Session, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    execution = sync_session.submit(f"import os\nprint('begun')\nwhile not os.path.exists({str(go)!r}): pass\n1")
    with pytest.raises(TimeoutError):
        execution.result(timeout=0.05)
    with pytest.raises(ArgumentError, match="timeout"):
        execution.result(timeout=-1)
    assert not execution.done
    go.touch()
    result = execution.result(timeout=60)
    assert (result.text, result.stdout) == ("1", "begun\n")


@pytest.mark.parametrize(
    "program",
    [OUTLIVING, NEVER_WHOLE],
    ids=["when the interpreter ends", "when they were never made whole"],
)
def test_events_that_are_dropped_late_or_early_complain_of_nothing(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_callbacks_are_called_in_the_calling_thread(sync_session: Session) -> None:
    calls: list[tuple[str, int]] = []

    def answer(request: InputRequest) -> str:
        calls.append((request.prompt, threading.get_ident()))
        return "Ada"

    def watch(event: Event) -> None:
        calls.append((type(event).__name__, threading.get_ident()))

    result = sync_session.run("print('hello', input('name? '))", on_event=watch, on_input=answer)
    assert result.stdout == "hello Ada\n"
    names = [name for name, _ in calls]
    assert (names[0], names[-1]) == ("Started", "Finished")
    assert names.index("name? ") < names.index("InputRequest") < names.index("Output")
    assert {ident for _, ident in calls} == {threading.get_ident()}


def test_without_on_input_a_question_is_eof(sync_session: Session) -> None:
    result = sync_session.run("input()")
    assert result.error is not None
    assert result.error.name == "EOFError"


def test_a_callback_that_would_hold_up_the_whole_client_is_refused(sync_session: Session) -> None:
    with pytest.raises(ArgumentError, match="on_input") as caught:
        sync_session.submit("input()", on_input=lambda _request: "Ada")  # type: ignore[call-arg]
    assert caught.value.code == "unknown_option"


def test_what_callbacks_raise_reaches_the_caller(sync_session: Session) -> None:
    def fail(anything: object) -> str:
        raise LookupError("mine")

    with pytest.raises(LookupError):
        sync_session.run("while True: pass", on_event=fail)  # type: ignore[arg-type]  # what it returns is not used
    with pytest.raises(LookupError):
        sync_session.run("try: input()\nexcept EOFError: seen = 1", on_input=fail)
    assert sync_session.run("seen").text == "1"


def test_a_stream_gives_events_and_can_be_left(sync_session: Session) -> None:
    with sync_session.stream("print('a')\n42") as stream:
        events = list(stream)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    with sync_session.stream("while True: print('on')") as stream:
        for event in stream:
            if isinstance(event, Output):
                break
    for event in sync_session.stream("while True: print('on')"):
        if isinstance(event, Output):
            break
    del event, stream
    gc.collect()
    assert sync_session.run("1").text == "1"


def test_a_slow_reader_gets_everything(sync_client: Client) -> None:
    with (
        sync_client.session(buffer_bytes=65536) as session,
        session.stream("for _ in range(1024): print('x' * 1023)") as stream,
    ):
        size = sum(len(event.text) for event in stream if isinstance(event, Output))
    assert size == 2**20


def test_several_at_once(sync_session: Session) -> None:
    executions = [sync_session.submit(f"print({number})") for number in range(5)]
    assert [execution.result().stdout for execution in reversed(executions)] == ["4\n", "3\n", "2\n", "1\n", "0\n"]
    assert executions[0].done
    assert executions[0].state == "done"
    assert executions[0].execution_id in repr(executions[0])
    assert executions[0].cancel() is False
    text = "".join(event.text for event in sync_session.submit("print('e')").events() if isinstance(event, Output))
    assert text == "e\n"
    assert [result.verdict for result in sync_session.run_all(["1", "1/0", "2"])] == ["ok", "error", "interrupted"]


def test_a_node_in_this_process_has_what_was_submitted(sync_client: Client) -> None:
    with sync_client.session() as session:
        execution = session.submit("6 * 7")
        execution.accepted()
        assert execution.result().text == "42"


def test_another_thread_may_interrupt_and_cancel(sync_session: Session) -> None:
    for end in (lambda _: sync_session.interrupt(), sync_session.cancel):
        with sync_session.stream("print('go', flush=True)\nwhile True: pass") as stream:
            while not isinstance(next(stream), Output):
                pass
            thread = threading.Thread(target=end, args=[stream.execution_id])
            thread.start()
            last = list(stream)[-1]
            thread.join()
        assert isinstance(last, Finished)
        assert last.verdict == "interrupted"


def test_questions_and_restart(sync_session: Session) -> None:
    sync_session.run("alphabet = 1")
    assert "alphabet" in sync_session.complete("alpha").matches
    assert sync_session.inspect("len").found
    assert sync_session.is_complete("if True:").status == "incomplete"
    assert sync_session.namespace()["alphabet"].type == "int"
    assert sync_session.history(1)[0].source == "alphabet = 1"
    pid = sync_session.info().pid
    sync_session.restart()
    assert sync_session.info().pid != pid
    assert sync_session.run("alphabet").verdict == "error"


def test_threads_may_share_a_client_and_a_session(sync_client: Client, sync_session: Session) -> None:
    texts: list[str] = []

    def work(number: int) -> None:
        texts.extend(sync_session.run(str(number)).text for _ in range(10))
        with sync_client.session() as own:
            texts.append(own.run(f"{number} + 100").text)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == sorted([str(n) for n in range(4) for _ in range(10)] + [str(n + 100) for n in range(4)])


def test_ctrl_c_interrupts_what_the_caller_waits_for(sync_session: Session) -> None:
    with pytest.raises(KeyboardInterrupt):
        sync_session.run(INTERRUPT_CALLER)
    assert sync_session.run("kept").text == "1"
    with pytest.raises(KeyboardInterrupt):
        sync_session.run(INTERRUPT_CALLER, on_event=lambda _: None)
    assert sync_session.run("kept").text == "1"


def test_ctrl_c_while_iterating_does_not_end_the_stream(sync_session: Session) -> None:
    def iterate() -> None:
        for _ in stream:
            pass

    with sync_session.stream(f"input()\n{PRESS}\nprint('went on')", on_input=lambda _: "press") as stream:
        with pytest.raises(KeyboardInterrupt):
            iterate()
        last = list(stream)[-1]
    assert isinstance(last, Finished)
    assert last.verdict == "ok"


def test_ctrl_c_while_waiting_for_a_handle_leaves_the_code_running(sync_session: Session, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def wait() -> None:
        gate.write_text("press")
        execution.result()

    execution = sync_session.submit(f"open({str(gate)!r}).read()\n{PRESS}\nprint('went on')")
    with pytest.raises(KeyboardInterrupt):
        wait()
    result = execution.result()
    assert (result.verdict, result.stdout) == ("ok", "went on\n")


def test_ctrl_c_in_a_callback_interrupts_the_code(sync_session: Session) -> None:
    def press(request: InputRequest) -> str:
        signal.raise_signal(signal.SIGINT)
        return ""

    with pytest.raises(KeyboardInterrupt):
        sync_session.run("kept = 2\ninput()", on_input=press)
    assert sync_session.run("kept").text == "2"


def test_a_fork_is_told_so_and_its_parent_goes_on(sync_client: Client, sync_session: Session) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = []
        for call in (lambda: sync_session.run("1"), sync_client.session, sync_client.__enter__):
            try:
                call()
            except SessionError as error:
                said.append(error.message)
        sync_session.close()
        sync_client.close()
        os.write(write, "\n".join(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read().splitlines()
    os.waitpid(pid, 0)
    assert len(said) == 3
    assert all(f"this client belongs to process {os.getpid()}" in line for line in said)
    assert sync_session.run("1").text == "1"


async def run_in_a_loop(session: Session) -> str:
    return session.run("1 + 1").text


def test_it_works_inside_a_running_event_loop(sync_session: Session) -> None:
    assert asyncio.run(run_in_a_loop(sync_session)) == "2"


def test_output_after_the_verdict_goes_to_on_background(sync_client: Client) -> None:
    come = threading.Event()
    late: list[Event] = []

    def take(event: Event) -> None:
        late.append(event)
        come.set()

    with sync_client.session(on_background=take) as session:
        result = session.run(PRINT_LATE)
        session.run("go.set()")
        assert come.wait(30)
    assert late[0].execution_id == result.execution_id


def test_a_callback_on_the_clients_own_thread_cannot_wait_for_it(sync_client: Client) -> None:
    done = threading.Event()
    errors: list[SessionError] = []

    def call_back(event: Event) -> None:
        try:
            session.run("1")
        except SessionError as error:
            errors.append(error)
        done.set()

    with sync_client.session(on_background=call_back) as session:
        session.run(PRINT_LATE)
        session.run("go.set()")
        assert done.wait(30)
    assert "own thread" in str(errors[0])


def test_closed_sessions_and_clients_refuse() -> None:
    with Client() as client:
        with client.session(name="mine") as session:
            pid = session.info().pid
            assert repr(session) == f"<Session {session.id} 'mine' ready>"
        assert not psutil.pid_exists(pid)
        assert session.state == "closed"
        session.close()
        with pytest.raises(SessionError) as caught:
            session.run("1")
        assert caught.value.code == "session_closed"
        left_open = client.session()
        pid = left_open.info().pid
    assert not psutil.pid_exists(pid)
    assert repr(client) == "<Client closed>"
    client.close()
    left_open.close()
    for call in (lambda: left_open.run("1"), client.session, client.__enter__):
        with pytest.raises(SessionError) as caught:
            call()
        assert caught.value.code == "client_closed"


def test_a_client_that_is_dropped_ends_its_node_and_its_thread() -> None:
    threads = threading.active_count()
    client: Client | None = Client()
    assert client is not None
    session: Session | None = client.session()
    assert session is not None
    pid = session.info().pid
    client = None
    gc.collect()
    assert session.run("1").text == "1"  # the session keeps its client
    session = None
    gc.collect()
    assert not psutil.pid_exists(pid)
    assert threading.active_count() == threads


@pytest.mark.parametrize("end", ["", "\nraise SystemExit(0)", "\nopened[0].run('1')", "\ndel opened, client"])
def test_a_program_that_ends_without_closing_leaves_nothing(tmp_path: Path, end: str) -> None:
    script = (
        "from capsule import Client\nclient = Client()\nopened = [client.session()]\nprint(opened[0].info().pid)" + end
    )
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not psutil.pid_exists(int(done.stdout))
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_refused(sync_client: Client, sync_session: Session) -> None:
    with pytest.raises(ArgumentError, match="code"):
        sync_session.run(b"1")  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ArgumentError, match="timeout"):
        sync_session.run("1", timeout=True)
    with pytest.raises(ArgumentError, match="did you mean 'quiet'"):
        sync_session.run("1", quite=True)  # type: ignore[call-arg]  # that is the test
    with pytest.raises(ArgumentError, match="key"):
        sync_session.stream("1", key="once")
    with pytest.raises(ArgumentError, match=r"codes\[0\]"):
        sync_session.run_all([b"1"])  # type: ignore[list-item]  # that is the test
    with pytest.raises(ArgumentError, match="did you mean 'backpressure'"):
        sync_client.session(backpresure="block")  # type: ignore[call-arg]  # that is the test
    with pytest.raises(EnvironmentFailed, match="default"):
        sync_client.session("science")
    with pytest.raises(ArgumentError, match="ipc://PATH"):
        Client("tcp://example")
    with pytest.raises(ArgumentError, match="did you mean 'max_sessions'"):
        Client(max_session=3)  # type: ignore[call-arg]  # that is the test
    assert sync_session.info().executions == 0
