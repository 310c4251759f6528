"""Random sequences of calls, compared with the model of all stores; a Resonate server gives the verdicts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from capsule_bridge import PromiseStore, Retention
from tests.unit.bridge.resonate.support import Server, Timed, running
from tests.unit.bridge.test_model import Comparison


class ResonateComparison(Comparison):
    """The same, but that nothing is forgotten: a server never does, so that an id keeps its verdict for ever."""

    kind = "resonate"
    retention = Retention(results=10**9)
    server: Server

    def __init__(self) -> None:
        self.server.forget()
        self.server.clock(0)
        super().__init__()

    def open(self) -> PromiseStore:
        return Timed(self.server, self.folder / "store.db")


@pytest.fixture(autouse=True, scope="module")
def judge() -> Iterator[None]:
    """The server for all examples."""
    with running("python") as ResonateComparison.server:
        yield


TestResonate = ResonateComparison.TestCase
TestResonate.settings = settings(
    max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
