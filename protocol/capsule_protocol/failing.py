"""Validation that stops at the first wrong item of a list or map: to tell of half a million takes seconds."""

from __future__ import annotations

from inspect import signature
from typing import Any

from pydantic_core import core_schema

_STOPPING = frozenset(
    kind
    for kind, make in (
        ("list", core_schema.list_schema),
        ("tuple", core_schema.tuple_schema),
        ("set", core_schema.set_schema),
        ("frozenset", core_schema.frozenset_schema),
        ("dict", core_schema.dict_schema),
    )
    if "fail_fast" in signature(make).parameters
)
"""What the installed pydantic can stop in."""


def stop_early(schema: Any) -> Any:
    """The same schema of pydantic's core, whose lists and maps report one wrong item. It is changed in place."""
    if isinstance(schema, dict):
        kind = schema.get("type")  # of a schema; among the fields of one it may be a field
        if isinstance(kind, str) and kind in _STOPPING:
            schema["fail_fast"] = True
        for name, inner in schema.items():
            if name != "metadata":
                stop_early(inner)
    elif isinstance(schema, list | tuple):
        for inner in schema:
            stop_early(inner)
    return schema
