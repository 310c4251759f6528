"""A session that a notebook uses is one like any other: a Python client can look on, share it, or take it over."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

import capsule
from tests.acceptance.jupyter import support

pytestmark = pytest.mark.usefixtures("home")


def place(client: Any) -> tuple[str, str]:
    """Where the node of a kernel is, and what its session is called, as it says itself."""
    _, told = support.run(client, "%capsule info")
    found = re.search(r'capsule\.Client\("(.+?)"\)\.attach\("(.+?)", watch=True\)', support.text_of(told))
    assert found is not None, support.text_of(told)
    return found[1], found[2]


@pytest.mark.parametrize("name", support.ROUTES)
def test_who_looks_on_sees_what_the_notebook_runs(name: str) -> None:
    with support.kernel(name) as (_, client):
        address, session = place(client)
        with capsule.Client(address) as other:
            watched = other.attach(session, watch=True)
            events = iter(watched.watch())
            support.run(client, "print('for both')")
            seen: list[capsule.Event] = []
            while not isinstance(seen[-1] if seen else None, capsule.Finished):
                seen.append(next(events))
        assert [one.text for one in seen if isinstance(one, capsule.Output)] == ["for both\n"]
        assert support.run(client, "1 + 1")[0]["status"] == "ok"


@pytest.mark.parametrize("name", support.ROUTES)
def test_a_client_works_in_a_notebooks_session_while_the_notebook_goes_on(name: str) -> None:
    with support.kernel(name) as (manager, client):
        address, session = place(client)
        support.run(client, "table = {'a': 1}")
        with capsule.Client(address) as other, other.attach(session, share=True) as shared:
            for number in range(3):
                assert shared.run(f"table['b'] = {number}\nprint(table)").stdout == f"{{'a': 1, 'b': {number}}}\n"
                reply, told = support.run(client, "print(table['b'])")
                assert support.text_of(told) == f"{number}\n"
            assert "table" in shared.namespace()
            assert reply["execution_count"] == shared.run("1").execution_count - 1
            running = shared.submit("import time\ntime.sleep(0.3)\ntable.clear()")
            running.accepted()
            reply, told = support.run(client, "print(table)")  # it waits for its turn
            assert (reply["status"], support.text_of(told)) == ("ok", "{}\n")
            assert [one["msg_type"] for one in told] == ["execute_input", "stream"]
        assert manager.is_alive()
        assert support.run(client, "1 + 1")[0]["status"] == "ok"


def test_what_a_client_runs_there_is_not_shown_in_the_notebook() -> None:
    with support.kernel(support.PROVISIONER) as (_, client):
        address, session = place(client)
        with capsule.Client(address) as other, other.attach(session, share=True) as shared:
            shared.run("print('not for it')\nimport threading\ngo = threading.Event()")
            shared.run("threading.Thread(target=lambda: (go.wait(), print('nor this'), go.clear())).start()")
            _, told = support.run(client, "go.set()\nwhile go.is_set(): pass\nprint('this')")
            assert support.text_of(told) == "this\n"


def test_an_interrupt_ends_what_a_client_runs_there_and_not_what_waits_for_it() -> None:
    with support.kernel(support.PROVISIONER) as (manager, client):
        address, session = place(client)
        with capsule.Client(address) as other, other.attach(session, share=True) as shared:
            running = shared.submit("print('runs')\nwhile True: pass")
            events = iter(running.events())
            while not isinstance(next(events), capsule.Output):
                pass
            waits = client.execute("'waited'")
            manager.interrupt_kernel()
            assert running.result().verdict == "interrupted"
            assert support.reply_to(client, waits)["status"] == "ok"


ASKS = """
import sys, capsule
def answer(_):
    print("asked", flush=True)
    return sys.stdin.read()
capsule.Client(sys.argv[1]).attach(sys.argv[2], share=True).run("input()", on_input=answer)
"""


def test_a_client_that_is_gone_while_it_was_asked_something_does_not_hold_a_notebook_up_for_good() -> None:
    with support.kernel(support.PROVISIONER) as (manager, client):
        command = [sys.executable, "-c", ASKS, *place(client)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"asked\n"
            process.kill()
        waits = client.execute("'waited'")
        manager.interrupt_kernel()
        assert support.reply_to(client, waits)["status"] == "ok"


def test_the_end_of_a_kernel_is_told_to_who_shares_its_session() -> None:
    with support.kernel(support.PROVISIONER) as (manager, client):
        address, session = place(client)
        with capsule.Client(address) as other, other.attach(session, share=True) as shared:
            running = shared.submit("print('runs')\nwhile True: pass")
            events = iter(running.events())
            while not isinstance(next(events), capsule.Output):
                pass
            manager.restart_kernel(now=True)
            assert running.result().verdict in {"interrupted", "killed"}  # Jupyter interrupts it first
            with pytest.raises(capsule.SessionError) as caught:
                shared.run("1")
            assert caught.value.code == "session_closed"
        client.wait_for_ready(support.LONG)
        _, session = place(client)
        support.run(client, "x = 1")
        with capsule.Client(address) as other, other.attach(session, share=True) as shared:
            assert shared.run("x").text == "1"


def test_who_does_not_look_on_only_takes_the_session_with_its_variables_and_the_kernel_ends() -> None:
    with support.kernel(support.PROVISIONER) as (manager, client):
        address, session = place(client)
        support.run(client, "x = 20")
        with capsule.Client(address) as other, other.attach(session) as taken:
            while manager.is_alive():
                pass
            assert taken.run("x + 1").text == "21"


def test_the_variable_says_where_the_node_is() -> None:
    with support.kernel(support.PROVISIONER) as (_, client):
        address, session = place(client)
        asked = (
            "import os, capsule\nnode = os.environ['CAPSULE_NODE']\n"
            "with capsule.Client(node) as client: print(node, [one.name for one in client.sessions()])"
        )
        _, told = support.run(client, asked)
        assert support.text_of(told).strip() == f"{address} ['{session}']"
