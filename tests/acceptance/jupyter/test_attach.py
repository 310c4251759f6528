"""A session that a notebook uses is one like any other: a Python client can look on, or take it over."""

from __future__ import annotations

import re
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
