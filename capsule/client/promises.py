"""What may be asked of a promise, checked before it is sent."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeAlias, get_args

from capsule.client.arguments import check_text
from capsule_protocol.answers import check_value
from capsule_protocol.errors import ArgumentError

Action: TypeAlias = Literal["resolve", "reject", "cancel"]
"""How a promise is settled."""

MESSAGE_CHARACTERS = 1000
"""Of the reason for which there is no answer."""


def check_settlement(action: str, value: object, message: str) -> tuple[Action, Any, str]:
    """A verdict that can be sent. Raises ArgumentError."""
    for known in get_args(Action):
        if action == known:
            break
    else:
        raise ArgumentError("action", f"is {action!r:.80}", allowed=", ".join(map(repr, get_args(Action))))
    if len(check_text(message, "message")) > MESSAGE_CHARACTERS:
        allowed = f"at most {MESSAGE_CHARACTERS} characters"
        raise ArgumentError("message", f"has {len(message)} characters", allowed=allowed)
    return known, plain(value), message


def plain(value: object) -> Any:
    """A value as JSON has it. Raises ArgumentError for what is none, or cannot be carried."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        found = json.loads(text.encode())
        check_value(found)
        return found
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError("value", f"is no JSON: {error}", allowed="what JSON can say") from error
