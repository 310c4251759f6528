from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsule_protocol.codec import encode
from capsule_protocol.connection import Connection, Received
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import CODES, LocalProtocolError, RemoteProtocolError
from capsule_protocol.examples import EXAMPLES
from capsule_protocol.framing import NEED_DATA
from capsule_protocol.limits import DEFAULT_LIMITS, Limits
from capsule_protocol.messages import Message, parse
from capsule_protocol.messages.execution import Cancel, Error, Execute, Gap, Output, Result, Resume, Watching
from capsule_protocol.messages.link import Ack, Hello, Ready, Shutdown, Welcome
from capsule_protocol.messages.session import Open, Status
from capsule_protocol.messages.streams import StreamClose, StreamCredit, StreamData, StreamOpen

quick = settings.get_profile("protocol")
X = "x_1"


def carry(sender: Connection, receiver: Connection, message: Message, **header: object) -> Received:
    """Send a message from one end to the other and take it out there."""
    receiver.receive(sender.send(message, **header))  # type: ignore[arg-type]  # the header's fields by name
    event = receiver.next_event()
    assert event is not NEED_DATA
    assert receiver.next_event() is NEED_DATA
    assert event.message == message
    return event


def client_link(
    client_limits: Limits = DEFAULT_LIMITS, node_limits: Limits = DEFAULT_LIMITS
) -> tuple[Connection, Connection]:
    client = Connection("client", "client", features=frozenset({"a", "b"}), limits=client_limits)
    node = Connection("client", "node", features=frozenset({"b"}), limits=node_limits)
    carry(client, node, client.hello())
    carry(node, client, node.welcome(epoch=4))
    return client, node


def worker_link() -> tuple[Connection, Connection]:
    node, worker = Connection("worker", "node"), Connection("worker", "worker")
    carry(node, worker, node.hello())
    carry(worker, node, worker.welcome())
    carry(node, worker, Open())
    carry(worker, node, Ready())
    return node, worker


def test_the_greeting_brings_both_ends_to_the_same_agreement() -> None:
    client, node = client_link(Limits(message_bytes=5000), Limits(message_bytes=3000))
    assert client.agreement is not None
    assert node.agreement is not None
    assert client.agreement.features == node.agreement.features == {"b"}
    assert client.limits == node.limits == Limits(message_bytes=3000)
    assert client.agreement.epoch == 4
    assert client.state == node.state == "active"


def test_an_execution_from_request_to_verdict() -> None:
    client, node = client_link()
    carry(client, node, Execute(code="1"), execution=X)
    assert carry(node, client, Ack(), execution=X).envelope.sequence == 0
    events = [Status(state="busy"), Output(stream="stdout", text="a"), Result()]
    assert [carry(node, client, event, execution=X).envelope.sequence for event in events] == [1, 2, 3]
    assert len(client.executions) == len(node.executions) == 0
    with pytest.raises(LocalProtocolError, match="not under way"):
        node.send(Error(code="execution_error", verdict="error"), execution=X)


def numbered_ack(node: Connection, client: Connection, number: int) -> None:
    """An acknowledgement that tells of the start as well."""
    client.receive(node.transmit(Envelope("ack", {}, execution=X, sequence=number)))
    client.next_event()


def test_a_numbered_acknowledgement_is_the_first_event_as_well() -> None:
    client, node = client_link()
    carry(client, node, Execute(code="1"), execution=X)
    numbered_ack(node, client, 1)
    assert carry(node, client, Result(), execution=X).envelope.sequence == 2
    assert len(client.executions) == len(node.executions) == 0


def test_an_acknowledgement_has_no_other_number() -> None:
    client, node = client_link()
    carry(client, node, Execute(code="1"), execution=X)
    with pytest.raises(RemoteProtocolError, match="event 2 came where 1 was due"):
        numbered_ack(node, client, 2)


