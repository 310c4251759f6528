"""What a peer can send in one message costs its reader a moment: while it reads, it answers nobody else."""

from __future__ import annotations

import gc
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from msgpack import packb

from capsule_protocol.codec import decode
from capsule_protocol.envelope import Envelope
from capsule_protocol.errors import RemoteProtocolError
from capsule_protocol.examples import EXAMPLES
from capsule_protocol.limits import DEFAULT_LIMITS
from capsule_protocol.messages import MESSAGES, parse

if TYPE_CHECKING:
    from collections.abc import Callable

ITEMS = DEFAULT_LIMITS.items - 200
"""With room for the rest of a body."""
MOST = 8
"""Times what it takes to make a map of 50,000 lists, 25 ms of a processor that is idle. That needs memory as the bodies
do, and neighbours make it as slow; a mere loop they do not.
"""


def nested(depth: int) -> list[Any]:
    return [] if depth == 1 else [nested(depth - 1)]


SHAPES: dict[str, Callable[[], Any]] = {
    "numbers": lambda: [0] * ITEMS,
    "texts": lambda: [""] * ITEMS,
    "empty lists": lambda: [[]] * (ITEMS // 5),
    "empty maps": lambda: [{}] * (ITEMS // 5),
    "maps of one": lambda: [{"a": 1}] * (ITEMS // 9),
    "nested lists": lambda: [nested(58)] * (ITEMS // 5 // 58),
    "a map of numbers": lambda: {str(number): 0 for number in range(ITEMS // 4)},
    "a map of maps": lambda: {str(number): {} for number in range(ITEMS // 8)},
}
_GATHERED = re.compile(r"list\[|dict\[|tuple\[")
BODIES = {envelope.type: envelope.body for _, envelope in EXAMPLES}


def least(call: Callable[[], object]) -> float:
    """Seconds of the processor that this thread takes for it, at best: what others do is not counted, and neither is
    what the collector has to look at that has nothing to do with it.
    """
    found = []
    gc.freeze()
    for _ in range(2):
        begun = time.thread_time()
        call()
        found.append(time.thread_time() - begun)
    gc.unfreeze()
    return min(found)


def make_a_map() -> None:
    _ = {str(number): [number] for number in range(50_000)}


def moment() -> float:
    """Seconds of the processor, as it is now."""
    return MOST * least(make_a_map)


def takes_at_most(call: Callable[[], object], moments: int) -> bool:
    """Both are measured side by side; a processor that others slow down for one of them only is asked again."""
    return any(least(call) < moments * moment() for _ in range(5))


def frames(kind: str, body: dict[str, Any]) -> list[bytes]:
    return [packb([1, kind, "m", "s", "x", 1, 0.0]), packb(body)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_body_at_the_limit_is_read_in_a_moment(shape: str) -> None:
    message = frames("display", {"data": {"x": SHAPES[shape]()}})
    assert takes_at_most(lambda: parse(decode(message)), 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_body_over_the_limit_is_refused_in_a_moment(shape: str) -> None:
    message = frames("display", {"data": {"x": [SHAPES[shape]()] * 8}})

    def refuse() -> None:
        with pytest.raises(RemoteProtocolError, match=r"items=|not valid msgpack"):
            decode(message)

    assert takes_at_most(refuse, 2)  # what came before it was seen may be as much as is allowed


def test_a_body_that_is_wrong_in_every_item_is_refused_in_a_moment() -> None:
    wrong = [SHAPES["numbers"](), SHAPES["empty maps"](), SHAPES["a map of numbers"]()]
    for kind, message in MESSAGES.items():
        for field, about in message.model_fields.items():
            for value in wrong if _GATHERED.search(repr(about.annotation)) else []:
                body = BODIES[kind] | {field: value}
                assert takes_at_most(partial(parse_or_refuse, Envelope(kind, body)), 1), (kind, field)


def parse_or_refuse(envelope: Envelope) -> None:
    """It may be right too."""
    try:
        parse(envelope)
    except RemoteProtocolError as error:
        assert len(str(error)) < 5000  # noqa: PT017


def test_what_honest_messages_hold_is_within_the_limit() -> None:
    """Two checkpoints' worth of names, and a table of 40,000 cells as records, as charts have them."""
    saved = [{"name": "n" * 20, "kind": "k", "bytes": 1, "shared": 0, "note": ""}] * 10_000
    left_out = [{"name": "n" * 20, "kind": "k", "why": "w"}] * 10_000
    decode(frames("checkpoint_reply", {"names": saved, "left_out": left_out}))
    decode(frames("display", {"data": {"chart": [{str(column): 1 for column in range(10)}] * 4000}}))
    decode(frames("display", {"data": {"chart": {"x": [0.5] * 250_000, "y": [0.5] * 250_000}}}))
