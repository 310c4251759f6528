"""The objects of `capsule store export`, and the bytes in them."""

from __future__ import annotations

import base64
import math
from typing import Any

import msgpack

FORMAT = 1
"""The version of what is written; it changes when a reader of before would misunderstand it."""

Record = dict[str, Any]


def plain(data: bytes) -> Record:
    """The bytes as text that loses nothing."""
    return {"base64": base64.b64encode(data).decode("ascii")}


def decoded(data: bytes) -> Record:
    """What the bytes say, if they are one value of msgpack that JSON can hold without a change."""
    try:
        return {"msgpack": _jsonable(msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass"))}
    except (ValueError, TypeError, msgpack.UnpackException):
        return plain(data)


def _jsonable(value: object) -> object:
    """The value with its bytes as base64. Raises TypeError for what JSON would change: other keys than text, NaN …"""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key is no text")
        return {key: _jsonable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_jsonable(each) for each in value]
    if isinstance(value, bytes):
        return plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError("JSON has no such number")
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"JSON has no {type(value).__name__}")