def test_an_execution_is_resumed_on_a_new_link_behind_a_number() -> None:
    client, node = client_link()
    carry(client, node, Resume(after=3), execution=X)
    carry(node, client, Ack(), execution=X)
    events = [Gap(missing=2), Output(stream="stdout", text="a"), Result()]
    assert [carry(node, client, event, execution=X).envelope.sequence for event in events] == [5, 6, 7]
    assert len(client.executions) == len(node.executions) == 0


def test_what_cannot_be_resumed_is_refused() -> None:
    client, node = client_link()
    carry(client, node, Resume(after=3), execution=X)
    assert carry(node, client, Error(code="execution_unknown"), execution=X).envelope.sequence == 4
    carry(client, node, Execute(code="1"), execution=X)


def test_an_execution_cannot_be_resumed_while_it_is_under_way_on_the_same_link() -> None:
    client, node = client_link()
    carry(client, node, Execute(code="1"), execution=X)
    with pytest.raises(LocalProtocolError, match="under way on this link"):
        client.send(Resume(after=0), execution=X)


def test_an_execution_is_watched_from_its_first_number_and_as_often_as_it_is_announced() -> None:
    client, node = client_link()
    for _ in range(2):
        carry(node, client, Watching(), execution=X)
        events = [Gap(missing=2), Output(stream="stdout", text="a")]
        assert [carry(node, client, event, execution=X).envelope.sequence for event in events] == [2, 3]
    assert carry(node, client, Result(), execution=X).envelope.sequence == 4
    assert len(client.executions) == len(node.executions) == 0
    with pytest.raises(LocalProtocolError, match="no execution"):
        node.send(Watching())
    with pytest.raises(LocalProtocolError, match="not for this end"):
        client.send(Watching(), execution=X)


def test_who_watched_an_execution_may_ask_for_it_but_not_the_other_way_round() -> None:
    client, node = client_link()
    carry(node, client, Watching(), execution=X)
    carry(client, node, Resume(after=0), execution=X)
    with pytest.raises(LocalProtocolError, match="asked for here"):
        node.send(Watching(), execution=X)


def test_executions_are_numbered_apart() -> None:
    client, node = client_link()
    for name in ("x_1", "x_2"):
        carry(client, node, Execute(code="1"), execution=name)
        carry(node, client, Ack(), execution=name)
        assert carry(node, client, Status(state="busy"), execution=name).envelope.sequence == 1
    assert carry(node, client, Result(), execution="x_2").envelope.sequence == 2
    assert carry(node, client, Output(stream="stdout", text=""), execution="x_1").envelope.sequence == 2


def test_background_output_is_in_no_stream_and_may_come_at_any_time() -> None:
    client, node = client_link()
    late = Output(stream="stdout", text="late")
    assert carry(node, client, late, execution=X).envelope.sequence == 0
    carry(client, node, Execute(code="1"), execution=X)
    assert carry(node, client, late, execution=X, background=True).envelope.sequence == 0
    carry(node, client, Error(code="execution_cancelled", verdict="interrupted"), execution=X)


@pytest.mark.parametrize(
    ("sequence", "code"), [(3, "sequence_gap"), (1, "sequence_gap"), (2, None), (0, "sequence_gap")]
)
def test_a_gap_in_the_events_fails_the_link(sequence: int, code: str | None) -> None:
    client, node = client_link()
    carry(client, node, Execute(code="1"), execution=X)
    carry(node, client, Ack(), execution=X)
    carry(node, client, Status(state="busy"), execution=X)
    client.receive(encode(Result().envelope(execution=X, sequence=sequence)))
    if code is None:
        client.next_event()
        return
    for _ in range(2):
        with pytest.raises(RemoteProtocolError) as caught:
            client.next_event()
        assert caught.value.code == code
    assert client.failed is not None


def test_the_worker_link_numbers_executions_and_not_their_events() -> None:
    node, worker = worker_link()
    assert carry(node, worker, Execute(code="1"), execution="x_1").envelope.sequence == 1
    assert carry(node, worker, Execute(code="2"), execution="x_2").envelope.sequence == 2
    assert carry(worker, node, Result(), execution="x_1").envelope.sequence == 0
    carry(worker, node, Output(stream="stdout", text="late"), execution="x_1")
    worker.receive(encode(Execute(code="3").envelope(execution="x_3", sequence=2)))
    with pytest.raises(RemoteProtocolError, match="execution 2 came where 3 was due"):
        worker.next_event()


