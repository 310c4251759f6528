"""Who a promise is and what it was asked for: ids and fingerprints."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from msgpack import packb

if TYPE_CHECKING:
    from collections.abc import Mapping

Child = Literal["input", "cap"]

FINGERPRINT_BYTES = 16


def promise_id(execution: str, child: Child | None = None, number: int = 0) -> str:
    """`exec:{execution}`, `exec:{execution}:input:{n}` or `exec:{execution}:cap:{n}`: the only place that makes ids."""
    return f"exec:{execution}" if child is None else f"exec:{execution}:{child}:{number}"


def execution_promise(id_: str) -> str:
    """The promise of the execution that a promise belongs to: itself, or its parent's."""
    return ":".join(id_.split(":", 2)[:2])


def session_promise(session: str) -> str:
    """`session:{session}`: the promise that a session is there, which is settled when it is closed."""
    return f"session:{session}"


def fingerprint(kind: str, code: str, options: Mapping[str, object]) -> bytes:
    """What tells a repeated request from another one with the same key.

    `options` are those that change what the code does, not such as tell where its answer goes. The order of a map's
    keys does not matter; lone surrogates in the code are kept apart.
    """
    packed = packb([kind, code, _ordered(options)], use_bin_type=True, unicode_errors="surrogatepass")
    return blake2b(packed, digest_size=FINGERPRINT_BYTES).digest()


def _ordered(value: object) -> object:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_ordered(each) for each in value]
    return value
