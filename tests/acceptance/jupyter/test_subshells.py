"""Subshells (JEP 91): requests that name one run beside the main shell, in the same namespace."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.jupyter import support
from tests.acceptance.jupyter.support import LONG, drain, managed, reply_to, run, text_of, wait_until_taken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.usefixtures("home")
BUSY = "import threading\nstop = threading.Event()\nprint('busy')\nstop.wait()\nprint('free')"
WAITING = ["while True: pass", "import time; time.sleep(100)", "import asyncio; await asyncio.sleep(100)", "input()"]


def ask(client: BlockingKernelClient, kind: str, **content: Any) -> dict[str, Any]:
    """Ask on the control channel; the content of the reply."""
    message = client.session.msg(f"{kind}_request", content)
    client.control_channel.send(message)
    while True:
        reply = client.get_control_msg(timeout=LONG)
        if reply["parent_header"]["msg_id"] == message["header"]["msg_id"]:
            assert reply["msg_type"] == f"{kind}_reply"
            found: dict[str, Any] = reply["content"]
            return found


def send(client: BlockingKernelClient, subshell: str, kind: str, **content: Any) -> str:
    """Send a request to a subshell; its id."""
    message = client.session.msg(kind, content)
    message["header"]["subshell_id"] = subshell
    client.shell_channel.send(message)
    sent: str = message["header"]["msg_id"]
    return sent


def execute(client: BlockingKernelClient, subshell: str, code: str, **options: Any) -> str:
    return send(client, subshell, "execute_request", code=code, **options)


class Answers:
    """Replies and output of requests that run side by side."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client
        self._replies: dict[str, dict[str, Any]] = {}
        self._told: dict[str, list[dict[str, Any]]] = {}

    def reply(self, request: str) -> dict[str, Any]:
        while request not in self._replies:
            message = self._client.get_shell_msg(timeout=LONG)
            self._replies[message["parent_header"]["msg_id"]] = message["content"]
        return self._replies.pop(request)

    def told(self, request: str, last: str = "idle") -> list[dict[str, Any]]:
        """What was told of a request up to idle, or to a message of another type."""
        while not any(_is(last, message) for message in self._told.get(request, [])):
            message = self._client.get_iopub_msg(timeout=LONG)
            self._told.setdefault(message["parent_header"].get("msg_id", ""), []).append(message)
        return [message for message in self._told[request] if message["msg_type"] != "status"]


def _is(last: str, message: dict[str, Any]) -> bool:
    return last in (message["msg_type"], message["content"].get("execution_state"))


@pytest.fixture
def subshell(client: BlockingKernelClient) -> Iterator[str]:
    name = ask(client, "create_subshell")["subshell_id"]
    yield name
    ask(client, "delete_subshell", subshell_id=name)


@contextmanager
def busy(client: BlockingKernelClient) -> Iterator[Answers]:
    """The main shell waits in a lock meanwhile."""
    answers = Answers(client)
    request = client.execute(BUSY)
    answers.told(request, "stream")
    helper = ask(client, "create_subshell")["subshell_id"]
    try:
        yield answers
    finally:
        freed = execute(client, helper, "stop.set()")
        assert answers.reply(freed)["status"] == "ok"
        assert answers.reply(request)["status"] == "ok"
        assert text_of(answers.told(request)) == "busy\nfree\n"
        ask(client, "delete_subshell", subshell_id=helper)


def test_the_feature_is_announced(client: BlockingKernelClient) -> None:
    assert "kernel subshells" in reply_to(client, client.kernel_info())["supported_features"]


def test_subshells_are_created_listed_and_deleted(client: BlockingKernelClient) -> None:
    made = [ask(client, "create_subshell") for _ in range(3)]
    names = [reply["subshell_id"] for reply in made]
    assert [reply["status"] for reply in made] == ["ok"] * 3
    assert len(set(names)) == 3
    assert ask(client, "list_subshell") == {"status": "ok", "subshell_id": names}
    assert ask(client, "delete_subshell", subshell_id=names[1]) == {"status": "ok"}
    assert ask(client, "list_subshell")["subshell_id"] == [names[0], names[2]]
    for name in (names[0], names[2]):
        ask(client, "delete_subshell", subshell_id=name)
    assert ask(client, "list_subshell")["subshell_id"] == []


def test_code_runs_while_the_main_shell_is_busy_and_each_has_its_own_output(
    client: BlockingKernelClient, subshell: str
) -> None:
    run(client, "shared = 41")
    with busy(client) as answers:
        first = execute(client, subshell, "print('aside')\nmine = shared + 1\nmine")
        reply = answers.reply(first)
        told = answers.told(first)
        assert (reply["status"], reply["execution_count"]) == ("ok", 1)
        assert [message["msg_type"] for message in told] == ["execute_input", "stream", "execute_result"]
        assert told[0]["content"]["execution_count"] == told[2]["content"]["execution_count"] == 1
        assert text_of(told) == "aside\n"
        assert told[2]["content"]["data"] == {"text/plain": "42"}
    assert text_of(run(client, "print(mine)")[1]) == "42\n"