def test_a_worker_that_forges_a_verdict_fails_its_link() -> None:
    node, worker = worker_link()
    node.receive(encode(Result().envelope(execution="x_of_another")))
    with pytest.raises(RemoteProtocolError, match="not under way"):
        node.next_event()
    assert node.failed is not None
    assert worker.failed is None


@pytest.mark.parametrize(
    "frames",
    [
        [b"garbage"],
        encode(Envelope("frobnicate", {})),
        encode(Envelope("execute", {})),
        encode(Envelope("execute", {"code": "x" * 10_000})),
    ],
    ids=["garbage", "unknown type", "invalid", "too large"],
)
def test_a_message_that_cannot_be_read_leaves_the_link_usable(frames: list[bytes]) -> None:
    client, node = client_link(Limits(message_bytes=5000))
    node.receive(frames)
    with pytest.raises(RemoteProtocolError):
        node.next_event()
    assert node.failed is None
    carry(client, node, Execute(code="1"), execution=X)


def test_a_message_over_the_agreed_limit_is_not_sent_and_leaves_the_link_usable() -> None:
    client, node = client_link(node_limits=Limits(message_bytes=5000))
    with pytest.raises(LocalProtocolError, match="message_bytes=5000"):
        client.send(Execute(code="x" * 6000), execution=X)
    assert len(client.executions) == 0
    carry(client, node, Execute(code="1"), execution=X)


def test_a_peer_of_another_version_gets_an_answer() -> None:
    client, node = Connection("client", "client"), Connection("client", "node")
    node.receive(client.send(Hello(versions=["7.0"], role="client")))
    with pytest.raises(RemoteProtocolError) as caught:
        node.next_event()
    assert caught.value.code == "version_mismatch"
    event = carry(node, client, Error.answer(caught.value))
    assert event.message.envelope().body["details"] == {"versions": ["1.0"]}
    assert client.state == node.state == "closed"


def test_a_welcome_that_was_not_offered_fails_the_link() -> None:
    client, node = Connection("client", "client"), Connection("client", "node")
    carry(client, node, client.hello())
    client.receive(node.send(Welcome(version="1.0", features=["never offered"])))
    with pytest.raises(RemoteProtocolError, match="never offered"):
        client.next_event()
    assert client.failed is not None


def test_nothing_is_sent_before_the_greeting_or_by_the_wrong_end() -> None:
    client, node = Connection("client", "client"), Connection("client", "node")
    with pytest.raises(LocalProtocolError, match="while the client link is new"):
        client.send(Execute(code="1"), execution=X)
    with pytest.raises(LocalProtocolError, match="not for this end"):
        node.send(node_hello())
    with pytest.raises(LocalProtocolError, match="no agreement"):
        node.welcome()
    with pytest.raises(LocalProtocolError, match="no role"):
        Connection("client", "worker")


def node_hello() -> Hello:
    return Hello(versions=["1.0"], role="node")


def test_a_request_that_crosses_a_shutdown_is_answered() -> None:
    client, node = client_link()
    goodbye = node.send(Shutdown())
    carry(client, node, Execute(code="1"), execution=X)
    client.receive(goodbye)
    assert isinstance(client.next_event(), Received)
    carry(node, client, Error(code="node_closed"), execution=X)
    carry(client, node, Shutdown())
    assert client.state == node.state == "closed"
    with pytest.raises(LocalProtocolError, match="allowed: nothing"):
        client.send(Cancel(execution=X))


