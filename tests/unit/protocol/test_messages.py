from __future__ import annotations

import json
from typing import Any

import pytest

from capsule_protocol import schema
from capsule_protocol.codec import decode, encode
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import LocalProtocolError, RemoteProtocolError
from capsule_protocol.examples import EXAMPLES
from capsule_protocol.messages import MESSAGES, parse
from capsule_protocol.messages.execution import Error, Execute

# A literal, so that a type which gets lost is missed.
PROMISED = {
    *("hello", "welcome", "ack", "ready", "heartbeat", "shutdown", "open", "close", "adopt", "adopted", "confirm"),
    *("execute", "output", "display", "clear_output", "progress", "result", "error", "status", "cancel", "interrupt"),
    *("input_request", "input_reply", "complete", "inspect", "is_complete", "history", "namespace_summary"),
    *("complete_reply", "inspect_reply", "is_complete_reply", "history_reply", "namespace_summary_reply"),
    *("comm_open", "comm_msg", "comm_close", "comm_info", "comm_info_reply", "debug", "debug_reply", "debug_event"),
    *("checkpoint", "restore", "capability_request", "capability_reply", "capability_cancel"),
    *("subshell", "subshell_reply"),
    *("attach", "detach", "restart", "info", "info_reply", "resume", "gap", "event_ack", "watching"),
    *("sessions", "interrupt_session", "kill_session", "drain", "read_log", "read_log_reply", "cancel_execution"),
    *("promises", "promise", "settle"),
    *("stream_open", "stream_data", "stream_credit", "stream_close"),
    *("save", "save_reply", "load", "load_reply", "discard", "write_state", "read_state"),
    *("upload", "upload_reply", "download", "download_reply", "files", "files_reply"),
}


def test_the_message_set_is_complete() -> None:
    assert set(MESSAGES) == PROMISED
    assert all(kind == cls.TYPE and cls.__doc__ for kind, cls in MESSAGES.items())


def test_every_type_has_an_example() -> None:
    assert {envelope.type for _, envelope in EXAMPLES} == set(MESSAGES)


@pytest.mark.parametrize(("name", "envelope"), EXAMPLES)
def test_a_message_survives_the_wire(name: str, envelope: Envelope) -> None:
    received = decode(encode(envelope))
    assert received == envelope
    message = parse(received)
    assert type(message) is MESSAGES[envelope.type]
    assert message.envelope().body == envelope.body


@pytest.mark.parametrize(("name", "envelope"), EXAMPLES)
def test_fields_of_later_versions_are_ignored(name: str, envelope: Envelope) -> None:
    assert parse(envelope._replace(body=envelope.body | {"of_a_later_version": 1})) == parse(envelope)


def test_the_minimal_bodies_of_a_worker_and_a_node_are_valid() -> None:
    bodies: dict[str, dict[str, Any]] = {
        "hello": {"versions": ["1.0"], "features": [], "limits": {"message_bytes": 1}, "role": "node"},
        "open": {"name": "n", "env": {"A": None}, "options": {"out_cache": 5, "of_a_later_version": 1}},
        "execute": {"code": ""},
        "display": {"data": {"text/plain": "a", "image/png": b"\x89", "application/json": {"a": [1]}}},
        "error": {"verdict": "crashed", "code": "execution_crashed"},
        "progress": {"current": 3},
        "heartbeat": {"number": 1},
    }
    for kind, body in bodies.items():
        assert kind == parse(Envelope(kind, body)).TYPE


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("execute", {}, "code: Field required"),
        ("execute", {"code": b"1"}, "code: "),
        ("execute", {"code": "1", "timeout": float("nan")}, "timeout: "),
        ("execute", {"code": "1", "timeout": -1.0}, "timeout: "),
        ("execute", {"code": "1", "quiet": 1}, "quiet: "),
        ("heartbeat", {"number": True}, "number: "),
        ("output", {"stream": "stdin", "text": ""}, "stream: "),
        ("open", {"env": {"A": 1}}, "env.A: "),
        ("error", {"verdict": "ok", "code": "x"}, "verdict: "),
        ("input_reply", {"request": "i"}, "exactly one of value and error"),
        ("stream_credit", {"stream": "t", "size": 0}, "size: "),
        ("history_reply", {"entries": [[1, 2]]}, "entries.0: "),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not_told(kind: str, body: dict[str, Any], field: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse(Envelope(kind, body | {"password": "secret"}))
    assert caught.value.code == "invalid_message"
    assert field in caught.value.message
    assert "secret" not in f"{caught.value!r} {caught.value} {caught.value.__cause__}"


def test_an_unknown_type_is_answered_with_unsupported() -> None:
    with pytest.raises(RemoteProtocolError, match="'frobnicate'") as caught:
        parse(Envelope("frobnicate", {}))
    assert caught.value.code == "unknown_type"
    answer = Error.answer(caught.value, reply_to="m_1")
    assert (answer.code, answer.verdict, answer.reply_to) == ("unsupported", "", "m_1")


def test_any_error_can_be_an_answer() -> None:
    error = LocalProtocolError("message_too_large", "too much", details={"limit": "message_bytes"})
    body = Error.answer(error).envelope().body
    assert {key: body[key] for key in error.as_dict()} == error.as_dict()
    assert body["name"] == "LocalProtocolError"


def test_the_schema_describes_every_type_and_is_json() -> None:
    exported = json.loads(json.dumps(schema.export()))
    assert set(exported["properties"]) == set(MESSAGES)
    for reference in exported["properties"].values():
        definition = exported["$defs"][reference["$ref"].removeprefix("#/$defs/")]
        assert definition["type"] == "object"
        assert definition["description"]
    assert exported["$defs"]["Execute"]["required"] == ["code"]
    assert exported["$defs"]["Execute"]["properties"]["quiet"]["default"] is False


def test_a_message_does_not_change_and_shares_no_default() -> None:
    first, second = Error(code="a"), Error(code="b")
    first.traceback.append("x")
    assert second.traceback == []
    with pytest.raises(ValueError, match="frozen"):
        Execute(code="1").code = "2"  # type: ignore[misc]  # the point of the test
