"""Arguments as the audit trail has them: secrets as their size, large values as size and hash."""

from __future__ import annotations

import json
import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from capsule.broker.shapes import Shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo

LARGE = 256
"""Bytes above which a value is not written down."""
MAX_GATHERED = 2048
"""Bytes above which a container is not written down."""
MAX_FIELDS = 64
"""Fields, or items of a container, above which only their number is written down."""
MAX_NUMBER = 2**63


def redacted(request: BaseModel) -> dict[str, Any]:
    """The fields of a request that were given, by the schema that it fits."""
    found = {}
    for name, field in type(request).model_fields.items():
        if name not in request.model_fields_set:
            continue
        value = getattr(request, name)
        extra = field.json_schema_extra
        secret = isinstance(extra, dict) and extra.get("x-secret") is True
        found[name] = {"secret_bytes": len(_bytes(value))} if secret else _shown(value, shape_of(field))
    return found


def shape_of(field: FieldInfo) -> Shape | None:
    """What is known of the values of a field whose class is not known here."""
    return next((each for each in field.metadata if isinstance(each, Shape)), None)


def hidden(value: Any, shape: Shape | None) -> dict[str, int] | None:
    """What is told instead of a plain value that is secret, or of which nobody knows; None if it may be seen."""
    if shape is not None and shape.secret:
        return {"secret_bytes": len(_bytes(value))}
    if shape is not None and not shape.describes(value):
        return {"bytes": len(_bytes(value))}
    return None


def unchecked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that fit no schema, so that nobody knows which are secret: only their names and sizes."""
    names = list(arguments)[:MAX_FIELDS]
    found: dict[str, Any] = {str(name)[:LARGE]: {"bytes": len(_bytes(arguments[name]))} for name in names}
    return found if len(arguments) <= MAX_FIELDS else found | {"…": {"fields": len(arguments)}}


def _shown(value: Any, shape: Shape | None = None) -> Any:
    """A value with what is secret in it told as its size.

    What is secret says its class, or, of plain values, their shape. Of what the shape does not describe, nobody knows.
    """
    instead = hidden(value, shape)
    if instead is not None:
        return instead
    if isinstance(value, BaseModel):
        return redacted(value)
    if isinstance(value, dict | list | tuple | set | frozenset):
        return _gathered(value, shape)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if math.isfinite(value) and abs(value) < MAX_NUMBER else repr(value)[:LARGE]
    data = _bytes(value)
    if len(data) > LARGE or isinstance(value, bytes | bytearray | memoryview):
        return _summary(data)
    return value if isinstance(value, str) else type(value).__name__


def _gathered(value: Any, shape: Shape | None) -> Any:
    """A container; one that has much in it is told as its size."""
    if len(value) > MAX_FIELDS:
        return {"items": len(value)}
    if isinstance(value, dict):
        found: Any = {str(name)[:LARGE]: _shown(one, shape and shape.field(name)) for name, one in value.items()}
    else:
        found = [_shown(one, shape and shape.item(at)) for at, one in enumerate(value)]
    data = json.dumps(found).encode("ascii")
    return _summary(data) if len(data) > MAX_GATHERED else found


def _summary(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "blake2b": blake2b(data, digest_size=16).hexdigest()}


def _bytes(value: Any) -> bytes:
    """What a value is measured by: text and bytes as they are, else its JSON."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, BaseModel):
        value = value.model_dump()
    try:
        return json.dumps(value, default=repr, skipkeys=True).encode("ascii")
    except (ValueError, RecursionError):
        return b""
