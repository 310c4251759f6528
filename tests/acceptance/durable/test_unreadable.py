"""An execution whose large request is lost or damaged in the store while it waits: it ends, and the rest goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from capsule import ExecutionError
from capsule_protocol.errors import CapsuleError
from tests.acceptance.durable.test_restart import killed
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from pathlib import Path

    from capsule import Result

pytestmark = pytest.mark.anyio

SENT_AHEAD = 8
"""Executions that the worker has, the running one included."""
LARGE = f"open(count, 'a').write('x')\n# {'x' * 100_000}\n"


def spoil(node: Path, harm: str) -> None:
    """The one large value that is in the store."""
    (file,) = (node / "store.db.values").iterdir()
    file.unlink() if harm == "lost" else file.write_bytes(b"less")


def check_ended(result: Result) -> None:
    """It has ended, was never begun, and its verdict says why."""
    assert result.verdict == "worker_lost"
    assert result.error is not None
    assert result.error.details == {"reason": "store_damaged", "started": False, "last_seq": 0, "effects": "none"}
    assert "cannot be read" in result.error.message
    with pytest.raises(ExecutionError) as failed:
        result.raise_for_error()
    assert failed.value.retryable


@pytest.mark.parametrize("harm", ["lost", "damaged"])
async def test_one_that_waits_ends_when_it_is_due_and_holds_up_nobody(place: Path, harm: str) -> None:
    go, count = place / "go", place / "count"
    with Served(place / "node") as served:
        async with served.client() as client:
            session = await client.session(name="work")
            await session.run(f"import os\ncount = {str(count)!r}")
            first = session.submit(f"while not os.path.exists({str(go)!r}): pass")
            ahead = [session.submit("1") for _ in range(SENT_AHEAD - 1)]
            unreadable = session.submit(LARGE, key="k")
            behind = session.submit("6 * 7")
            async with asyncio.timeout(LONG):
                while (await session.info()).queue < 2:  # until all are accepted
                    await asyncio.sleep(0.005)
                spoil(served.directory, harm)
                listed = [one.execution for one in await client.promises()]
                assert listed == [each.execution_id for each in (first, *ahead, behind)]
                go.touch()
                assert [(await each.result()).verdict for each in (first, *ahead)] == ["ok"] * SENT_AHEAD
                check_ended(await unreadable.result())
                assert (await behind.result()).text == "42"
                check_ended(await session.submit(LARGE, key="k").result())
                check_ended(await client.execution(unreadable.execution_id).result(LONG))
                info = (await client.info()).bridge
                assert info is not None
                assert info.failing == ""
            killed(served)
            with Served(served.directory):
                async with asyncio.timeout(LONG):
                    check_ended(await client.execution(unreadable.execution_id).result(LONG))
                    check_ended(await session.submit(LARGE, key="k").result())
                    with pytest.raises(CapsuleError) as caught:  # whether that is another one nobody can say
                        await session.run("another", key="k")
                    assert caught.value.code == "store_damaged"
    assert not count.exists()
