"""What Jupyter's own test leaves out: input, interrupts, restarts, aborts, several clients, hostile messages."""

from __future__ import annotations

import json
import os
import re
import select
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session

from tests.acceptance.jupyter import support
from tests.acceptance.jupyter.support import LONG, connected, drain, managed, reply_to, run, text_of, wait_until_taken

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jupyter_client.blocking.client import BlockingKernelClient

pytestmark = pytest.mark.usefixtures("home")
WAITING = ["while True: pass", "import time; time.sleep(100)", "import asyncio; await asyncio.sleep(100)", "input()"]


def wait_for_start(client: BlockingKernelClient) -> None:
    while client.get_iopub_msg(timeout=LONG)["msg_type"] != "execute_input":
        pass


# Executions


def test_messages_of_an_execution_have_jupyters_order(client: BlockingKernelClient) -> None:
    _, told = run(client, "print('a')\nimport sys; print('b', file=sys.stderr)\n1 + 1")
    assert [message["msg_type"] for message in told] == ["execute_input", "stream", "stream", "execute_result"]
    count = told[0]["content"]["execution_count"]
    assert told[-1]["content"]["execution_count"] == count
    assert told[-1]["content"]["data"] == {"text/plain": "2"}


def test_the_next_execution_has_the_next_number(client: BlockingKernelClient) -> None:
    first, told = run(client, "1")
    assert told[0]["content"]["execution_count"] == first["execution_count"]
    assert run(client, "2", store_history=False)[0]["status"] == "ok"
    second, told = run(client, "3")
    assert told[0]["content"]["execution_count"] == second["execution_count"] == first["execution_count"] + 1


def test_silent_code_shows_neither_itself_nor_its_value(client: BlockingKernelClient) -> None:
    reply, told = run(client, "print('seen'); 1", silent=True)
    assert reply["status"] == "ok"
    assert [message["msg_type"] for message in told] == ["stream"]


def test_user_expressions_are_evaluated_behind_the_code(client: BlockingKernelClient) -> None:
    reply, _ = run(client, "x = 20", user_expressions={"sum": "x + 1", "bad": "1/0"})
    assert reply["user_expressions"]["sum"]["data"] == {"text/plain": "21"}
    assert reply["user_expressions"]["bad"]["ename"] == "ZeroDivisionError"


def test_an_error_aborts_what_waits_and_nothing_that_comes_later(client: BlockingKernelClient) -> None:
    failing = client.execute("input(); 1/0", allow_stdin=True)
    waiting = [client.execute("print('never')") for _ in range(3)]
    wait_until_taken(client)
    client.get_stdin_msg(timeout=LONG)
    client.input("go on")
    assert reply_to(client, failing)["ename"] == "ZeroDivisionError"
    for request in waiting:
        assert reply_to(client, request)["status"] == "aborted"
    for request in waiting:
        assert drain(client, request) == []
    assert run(client, "print('again')")[0]["status"] == "ok"


def test_without_stop_on_error_what_waits_is_run(client: BlockingKernelClient) -> None:
    failing = client.execute("1/0", stop_on_error=False)
    waiting = client.execute("print('runs')")
    assert reply_to(client, failing)["status"] == "error"
    assert reply_to(client, waiting)["status"] == "ok"


def test_a_display_is_updated(client: BlockingKernelClient) -> None:
    code = "from IPython.display import display\nh = display('one', display_id=True)\nh.update('two')"
    _, told = run(client, code)
    shown = [message for message in told if message["msg_type"].endswith("display_data")]
    assert [message["msg_type"] for message in shown] == ["display_data", "update_display_data"]
    first, second = (message["content"]["transient"]["display_id"] for message in shown)
    assert first == second


def test_a_plot_is_shown_as_text_of_base64(client: BlockingKernelClient) -> None:
    code = "%matplotlib inline\nimport matplotlib.pyplot as plt; _ = plt.plot([1, 2])"
    _, told = run(client, code)
    (picture,) = [message for message in told if message["msg_type"] == "display_data"]
    assert picture["content"]["data"]["image/png"].startswith("iVBOR")


