"""What must hold each time, tried a few times; the soak tries it hundreds of times."""

from __future__ import annotations

import pytest

from tests.acceptance.jupyter import rounds, support

pytestmark = pytest.mark.usefixtures("home")


@pytest.mark.parametrize("name", support.ROUTES)
def test_restarts_lose_no_request(name: str) -> None:
    with support.kernel(name) as (manager, client):
        rounds.restart(manager, client, 4)


@pytest.mark.parametrize("name", support.ROUTES)
def test_nothing_comes_behind_idle(name: str) -> None:
    with support.kernel(name) as (_, client):
        rounds.write(client, 5)


def test_what_code_writes_comes_in_few_messages_and_in_order() -> None:
    code = "import time\nfor n in range(500): print(n, flush=True); time.sleep(0.001)\ndisplay('shown')\nprint('last')"
    with support.kernel(support.PROVISIONER) as (_, client):
        _, told = support.run(client, code)
    kinds = [message["msg_type"] for message in told if message["msg_type"] != "execute_input"]
    assert kinds[-2:] == ["display_data", "stream"]
    assert len(kinds) < 100
    assert support.text_of(told[:-2]) == "".join(f"{n}\n" for n in range(500))
