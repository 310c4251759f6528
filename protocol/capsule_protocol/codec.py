"""The codec: an envelope to frames and back.

A message is a header frame, a body frame and any number of raw buffers. Header: a msgpack array of the major version,
type, id, session, execution, sequence, time and, if it is told, epoch; items behind these belong to later versions and
are ignored. Body: a msgpack map with text keys. Nothing here keeps state, so any thread may call it.
"""

from __future__ import annotations

from itertools import chain
from operator import methodcaller
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

from msgpack import Packer, UnpackException, unpackb

from capsule_protocol.envelope import Buffer, Envelope, Frames
from capsule_protocol.errors import LocalProtocolError, RemoteProtocolError
from capsule_protocol.limits import DEFAULT_LIMITS, STRUCTURE, Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

Side: TypeAlias = type[LocalProtocolError | RemoteProtocolError]
"""Whose fault it is: the sender checks with one, the receiver with the other."""

MAJOR = 1
"""The version of the header's layout, its first item for ever."""

_HEADER_ITEMS = 7
_SCALARS = frozenset({str, int, float, bool, bytes, type(None)})
_CONTAINERS = (dict, list, tuple)
_TEXT = frozenset({str})
_FEW = 64
"""Maps and arrays of one level that are looked at one by one, which for few is quicker."""
_values = methodcaller("values")
_LARGE = 2**18
"""From this size on a body is counted while it is unpacked: a byte can become an object of 64."""


def encode(envelope: Envelope, limits: Limits = DEFAULT_LIMITS) -> Frames:
    """The frames of a message: header, body, buffers. The buffers are not copied.

    Raises LocalProtocolError: `message_too_large` names the limit that is exceeded; `invalid_message` a value that
    msgpack cannot carry. Text that UTF-8 cannot carry (lone surrogates) is sent with backslash escapes.
    """
    kind, content, id_, session, execution, sequence, time, buffers, epoch = envelope
    fields = (MAJOR, kind, id_, session, execution, sequence, time)
    header = _pack((*fields, epoch) if epoch else fields)
    check_structure(content, limits, LocalProtocolError)
    body = _pack(content)
    size = len(header) + len(body)
    if not buffers:
        if size > limits.message_bytes or len(header) > limits.header_bytes:
            _check_sizes(LocalProtocolError, [header, body], size, limits)
        return [header, body]
    flat = [_as_bytes(buffer) for buffer in buffers]
    frames: Frames = [header, body, *flat]
    _check_sizes(LocalProtocolError, frames, size + sum(map(len, flat)), limits)
    return frames


def decode(frames: Sequence[Any], limits: Limits = DEFAULT_LIMITS) -> Envelope:
    """The envelope that these frames carry; a frame is anything with the buffer protocol.

    Buffers come back as `bytes` when they came so, else as a view of the frame. Raises RemoteProtocolError and nothing
    else, whatever the frames hold.
    """
    count = len(frames)
    if count < 2:
        _refuse(f"a message has at least 2 frames, not {count}")
    size = sum(map(len, frames))
    if size > limits.message_bytes or len(frames[0]) > limits.header_bytes or count - 2 > limits.buffers:
        _check_sizes(RemoteProtocolError, frames, size, limits)
    kind, id_, session, execution, sequence, time, epoch = _header(frames[0])
    body = _unpack(frames[1], "body") if len(frames[1]) < _LARGE else _unpack_large(frames[1], limits.items)
    if type(body) is not dict:
        _refuse("the body is not a map")
    check_structure(body, limits, RemoteProtocolError)
    buffers = () if count == 2 else tuple(f if type(f) is bytes else memoryview(f) for f in frames[2:])
    return Envelope._make((kind, body, id_, session, execution, sequence, time, buffers, epoch))


def _header(frame: Buffer) -> list[Any]:
    """The items of a header behind the version, of the right types."""
    header = _unpack(frame, "header")
    if type(header) is not list or len(header) < _HEADER_ITEMS:
        _refuse(f"the header is not an array of at least {_HEADER_ITEMS} items")
    if header[0] != MAJOR or type(header[0]) is not int:
        raise RemoteProtocolError(
            "version_mismatch",
            f"the peer speaks major version {str(header[0])[:20]}, this end {MAJOR}",
            details={"versions": [f"{MAJOR}.0"]},
        )
    fields: list[Any] = header[1 : _HEADER_ITEMS + 1] if len(header) > _HEADER_ITEMS else [*header[1:], 0]
    kind, id_, session, execution, sequence, time, epoch = fields
    if not (type(kind) is type(id_) is type(session) is type(execution) is str and kind):
        _refuse("type, id, session and execution in the header are not text, or the type is empty")
    if type(sequence) is not int or sequence < 0 or (type(time) is not float and type(time) is not int):
        _refuse("the header's sequence is not a natural number, or its time is not a number")
    if type(epoch) is not int or epoch < 0:
        _refuse("the header's epoch is not a natural number")
    return fields