def test_a_thread_that_goes_on_writes_under_its_own_request(client: BlockingKernelClient) -> None:
    lines = [
        "import threading",
        "go = threading.Event()",
        "t = threading.Thread(target=lambda: go.wait() and print('late'))",
        "t.start()",
    ]
    first = client.execute("\n".join(lines))
    assert reply_to(client, first)["status"] == "ok"
    drain(client, first)
    second = client.execute("go.set(); t.join()")
    while True:
        message = client.get_iopub_msg(timeout=LONG)
        if message["msg_type"] == "stream":
            break
    assert message["parent_header"]["msg_id"] == first
    assert message["content"]["text"].startswith("late")
    assert reply_to(client, second)["status"] == "ok"


def test_a_reply_says_when_its_request_was_begun_with(client: BlockingKernelClient) -> None:
    client.execute("1")
    reply = client.get_shell_msg(timeout=LONG)
    assert datetime.fromisoformat(reply["metadata"]["started"]) <= reply["header"]["date"]


# Comms


def test_a_widget_tells_of_itself_and_hears_of_changes(client: BlockingKernelClient) -> None:
    code = (
        "import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\n"
        "slider.observe(lambda change: print('moved to', change.new), 'value')\nslider"
    )
    reply, told = run(client, code)
    assert reply["status"] == "ok"
    opened = [message for message in told if message["msg_type"] == "comm_open"]
    assert all(message["content"]["target_name"] == "jupyter.widget" for message in opened)
    assert all(message["metadata"]["version"] for message in opened)
    (slider,) = [one for one in opened if one["content"]["data"]["state"]["_model_name"] == "IntSliderModel"]
    comm = slider["content"]["comm_id"]
    known = reply_to(client, client.comm_info(target_name="jupyter.widget"))["comms"]
    assert known[comm] == {"target_name": "jupyter.widget"}
    content = {"comm_id": comm, "data": {"method": "update", "state": {"value": 7}, "buffer_paths": []}}
    message = client.session.msg("comm_msg", content)
    client.shell_channel.send(message)
    told = drain(client, message["header"]["msg_id"])
    assert text_of(told) == "moved to 7\n"
    assert [one["content"]["comm_id"] for one in told if one["msg_type"] == "comm_msg"] == [comm]
    assert run(client, "print(slider.value)")[1][1]["content"]["text"] == "7\n"


def test_bytes_go_both_ways_on_a_comm(client: BlockingKernelClient) -> None:
    code = (
        "def echo(comm, opened):\n"
        "    comm.on_msg(lambda m: comm.send({'got': len(m['buffers'])}, buffers=[bytes(m['buffers'][0]) * 2]))\n"
        "get_ipython().kernel.comm_manager.register_target('echo', echo)"
    )
    assert run(client, code)[0]["status"] == "ok"
    client.shell_channel.send(client.session.msg("comm_open", {"comm_id": "c", "target_name": "echo", "data": {}}))
    message = client.session.msg("comm_msg", {"comm_id": "c", "data": {}})
    assert client.shell_channel.socket is not None
    client.session.send(client.shell_channel.socket, message, buffers=[b"raw\0"])
    (heard,) = drain(client, message["header"]["msg_id"])
    assert heard["content"] == {"comm_id": "c", "data": {"got": 1}}
    assert bytes(heard["buffers"][0]) == b"raw\0raw\0"


@pytest.mark.parametrize(
    "content", [{"comm_id": "nobody's", "data": {}}, {"comm_id": 1}, {"comm_id": "c", "data": []}, {}]
)
def test_what_is_said_on_no_comm_changes_nothing(client: BlockingKernelClient, content: dict[str, Any]) -> None:
    message = client.session.msg("comm_msg", content)
    client.shell_channel.send(message)
    assert drain(client, message["header"]["msg_id"]) == []
    assert run(client, "1")[0]["status"] == "ok"


# The debugger


def debug(client: BlockingKernelClient, seq: int, command: str, **arguments: Any) -> dict[str, Any]:
    request = {"type": "request", "seq": seq, "command": command, "arguments": arguments}
    client.control_channel.send(client.session.msg("debug_request", request))
    reply = client.get_control_msg(timeout=LONG)
    assert reply["msg_type"] == "debug_reply"
    content: dict[str, Any] = reply["content"]
    assert content["success"], content
    return content


