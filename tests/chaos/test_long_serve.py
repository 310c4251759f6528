"""What the ordinary suite does to a service, for longer. Run by `make chaos`, not by `make test`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from capsule.client.remote import link
from tests.acceptance.auth import siege as network
from tests.acceptance.auth.support import Guarded
from tests.acceptance.serve.kills import Kills
from tests.acceptance.serve.siege import CONFIG, Siege, lay
from tests.acceptance.serve.support import Served
from tests.acceptance.serve.test_faults import rounds_through_faults

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800)]

ROUNDS = 300
ATTACKS = 2500
NETWORK_ATTACKS = 310


@pytest.fixture
def place() -> Iterator[Path]:
    """Short, as sockets are in there."""
    with tempfile.TemporaryDirectory(prefix="s-") as name:
        yield Path(name)


@pytest.fixture
def served(place: Path) -> Iterator[Served]:
    with Served(place / "node") as running:
        yield running
        assert running.stop() == 0


def test_300_rounds_with_clients_that_are_killed(served: Served, place: Path) -> None:
    with Kills(served, place, seed=300) as kills:
        kills.run(ROUNDS)
        assert kills.killed >= ROUNDS


async def test_300_rounds_on_a_network_that_fails_in_every_way(
    served: Served, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "HEARTBEAT", 0.1)
    monkeypatch.setattr(link, "CONNECT_TIMEOUT", 0.5)
    await rounds_through_faults(served, place, 300, ROUNDS)


def test_100_000_hostile_messages(place: Path) -> None:
    with Served(place / "besieged", CONFIG) as besieged, Siege(besieged, place) as siege:
        lay(siege, ATTACKS)
        siege.end()
        assert siege.sent.total() >= 100_000


def test_100_000_hostile_messages_over_the_network(place: Path) -> None:
    with Guarded(place, network.CONFIG) as besieged, network.NetworkSiege(besieged) as siege:
        network.lay(siege, NETWORK_ATTACKS)
        siege.end()
        assert siege.sent.total() >= 100_000
