"""Garbage, truncated, oversized, replayed, out-of-state and half-open traffic: each offence counts, nobody is hurt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capsule_protocol.codec import encode
from capsule_protocol.envelope import Envelope
from tests.acceptance.serve.raw import Raw
from tests.acceptance.serve.siege import CONFIG, Siege, lay
from tests.acceptance.serve.support import Served

if TYPE_CHECKING:
    from pathlib import Path

ATTACKS = 60


@pytest.mark.slow
def test_whatever_a_connection_says_nobody_else_notices(place: Path) -> None:
    with Served(place / "besieged", CONFIG) as served, Siege(served, place) as siege:
        lay(siege, ATTACKS)
        siege.end()
        assert siege.sent.total() > 1000


def test_who_has_not_greeted_and_breaks_the_protocol_is_hung_up_on(place: Path) -> None:
    with Served(place / "strict") as served:
        for frames in ([b"no", b"message"], [b"one"], encode(Envelope("info", {}, "m_1"))):
            with Raw(served.address) as raw:
                raw.send(frames)
                assert raw.answer().type == "error"
                assert raw.hear() is None