def test_a_cell_stops_at_a_breakpoint_and_goes_on(home: support.Home) -> None:
    with managed(support.PROVISIONER) as manager, connected(manager) as client:
        told = {
            "clientID": "test",
            "adapterID": "",
            "pathFormat": "path",
            "linesStartAt1": True,
            "columnsStartAt1": True,
        }
        debug(client, 1, "initialize", **told)
        debug(client, 2, "attach")
        code = "total = 0\nfor n in range(3):\n    total += n\ntotal"
        path = debug(client, 3, "dumpCell", code=code)["body"]["sourcePath"]
        debug(client, 4, "setBreakpoints", source={"path": path}, breakpoints=[{"line": 4}])
        request = client.execute(code)
        while True:
            message = client.get_iopub_msg(timeout=LONG)
            if message["msg_type"] == "debug_event" and message["content"]["event"] == "stopped":
                break
        thread = message["content"]["body"]["threadId"]
        frame = debug(client, 5, "stackTrace", threadId=thread)["body"]["stackFrames"][0]
        assert frame["line"] == 4
        assert debug(client, 6, "evaluate", expression="total", frameId=frame["id"])["body"]["result"] == "3"
        debug(client, 7, "continue", threadId=thread)
        assert reply_to(client, request)["status"] == "ok"


def test_variables_are_told_without_a_debugger(client: BlockingKernelClient) -> None:
    run(client, "told = 7")
    variables = debug(client, 1, "inspectVariables")["body"]["variables"]
    assert {"name": "told", "value": "7", "type": "int"}.items() <= next(
        v for v in variables if v["name"] == "told"
    ).items()


# Questions


def test_history_has_sessions_lines_and_sources(client: BlockingKernelClient) -> None:
    count = run(client, "'a line for the history'")[0]["execution_count"]
    entries = reply_to(client, client.history(hist_access_type="range", session=0, start=count, stop=count + 1))
    assert [entry[1:] for entry in entries["history"]] == [[count, "'a line for the history'"]]


def test_a_range_of_history_is_of_the_session_that_is_named(client: BlockingKernelClient) -> None:
    run(client, "5 + 5")
    for session, found in ((0, ["5 + 5"]), (1, ["5 + 5"]), (2, []), (-1, [])):
        request = client.history(hist_access_type="range", session=session, start=1, stop=1000)
        entries = reply_to(client, request)["history"]
        assert [entry[2] for entry in entries][-1:] == found


def test_the_names_of_the_session_are_not_listed_as_those_of_the_user(client: BlockingKernelClient) -> None:
    for _ in range(2):
        names = text_of(run(client, "mine = 1\n%who")[1]).split()
        assert "mine" in names
        assert not [name for name in names if name.startswith("capsule")]
        run(client, "%reset -f")
    assert run(client, "capsule_ask, capsule_progress")[0]["status"] == "ok"


def test_completions_have_types(client: BlockingKernelClient) -> None:
    reply = reply_to(client, client.complete("import o"))
    assert "os" in reply["matches"]
    types = reply["metadata"]["_jupyter_types_experimental"]
    assert all({"start", "end", "text", "type"} <= set(item) for item in types)


def test_the_kernel_tells_what_it_is_on_both_channels(client: BlockingKernelClient) -> None:
    on_shell = reply_to(client, client.kernel_info())
    message = client.session.msg("kernel_info_request")
    client.control_channel.send(message)
    on_control = client.get_control_msg(timeout=LONG)["content"]
    assert on_shell == on_control
    assert on_control["implementation"] == "capsule"


def test_the_ports_are_told_on_both_channels(client: BlockingKernelClient, manager: KernelManager) -> None:
    message = client.session.msg("connect_request")
    client.shell_channel.send(message)
    on_shell = reply_to(client, message["header"]["msg_id"])
    client.control_channel.send(client.session.msg("connect_request"))
    assert client.get_control_msg(timeout=LONG)["content"] == on_shell
    names = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
    assert on_shell == {"status": "ok", **{name: getattr(manager, name) for name in names}}


def test_what_it_uses_is_told(client: BlockingKernelClient) -> None:
    _, told = run(client, "import os; print(os.getpid())")
    for _ in range(2):
        client.control_channel.send(client.session.msg("usage_request"))
        used = client.get_control_msg(timeout=LONG)["content"]
        assert used["pid"] == int(text_of(told))
        assert used["kernel_memory"] > 10 * 2**20
        assert used["kernel_cpu"] >= 0
        assert 0 <= used["host_cpu_percent"] <= 100
        assert used["cpu_count"] >= 1
        assert used["host_virtual_memory"]["available"] < used["host_virtual_memory"]["total"]


