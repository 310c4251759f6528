"""What a service keeps, for how long and how much of it; and what it does at each bound."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from capsule import Client, SessionError
from capsule.client.remote import link
from capsule.node.front.hosted import MAX_KEPT, MAX_LOGS
from capsule.node.lineup import WINDOW
from capsule_protocol.codec import encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import NodeError
from capsule_protocol.framing import pack
from tests.acceptance.serve.raw import Raw, hello
from tests.acceptance.serve.siege import GROWTH, wait_until
from tests.acceptance.serve.support import LONG, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_CLIENTS = 4
AT_ONCE = 500


@pytest.fixture
def brief(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A service that waits for nobody for long, and clients that are heard in time."""
    monkeypatch.setattr(link, "HEARTBEAT", 0.2)
    config = (
        f"[serve]\ndetached_ttl = 1.0\nclient_timeout = 2.0\nreconnect_timeout = 0.5\nmax_clients = {MAX_CLIENTS}\n"
    )
    with Served(place / "brief", config) as running:
        yield running


def sent_at_once(raw: Raw, data: bytes) -> bool:
    """Whether the node had room for it."""
    raw.socket.settimeout(0)
    try:
        return raw.socket.send(data) == len(data)
    except BlockingIOError:
        return False
    finally:
        raw.socket.settimeout(LONG)


def check_unknown(client: Client, name: str) -> None:
    """There is no such session."""
    with pytest.raises(SessionError) as caught:
        client.attach(name)
    assert caught.value.code == "session_unknown"


def test_a_session_that_nobody_comes_back_to_ends_after_detached_ttl(brief: Served) -> None:
    with Client(brief.address) as client:
        visited = client.session(name="visited")
        visited.detach()
        visited = client.attach("visited")
        client.session(name="left").detach()  # later than the other one
        wait_until(lambda: client.info().sessions == 1)
        check_unknown(client, "left")
        assert visited.run("6 * 7").text == "42"


def test_a_client_that_does_not_come_back_loses_its_sessions_after_reconnect_timeout(brief: Served) -> None:
    with Client(brief.address) as honest, honest.session() as session:
        with Raw(brief.address) as raw:
            raw.greet()
            raw.open(name="lost")
            assert honest.info().sessions == 2
        wait_until(lambda: honest.info().sessions == 1)
        check_unknown(honest, "lost")
        assert session.run("1").text == "1"


def test_a_client_that_is_silent_is_dropped_after_client_timeout_and_its_place_is_free(brief: Served) -> None:
    with Client(brief.address) as honest, honest.session() as session:
        silent = [Raw(brief.address) for _ in range(MAX_CLIENTS - 1)]
        try:
            assert [one.greet(f"c_{number}").type for number, one in enumerate(silent)] == ["welcome"] * len(silent)
            with pytest.raises(NodeError) as caught, Client(brief.address) as too_many:
                too_many.info()
            assert caught.value.code == "too_many_clients"
            wait_until(lambda: honest.info().clients == 1)
            with Client(brief.address) as next_one:
                assert next_one.info().clients == 2
            assert session.run("1").text == "1"
        finally:
            for one in silent:
                one.close()


