"""What is written down of a request is the request, whatever it asks for."""

from __future__ import annotations

import pytest

from capsule.comms import CommRequest
from capsule.node.durable.records import fingerprint_of, pack_request, unpack_request
from capsule.node.execution import ExecuteRequest

REQUESTS = [
    ExecuteRequest("1"),
    ExecuteRequest("1", timeout=2.5, quiet=True, user_expressions={"a": "b"}, payloads=True),
    ExecuteRequest("", comm=CommRequest("open", "c1", {"n": [1, None]}, "target", {"m": 1})),
    ExecuteRequest("", comm=CommRequest("message", "c1", {"n": [1, None]}, buffers=(b"raw", b""))),
    ExecuteRequest("", comm=CommRequest("message", "c1", {"n": [1, None]}, buffers=(b"ra", b"w"))),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_a_request_is_read_as_it_was_written(request_: ExecuteRequest) -> None:
    assert unpack_request(pack_request(request_)) == request_


def test_different_requests_have_different_fingerprints() -> None:
    assert len({fingerprint_of(request) for request in REQUESTS}) == len(REQUESTS)


def test_who_asked_is_written_down_and_makes_no_other_request_of_it() -> None:
    request = ExecuteRequest("1")
    of_bob = ExecuteRequest("1", submitter="bob")
    assert unpack_request(pack_request(of_bob)).submitter == "bob"
    assert of_bob == request
    assert fingerprint_of(of_bob) == fingerprint_of(request)
