"""`%capsule output`: what a page has missed that was closed, or never there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.session import Session

from tests.acceptance.jupyter import support
from tests.acceptance.jupyter.support import connected, drain, managed, reply_to, run, text_of

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient

pytestmark = pytest.mark.usefixtures("home")
CODE = (
    "import sys\nfrom IPython.display import display\nprint('one')\nh = display('old', display_id=True)\n"
    "print('two', file=sys.stderr)\nh.update('new')\n6 * 7"
)


def shown(told: list[dict[str, Any]]) -> list[Any]:
    """What a page has in the end, in short."""
    found = []
    for message in told:
        content = message["content"]
        if message["msg_type"] == "stream":
            found.append((content["name"], content["text"]))
        elif message["msg_type"] in {"display_data", "execute_result"}:
            found.append(content["data"]["text/plain"])
        elif message["msg_type"] == "error":
            found.append(content["ename"])
    return found


def test_another_page_is_shown_what_a_cell_has_told(home: support.Home) -> None:
    with managed(support.PROVISIONER) as manager:
        with connected(manager) as closed:
            number = reply_to(closed, closed.execute(CODE))["execution_count"]
        with connected(manager, Session(key=manager.session.key)) as opened:
            reply, told = run(opened, "%capsule output")
            assert (reply["status"], reply["payload"]) == ("ok", [])
            expected = [("stdout", "one\n"), "'new'", ("stderr", "two\n"), "42"]
            assert shown(told) == expected
            assert run(opened, "1/0")[0]["status"] == "error"
            assert shown(run(opened, f"%capsule output {number}")[1]) == expected
            assert shown(run(opened, f"%capsule output {number + 2}")[1]) == ["ZeroDivisionError"]


def test_what_a_cell_that_runs_has_told_so_far_is_shown_by_a_subshell(client: BlockingKernelClient) -> None:
    from tests.acceptance.jupyter.test_subshells import Answers, ask, busy, execute

    subshell = ask(client, "create_subshell")["subshell_id"]
    with busy(client) as answers:
        assert isinstance(answers, Answers)
        request = execute(client, subshell, "%capsule output")
        assert answers.reply(request)["status"] == "ok"
        assert text_of(answers.told(request)) == "busy\n"
    ask(client, "delete_subshell", subshell_id=subshell)


def test_what_code_tells_after_its_end_is_part_of_it(client: BlockingKernelClient) -> None:
    code = "import threading\ngo = threading.Event()\nt = threading.Thread(target=lambda: go.wait() and print('late'))"
    number = run(client, f"{code}\nt.start()")[0]["execution_count"]
    run(client, "go.set(); t.join()")
    told = run(client, f"%capsule output {number}")[1]
    while not text_of(told):  # the text waits for more of its kind a moment
        told = run(client, f"%capsule output {number}")[1]
    assert text_of(told).startswith("late")


def test_of_what_is_not_kept_is_said_what_is(client: BlockingKernelClient) -> None:
    number = run(client, "'kept'")[0]["execution_count"]
    _, told = run(client, "%capsule output 999")
    told_text = text_of(told, "stderr")
    assert told_text.startswith("Nothing is kept of cell 999; there is of ")
    assert str(number) in told_text


def test_silent_code_has_no_number_and_takes_nobodys_place(client: BlockingKernelClient) -> None:
    number = run(client, "print('mine')")[0]["execution_count"]
    for options in ({"silent": True}, {"store_history": False}):
        run(client, "print('not mine')", **options)
    assert text_of(run(client, f"%capsule output {number}")[1]) == "mine\n"
    assert text_of(run(client, "%capsule output")[1]) == "mine\n"


def test_a_restart_forgets_all(home: support.Home) -> None:
    with managed(support.PROVISIONER) as manager, connected(manager) as client:
        run(client, "print('before')")
        run(client, "print('this too')")
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=support.LONG)
        request = client.execute("%capsule output")
        assert reply_to(client, request)["status"] == "ok"
        assert text_of(drain(client, request), "stderr") == "Nothing is kept of any other cell.\n"
