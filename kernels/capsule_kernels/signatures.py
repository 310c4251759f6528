"""What `help(caps)` shows: each operation as it can be called, in Python's own words."""

from __future__ import annotations

from typing import Any


def describe(operations: list[dict[str, Any]]) -> str:
    """All that is granted."""
    if not operations:
        return "nothing is granted to this session\n\nAsk the operator of the node."
    lines = ["what this session may do outside its process", ""]
    for each in operations:
        lines += [f"caps.{each['name']}({', '.join(parameters(each))})", f"    {each['summary']}", ""]
    lines += [
        "In a coroutine, `await` the call. A call that is refused raises caps.CapabilityDenied, a PermissionError."
    ]
    if any(each["takes_body"] for each in operations):
        lines += ["`data` is bytes, or an iterable of bytes; bytes are taken for it also without its name."]
    return "\n".join(lines)


def parameters(operation: dict[str, Any]) -> list[str]:
    """Those of one operation; `...` for a default that has no JSON.

    By name only are the body, which has no place among them, and, as Python has it, what is required behind what is
    not, with all that follows.
    """
    schema = operation["request"]
    required = set(schema.get("required", ()))
    plain: list[str] = []
    named: list[str] = []
    optional = False
    for name, field in schema.get("properties", {}).items():
        by_name = named or (optional and name in required)
        (named if by_name else plain).append(name if name in required else f"{name}={_default(field)}")
        optional |= name not in required
    if operation["takes_body"]:
        named.append("data=b''")
    return [*plain, *(["*", *named] if named else [])]


def _default(field: dict[str, Any]) -> str:
    return repr(field["default"]) if "default" in field else "..."
