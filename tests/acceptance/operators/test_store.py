"""`capsule store` on the store of a real service: while it runs, after it was killed, and before it starts again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.operators.support import answer, capsule, runs
from tests.acceptance.serve.support import Served

pytestmark = pytest.mark.anyio


async def test_the_store_of_a_service_can_be_looked_after(place: Path) -> None:
    with Served(place / "looked-after") as served:
        configuration = place / "looked-after.toml"
        configuration.write_text(f'[serve]\ndirectory = "{served.directory}"\n', encoding="utf-8")
        named = ("--config", configuration)
        async with served.client() as client:
            session = await client.session(name="kept")
            await session.run("print('the output')")
            await runs(session.submit("import time; time.sleep(600)"))
            found = await answer("store", "info", *named)
            assert (found["process"], found["use"]) == (str(served.process.pid), "power")
            assert found["promises"]["resolved"] == 1
            assert found["pending"] >= 1
            assert (await answer("store", "check", "--thorough", *named))["ok"]
            assert b"store_locked" in (await capsule("store", "compact", *named)).stderr
            assert await exported(*named) == found["promises"]
            # None of it was noticed.
            assert (await (await client.session()).run("1 + 1")).text == "2"
            served.kill()
            served.process.wait()
        found = await answer("store", "info", *named)
        assert (found["process"], found["use"]) == ("", "")
        assert found["sizes"]["log"] > 0  # it was not closed
        assert (await answer("store", "check", "--thorough", *named))["ok"]
        assert (await answer("store", "compact", *named))["after"]["log"] == 0
        assert (await answer("store", "info", *named))["promises"] == found["promises"]


async def exported(*named: str | Path) -> dict[str, int]:
    """How many promises of each state there are in an export; the code and what it printed are among them."""
    done = await capsule("store", "export", "--decode", *named)
    assert b"print('the output')" in done.stdout
    assert b"the output\\n" in done.stdout
    *records, last = (json.loads(line) for line in done.stdout.splitlines())
    states = [record["state"] for record in records if record["record"] == "promise"]
    assert (last["record"], last["promises"]) == ("end", len(states))
    names = ("pending", "resolved", "rejected", "rejected_canceled", "rejected_timedout")
    return {name: states.count(name) for name in names}
