"""Jupyter's messages as they travel: JSON in frames, signed with the key of the kernel.

Done here and not by jupyter_client's `Session`, which takes as long for the messages of a short cell as the cell takes.
"""

from __future__ import annotations

import hmac
import json
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from jupyter_client.adapter import adapt
from jupyter_client.jsonutil import json_clean, json_default
from jupyter_client.session import DELIM

from capsule.jupyter.translate import PROTOCOL
from capsule_protocol.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Message = dict[str, Any]

REMEMBERED: Final = 2**16
"""Signatures that are not taken a second time; the oldest are forgotten."""
_PARTS: Final = 4
_NOTHING: Final = b"{}"
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=json_default).encode


class Header(dict[str, Any]):
    """That of a request: each message that belongs to it carries it, in this form."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.packed = _pack(self)


class Messages:
    """Makes the messages of one kernel, and reads those that are for it."""

    def __init__(self, key: bytes) -> None:
        self._signer = hmac.new(key, digestmod="sha256")
        self._session = new_id("k_")
        self._made = 0
        self._seen: set[bytes] = set()
        self._order: deque[bytes] = deque()

    def make(
        self, kind: str, content: Message, parent: Message, to: Sequence[bytes], metadata: Message | None = None
    ) -> list[bytes]:
        """The frames of a message, as far as its buffers."""
        parts = (
            self._header(kind),
            parent.packed if isinstance(parent, Header) else _pack(parent),
            _pack(metadata),
            _pack(content),
        )
        return [*to, DELIM, self._sign(parts), *parts]

    def read(self, frames: list[bytes]) -> tuple[list[bytes], Message]:
        """The identities of who sent it, and the message. Raises whatever the frames deserve."""
        end = frames.index(DELIM)
        signature, *parts = frames[end + 1 : end + 2 + _PARTS]
        if len(parts) < _PARTS:
            raise ValueError(f"it has {len(parts)} of {_PARTS} parts")
        if not hmac.compare_digest(signature, self._sign(parts)):
            raise ValueError("its signature is wrong")
        self._remember(signature)
        header, parent, metadata, content = map(_unpack, parts)
        message = {
            "header": Header(header),
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": parent,
            "metadata": metadata,
            "content": content,
            "buffers": [memoryview(buffer) for buffer in frames[end + 2 + _PARTS :]],
        }
        adapted: Message = adapt(message)  # clients of earlier versions
        return frames[:end], adapted

    def _header(self, kind: str) -> bytes:
        self._made += 1
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        text = (
            f'{{"msg_id": "{self._session}_{self._made}", "msg_type": {_encode(kind)}, "username": "capsule", '
            f'"session": "{self._session}", "date": "{now}", "version": "{PROTOCOL}"}}'
        )
        return _utf8(text)

    def _sign(self, parts: Sequence[bytes]) -> bytes:
        signer = self._signer.copy()
        signer.update(b"".join(parts))
        return signer.hexdigest().encode()

    def _remember(self, signature: bytes) -> None:
        """Raises ValueError for one that has come before."""
        if signature in self._seen:
            raise ValueError("it has come before")
        self._seen.add(signature)
        self._order.append(signature)
        if len(self._order) > REMEMBERED:
            self._seen.discard(self._order.popleft())


def _pack(value: Message | None) -> bytes:
    if not value:
        return _NOTHING
    try:
        text = _encode(value)
    except (TypeError, ValueError):  # it has what JSON has not, such as NaN
        text = _encode(json_clean(value))
    return _utf8(text)


def _utf8(text: str) -> bytes:
    """Half a character, which UTF-8 does not have, becomes the escape that JSON has for it."""
    return text.encode("utf-8", "backslashreplace")


def _unpack(frame: bytes) -> Any:
    return {} if frame == _NOTHING else json.loads(frame.decode(errors="replace"))
