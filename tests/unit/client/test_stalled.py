"""Transfers on which the node says nothing more, and what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from capsule.client.remote import streams
from capsule.client.remote.streams import RemoteDownload, RemoteUpload, Streams
from capsule_protocol.errors import CapsuleError

if TYPE_CHECKING:
    from capsule_protocol.envelope import Buffer

pytestmark = pytest.mark.anyio


class Silence:
    """A connection on which nobody answers."""

    def say(self, kind: str, body: dict[str, Any], session: str, buffers: tuple[Buffer, ...] = ()) -> None: ...

    def credit(self, stream: str) -> int:  # noqa: ARG002 (the interface)
        return 0


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STALL_TIMEOUT", 0.01)


async def test_what_is_not_whole_may_be_sent_or_asked_for_again() -> None:
    upload = RemoteUpload(Streams(Silence()), "s_1", "data")
    await upload.begin(0)
    with pytest.raises(CapsuleError) as stalled:
        await upload.write([b"x"])
    assert (stalled.value.code, stalled.value.retryable) == ("request_timeout", True)
    with pytest.raises(CapsuleError) as stalled:
        await RemoteDownload(Streams(Silence()), "s_1").read()
    assert (stalled.value.code, stalled.value.retryable) == ("request_timeout", True)


async def test_what_was_sent_as_a_whole_may_be_in_its_place() -> None:
    upload = RemoteUpload(Streams(Silence()), "s_1", "data")
    await upload.begin(0)
    with pytest.raises(CapsuleError, match="whether the file is in its place is not known") as stalled:
        await upload.finish("digest")
    assert (stalled.value.code, stalled.value.retryable) == ("request_timeout", False)
