"""Events of user code: whose they are, their place among the output, and who may send them."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from capsule_kernels.attribution import OWNER
from capsule_kernels.publisher import REMEMBERED, Publisher
from capsule_protocol.errors import LocalProtocolError
from capsule_protocol.marks import FENCE, MESSAGE, Mark
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Linked


def started(serial: int = 1, **limits: Any) -> tuple[Linked, Publisher]:
    rig = Linked(**limits)
    publisher = Publisher(rig.link, rig.outlet)
    publisher.session = "s_1"
    publisher.begin(serial, f"x_{serial}")
    rig.outlet.begin(serial)
    rig.link.start({})
    return rig, publisher


@alone
def test_an_event_of_nobody_is_the_running_executions() -> None:
    rig, publisher = started()
    publisher.publish("display", {"data": {}})
    message = rig.message(rig.shell)
    assert (message.type, message.session, message.execution) == ("display", "s_1", "x_1")


@alone
def test_a_late_event_is_its_own_executions() -> None:
    rig, publisher = started()
    publisher.begin(2, "x_2")
    OWNER.set(1)
    publisher.publish("display", {"data": {}})
    assert rig.message(rig.shell).execution == "x_1"


@alone
def test_events_of_executions_long_past_are_the_sessions() -> None:
    rig, publisher = started()
    for serial in range(2, REMEMBERED + 2):
        publisher.begin(serial, f"x_{serial}")
    for serial, execution in ((1, ""), (2, "x_2"), (REMEMBERED + 1, f"x_{REMEMBERED + 1}")):
        OWNER.set(serial)
        publisher.publish("progress", {}, fenced=False)
        assert rig.message(rig.shell).execution == execution


@alone
def test_a_fenced_event_has_the_number_of_its_marks() -> None:
    rig, publisher = started()
    for number in (1, 2, 3):
        publisher.publish("display", {"data": {}})
        assert rig.message(rig.shell).body["fence"] == number
        for stream in (0, 1):
            assert rig.marks(stream) == [Mark(1, number, FENCE | MESSAGE)]


@alone
def test_an_event_without_a_fence_has_no_mark() -> None:
    rig, publisher = started()
    publisher.publish("progress", {"current": 1.0}, fenced=False)
    assert rig.message(rig.shell).body == {"current": 1.0}
    assert not rig.marks(0)


@alone
def test_what_cannot_be_sent_is_an_error_of_the_caller_and_announces_nothing() -> None:
    rig, publisher = started(message_bytes=10_000)
    for data in ({"text": "x" * 20_000}, {5: "no text key"}, {"object": object()}):
        with pytest.raises(LocalProtocolError):
            publisher.publish("display", {"data": data})
    assert not rig.marks(0)
    publisher.publish("display", {"data": {}})
    assert rig.message(rig.shell).body["fence"] == 1


@alone
def test_an_event_of_another_thread_goes_over_control_and_keeps_its_fence() -> None:
    rig, publisher = started()
    thread = threading.Thread(target=publisher.publish, args=("display", {"data": {}}))
    thread.start()
    thread.join()
    message = rig.message(rig.control)
    assert (message.type, message.body["fence"]) == ("display", 1)
    assert not rig.shell.poll(0)


@alone
def test_a_fork_sends_nothing() -> None:
    rig, publisher = started()
    pid = os.fork()
    if pid == 0:
        publisher.publish("display", {"data": {}})
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert not rig.shell.poll(0)
    assert not rig.marks(0)


@alone
def test_fences_of_many_threads_are_each_given_once() -> None:
    rig, publisher = started()

    def work() -> None:
        for _ in range(50):
            publisher.publish("display", {"data": {}})

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fences = [rig.message(rig.control).body["fence"] for _ in range(200)]
    assert sorted(fences) == list(range(1, 201))
    for stream in (0, 1):
        assert [mark.fence for mark in rig.marks(stream)] == list(range(1, 201))
