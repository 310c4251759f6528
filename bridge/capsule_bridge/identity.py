"""Who a promise is and what it was asked for: ids and fingerprints."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from msgpack import packb

if TYPE_CHECKING:
    from collections.abc import Mapping

FINGERPRINT_BYTES = 16
_NESTING = (dict, list, tuple)


def promise_id(execution: str, child: Literal["input"] | None = None, number: int = 0) -> str:
    """`exec:{execution}`, and of its children `exec:{execution}:{child}:{n}`."""
    return f"exec:{execution}" if child is None else f"exec:{execution}:{child}:{number}"


def call_promise(owner: str, child: Literal["cap", "approval"], epoch: int, number: int) -> str:
    """`exec:{owner}:{child}:{epoch}:{n}`, of a call for an execution, or for a session without one.

    A worker counts its calls by itself and names their executions. The epoch, which is the node's word, keeps what was
    answered or approved for one worker of a session from the next one.
    """
    return f"exec:{owner}:{child}:{epoch}:{number}"


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
        return {key: _ordered(each) if isinstance(each := value[key], _NESTING) else each for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_ordered(each) for each in value]
    return value