# Input


def test_input_and_passwords_are_asked_for(client: BlockingKernelClient) -> None:
    request = client.execute("import getpass\nprint(input('name: '), getpass.getpass('word: '))", allow_stdin=True)
    for prompt, hidden, answer in (("name: ", False, "Ada"), ("word: ", True, "secret")):
        asked = client.get_stdin_msg(timeout=LONG)
        assert asked["parent_header"]["msg_id"] == request
        assert asked["content"] == {"prompt": prompt, "password": hidden}
        client.input(answer)
    assert reply_to(client, request)["status"] == "ok"
    assert text_of(drain(client, request)) == "Ada secret\n"


def test_a_question_says_what_it_allows_and_is_asked_again_until_it_hears_that(client: BlockingKernelClient) -> None:
    code = "print([capsule_ask('Deploy?', choices=['yes', 'no']), capsule_ask(schema={'type': 'integer'})])"
    request = client.execute(code, allow_stdin=True)
    refusal = 'the answer is "maybe"; allowed: "yes", "no"\n'
    for prompt, answer in (
        ("Deploy? (yes, no) ", "maybe"),
        (f"{refusal}Deploy? (yes, no) ", "no"),
        ('({"type": "integer"}) ', "7"),
    ):
        asked = client.get_stdin_msg(timeout=LONG)
        assert asked["parent_header"]["msg_id"] == request
        assert asked["content"] == {"prompt": prompt, "password": False}
        client.input(answer)
    assert reply_to(client, request)["status"] == "ok"
    assert text_of(drain(client, request)) == "['no', 7]\n"


def test_input_that_nobody_can_answer_is_an_error(client: BlockingKernelClient) -> None:
    reply, _ = run(client, "input()", allow_stdin=False)
    assert reply["ename"] == "StdinNotImplementedError"


def test_an_answer_that_nobody_waits_for_is_dropped(client: BlockingKernelClient) -> None:
    client.input("stale")
    request = client.execute("print(input())", allow_stdin=True)
    client.get_stdin_msg(timeout=LONG)
    client.input("fresh")
    assert reply_to(client, request)["status"] == "ok"
    assert text_of(drain(client, request)) == "fresh\n"


# Interrupts


@pytest.mark.parametrize("code", WAITING)
@pytest.mark.parametrize("by", ["signal", "message"])
def test_an_interrupt_ends_what_runs(client: BlockingKernelClient, manager: KernelManager, code: str, by: str) -> None:
    request = client.execute(code, allow_stdin=True)
    wait_for_start(client)
    if by == "signal":
        manager.interrupt_kernel()
    else:
        client.control_channel.send(client.session.msg("interrupt_request"))
        assert client.get_control_msg(timeout=LONG)["content"] == {"status": "ok"}
    reply = reply_to(client, request)
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    assert run(client, "1")[0]["status"] == "ok"


@pytest.mark.parametrize("by", ["signal", "message"])
def test_an_interrupt_ends_one_execution_and_none_that_waits_behind_it(
    client: BlockingKernelClient, manager: KernelManager, by: str
) -> None:
    running = client.execute("while True: pass", stop_on_error=False)
    wait_for_start(client)
    waiting = [client.execute(f"print({n})") for n in range(20)]
    if by == "signal":
        manager.interrupt_kernel()
    else:
        client.control_channel.send(client.session.msg("interrupt_request"))
        assert client.get_control_msg(timeout=LONG)["content"] == {"status": "ok"}
    assert reply_to(client, running)["ename"] == "KeyboardInterrupt"
    for request in waiting:
        assert reply_to(client, request)["status"] == "ok"


ASKED = """
import time
class Asked:
    def takes_long(self):
        with open({path!r}, 'w') as told:
            told.write('go')
        time.sleep(1000)
    def __dir__(self):
        self.takes_long()
        return []
    def getdoc(self):
        self.takes_long()
d = Asked()
"""


