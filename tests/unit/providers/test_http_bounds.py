"""How much may come before the head of an answer is whole."""

from __future__ import annotations

from collections import deque

import httpcore
import pytest

from capsule.providers.http.transport import HEAD_LINES, Bounds

HEAD = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (HEAD_LINES - 2) + b"\r\n"


@pytest.mark.parametrize("size", range(6, 30))
@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"\r\n", b"\n")])
def test_lines_are_counted_up_to_the_end_of_the_head(head: bytes, size: int) -> None:
    bounds = Bounds(1, 1, 2**16)
    cut = len(head) - size + 5
    bounds.count(head[:cut])
    bounds.count(head[cut:] + b"\n" * HEAD_LINES)


@pytest.mark.parametrize("size", [1, 2, 7, 2**12])
def test_more_lines_are_refused(size: int) -> None:
    bounds = Bounds(1, 1, 2**16)
    head = HEAD.replace(b"\r\n\r\n", b"\r\nX: y\r\n\r\n")
    with pytest.raises(httpcore.RemoteProtocolError, match="more than 256"):
        deque(map(bounds.count, (head[start : start + size] for start in range(0, len(head), size))))


def test_bytes_are_counted_until_the_head_is_here() -> None:
    bounds = Bounds(1, 1, 5000)
    assert bounds.may_read() == 4096
    bounds.count(bytes(4096))
    assert bounds.may_read() == 904
    bounds.count(bytes(904))
    with pytest.raises(httpcore.RemoteProtocolError, match="larger than 5000 bytes"):
        bounds.may_read()
    bounds.head_is_here()
    assert bounds.may_read() == 2**16
