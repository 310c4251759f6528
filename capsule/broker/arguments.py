"""What a call is given beside its body: how much that may be, and how much it is.

To look at arguments without end would hold up all sessions; so they are weighed before anything else looks at them,
and what weighs too much is not kept.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from msgpack import packb

from capsule_protocol.codec import check_structure
from capsule_protocol.errors import CapabilityFailed, LocalProtocolError
from capsule_protocol.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES = 2**20
"""Of the arguments of a call, packed. Whatever is larger travels as its body."""
STRUCTURE = Limits(items=2**16)
"""Some ten thousand texts or numbers."""

_TEXTS, _CONTAINERS = (str, bytes), (dict, list, tuple)


class Weight(NamedTuple):
    """Bytes of arguments, of which some are not counted where they are too many; and why they are."""

    size: int
    excess: CapabilityFailed | None = None


NOTHING = Weight(0)


def weigh(capability: str, positional: list[Any], arguments: dict[str, Any]) -> Weight:
    """How much a call is given."""
    if not positional and not arguments:
        return NOTHING
    try:
        check_structure({"positional": positional, "arguments": arguments}, STRUCTURE, LocalProtocolError)
    except LocalProtocolError as error:
        message = f"the arguments of {capability} are too many: {error.message}"
        return Weight(0, CapabilityFailed("capability_too_large", message, details=error.details))
    # There are at most as many characters as bytes, and to count them nothing is packed.
    size = _characters([*positional, *arguments, *arguments.values()])
    if size <= MAX_BYTES:
        size = packed_size((positional, arguments))
    if size <= MAX_BYTES:
        return Weight(size)
    message = f"the arguments of {capability} have more than {MAX_BYTES} bytes; only a body may be larger"
    return Weight(size, CapabilityFailed("capability_too_large", message, details={"allowed": MAX_BYTES}))


def packed_size(value: object) -> int:
    """Its bytes in a message; 0 if it fits into none, which whoever sends it is told."""
    try:
        return len(packb(value, unicode_errors="surrogatepass"))
    except (TypeError, ValueError, OverflowError):
        return 0


def _characters(level: list[Any]) -> int:
    size = 0
    while level:
        size += sum([len(each) for each in level if isinstance(each, _TEXTS)])
        level = [*chain.from_iterable(map(_within, [each for each in level if isinstance(each, _CONTAINERS)]))]
    return size


def _within(container: Any) -> Iterable[Any]:
    return chain(container, container.values()) if isinstance(container, dict) else container