@pytest.mark.parametrize("behind", [0, 3])
@pytest.mark.parametrize("question", ["complete", "inspect"])
@pytest.mark.parametrize("by", ["signal", "message"])
def test_an_interrupt_ends_a_question_and_nothing_that_waits_behind_it(
    client: BlockingKernelClient, manager: KernelManager, tmp_path: Path, by: str, question: str, behind: int
) -> None:
    path = tmp_path / "told"
    os.mkfifo(path)
    told = os.open(path, os.O_RDWR)
    assert run(client, ASKED.format(path=str(path)))[0]["status"] == "ok"
    asked = client.complete("d.") if question == "complete" else client.inspect("d")
    assert select.select([told], [], [], LONG)[0]
    os.close(told)
    waiting = [client.execute(f"print({n})") for n in range(behind)]
    wait_until_taken(client)
    if by == "signal":
        manager.interrupt_kernel()
    else:
        client.control_channel.send(client.session.msg("interrupt_request"))
        assert client.get_control_msg(timeout=LONG)["content"] == {"status": "ok"}
    reply = reply_to(client, asked)
    assert (reply["status"], reply["evalue"]) == ("error", f"{question} was interrupted on request")
    for n, request in enumerate(waiting):
        assert reply_to(client, request)["status"] == "ok"
        assert text_of(drain(client, request)) == f"{n}\n"
    assert run(client, "1")[0]["status"] == "ok"


@pytest.mark.parametrize("name", [support.PROVISIONER, support.PLAIN])
def test_a_signal_to_nothing_does_nothing(home: support.Home, name: str) -> None:
    """A stand-in takes its time to relay a signal, and what is sent right behind it may be there first."""
    with managed(name) as manager, connected(manager) as client:
        for _ in range(20):
            manager.interrupt_kernel()
            reply, _ = run(client, "1")
            assert reply["status"] == "ok", reply


def test_an_interrupt_of_nothing_does_nothing(client: BlockingKernelClient) -> None:
    # By a message, whose answer tells that it is over: a signal may arrive behind the next request.
    client.control_channel.send(client.session.msg("interrupt_request"))
    assert client.get_control_msg(timeout=LONG)["content"]["status"] == "ok"
    reply, _ = run(client, "1")
    assert reply["status"] == "ok", reply


# Several clients


def test_every_subscriber_is_welcomed(manager: KernelManager) -> None:
    with zmq.Context() as context:
        for _ in range(3):
            with context.socket(zmq.SUB) as socket:
                socket.setsockopt(zmq.RCVTIMEO, int(LONG * 1000))
                socket.connect(f"tcp://{manager.ip}:{manager.iopub_port}")
                socket.subscribe(b"")
                session = Session(key=manager.session.key)
                _, parts = session.feed_identities(socket.recv_multipart())
                message = session.deserialize(parts)
                assert message["msg_type"] == "iopub_welcome"
                assert message["content"] == {"subscription": ""}


def test_two_clients_share_a_kernel(client: BlockingKernelClient, manager: KernelManager) -> None:
    with connected(manager, Session(key=manager.session.key)) as other:
        run(client, "shared = 41")
        reply, told = run(other, "print(shared + 1)")
        assert reply["status"] == "ok"
        assert text_of(told) == "42\n"
        asked = other.execute("input('whose? ')", allow_stdin=True)
        assert other.get_stdin_msg(timeout=LONG)["parent_header"]["msg_id"] == asked
        client.input("not mine to answer")
        other.input("mine")
        assert reply_to(other, asked)["status"] == "ok"
        (result,) = [one for one in drain(other, asked) if one["msg_type"] == "execute_result"]
        assert result["content"]["data"]["text/plain"] == "'mine'"


def test_a_client_that_comes_back_by_its_name_gets_the_answers(manager: KernelManager) -> None:
    """A front end that lost its connection may be there again before the kernel has noticed."""
    session = Session(key=manager.session.key)
    with zmq.Context() as context, context.socket(zmq.DEALER) as first, context.socket(zmq.DEALER) as second:
        for socket in (first, second, first):
            if socket.getsockopt(zmq.IDENTITY) != b"the same":
                socket.setsockopt(zmq.IDENTITY, b"the same")
                socket.setsockopt(zmq.LINGER, 0)
                socket.connect(f"tcp://{manager.ip}:{manager.shell_port}")
                session.send(socket, "kernel_info_request", {})
                assert socket.poll(int(LONG * 1000))
                socket.recv_multipart()


