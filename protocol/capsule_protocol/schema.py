"""JSON Schema of all messages, for implementations in other languages."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from capsule_protocol.messages import MESSAGES
from capsule_protocol.negotiation import VERSION


def export() -> dict[str, Any]:
    """One schema: `properties` holds the body of each message type by its name, `$defs` what they share."""
    references, schema = models_json_schema([(cls, "validation") for cls in MESSAGES.values()])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Capsule protocol {VERSION}",
        "type": "object",
        "properties": {kind: references[cls, "validation"] for kind, cls in MESSAGES.items()},
        "$defs": schema["$defs"],
    }