def _pack(value: object) -> bytes:
    # A packer of one's own costs 0.05 µs more than a shared one and can be neither raced for nor left full of 64 MiB.
    try:
        return Packer(buf_size=1024).pack(value)  # type: ignore[call-arg]  # the stubs do not know it
    except UnicodeEncodeError:
        return Packer(unicode_errors="backslashreplace").pack(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError("invalid_message", f"msgpack cannot carry this message: {error}") from error


def _unpack(frame: Buffer, part: str) -> Any:
    try:
        return unpackb(frame, ext_hook=_no_extension, max_ext_len=0)
    except (ValueError, UnpackException) as error:
        raise _not_msgpack(part, error) from error


def _no_extension(code: int, _data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} is not allowed")


def _unpack_large(frame: Buffer, items: int) -> Any:
    """As `_unpack`, but stop as soon as there are more items than allowed, not when all of them lie in memory."""
    count = 0

    def add_list(container: list[Any]) -> list[Any]:
        nonlocal count
        count += len(container) + STRUCTURE
        if count > items:
            raise _over(RemoteProtocolError, "items", items, count)
        return container

    def add_map(container: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        count += (len(container) + 1) * STRUCTURE
        if count > items:
            raise _over(RemoteProtocolError, "items", items, count)
        return container

    bounds: dict[str, Any] = {"max_ext_len": 0, "max_array_len": items, "max_map_len": items // STRUCTURE}
    try:
        return unpackb(frame, ext_hook=_no_extension, list_hook=add_list, object_hook=add_map, **bounds)
    except (ValueError, UnpackException) as error:
        raise _not_msgpack("body", error) from error


def _not_msgpack(part: str, error: Exception) -> RemoteProtocolError:
    reason = str(error)[:200] or type(error).__name__
    return RemoteProtocolError("invalid_message", f"the {part} is not valid msgpack: {reason}")


def check_structure(body: dict[str, Any], limits: Limits, error: Side) -> None:
    """Refuse what is nested too deep (its reader may recurse) or has too many items.

    The keys of a map must be text, or it would not survive as JSON.
    """
    count = STRUCTURE * (len(body) + 1)
    level = _containers(body, error)
    depth = 1
    while level and depth < limits.depth and count <= limits.items:
        if len(level) > _FEW:
            _check_many(level, _Counted(depth, count), limits, error)
            return
        depth += 1
        count += sum(map(_weight, level))
        level = [item for container in level if container for item in _containers(container, error)]
    if level or count > limits.items:
        _check_counted(_Counted(depth + bool(level), count), limits, error)


class _Counted(NamedTuple):
    """How deep a body has been looked at, and what it held so far."""

    depth: int
    items: int


def _check_many(level: list[Any], counted: _Counted, limits: Limits, error: Side) -> None:
    """The same from some level on, for bodies that have much in them: in a few passes of C for each level.

    What a peer may send without a pause for others is bounded by what this costs.
    """
    maps = [item for item in level if isinstance(item, dict)]
    lists = [item for item in level if not isinstance(item, dict)]
    depth, count = counted
    while maps or lists:
        depth += 1
        if maps and not _TEXT.issuperset(map(type, chain.from_iterable(maps))):
            _check_keys(maps, error)
        count += STRUCTURE * (sum(map(len, maps)) + len(maps) + len(lists)) + sum(map(len, lists))
        _check_counted(_Counted(depth, count), limits, error)
        maps, lists = _inner(maps, lists)


def _check_counted(counted: _Counted, limits: Limits, error: Side) -> None:
    if counted.items > limits.items:
        raise _over(error, "items", limits.items, counted.items)
    if counted.depth > limits.depth:
        raise _over(error, "depth", limits.depth, limits.depth + 1)


def _weight(container: Any) -> int:
    return STRUCTURE * (len(container) + 1) if isinstance(container, dict) else len(container) + STRUCTURE


def _containers(container: Any, error: Side) -> list[Any]:
    """The maps and arrays directly inside one."""
    if isinstance(container, dict):
        try:
            "".join(container)  # the quickest way to see that all keys are text
        except TypeError:
            raise _no_text(error) from None
        container = container.values()
    if _SCALARS.issuperset(map(type, container)):
        return []
    return [item for item in container if isinstance(item, _CONTAINERS)]


def _inner(maps: list[Any], lists: list[Any]) -> tuple[list[Any], list[Any]]:
    """The maps and the arrays directly inside of these."""
    level = [*chain.from_iterable(map(_values, maps)), *chain.from_iterable(lists)]
    kinds = set(map(type, level)) - _SCALARS
    if not kinds:
        return [], []
    dicts = {kind for kind in kinds if issubclass(kind, dict)}
    arrays = {kind for kind in kinds if issubclass(kind, list | tuple)}
    return (
        [item for item in level if type(item) in dicts] if dicts else [],
        [item for item in level if type(item) in arrays] if arrays else [],
    )


def _check_keys(maps: list[Any], error: Side) -> None:
    """Whether all are text, though some are of a kind of text."""
    if not all(isinstance(key, str) for key in chain.from_iterable(maps)):
        raise _no_text(error)


def _no_text(error: Side) -> LocalProtocolError | RemoteProtocolError:
    return error("invalid_message", "a map in the body has a key that is not text")


def _as_bytes(buffer: Buffer) -> Buffer:
    if type(buffer) is bytes:
        return buffer
    try:
        return memoryview(buffer).cast("B")
    except TypeError as error:
        raise LocalProtocolError("invalid_message", f"a buffer must be contiguous bytes: {error}") from error


def _check_sizes(error: Side, frames: Sequence[Any], size: int, limits: Limits) -> None:
    for name, actual in (("message_bytes", size), ("header_bytes", len(frames[0])), ("buffers", len(frames) - 2)):
        allowed: int = getattr(limits, name)
        if actual > allowed:
            raise _over(error, name, allowed, actual)


def _over(error: Side, name: str, allowed: int, actual: int) -> LocalProtocolError | RemoteProtocolError:
    return error(
        "message_too_large",
        f"a message is over the limit {name}={allowed}: it has {actual}",
        details={"limit": name, "allowed": allowed, "actual": actual},
    )


def _refuse(reason: str) -> NoReturn:
    raise RemoteProtocolError("invalid_message", reason)