def test_connections_that_do_not_greet_are_ended_and_their_places_are_free(place: Path) -> None:
    config = f"[serve]\ngreeting_timeout = 2.0\nclient_timeout = 600.0\nmax_clients = {MAX_CLIENTS}\n"
    greeting = b"".join(pack(encode(hello())))
    with Served(place / "polite", config) as polite, Client(polite.address) as honest, honest.session() as session:
        silent = [Raw(polite.address) for _ in range(MAX_CLIENTS - 1)]
        for number, one in enumerate(silent):
            one.write(greeting[: number * len(greeting) // MAX_CLIENTS])
        with pytest.raises(NodeError) as caught, Client(polite.address) as too_many:
            too_many.info()
        assert caught.value.code == "too_many_clients"
        for one in silent:
            assert one.hear() is None
            one.close()
        with Client(polite.address) as next_one:
            assert next_one.info().clients == 2
        assert session.run("1").text == "1"
        assert honest.info().offences == 0


@pytest.mark.slow
def test_executions_that_nobody_acknowledges_are_bounded(served: Served) -> None:
    with Raw(served.address) as raw:
        raw.greet()
        session = raw.open()
        for start in range(0, MAX_LOGS, AT_ONCE):
            for number in range(start, start + AT_ONCE):
                raw.say("execute", {"code": ""}, session, f"x_{number}")
            verdicts = 0
            while verdicts < AT_ONCE:
                verdicts += raw.answer().type == "result"
        raw.say("execute", {"code": ""}, session, "x_more")
        refused = raw.answer()
        assert (refused.type, refused.execution, refused.body["code"]) == ("error", "x_more", "queue_full")
        raw.say("event_ack", {"executions": {"x_0": 2}}, session)
        raw.say("execute", {"code": ""}, session, "x_again")
        assert raw.answer().type == "ack"
        raw.say("close", {}, session)


def test_max_queue_counts_those_that_wait_for_others_and_not_what_is_still_written_down(
    served: Served, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with Client(served.address) as client, client.session(max_queue=3) as session:
        code = f"import os\nwhile not os.path.exists({str(go)!r}): pass"
        asked = [session.submit(code) for _ in range(WINDOW + 4)]  # at once, while none has been written down
        with pytest.raises(SessionError, match="max_queue=3") as caught:
            asked.pop().result()
        assert caught.value.code == "queue_full"
        go.touch()
        assert [execution.result().verdict for execution in asked] == ["ok"] * (WINDOW + 3)


def test_max_queue_counts_what_is_behind_a_cell_that_stops_its_batch(served: Served, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with Client(served.address) as client, client.session(max_queue=3) as session:
        code = f"import os\nwhile not os.path.exists({str(go)!r}): pass"
        asked = [session.submit(code, batch="b", stop_on_error=True) for _ in range(8)]  # only one is sent
        for refused in asked[4:]:
            with pytest.raises(SessionError, match="max_queue=3"):
                refused.result()
        go.touch()
        assert [execution.result().verdict for execution in asked[:4]] == ["ok"] * 4


def test_the_oldest_keys_are_forgotten_where_nothing_is_written_down(forgetful: Served) -> None:
    with Client(forgetful.address) as client, client.session() as session:
        code = "count = globals().get('count', 0) + 1; count"
        for number in range(MAX_KEPT + 1):
            assert session.run(code, key=f"k{number}").text == str(number + 1)
        assert session.run(code, key=f"k{MAX_KEPT}").text == str(MAX_KEPT + 1)
        assert session.run(code, key="k1").text == "2"
        assert session.run(code, key="k0").text == str(MAX_KEPT + 2)


def test_offences_are_counted_and_told(brief: Served) -> None:
    with Client(brief.address) as client:
        before = client.info().offences
        with Raw(brief.address) as raw:
            raw.greet()
            for _ in range(3):
                raw.send([b"no", b"message"])
                assert raw.answer().body["code"] == "invalid_message"
            assert client.info().offences == before + 3
            raw.say("execute", {"code": "1"}, "s_nobody", "x_1")  # is refused, but is no offence
            assert raw.answer().body["code"] == "session_unknown"
            assert client.info().offences == before + 3
            raw.say("welcome", {"version": "1.0"})
            assert raw.answer().body["code"] == "unexpected_message"
        assert client.info().offences == before + 4
        assert brief.log.read_text().count("broke the protocol") == 4


def test_who_acknowledges_without_reading_is_not_heard_until_it_reads(served: Served) -> None:
    node = psutil.Process(served.process.pid)
    with Client(served.address) as honest, honest.session() as neighbour, Raw(served.address) as raw:
        raw.greet("c_deaf")
        session = raw.open()
        before = node.memory_info().rss
        raw.say("execute", {"code": "while True: print('x' * 1000)"}, session, "x_deaf")
        acknowledgement = b"".join(pack(encode(Envelope("event_ack", {"executions": {"x_deaf": 2**40}}, "", session))))
        raw.socket.settimeout(1.0)
        with suppress(TimeoutError):  # it is as if the node did not read any more
            while node.memory_info().rss - before < 2 * GROWTH:
                raw.socket.sendall(acknowledgement)
        assert node.memory_info().rss - before < GROWTH
        assert neighbour.run("6 * 7").text == "42"
        closing = b"".join(pack(encode(Envelope("close", {}, "m_1", session))))
        while not sent_at_once(raw, closing):
            assert raw.hear() is not None
        assert raw.answer("m_1").body["state"] == "closed"
