"""A widget that shows output names the request whose output it captures: by the name that the front end gave it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.jupyter import support

pytestmark = pytest.mark.usefixtures("home")

SETUP = """
import ipywidgets
out = ipywidgets.Output()
slider = ipywidgets.IntSlider(value=3)
def show(change):
    with out:
        print('now', change.new)
slider.observe(show, 'value')
print(slider.comm.comm_id)
"""


def captures(told: list[dict[str, Any]]) -> list[str]:
    """What is told between the begin of each capture and its end: the request that is captured, then "" again."""
    states = [one["content"]["data"].get("state", {}) for one in told if one["msg_type"] == "comm_msg"]
    return [state["msg_id"] for state in states if "msg_id" in state]


def test_a_cell_and_a_callback_are_captured_by_the_names_of_their_messages() -> None:
    with support.kernel(support.PROVISIONER) as (_, client):
        comm = support.text_of(support.run(client, SETUP)[1]).strip()
        request = client.execute("with out: print('captured')")
        told = support.drain(client, request)
        assert captures(told) == [request, ""]
        assert support.text_of(told) == "captured\n"
        content = {"comm_id": comm, "data": {"method": "update", "state": {"value": 7}, "buffer_paths": []}}
        message = client.session.msg("comm_msg", content)
        client.shell_channel.send(message)
        told = support.drain(client, message["header"]["msg_id"])
        assert captures(told) == [message["header"]["msg_id"], ""]
        kinds = [one["msg_type"] for one in told]
        assert kinds.index("stream") > kinds.index("comm_msg")
        assert support.text_of(told) == "now 7\n"
