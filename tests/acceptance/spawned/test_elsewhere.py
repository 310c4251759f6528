"""What is at the other end does not see how a worker began: nodes that come after a dead one, and notebooks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from capsule.jupyter import kernelspecs
from capsule.node.execution import ExecuteRequest
from tests.acceptance.jupyter import support
from tests.acceptance.linger.support import Place, written

if TYPE_CHECKING:
    from pathlib import Path

CELL = """
import restless
for number in range(100):
    print("line", restless.ask(int, number), flush=True)
    restless.ask(__import__("time").sleep, 0.01)
"""


@pytest.mark.anyio
@pytest.mark.parametrize("sandbox", [{}, {"sandbox": "namespaces"}], ids=["none", "namespaces"])
async def test_a_session_outlives_its_node(tmp_path: Path, restless: dict[str, Any], sandbox: dict[str, Any]) -> None:
    place = Place(tmp_path)
    try:
        place.start(CELL, environment=restless | sandbox)
        await place.until_written("line 10")
        place.kill()
        async with place.adopted() as session:
            (verdict,) = await place.finish(session)
            assert verdict.verdict == "ok"
            assert written(place.store.events()).splitlines() == [f"line {number}" for number in range(100)]
            again = session.submit(ExecuteRequest("restless.ask(int, 7)"))
            assert (await again.finished()).text == "7"
    finally:
        place.kill()


def test_a_kernel_is_a_session_of_it(restless: dict[str, Any]) -> None:
    with support.home() as home:
        config = home.root / "capsule.toml"
        options = "\n".join(f"{name} = {json.dumps(value)}" for name, value in restless.items())
        config.write_text(f"[environments.restless]\n{options}\n")
        made = kernelspecs.install("restless", user=True, config=str(config))
        with support.managed(made.name) as manager, support.connected(manager) as client:
            reply, told = support.run(client, "import restless; print('out'); restless.ask(int, 7)")
            assert reply["status"] == "ok"
            assert support.text_of(told) == "out\n"
            assert told[-1]["content"]["data"] == {"text/plain": "7"}
            request = client.execute("print('on', flush=True)\nimport time; time.sleep(1000)")
            while client.get_iopub_msg(timeout=support.LONG)["msg_type"] != "stream":
                pass
            manager.interrupt_kernel()
            assert support.reply_to(client, request)["ename"] == "KeyboardInterrupt"
            manager.restart_kernel()
            client.wait_for_ready(timeout=support.LONG)
            reply, told = support.run(client, "restless", silent=False)
            assert reply["ename"] == "NameError"
            assert support.run(client, "import restless; restless.ask(int, 7)")[0]["status"] == "ok"
        kernelspecs.remove(made.name)
