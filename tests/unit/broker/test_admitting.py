"""Providers that are asked whether they admit a request, and do not say so, or not in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from capsule.broker import sdk
from capsule.broker.explaining import Asked, judge
from capsule.broker.policy import Query
from capsule_protocol.errors import ArgumentError
from tests.unit.broker.test_session_calls import Worker, broker_with, package

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

__all__ = ["package"]

QUERY = Query("acme.greet", "alice", "default", "")


def grants(*names: str) -> str:
    """A policy with a grant for each of these names, in their order."""
    return "".join(
        f'[[grants]]\nname = "g{number}"\ncapabilities = ["acme.greet"]\nscope.names = ["{name}"]\n'
        for number, name in enumerate(names)
    )


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("never known", "*"), "capability_failed"),
        (("you", "never known", "*"), "capability_failed"),
        (("you", "*"), ""),
        (("never admitted", "*"), "capability_timeout"),
    ],
)
async def test_what_is_explained_is_what_a_call_would_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], code: str
) -> None:
    monkeypatch.setattr(sdk, "ANSWER_SECONDS", 0.05)
    async with broker_with(tmp_path, grants(*names)) as broker:
        worker = Worker(broker)
        worker.call(1, "acme.greet", positional=["me"])
        assert await worker.code(1) == code
        judged = await judge(broker.policy, broker.checkpoint.providers, Asked(QUERY, {"name": "me"}))
        assert (judged.code, judged.allowed) == (code, not code)
        assert judged.line == broker.policy.rules[len(names) - 2 if code else len(names) - 1].line


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