def test_a_stream_is_written_against_credit() -> None:
    client, node = client_link()
    carry(client, node, StreamOpen(stream="t"))
    data = StreamData(stream="t")
    with pytest.raises(LocalProtocolError, match="credit of 0"):
        client.send(data, buffers=(b"x",))
    carry(node, client, StreamCredit(stream="t", size=10))
    carry(client, node, data, buffers=(b"x" * 4, memoryview(b"y" * 3)))
    assert client.streams.credit("t") == node.streams.credit("t") == 3
    with pytest.raises(LocalProtocolError, match="4 bytes of stream data against a credit of 3"):
        client.send(data, buffers=(b"x" * 4,))
    node.receive(encode(data.envelope(buffers=(b"x" * 4,))))
    with pytest.raises(RemoteProtocolError) as caught:
        node.next_event()
    assert caught.value.code == "credit_exceeded"


def test_a_stream_ends_when_both_ends_have_closed_it() -> None:
    client, node = client_link()
    carry(client, node, StreamOpen(stream="t"))
    carry(node, client, StreamCredit(stream="t", size=10))
    crossing = client.send(StreamData(stream="t"), buffers=(b"x",))
    closing = node.send(StreamClose(stream="t"))
    node.receive(crossing)
    node.next_event()
    client.receive(closing)
    client.next_event()
    with pytest.raises(LocalProtocolError, match="once"):
        node.send(StreamClose(stream="t"))
    carry(client, node, StreamClose(stream="t"))
    assert len(client.streams) == len(node.streams) == 0
    carry(client, node, StreamOpen(stream="t"))


def test_only_the_reader_gives_credit_and_only_the_writer_writes() -> None:
    client, node = client_link()
    carry(client, node, StreamOpen(stream="t"))
    with pytest.raises(LocalProtocolError, match="itself credit"):
        client.send(StreamCredit(stream="t", size=1))
    with pytest.raises(LocalProtocolError, match="only the writer"):
        node.send(StreamData(stream="t"), buffers=(b"",))
    with pytest.raises(LocalProtocolError, match="not open"):
        node.send(StreamClose(stream="u"))
    with pytest.raises(LocalProtocolError, match="open already"):
        node.send(StreamOpen(stream="t"))


def test_open_streams_are_bounded() -> None:
    client, node = client_link(Limits(streams=2))
    for name in ("a", "b"):
        carry(client, node, StreamOpen(stream=name))
    with pytest.raises(LocalProtocolError, match="streams=2"):
        client.send(StreamOpen(stream="c"))
    client.receive(node.send(StreamOpen(stream="c")))
    with pytest.raises(RemoteProtocolError, match="streams=2"):
        client.next_event()


addressed = st.sampled_from([envelope for _, envelope in EXAMPLES])
messages = st.tuples(addressed, st.sampled_from(["", "x_1", "x_2"]), st.integers(0, 4))


@settings(quick)
@given(st.booleans(), st.lists(messages | st.lists(st.binary(max_size=9), max_size=3), max_size=25))
def test_whatever_a_peer_sends_raises_a_remote_error_only(at_client: bool, sent: list[object]) -> None:
    client, node = client_link()
    victim = client if at_client else node
    for item in sent:
        if isinstance(item, tuple):
            envelope, execution, sequence = item
            victim.receive(encode(envelope._replace(execution=execution, sequence=sequence)))
        else:
            victim.receive(item)  # type: ignore[arg-type]  # frames
        code = "invalid_message"
        try:
            victim.next_event()
        except RemoteProtocolError as error:
            code = error.code
        assert code in CODES


@settings(quick)
@given(st.lists(st.tuples(st.booleans(), addressed, st.sampled_from(["", "x_1", "x_2"])), max_size=40))
def test_what_one_end_may_send_the_other_end_accepts(steps: list[tuple[bool, Envelope, str]]) -> None:
    client, node = client_link()
    for from_client, envelope, execution in steps:
        sender, receiver = (client, node) if from_client else (node, client)
        try:
            frames = sender.send(parse(envelope), execution=execution, buffers=envelope.buffers)
        except LocalProtocolError:
            continue
        receiver.receive(frames)
        event = receiver.next_event()
        assert event is not NEED_DATA
        assert event.message == parse(envelope)
        assert client.state == node.state
        assert len(client.executions) == len(node.executions)
        assert len(client.streams) == len(node.streams)
