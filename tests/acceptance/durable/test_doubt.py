"""A store that says it has failed, and has not: nobody knows, and whoever asks again gets what was asked for, once."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from capsule_protocol.errors import StoreError
from tests.acceptance.durable.deaths import serve
from tests.acceptance.serve.support import LONG

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_who_asks_again_after_a_commit_in_doubt_gets_the_answer_of_one_run(place: Path, busy: bool) -> None:
    count, go = place / "count", place / "go"
    code = f"with open({str(count)!r}, 'a') as file: file.write('x')\n6 * 7"
    with serve(place / "node", "in doubt", 1) as served:
        async with served.client() as client:
            session = await client.session()
            wait = f"import os\nwhile not os.path.exists({str(go)!r}): pass"
            before = [session.submit(wait) for _ in range(9 if busy else 0)]  # more than are sent ahead
            async with asyncio.timeout(LONG):
                while busy and (await session.info()).queue + 8 < len(before):
                    await asyncio.sleep(0.005)
            served.process.send_signal(signal.SIGUSR1)
            with pytest.raises(StoreError) as caught:
                await session.run(code, key="k")
            assert caught.value.retryable
            assert caught.value.details["outcome"] == "unknown"
            again = [asyncio.create_task(session.run(code, key="k")) for _ in range(3)]
            go.touch()
            async with asyncio.timeout(LONG):
                assert [(await each).text for each in again] == ["42"] * 3
    assert count.read_text() == "x"


async def test_what_may_have_been_kept_and_has_no_key_is_not_to_be_asked_for_again(place: Path) -> None:
    with serve(place / "node", "in doubt", 1) as served:
        async with served.client() as client:
            session = await client.session()
            served.process.send_signal(signal.SIGUSR1)
            with pytest.raises(StoreError) as caught:
                await session.run("6 * 7")
            assert (caught.value.code, caught.value.retryable) == ("store_unavailable", False)
            assert caught.value.details["outcome"] == "unknown"
