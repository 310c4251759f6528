"""Arguments as somebody sees them who is to approve a call: nothing is left out but secrets, unless that is said.

The audit trail tells large values by size and hash, which is enough to know them again, and not to decide by: code
would choose what it has approved unseen.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from capsule.broker.audit import redacted
from capsule.broker.audit.redacting import hidden, shape_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from capsule.broker.shapes import Shape

WHOLE = 4096
"""Bytes up to which an argument is shown as it is."""
BEGINNING = 3072
END = 1024
"""Characters that are shown of a longer one; of a container: of its JSON."""
MAX_NUMBER = 2**63


def shown(request: BaseModel) -> dict[str, Any]:
    """The fields of a request that were given. A long one: how it `begins` and `ends`, and how much is `left_out`."""
    return {name: _bounded(value) for name, value in _fields(request).items()}


def _fields(model: BaseModel) -> dict[str, Any]:
    fields = type(model).model_fields
    given = [name for name in fields if name in model.model_fields_set]
    secret = {name for name in given if _is_secret(fields[name])}
    sizes = redacted(model) if secret else {}
    return {
        name: sizes[name] if name in secret else _plain(getattr(model, name), shape_of(fields[name])) for name in given
    }


def _is_secret(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("x-secret") is True


def _plain(value: Any, shape: Shape | None = None) -> Any:
    """A value as JSON has it, with what is secret in it told as its size."""
    instead = hidden(value, shape)
    if instead is not None:
        return instead
    if isinstance(value, BaseModel):
        return _fields(value)
    if isinstance(value, dict):
        return {str(name): _plain(one, shape and shape.field(name)) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one, shape and shape.item(at)) for at, one in enumerate(value)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return value if math.isfinite(value) and abs(value) < MAX_NUMBER else repr(value)
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _bounded(value: Any) -> Any:
    if not isinstance(value, str | dict | list):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    size = len(text.encode("utf-8", "surrogatepass"))
    if size <= WHOLE or len(text) <= BEGINNING + END:
        return value
    left_out = len(text) - BEGINNING - END
    return {"begins": text[:BEGINNING], "ends": text[-END:], "left_out": left_out, "bytes": size}