def test_a_subshell_keeps_its_order_and_leaves_in_out_and_history_to_the_main_shell(
    client: BlockingKernelClient, subshell: str
) -> None:
    before = run(client, "1")[0]["execution_count"]
    answers = Answers(client)
    run(client, "seen = []")
    requests = [execute(client, subshell, f"seen.append({n}); seen") for n in range(20)]
    assert [answers.reply(request)["execution_count"] for request in requests] == list(range(1, 21))
    for request in requests:
        answers.told(request)
    assert text_of(run(client, "print(seen == list(range(20)), _, len(In))")[1]) == f"True 1 {before + 3}\n"


@pytest.mark.parametrize(
    ("kind", "content", "found"),
    [
        ("complete", {"code": "shared_na", "cursor_pos": 9}, "shared_name"),
        ("inspect", {"code": "shared_name", "cursor_pos": 5, "detail_level": 0}, "1234"),
        ("is_complete", {"code": "for x in y:"}, "incomplete"),
        ("history", {"hist_access_type": "tail", "n": 3}, "shared_name = 1234"),
        ("comm_info", {}, "comms"),
        ("kernel_info", {}, "capsule"),
    ],
)
def test_questions_are_answered_while_the_main_shell_is_busy(
    client: BlockingKernelClient, subshell: str, kind: str, content: dict[str, Any], found: str
) -> None:
    run(client, "shared_name = 1234")
    with busy(client) as answers:
        reply = answers.reply(send(client, subshell, f"{kind}_request", **content))
        assert reply["status"] in {"ok", "incomplete"}
        assert found in str(reply)


def test_a_widget_is_moved_while_the_main_shell_is_busy(client: BlockingKernelClient, subshell: str) -> None:
    code = (
        "import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\n"
        "slider.observe(lambda change: print('moved to', change.new), 'value')\nprint(slider.model_id)"
    )
    comm = text_of(run(client, code)[1]).strip()
    with busy(client) as answers:
        data = {"method": "update", "state": {"value": 7}, "buffer_paths": []}
        request = send(client, subshell, "comm_msg", comm_id=comm, data=data)
        assert text_of(answers.told(request)) == "moved to 7\n"


def test_an_error_aborts_what_waits_in_the_same_subshell_only(client: BlockingKernelClient, subshell: str) -> None:
    answers = Answers(client)
    run(client, "import threading; go = threading.Event()")
    failing, waiting = execute(client, subshell, "go.wait(); 1/0"), execute(client, subshell, "print('never')")
    other = client.execute("go.set()")  # taken when those before it are
    assert answers.reply(failing)["ename"] == "ZeroDivisionError"
    assert answers.reply(waiting)["status"] == "aborted"
    assert answers.reply(other)["status"] == "ok"
    assert text_of(answers.told(waiting)) == ""
    assert answers.reply(execute(client, subshell, "1"))["status"] == "ok"


def test_a_subshell_asks_for_input(client: BlockingKernelClient, subshell: str) -> None:
    with busy(client) as answers:
        request = execute(client, subshell, "print(input('who? '))", allow_stdin=True)
        asked = client.get_stdin_msg(timeout=LONG)
        assert asked["parent_header"]["msg_id"] == request
        client.input("me")
        assert answers.reply(request)["status"] == "ok"
        assert text_of(answers.told(request)) == "me\n"
        refused = execute(client, subshell, "input()", allow_stdin=False)
        assert answers.reply(refused)["ename"] == "StdinNotImplementedError"


@pytest.mark.parametrize("code", WAITING)
def test_an_interrupt_ends_what_runs_in_all_shells(
    client: BlockingKernelClient, manager: KernelManager, subshell: str, code: str
) -> None:
    answers = Answers(client)
    main = client.execute("while True: pass")
    aside = execute(client, subshell, code, allow_stdin=True)
    answers.told(main, "execute_input")
    answers.told(aside, "execute_input")
    manager.interrupt_kernel()
    for request in (main, aside):
        assert answers.reply(request)["ename"] == "KeyboardInterrupt"
        answers.told(request)
    again = execute(client, subshell, "1")
    assert answers.reply(again)["status"] == "ok"
    answers.told(again)
    assert run(client, "1")[0]["status"] == "ok"


