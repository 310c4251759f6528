"""Who waits for a store tells so once, however long it takes."""

from __future__ import annotations

import pytest

from capsule.node.durable import patience
from capsule_protocol.errors import StoreError

pytestmark = pytest.mark.anyio


async def test_what_fails_in_the_same_way_again_and_again_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk may be that of the log, too, and a thousand executions may wait."""
    monkeypatch.setattr(patience, "LAST_RETRY", 0.0)
    failures: list[Exception] = [StoreError("store_unavailable", f"full {n}") for n in range(5)]
    failures += [RuntimeError(f"a mistake {n}") for n in range(5)]
    failures += [StoreError("store_locked", "somebody else's"), StoreError("store_unavailable", "full")]

    async def attempt() -> str:
        if failures:
            raise failures.pop(0)
        return "done"

    assert await patience.until_committed("x_1", attempt) == "done"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert "full 0" in told[0]
    assert "somebody else's" in told[2]
    assert caplog.records[1].exc_info is not None
