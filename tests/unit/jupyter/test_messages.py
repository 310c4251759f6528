"""Jupyter's messages: what jupyter_client makes is read, what is made it reads, and nothing else is taken."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from jupyter_client.session import Session

from capsule.jupyter import messages
from capsule.jupyter.messages import Header, Messages

KEY = b"a key"
TO = [b"somebody"]


@pytest.fixture
def client() -> Session:
    return Session(key=KEY)


@pytest.fixture
def ours() -> Messages:
    return Messages(KEY)


def request(client: Session, kind: str = "execute_request", **content: Any) -> list[bytes]:
    frames: list[bytes] = client.serialize(client.msg(kind, content, metadata={"cellId": "ü"}), TO)
    return frames


def parts(frames: list[bytes]) -> list[Any]:
    """Header, parent header, metadata and content."""
    return [json.loads(frame) for frame in frames[frames.index(b"<IDS|MSG>") + 2 :]]


def test_a_request_is_read_with_its_identities_and_buffers(client: Session, ours: Messages) -> None:
    frames = request(client, code="1+1 # ü")
    to, message = ours.read([b"another", *frames, b"one", b"two"])
    assert to == [b"another", *TO]
    assert message["content"] == {"code": "1+1 # ü"}
    assert message["metadata"] == {"cellId": "ü"}
    assert message["parent_header"] == {}
    assert message["msg_type"] == message["header"]["msg_type"] == "execute_request"
    assert message["msg_id"] == message["header"]["msg_id"] == parts(frames)[0]["msg_id"]
    assert list(map(bytes, message["buffers"])) == [b"one", b"two"]


def test_what_is_made_is_read_by_jupyter_client(client: Session, ours: Messages) -> None:
    asked = request(client, code="1")
    _, message = ours.read(asked)
    made = ours.make("stream", {"text": "ü\n"}, message["header"], TO, {"a": [1]})
    to, frames = client.feed_identities([*made, b"a buffer"])
    told = client.deserialize(frames)
    assert to == TO
    assert told["content"] == {"text": "ü\n"}
    assert told["metadata"] == {"a": [1]}
    assert told["header"]["msg_type"] == told["msg_type"] == "stream"
    assert told["header"]["username"] == "capsule"
    assert told["header"]["version"] == "5.5"
    assert told["header"]["date"].tzinfo is not None
    assert list(map(bytes, told["buffers"])) == [b"a buffer"]
    assert parts(made)[1] == parts(asked)[0]  # each field as its client has it


def test_each_message_has_an_id_of_its_own_and_all_have_one_session(ours: Messages) -> None:
    headers = [parts(ours.make("status", {}, {}, TO))[0] for _ in range(3)]
    assert len({header["msg_id"] for header in headers}) == 3
    assert len({header["session"] for header in headers}) == 1
    assert Messages(KEY).make("status", {}, {}, TO) != ours.make("status", {}, {}, TO)


def test_a_parent_that_came_over_no_socket_is_told_too(ours: Messages) -> None:
    assert parts(ours.make("status", {}, {"msg_id": "x"}, TO))[1] == {"msg_id": "x"}
    assert parts(ours.make("status", {}, {}, TO))[1] == {}


@pytest.mark.parametrize("kind", ['a"_reply', "ü_reply", "\ud800_reply", "\\_reply", "\n"])
def test_a_type_may_have_any_characters(client: Session, ours: Messages, kind: str) -> None:
    made = ours.make(kind, {}, Header({"msg_type": kind}), TO)
    assert parts(made)[0]["msg_type"] == parts(made)[1]["msg_type"] == kind
    assert client.deserialize(made[2:])["msg_type"] == kind


def test_what_json_does_not_have_is_told_as_jupyter_does(ours: Messages) -> None:
    told = {"nan": float("nan"), "bytes": b"\x00", "set": {1}, "date": date(2026, 11, 30), "half": "\udc80", "t": (1,)}
    cleaned = {"nan": "nan", "bytes": "AA==", "set": [1], "date": "2026-11-30", "half": "\udc80", "t": [1]}
    whole = {name: value for name, value in told.items() if name != "nan"}
    assert parts(ours.make("a", whole, {}, TO))[3] == {name: cleaned[name] for name in whole}
    assert parts(ours.make("a", {"nan": told["nan"], "t": (1,)}, {}, TO))[3] == {"nan": "nan", "t": [1]}


@pytest.mark.parametrize("key", [b"", b"another key"])
def test_a_wrong_signature_is_refused(ours: Messages, key: bytes) -> None:
    with pytest.raises(ValueError, match="signature"):
        ours.read(request(Session(key=key), code="1"))


@pytest.mark.parametrize("part", range(4))
def test_each_part_is_signed(client: Session, ours: Messages, part: int) -> None:
    frames = request(client, code="1")
    frames[3 + part] = frames[3 + part].replace(b"}", b" }")
    with pytest.raises(ValueError, match="signature"):
        ours.read(frames)


def test_a_message_is_taken_once(client: Session, ours: Messages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "REMEMBERED", 2)
    first, *others = [request(client, code=str(number)) for number in range(3)]
    ours.read(first)
    with pytest.raises(ValueError, match="come before"):
        ours.read(first)
    for one in others:
        ours.read(one)
    ours.read(first)  # it is forgotten


def test_a_forged_message_does_not_stand_in_the_way_of_its_original(client: Session, ours: Messages) -> None:
    frames = request(client, code="1")
    with pytest.raises(ValueError, match="signature"):
        ours.read([*frames[:-1], b'{"code": "2"}'])
    assert ours.read(frames)[1]["content"] == {"code": "1"}


def test_a_message_is_whole(client: Session, ours: Messages) -> None:
    frames = request(client, code="1")
    with pytest.raises(ValueError, match=r"not in list"):
        ours.read([frame for frame in frames if frame != b"<IDS|MSG>"])
    for length in range(2, 6):
        with pytest.raises(ValueError, match=r"parts|unpack"):
            ours.read(frames[:length])


@pytest.mark.parametrize("header", [b"[]", b"1", b"{}", b"{", b"", b'{"msg_id": 1}', b"\xff"])
def test_a_header_that_cannot_be_answered_is_refused(ours: Messages, header: bytes) -> None:
    body = [header, b"{}", b"{}", b"{}"]
    with pytest.raises((ValueError, TypeError, KeyError)):
        ours.read([*TO, b"<IDS|MSG>", ours._sign(body), *body])


def test_clients_of_earlier_versions_are_understood(client: Session, ours: Messages) -> None:
    message = client.msg("complete_request", {"line": "abc", "cursor_pos": 2, "text": "ab", "block": None})
    message["header"]["version"] = "4.1"
    _, adapted = ours.read(client.serialize(message, TO))
    assert adapted["content"] == {"code": "abc", "cursor_pos": 2}
