"""Comms over the link: what the code says on them, and what the client says to it."""

from __future__ import annotations

from capsule_protocol.messages import parse
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session

LISTENER = """
    from comm import get_comm_manager
    heard = []
    def opened(comm, message):
        comm.on_msg(lambda message: heard.append((message["content"]["data"], [*map(bytes, message["buffers"])])))
        comm.on_close(lambda message: heard.append("closed"))
        heard.append(message["content"]["data"])
    get_comm_manager().register_target("listener", opened)
"""


@alone
def test_what_the_code_says_on_a_comm_is_sent_with_its_buffers_raw() -> None:
    rig = Session()
    rig.run("from comm import create_comm\ncomm = create_comm(target_name='widget', data={'a': 1})")
    rig.run("comm.send({'b': 2}, metadata={'c': 3}, buffers=[b'raw', memoryview(b'view')])\ncomm.close()")
    name = rig.value("comm.comm_id")
    opened, said, closed = (rig.message(rig.shell) for _ in range(3))
    assert [message.type for message in (opened, said, closed)] == ["comm_open", "comm_msg", "comm_close"]
    assert {repr(message.body["comm"]) for message in (opened, said, closed)} == {name}
    assert (opened.body["target"], opened.body["data"], opened.execution) == ("widget", {"a": 1}, "x_1")
    assert (said.body["data"], said.body["metadata"], said.execution) == ({"b": 2}, {"c": 3}, "x_2")
    assert [bytes(buffer) for buffer in said.buffers] == [b"raw", b"view"]
    assert set(said.body) == set(type(parse(said)).model_fields)


@alone
def test_what_the_client_says_reaches_the_target_that_the_code_registered() -> None:
    rig = Session()
    rig.run(LISTENER.replace("\n    ", "\n"))
    for action, body, buffers in (
        ("open", {"target": "listener", "data": {"n": 1}}, ()),
        ("message", {"data": {"n": 2}}, (b"raw",)),
        ("close", {}, ()),
    ):
        rig.engine.comms.hear({"action": action, "comm": "c_1", **body}, buffers)
    assert rig.value("heard") == "[{'n': 1}, ({'n': 2}, [b'raw']), 'closed']"


@alone
def test_callbacks_get_a_message_with_its_header() -> None:
    rig = Session()
    rig.run(LISTENER.replace("\n    ", "\n").replace('message["content"]["data"]', 'message["header"]'))
    for number, (action, kind) in enumerate((("open", "comm_open"), ("message", "comm_msg")), start=1):
        rig.engine.publisher.begin(100 + number, f"x_{number}")
        rig.engine.comms.hear({"action": action, "comm": "c_1", "target": "listener"}, ())
        header = rig.python.user_ns["heard"][-1]
        header = header if isinstance(header, dict) else header[0]
        assert (header["msg_id"], header["msg_type"]) == (f"x_{number}", kind)
        assert header["date"].tzinfo is not None
        assert set(header) == {"msg_id", "msg_type", "session", "username", "date", "version"}
