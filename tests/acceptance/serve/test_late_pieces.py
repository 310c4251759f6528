"""What a client sends without waiting for verdicts may come behind the error that stops its batch: it does not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from capsule import AsyncClient
from capsule.node.front.followed import MAX_PASSED
from tests.acceptance.serve.raw import Raw
from tests.acceptance.serve.support import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from capsule_protocol.envelope import Envelope
    from tests.acceptance.serve.support import Served

pytestmark = pytest.mark.anyio
CANCELLED = ("interrupted", "execution_cancelled")
OK = ("ok", "")


class Pieces:
    """A client that sends the next piece when it likes, and acknowledges verdicts, or does not."""

    def __init__(self, raw: Raw, *, acknowledges: bool) -> None:
        self._raw = raw
        self._acknowledges = acknowledges
        self.begun: set[str] = set()
        raw.greet()
        self.session = raw.open()

    def subshell(self) -> str:
        """A new one."""
        self._raw.say("subshell", {"action": "open"}, self.session, id_="m_subshell")
        name: str = self._raw.answer("m_subshell").body["subshell"]
        return name

    def send(self, execution: str, code: str, follows: str = "", **options: Any) -> None:
        """One of the batch `b`."""
        body = {"code": code, "stop_on_error": True, "batch": "b", "follows": follows, **options}
        self._raw.say("execute", body, self.session, execution)

    def verdict(self, execution: str) -> tuple[str, str]:
        """How it has ended: its verdict, and the code of its error."""
        message = self._ending(execution)
        if self._acknowledges:
            self._raw.say("event_ack", {"executions": {execution: message.sequence}}, self.session)
        return "ok" if message.type == "result" else message.body.get("verdict", ""), message.body.get("code", "")

    def run(self, execution: str, code: str, follows: str = "", **options: Any) -> tuple[str, str]:
        """Both."""
        self.send(execution, code, follows, **options)
        return self.verdict(execution)

    def _ending(self, execution: str) -> Envelope:
        while (message := self._raw.hear()) is not None:
            if message.body.get("state") == "busy" or (message.type == "ack" and message.sequence):
                self.begun.add(message.execution)
            if message.type in {"result", "error"} and message.execution == execution:
                return message
        raise AssertionError("the node has hung up")


@pytest.fixture(params=[True, False], ids=["acknowledged", "unacknowledged"])
def pieces(served: Served, request: pytest.FixtureRequest) -> Iterator[Pieces]:
    with Raw(served.address) as raw:
        pieces = Pieces(raw, acknowledges=request.param)
        yield pieces
        raw.say("close", {}, pieces.session)


async def test_run_all_stops_at_the_first_error(remote: AsyncClient) -> None:
    async with remote.session() as session:
        await session.run("ran = 0")
        for _ in range(5):
            results = await session.run_all(["1 / 0", *["ran += 1"] * 60])
            assert [result.verdict for result in results] == ["error", *["interrupted"] * 60]
            assert {result.error.code for result in results[1:] if result.error} == {"execution_cancelled"}
        assert (await session.run("ran")).text == "0"
        results = await session.run_all(["ran += 1"] * 60)
        assert {result.verdict for result in results} == {"ok"}
        results = await session.run_all(["1 / 0", *["ran += 1"] * 60], stop_on_error=False)
        assert [result.verdict for result in results] == ["error", *["ok"] * 60]
        assert (await session.run("ran")).text == "120"


@pytest.mark.parametrize("aside", [False, True], ids=["main", "subshell"])
def test_what_follows_an_error_does_not_run_however_late_it_comes(pieces: Pieces, aside: bool) -> None:
    where = {"subshell": pieces.subshell()} if aside else {}
    names = [f"x_{pieces.session}_{number}" for number in range(6)]
    assert pieces.run(names[0], "seen = []", **where) == OK
    assert pieces.run(names[1], "1 / 0", names[0], **where) == ("error", "execution_error")
    assert pieces.run(names[2], "seen.append(2)", names[1], **where) == CANCELLED
    assert pieces.run(names[3], "seen.append(3)", names[2], **where) == CANCELLED
    pieces.send(names[4], "seen.append(4)", names[3], **where)
    pieces.send(names[5], "seen.append(5)", names[4], **where)
    assert [pieces.verdict(name) for name in names[4:]] == [CANCELLED] * 2
    assert pieces.begun == set(names[:2])
    assert pieces.run(f"x_{pieces.session}_", "assert not seen", **where) == OK


def test_a_name_may_be_used_again_and_what_follows_no_error_runs(pieces: Pieces) -> None:
    first, *names = [f"x_{pieces.session}_{number}" for number in range(4)]
    assert pieces.run(first, "1 / 0") == ("error", "execution_error")
    assert pieces.run(names[0], "seen = [0]") == OK
    assert pieces.run(names[1], "seen.append(1)", names[0]) == OK
    assert pieces.run(names[2], "assert seen == [0, 1]", names[1]) == OK


def test_what_follows_one_that_the_node_has_not_accepted_does_not_run(pieces: Pieces) -> None:
    assert pieces.run(f"x_{pieces.session}_0", "1", "x_unknown") == CANCELLED
    assert pieces.run(f"x_{pieces.session}_1", "1", f"x_{pieces.session}_1") == CANCELLED


def test_one_that_came_too_late_is_answered_as_before_when_it_is_sent_again(pieces: Pieces) -> None:
    first, late = [f"x_{pieces.session}_{number}" for number in range(2)]
    assert pieces.run(first, "1 / 0") == ("error", "execution_error")
    for _ in range(3):
        assert pieces.run(late, "1", first) == CANCELLED


@pytest.mark.parametrize("arrived", range(1500, 6000, 1500))
@pytest.mark.parametrize("first", ["1", "1 / 0"])
async def test_pieces_that_were_lost_with_the_connection_are_sent_again_in_their_order(
    served: Served, tmp_path: Path, arrived: int, first: str
) -> None:
    """So many bytes have arrived at the node before."""
    async with Proxy(tmp_path, served.address) as proxy:
        proxy.before = arrived
        async with AsyncClient(proxy.address) as client, client.session() as session:
            proxy.before = None
            results = await session.run_all([first, *["1"] * 40])
            assert proxy.connections == 2
    verdicts = ["ok"] * 41 if first == "1" else ["error", *["interrupted"] * 40]
    assert [result.verdict for result in results] == verdicts


def test_what_is_long_over_is_forgotten_where_nothing_is_written_down(forgetful: Served) -> None:
    with Raw(forgetful.address) as raw:
        pieces = Pieces(raw, acknowledges=True)
        for number in range(MAX_PASSED + 1):
            assert pieces.run(f"x_{number}", "") == OK
        assert pieces.run("x_behind_1", "", "x_1", stop_on_error=False) == OK
        assert pieces.run("x_behind_0", "", "x_0", stop_on_error=False) == CANCELLED
        raw.say("close", {}, pieces.session)