def test_a_subshell_that_is_deleted_while_it_runs_is_interrupted_and_aborts_the_rest(
    client: BlockingKernelClient,
) -> None:
    name = ask(client, "create_subshell")["subshell_id"]
    answers = Answers(client)
    running, waiting = execute(client, name, "while True: pass"), execute(client, name, "1")
    wait_until_taken(client)
    answers.told(running, "execute_input")
    assert ask(client, "delete_subshell", subshell_id=name) == {"status": "ok"}
    assert ask(client, "list_subshell")["subshell_id"] == []
    assert answers.reply(running)["ename"] == "KeyboardInterrupt"
    assert answers.reply(waiting)["status"] == "aborted"
    for request in (running, waiting):
        answers.told(request)
    late = execute(client, name, "1")
    assert answers.reply(late)["ename"] == "SessionError"
    assert answers.told(late) == []
    assert run(client, "1")[0]["status"] == "ok"


def test_a_deleted_subshell_leaves_no_thread_and_no_descriptor(client: BlockingKernelClient) -> None:
    answers = Answers(client)
    code = "import os, threading; print(threading.active_count(), len(os.listdir('/proc/self/fd')))"

    def count() -> tuple[int, ...]:
        return tuple(map(int, text_of(run(client, code)[1]).split()))

    before = count()
    for _ in range(5):
        name = ask(client, "create_subshell")["subshell_id"]
        request = execute(client, name, "import threading; here = threading.current_thread()")
        assert answers.reply(request)["status"] == "ok"
        answers.told(request)
        ask(client, "delete_subshell", subshell_id=name)
        run(client, "here.join()")
    after = count()
    assert after[0] <= before[0]  # what an earlier test had may go meanwhile
    assert after[1] <= before[1]


@pytest.mark.parametrize("name", ["nobody's", "", 7])
def test_a_subshell_that_is_not_there_is_refused(client: BlockingKernelClient, name: Any) -> None:
    request = execute(client, name, "print('never')")
    reply = reply_to(client, request)
    assert reply["status"] == "error"
    assert "subshell" in reply["evalue"]
    assert drain(client, request) == []
    assert ask(client, "delete_subshell", subshell_id=name)["status"] == "error"


def test_there_are_not_more_than_64(client: BlockingKernelClient) -> None:
    replies = [ask(client, "create_subshell") for _ in range(65)]
    assert [reply["status"] for reply in replies] == ["ok"] * 64 + ["error"]
    assert "64" in replies[-1]["evalue"]
    for reply in replies[:64]:
        ask(client, "delete_subshell", subshell_id=reply["subshell_id"])


def test_figures_of_a_subshell_and_of_the_main_shell_are_kept_apart(
    client: BlockingKernelClient, subshell: str
) -> None:
    """The main shell stands between two lines of a drawing while the subshell draws and shows one of its own."""
    code = "import matplotlib.pyplot as plt\nfrom threading import Event\nhalf, done = Event(), Event()"
    assert run(client, f"%matplotlib inline\n{code}")[0]["status"] == "ok"
    answers = Answers(client)
    main = client.execute(
        "lines = plt.plot([1, 2])\nhalf.set(); done.wait()\nprint(len(plt.gca().lines), plt.get_fignums())"
    )
    code = "half.wait()\nprint(plt.get_fignums())\nfor n in '123': plt.plot([2])\nprint(len(plt.gca().lines))"
    aside = execute(client, subshell, code)
    assert answers.reply(aside)["status"] == "ok"
    assert text_of(answers.told(aside)) == "[]\n3\n"
    freed = execute(client, subshell, "print(plt.get_fignums()); done.set()")
    assert answers.reply(freed)["status"] == "ok"
    assert answers.reply(main)["status"] == "ok"
    assert text_of(answers.told(main)) == "1 [1]\n"
    for request, count in ((main, 1), (aside, 1), (freed, 0)):
        shown = [message for message in answers.told(request) if message["msg_type"] == "display_data"]
        assert len(shown) == count


def test_a_restart_removes_all_and_answers_what_ran(home: support.Home) -> None:
    with managed(support.PROVISIONER) as manager, support.connected(manager) as client:
        answers = Answers(client)
        name = ask(client, "create_subshell")["subshell_id"]
        running, waiting = execute(client, name, "while True: pass"), execute(client, name, "1")
        answers.told(running, "execute_input")
        manager.restart_kernel(now=True)
        for request in (running, waiting):
            assert answers.reply(request)["status"] in {"error", "aborted"}
            answers.told(request)
        assert ask(client, "list_subshell")["subshell_id"] == []
        assert answers.reply(execute(client, name, "1"))["status"] == "error"
        again = ask(client, "create_subshell")["subshell_id"]
        assert answers.reply(execute(client, again, "1"))["status"] == "ok"
