"""Silence says something only while the node listens."""

from __future__ import annotations

import asyncio

import pytest

from capsule.node.pulse import Pulse
from capsule_protocol.envelope import Envelope

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("paused", [False, True])
async def test_an_unanswered_heartbeat_counts_unless_the_node_does_not_read(paused: bool) -> None:
    loop = asyncio.get_running_loop()
    sent: list[Envelope] = []
    pulse = Pulse(loop, 1000.0, sent.append)
    pulse.start()
    pulse.paused = paused
    for _ in range(3):
        pulse._beat()
    assert pulse.responsive is paused
    assert len(sent) == 1  # one at a time is under way
    pulse.stop()