# Hostile messages


@contextmanager
def raw(manager: KernelManager, channel: str = "shell") -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 1000)
        socket.connect(f"tcp://{manager.ip}:{getattr(manager, f'{channel}_port')}")
        yield socket


def test_a_wrong_signature_runs_nothing(client: BlockingKernelClient, manager: KernelManager) -> None:
    stranger = Session(key=b"a guess")
    with raw(manager) as socket:
        stranger.send(socket, "execute_request", {"code": "forged = True"})
        Session(key=manager.session.key).send(socket, "kernel_info_request", {})
        assert socket.poll(int(LONG * 1000))  # what came behind it is answered, so it was read
    reply, told = run(client, "print('forged' in globals())")
    assert reply["status"] == "ok"
    assert text_of(told) == "False\n"


def test_a_message_that_is_said_again_runs_once(client: BlockingKernelClient, manager: KernelManager) -> None:
    run(client, "times = 0")
    session = Session(key=manager.session.key)
    frames = session.serialize(session.msg("execute_request", {"code": "times += 1"}))
    with raw(manager) as socket:
        socket.send_multipart(frames)
        socket.send_multipart(frames)
        session.send(socket, "kernel_info_request", {})
        for _ in range(2):
            assert socket.poll(int(LONG * 1000))
            socket.recv_multipart()
    assert text_of(run(client, "print(times)")[1]) == "1\n"


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("execute_request", {}),
        ("execute_request", {"code": 1}),
        ("execute_request", {"code": "1", "silent": "yes"}),
        ("execute_request", {"code": "1", "user_expressions": []}),
        ("execute_request", {"code": "1", "user_expressions": {"a": 5}}),
        ("execute_request", {"code": "1", "user_expressions": {"a": None}}),
        ("execute_request", {"code": "1", "user_expressions": dict.fromkeys(map(str, range(5000)), "1")}),
        ("execute_request", {"code": "a = '\ud800'"}),
        ("execute_request", []),
        ("execute_request", None),
        ("complete_request", []),
        ("comm_info_request", {"target_name": 5}),
        ("complete_request", {"code": "a", "cursor_pos": "0"}),
        ("inspect_request", {"code": "a", "cursor_pos": 0, "detail_level": 7}),
        ("is_complete_request", {}),
        ("history_request", {"hist_access_type": "all"}),
        ("history_request", {"hist_access_type": "tail", "n": -1}),
        ("history_request", {"hist_access_type": "tail", "n": 10**18}),
        ("history_request", {"hist_access_type": "range", "session": "0"}),
        ("fly_request", {}),
    ],
)
def test_what_is_no_request_gets_an_error(client: BlockingKernelClient, kind: str, content: Any) -> None:
    message = client.session.msg(kind)
    message["content"] = json.dumps(content).encode()
    client.shell_channel.send(message)
    reply = reply_to(client, message["header"]["msg_id"])
    assert reply["status"] == "error"
    assert reply["evalue"]
    assert drain(client, message["header"]["msg_id"]) == []


@pytest.mark.parametrize("frames", [[b"junk"], [b"<IDS|MSG>"], [b"<IDS|MSG>", b"", b"{", b"", b"", b""], [b""] * 3])
def test_junk_is_stepped_over(client: BlockingKernelClient, manager: KernelManager, frames: list[bytes]) -> None:
    for channel in ("shell", "control", "stdin", "hb"):
        with raw(manager, channel) as socket:
            socket.send_multipart(frames)
    assert run(client, "1")[0]["status"] == "ok"


# Errors


def test_a_traceback_has_ipythons_parts_and_colours(client: BlockingKernelClient) -> None:
    reply, told = run(client, "def f():\n    raise ValueError('no')\nf()")
    (error,) = [message["content"] for message in told if message["msg_type"] == "error"]
    assert error == {name: reply[name] for name in ("ename", "evalue", "traceback")}
    assert (error["ename"], error["evalue"]) == ("ValueError", "no")
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", part) for part in error["traceback"]]
    assert plain != error["traceback"]
    assert re.match(r"Cell In\[\d+\], line 3\n", plain[2])
    assert plain[-1] == "ValueError: no"
