"""Messages are kept until they are confirmed, each under a number of its own, and not without bound."""

from __future__ import annotations

import threading

import pytest

from capsule_kernels import kept as module
from capsule_kernels.kept import UNSENT, Kept
from capsule_protocol import codec
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import LocalProtocolError
from capsule_protocol.limits import DEFAULT_LIMITS, Limits

DISPLAY = Envelope("display", {"data": {"text/plain": "x"}}, session="s_1", execution="x_1", buffers=(b"raw",))


def add(kept: Kept, link: int = UNSENT, envelope: Envelope = DISPLAY) -> int:
    return kept.add(envelope, DEFAULT_LIMITS, link).number


def test_a_message_is_what_it_was_with_its_number() -> None:
    entry = Kept().add(DISPLAY, DEFAULT_LIMITS, UNSENT)
    assert codec.decode(entry.frames) == DISPLAY._replace(sequence=1)


def test_numbers_have_no_gap_where_a_message_could_not_be_sent() -> None:
    kept, limits = Kept(), Limits(message_bytes=200)
    with pytest.raises(LocalProtocolError):
        kept.add(DISPLAY._replace(buffers=(bytes(1000),)), limits, UNSENT)
    assert kept.add(DISPLAY, limits, UNSENT).number == 1


def test_what_is_confirmed_is_not_sent_again() -> None:
    kept = Kept()
    assert [add(kept, link) for link in (1, UNSENT, 1, 2)] == [1, 2, 3, 4]
    assert [entry.number for entry in kept.unsent(1)] == [2, 4]
    kept.confirm(2)
    assert [entry.number for entry in kept.unsent(3)] == [3, 4]
    assert kept.last() == 4
    kept.confirm(9)
    assert (kept.unsent(3), kept.last()) == ([], 0)


@pytest.mark.parametrize("bound", ["MAX_KEPT", "MAX_KEPT_BYTES"])
def test_who_adds_more_than_is_kept_waits_until_it_is_confirmed(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(module, bound, {"MAX_KEPT": 2, "MAX_KEPT_BYTES": 150}[bound])
    kept = Kept()
    while not kept.is_over():
        last = add(kept)
    waiting = threading.Thread(target=kept.wait_for_room)
    waiting.start()
    kept.confirm(0)
    assert waiting.is_alive()
    while waiting.is_alive():  # it may not have begun to wait when the first of these comes
        kept.confirm(last)
        waiting.join(0.01)
    assert not kept.is_over()


def test_a_message_that_is_alone_is_never_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 1)
    kept = Kept()
    add(kept)
    assert not kept.is_over()
