"""Providers that are asked whether they admit a request, and do not say so, or not in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capsule.broker import sdk
from capsule_protocol.errors import ArgumentError
from tests.unit.broker.test_session_calls import Worker, broker_with, package

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

__all__ = ["package"]


def grants(*names: str) -> str:
    """A policy with a grant for each of these names, in their order."""
    return "".join(
        f'[[grants]]\nname = "g{number}"\ncapabilities = ["acme.greet"]\nscope.names = ["{name}"]\n'
        for number, name in enumerate(names)
    )


async def test_a_provider_that_does_not_say_whether_it_admits_a_call_is_waited_for_no_longer_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "ANSWER_SECONDS", 0.05)
    async with broker_with(tmp_path, grants("never admitted")) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.greet", positional=["me"])
        error = (await worker.reply(1))["error"]
        assert (error["code"], error["retryable"]) == ("capability_timeout", True)  # nothing was done


async def test_a_provider_that_does_not_say_whether_it_can_serve_a_scope_is_waited_for_no_longer_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "ANSWER_SECONDS", 0.05)
    with pytest.raises(ArgumentError, match=r"line 5: grants\.g0: .* did not answer within"):
        async with broker_with(tmp_path, grants("never checked")):
            pass
