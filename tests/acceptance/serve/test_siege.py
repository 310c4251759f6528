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


def test_who_says_that_there_is_an_error_instead_of_a_greeting_is_hung_up_on(place: Path) -> None:
    with Served(place / "quiet") as served:
        with Raw(served.address) as raw:
            raw.say("error", {"code": "unsupported"})
            assert raw.hear() is None
        assert served.stop() == 0
        assert served.log.read_text() == ""


def test_a_resume_behind_what_there_is_is_refused_and_the_execution_goes_on(served: Served) -> None:
    with Raw(served.address) as raw:
        raw.greet("c_one")
        session = raw.open()
        raw.say("execute", {"code": "input('who? ')", "allow_input": True}, session, "x_1")
        while raw.answer().type != "input_request":
            pass
        with Raw(served.address) as again:  # the same client, on another connection
            again.greet("c_one")
            again.say("attach", {"name": session}, id_="m_1")
            again.answer("m_1")
            again.say("resume", {"after": 1000}, session, "x_1")
            refused = again.answer()
            assert (refused.type, refused.body["code"]) == ("error", "invalid_argument")
            again.say("resume", {"after": 0}, session, "x_1")
            while (message := again.answer()).type != "input_request":
                pass
            again.say("input_reply", {"request": message.body["request"], "value": "Ada"}, session, "x_1")
            assert again.answer().body["data"] == {"text/plain": "'Ada'"}
            again.say("close", {}, session)
